"""`minift env`: what minift finds on this machine, and what it would choose there."""

import json
import os
import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from rich import filesize

from minift import distributed, plugins
from minift.device import choose_device, choose_precision
from minift.errors import DeviceError
from minift_commands.plugins import describe_devices

MEMINFO = Path("/proc/meminfo")


help = "devices, precision, versions and memory, as minift finds them here"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: Namespace) -> int:
    report = survey(plugins.default_manager())
    print(json.dumps(report, indent=2) if args.json else as_text(report))
    return 0


def survey(manager: plugins.Manager) -> dict[str, Any]:
    """Return what `--json` prints."""
    import torch

    from minift.data.cache import cache_root
    from minift.training.recorder import versions

    devices = plugins.registry(manager, "minift_register_devices")
    threads = torch.get_num_threads()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    group = ("world_size", "rank", "local_rank")
    return {
        "versions": versions(),
        "devices": [{**d, "plugin": devices[d["name"]].plugin} for d in describe_devices(devices)],
        "not_loaded": {k: f"{type(e).__name__}: {e}" for k, e in manager.load_errors.items()},
        "auto": choice(manager),
        "processor": {"cores": os.cpu_count(), "usable": usable, "threads": threads},
        "memory": memory(),
        "processes": {name: getattr(distributed, name)() for name in group},
        "cache": {"folder": str(cache_root()), "free": free_space(cache_root())},
    }


def choice(manager: plugins.Manager) -> dict[str, Any]:
    """Return the device and the precision that "auto" takes, or the reason why it takes none."""
    try:
        device = choose_device("auto", manager)
    except DeviceError as error:
        return {"device": None, "reason": error.what}
    precision, reason = choose_precision("auto", device)
    chosen = {"device": device.name, "description": device.description}
    return {**chosen, "precision": precision, "precision_reason": reason}


def memory() -> dict[str, int] | None:
    """Return the bytes in all and available; None where the kernel does not say so."""
    if not MEMINFO.is_file():
        return None
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
    keys = {"total": "MemTotal", "available": "MemAvailable"}
    return {name: 1024 * int(lines[key].split()[0]) for name, key in keys.items() if key in lines}


def free_space(folder: Path) -> int | None:
    """Return the bytes free where a folder is, or will be; None where that cannot be known."""
    existing = next((p for p in (folder, *folder.parents) if p.is_dir()), None)
    return shutil.disk_usage(existing).free if existing else None


def as_text(report: dict[str, Any]) -> str:
    """Return the report for people, in a few lines."""
    versions = dict(report["versions"])
    python, platform = versions.pop("python"), versions.pop("platform")
    lines = [", ".join(f"{name} {number}" for name, number in versions.items())]
    lines.append(f"Python {python} on {platform}")
    for device in report["devices"]:
        state = device["unavailable"] or "available"
        lines.append(f"device {device['name']} ({device['plugin']}): {state}")
    for name, error in report["not_loaded"].items():
        lines.append(f"plugin {name} does not load: {error}")
    auto, cores, cache = report["auto"], report["processor"], report["cache"]
    if auto["device"] is None:
        lines.append(f'"auto" takes no device: {auto["reason"]}')
    else:
        named = auto["description"] == auto["device"]
        chip = "" if named else f", which is {auto['description']}"
        lines.append(f'"auto" takes {auto["device"]}{chip}')
        lines.append(f"precision {auto['precision']} ({auto['precision_reason']})")
    usable = "" if cores["usable"] in (None, cores["cores"]) else f", {cores['usable']} usable"
    lines.append(f"{cores['cores']} cores{usable}; torch's threads: {cores['threads']}")
    if sizes := report["memory"]:
        lines.append("memory: " + ", ".join(f"{filesize.decimal(n)} {k}" for k, n in sizes.items()))
    rank = "process {rank} of {world_size}, number {local_rank} on this machine"
    several = report["processes"]["world_size"] > 1
    lines.append(rank.format(**report["processes"]) if several else "one process")
    free = "" if cache["free"] is None else f", {filesize.decimal(cache['free'])} free"
    lines.append(f"cache: {cache['folder']}{free}")
    return "\n".join(lines)
