"""`minift plugins`: what is installed, what does not load, and who listens where in a run."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from minift import Device, hookspecs, plugins


class Plugins:
    """The command, as `minift_register_commands` wants it."""

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
            return 0
        devices = plugins.registry(manager, "minift_register_devices")
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


def describe(devices: Sequence[tuple[str, type[Device]]]) -> list[dict[str, Any]]:
    """What is printed of each device."""
    return [
        {"name": name, "priority": device.priority, "unavailable": device.unavailable()}
        for name, device in devices
    ]


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
