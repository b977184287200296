"""`minift plugins`: what is installed, what does not load, and who listens where in a run."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from minift import hookspecs, plugins
from minift.device import reason_unavailable


class Plugins:
    """The command `minift plugins`."""

    help = "what is installed, and where it listens"

    @staticmethod
    def configure(parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="for programs")
        parser.add_argument("--loop", action="store_true", help="the run, with who listens where")

    @staticmethod
    def run(args: Namespace) -> int:
        manager = plugins.default_manager()
        if args.loop:
            print(loop_outline(manager))
        elif args.json:
            print(json.dumps(all_plugins(manager), indent=2))
        else:
            print("\n".join(map(as_text, all_plugins(manager))))
        return 0


def all_plugins(manager: plugins.Manager) -> list[dict[str, Any]]:
    """Describe each plugin, also those that were left out and those that do not load."""
    devices = plugins.registry(manager, "minift_register_devices")
    listed: list[dict[str, Any]] = []
    for name, plugin in manager.list_name_plugin():
        hooks = sorted(c.name for c in manager.get_hookcallers(plugin) or ()) if plugin else []
        own = {key: entry for key, entry in devices.items() if entry.plugin == name}
        error = None if plugin else "left out with -p"
        one = {"name": name, "version": manager.versions.get(name, ""), "hooks": hooks}
        listed.append({**one, "devices": describe_devices(own), "error": error})
    for name, exception in manager.load_errors.items():
        error = f"{type(exception).__name__}: {exception}"
        listed.append({"name": name, "version": "", "hooks": [], "devices": [], "error": error})
    return listed


def describe_devices(devices: Mapping[str, plugins.Entry]) -> list[dict[str, Any]]:
    """Return what is printed of each device."""
    return [
        {"name": name, "priority": one.value.priority, "unavailable": reason_unavailable(one.value)}
        for name, one in devices.items()
    ]


def as_text(plugin: Mapping[str, Any]) -> str:
    lines = [f"{plugin['name']} {plugin['version']}".rstrip()]
    lines += [f"  not loaded: {plugin['error']}"] if plugin["error"] else []
    lines += [f"  {hook}" for hook in plugin["hooks"]]
    for device in plugin["devices"]:
        lines.append(f"  device {device['name']}: {device['unavailable'] or 'available'}")
    return "\n".join(lines)


def loop_outline(manager: plugins.Manager) -> str:
    """Return the outline of hookspecs.py, each hook with the plugins that implement it."""
    lines = []
    for line in (hookspecs.__doc__ or "").split("\n\n")[1].splitlines():
        hook = next((word for word in line.split() if word.startswith("minift_")), None)
        if hook is not None:
            impls = getattr(manager.hook, hook).get_hookimpls()
            impls = impls if hook.startswith("minift_register_") else impls[::-1]
            line += f"  <- {', '.join(impl.plugin_name for impl in impls) or 'nobody'}"
        lines.append(line)
    return "\n".join(lines)
