"""`minift plugins`, and the commands that plugins give, `minift train` among them.

Errors that a user can cause are printed in three lines and end with exit code 2; `--debug` shows
the traceback. Nothing here imports torch before a command needs it.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from minift import __version__, hookspecs, plugins
from minift.device import describe
from minift.errors import MiniftError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        words = choose_plugins([word for word in words if word != "--debug"])
        args = build_parser().parse_args(words)
        return int(args.run(args) or 0)
    except KeyboardInterrupt:
        print("minift: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough: `minift plugins | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MiniftError, OSError) as error:
        if debug:
            raise
        print(f"minift: {error}", file=sys.stderr)
        return 2


def choose_plugins(words: list[str]) -> list[str]:
    """Load the plugins that -p and --plugin choose, wherever they stand; the other words."""
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument("-p", dest="select", action="append", default=None)
    common.add_argument("--plugin", action="append", default=[])
    chosen, rest = common.parse_known_args(words)
    select = chosen.select if chosen.select is not None else plugins.words_from_environment()
    plugins.set_default_manager(plugins.build_manager(select, chosen.plugin))
    return rest


def build_parser() -> argparse.ArgumentParser:
    """The parser: the commands of the chosen plugins, then the one that lists plugins."""
    manager = plugins.default_manager()
    parser = argparse.ArgumentParser(
        prog="minift", description="Fine-tune pretrained encoders.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"minift {__version__}")
    parser.add_argument("-p", action="append", metavar="no:NAME", help="leave a plugin out")
    parser.add_argument("--plugin", action="append", metavar="FILE", help="load a plugin's file")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, found in plugins.registry(manager, "minift_commands").items():
        sub = commands.add_parser(name, help=found.value.help, description=found.value.help)
        found.value.configure(sub)
        sub.set_defaults(run=found.value.run)
    add_plugins(commands)
    return parser


# ----------------------------------------------------------------------------------------- plugins


def add_plugins(commands: Any) -> None:
    text = "what is installed, and where it listens"
    parser = commands.add_parser("plugins", help=text, description=text)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--loop", action="store_true", help="the run, with who listens where")
    parser.set_defaults(run=list_plugins)


def list_plugins(args: argparse.Namespace) -> int:
    manager = plugins.default_manager()
    if args.loop:
        print(loop_outline(manager))
        return 0
    devices = plugins.registry(manager, "minift_devices")
    listed: list[dict[str, Any]] = []
    for name, plugin in manager.list_name_plugin():
        hooks = sorted(c.name for c in manager.get_hookcallers(plugin) or ()) if plugin else []
        mine = [(key, found.value) for key, found in devices.items() if found.plugin == name]
        entry: dict[str, Any] = {
            "name": name,
            "version": manager.versions.get(name, ""),
            "hooks": hooks,
        }
        listed.append({**entry, "devices": describe(mine), "error": None})
        if plugin is None:
            listed[-1]["error"] = "left out with -p"
    for name, error in manager.failures.items():
        said = f"{type(error).__name__}: {error}"
        listed.append({"name": name, "version": "", "hooks": [], "devices": [], "error": said})
    if args.json:
        print(json.dumps(listed, indent=2))
        return 0
    for entry in listed:
        print(f"{entry['name']} {entry['version']}".rstrip())
        if entry["error"]:
            print(f"  not loaded: {entry['error']}")
        for hook in entry["hooks"]:
            print(f"  {hook}")
        for device in entry["devices"]:
            print(f"  device {device['name']}: {device['unavailable'] or 'available'}")
    return 0


def loop_outline(manager: plugins.Manager) -> str:
    """The outline at the top of hookspecs.py, each hook with the plugins that implement it."""
    doc = (hookspecs.__doc__ or "").split("\n\n")[1]
    lines = []
    for line in doc.splitlines():
        hook = next((word for word in line.split() if word.startswith("minift_")), None)
        if hook is not None:
            impls = getattr(manager.hook, hook).get_hookimpls()
            line += f"  <- {', '.join(impl.plugin_name for impl in impls) or 'nobody'}"
        lines.append(line)
    return "\n".join(lines)
