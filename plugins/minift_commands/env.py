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
SIZES = {"total", "available", "free"}  # in bytes


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


def memory() -> dict[str, int]:
    """Return the bytes in all and available; {} where the kernel does not say so."""
    if not MEMINFO.is_file():
        return {}
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
    keys = {"total": "MemTotal", "available": "MemAvailable"}
    return {name: 1024 * int(lines[key].split()[0]) for name, key in keys.items() if key in lines}


def free_space(folder: Path) -> int | None:
    """Return the bytes free where a folder is, or will be; None where that cannot be known."""
    existing = next((p for p in (folder, *folder.parents) if p.is_dir()), None)
    return shutil.disk_usage(existing).free if existing else None


def as_text(report: dict[str, Any]) -> str:
    """Return the report for people, a line for each device and for each other part."""
    lines = [
        f"device {device['name']} ({device['plugin']}): {device['unavailable'] or 'available'}"
        for device in report["devices"]
    ]
    lines += [f"plugin {k} does not load: {error}" for k, error in report["not_loaded"].items()]
    for part in ("versions", "auto", "processor", "memory", "processes", "cache"):
        known = {name: value for name, value in report[part].items() if value is not None}
        for name in SIZES & set(known):
            known[name] = filesize.decimal(known[name])
        lines.append(f"{part}: " + ", ".join(f"{name} {value}" for name, value in known.items()))
    return "\n".join(lines)
