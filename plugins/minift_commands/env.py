"""`minift env`: what minift finds on this machine, and what it would choose there."""

import json
import os
import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from minift import distributed, plugins
from minift.device import choose_device, choose_precision
from minift.errors import DeviceError
from minift.files import bytes_as_text
from minift_commands.plugins import describe

MEMINFO = Path("/proc/meminfo")


class Env:
    """The command, as `minift_register_commands` wants it."""

    help = "devices, precision, versions and memory, as minift finds them here"

    @staticmethod
    def configure(parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="for programs")

    @staticmethod
    def run(args: Namespace) -> int:
        found = survey(plugins.default_manager())
        print(json.dumps(found, indent=2) if args.json else readable(found))
        return 0


def survey(manager: plugins.Manager) -> dict[str, Any]:
    """What `--json` prints."""
    from minift.data.cache import cache_root
    from minift.training.recorder import versions

    devices = plugins.registry(manager, "minift_register_devices")
    listed = describe([(name, found.value) for name, found in devices.items()])
    return {
        "versions": versions(),
        "devices": [{**one, "plugin": devices[one["name"]].plugin} for one in listed],
        "not_loaded": {
            name: f"{type(error).__name__}: {error}" for name, error in manager.failures.items()
        },
        "auto": choice(manager),
        "processor": processor(),
        "memory": memory(),
        "processes": {
            "world_size": distributed.world_size(),
            "rank": distributed.rank(),
            "local_rank": distributed.local_rank(),
        },
        "cache": {"folder": str(cache_root()), "free": free_space(cache_root())},
    }


def choice(manager: plugins.Manager) -> dict[str, Any]:
    """The device that "auto" takes and the precision that it would compute in, or why none."""
    try:
        device = choose_device("auto", manager)
    except DeviceError as error:
        return {"device": None, "reason": error.what}
    precision, reason = choose_precision("auto", device)
    said = {"device": device.name, "description": device.description}
    return {**said, "precision": precision, "precision_reason": reason}


def processor() -> dict[str, int | None]:
    """Cores of the machine, those that this process may use, and torch's threads."""
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {"cores": os.cpu_count(), "usable": usable, "threads": torch.get_num_threads()}


def memory() -> dict[str, int] | None:
    """Bytes in all and available, where the kernel says so."""
    if not MEMINFO.is_file():
        return None
    said = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
    wanted = {"total": "MemTotal", "available": "MemAvailable"}
    return {name: 1024 * int(said[key].split()[0]) for name, key in wanted.items() if key in said}


def free_space(folder: Path) -> int | None:
    """Bytes free where a folder is, or will be; None where that cannot be known."""
    there = next((p for p in (folder, *folder.parents) if p.is_dir()), None)
    return shutil.disk_usage(there).free if there else None


def readable(found: dict[str, Any]) -> str:
    """The same for people."""
    versions = dict(found["versions"])
    python, platform = versions.pop("python"), versions.pop("platform")
    lines = [", ".join(f"{name} {number}" for name, number in versions.items())]
    lines.append(f"Python {python} on {platform}")
    for device in found["devices"]:
        said = device["unavailable"] or "available"
        lines.append(f"device {device['name']} ({device['plugin']}): {said}")
    for name, error in found["not_loaded"].items():
        lines.append(f"plugin {name} does not load: {error}")
    auto, cores, room = found["auto"], found["processor"], found["memory"]
    if auto["device"] is None:
        lines.append(f'"auto" takes no device: {auto["reason"]}')
    else:
        kind = "" if auto["description"] == auto["device"] else f", which is {auto['description']}"
        lines.append(f'"auto" takes {auto["device"]}{kind}')
        lines.append(f"precision {auto['precision']} ({auto['precision_reason']})")
    usable = "" if cores["usable"] in (None, cores["cores"]) else f", {cores['usable']} usable"
    lines.append(f"{cores['cores']} cores{usable}; torch's threads: {cores['threads']}")
    if room:
        lines.append("memory: " + ", ".join(f"{bytes_as_text(room[name])} {name}" for name in room))
    group = found["processes"]
    if group["world_size"] > 1:
        here = f"number {group['local_rank']} on this machine"
        lines.append(f"process {group['rank']} of {group['world_size']}, {here}")
    else:
        lines.append("one process")
    free = found["cache"]["free"]
    room_left = "" if free is None else f", {bytes_as_text(free)} free"
    lines.append(f"cache: {found['cache']['folder']}{room_left}")
    return "\n".join(lines)
