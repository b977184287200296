"""The program `minift`: it loads the chosen plugins and runs a command that one of them registers.

Errors that a user can cause are printed without a traceback and end with exit code 2; `--debug`
shows the traceback. Nothing here imports torch before a command needs it.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from minift import __version__, plugins
from minift.errors import MiniftError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        words = choose_plugins([word for word in words if word != "--debug"])
        args = build_parser().parse_args(words)
        return int(args.run(args) or 0)
    except KeyboardInterrupt:
        print("minift: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader closed our output: `minift plugins | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MiniftError, OSError) as error:
        if debug:
            raise
        print(f"minift: {error}", file=sys.stderr)
        sys.last_value = error  # as if not caught: see destroy_process_group
        return 2


def choose_plugins(words: list[str]) -> list[str]:
    """Load the plugins that -p and --plugin choose, and return all other words."""
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument("-p", dest="select", action="append", default=None)
    common.add_argument("--plugin", action="append", default=[])
    chosen, others = common.parse_known_args(words)
    select = chosen.select if chosen.select is not None else plugins.selection_from_environment()
    plugins.set_default_manager(plugins.build_manager(select, chosen.plugin))
    return others


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with the commands of the loaded plugins."""
    manager = plugins.default_manager()
    text = "Fine-tune pretrained encoders."
    for name, error in manager.load_errors.items():  # its commands are missing below
        text += f" The plugin {name} does not load: {error}."
    parser = argparse.ArgumentParser(prog="minift", description=text, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"minift {__version__}")
    parser.add_argument("-p", action="append", metavar="no:NAME", help="leave a plugin out")
    parser.add_argument("--plugin", action="append", metavar="FILE", help="load a plugin's file")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, entry in plugins.registry(manager, "minift_register_commands").items():
        command = entry.value
        sub = commands.add_parser(name, help=command.help, description=command.help)
        command.configure(sub)
        sub.set_defaults(run=command.run)
    return parser
