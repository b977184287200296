"""`minift cache ls | prune | verify`."""

import contextlib
import json
import os
import re
import sys
import time
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from rich import filesize

from minift import files
from minift.data import cache
from minift.errors import ConfigError
from minift_cache.entries import Entry, all_entries, is_locked

SIZES = {"": 1, "b": 1} | {
    f"{letter}{ending}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for ending, base in (("", 1000), ("b", 1000), ("ib", 1024))
}
DURATIONS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
KEY_DIGITS = 12


help = "list, prune or verify the cached results"


def configure(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "list every entry, the most recently used first"
    ls = actions.add_parser("ls", help=text, description=text)
    ls.add_argument("--json", action="store_true", help="print JSON")
    text = "remove what killed runs left, and entries by age, size or all"
    prune = actions.add_parser("prune", help=text, description=text)
    prune.add_argument("--max-bytes", metavar="SIZE", help="least recently used first: 10GB")
    prune.add_argument("--older-than", metavar="TIME", help="not used for so long: 30d")
    prune.add_argument("--all", action="store_true", help="every entry that is not in use")
    prune.add_argument("--dry-run", action="store_true", help="only say what would go")
    text = "read every byte of every entry; exit code 1 if one is damaged"
    verify = actions.add_parser("verify", help=text, description=text)
    verify.add_argument("--remove", action="store_true", help="remove the damaged ones")


def run(args: Namespace) -> int:
    return {"ls": run_ls, "prune": run_prune, "verify": run_verify}[args.action](args)


# ----------------------------------------------------------------------------------------------- ls


def run_ls(args: Namespace) -> int:
    entries = sorted(all_entries(), key=lambda entry: -entry.used)
    if args.json:
        records = [{**asdict(entry), "path": str(entry.path)} for entry in entries]
        print(json.dumps(records, indent=2))
        return 0
    if not entries:
        print(f"nothing in {cache.cache_root()}")
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("key", "kind", "function", "rows", "size", "last used", ""):
        table.add_column(column, justify="right" if column in ("rows", "size") else "left")
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        cells = [entry.key[:KEY_DIGITS], entry.kind, entry.function]
        cells += [str(entry.rows) if entry.complete else "", filesize.decimal(entry.bytes), used]
        table.add_row(*map(Text, [*cells, "" if entry.complete else remains_of(entry)]))
    Console(file=sys.stdout, width=120).print(table)
    total = sum(entry.bytes for entry in entries)
    print(f"{len(entries)} entries, {filesize.decimal(total)} in {cache.cache_root()}")
    return 0


def remains_of(entry: Entry) -> str:
    return "being computed" if is_locked(entry.key) else "left by a killed run"


# -------------------------------------------------------------------------------------------- prune


def run_prune(args: Namespace) -> int:
    limit = None if args.max_bytes is None else parse_size(args.max_bytes)
    age = None if args.older_than is None else parse_duration(args.older_than)
    entries = all_entries()
    left = sum(entry.bytes for entry in entries)
    freed, count, failed = 0, 0, 0
    for entry, reason in candidates(entries, time.time(), age, args.all):
        over = limit is not None and left > limit
        if reason is None and not over:
            continue
        why = reason or f"more than {args.max_bytes} in all"
        outcome = remove(entry, args.dry_run)
        if outcome is None:
            freed, left, count = freed + entry.bytes, left - entry.bytes, count + 1
        else:
            failed += outcome != IN_USE
        done = outcome or ("would be removed" if args.dry_run else "removed")
        print(f"{entry.path.name[:KEY_DIGITS]} {entry.function or entry.kind}: {done} ({why})")
    locks = 0 if args.dry_run else remove_locks()
    would = "would free" if args.dry_run else "freed"
    sizes = f"{would} {filesize.decimal(freed)}; {filesize.decimal(left)} left"
    print(f"{count} entries, {sizes}; {locks} lock files")
    return 1 if failed else 0


IN_USE = "kept: a process is computing it"


def candidates(
    entries: list[Entry], now: float, age: float | None, everything: bool
) -> list[tuple[Entry, str | None]]:
    """Return each entry with the reason to remove it, or None: then only to make room.

    Those with a reason come first, so that they are gone before anything else has to make room;
    within both groups the least recently used come first.
    """
    judged: list[tuple[Entry, str | None]] = []
    for entry in sorted(entries, key=lambda entry: entry.used):
        reason = None
        if not entry.complete:
            reason = "left by a killed run"
        elif everything:
            reason = "--all"
        elif age is not None and now - entry.used > age:
            reason = f"not used for {(now - entry.used) / DURATIONS['d']:.1f} days"
        judged.append((entry, reason))
    return sorted(judged, key=lambda pair: pair[1] is None)


def remove(entry: Entry, dry_run: bool = False) -> str | None:
    """Remove an entry under its lock; return why that was not possible, or None."""
    with cache.lock(entry.key, wait=False) as ours:
        if not ours:
            return IN_USE
        if dry_run:
            return None
        try:
            files.remove_folder(entry.path)  # if that is killed, the next prune removes the rest
        except FileNotFoundError:  # somebody else removed or renamed it
            return None
        except OSError as error:
            return f"could not be removed: {error}"
    return None


def remove_locks() -> int:
    """Remove the lock files that no process holds, and return how many there were."""
    removed = 0
    for path in sorted((cache.cache_root() / "locks").glob("*")):
        if path.is_file():
            with cache.lock(path.name, wait=False) as ours:
                if ours:
                    removed += unlinked(path)
    return removed


def unlinked(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:  # Windows does not remove what is open
        return False
    return True


# ------------------------------------------------------------------------------------------- verify


def run_verify(args: Namespace) -> int:
    from minift.data import storage
    from minift.errors import DataError

    entries = [entry for entry in all_entries() if "." not in entry.path.name]
    damaged = 0
    for entry in entries:
        try:
            used = entry.path.stat()
            storage.open_folder(entry.path, verify=True)
            # Verifying is not a use: `prune` removes the least recently used.
            restore_times(entry.path, used.st_atime, used.st_mtime)
            continue
        except (DataError, OSError) as error:
            problem = str(error).replace("\n", " ")
        if not entry.path.exists() or (not entry.complete and is_locked(entry.key)):
            continue  # removed meanwhile, or being computed
        damaged += 1
        outcome = f"; {remove(entry) or 'removed'}" if args.remove else ""
        print(f"{entry.key[:KEY_DIGITS]} {entry.function or entry.kind}: {problem}{outcome}")
    print(f"{len(entries)} entries, {damaged} damaged")
    return 1 if damaged else 0


def restore_times(path: Path, accessed: float, modified: float) -> None:
    with contextlib.suppress(OSError):
        os.utime(path, (accessed, modified))


# ------------------------------------------------------------------------------ sizes and durations


def parse_size(text: str) -> float:
    """ "10GB", "1.5 GiB" or "1000" in bytes."""
    expected = "a number of bytes, or one with kB, MB, GB, TB or KiB, MiB, GiB, TiB: 10GB"
    return parse(text, SIZES, "--max-bytes", expected)


def parse_duration(text: str) -> float:
    """ "30d" or "12h" in seconds."""
    expected = "a number with s (seconds), m (minutes), h (hours), d (days) or w (weeks): 30d"
    return parse(text, DURATIONS, "--older-than", expected)


def parse(text: str, units: dict[str, int], option: str, expected: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower(), re.ASCII)
    if match is None or match[2] not in units:
        raise ConfigError(f"{option} is not understood", got=repr(text), expected=expected)
    return float(match[1]) * units[match[2]]
