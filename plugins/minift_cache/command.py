"""`minift cache ls | prune | verify`."""

import contextlib
import json
import re
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping
from dataclasses import asdict

from minift_commands.table import print_table
from rich import filesize

from minift import files
from minift.data import cache
from minift.errors import DataError
from minift_cache.entries import Entry, all_entries, is_locked

SIZES = {"": 1, "b": 1} | {
    f"{letter}{ending}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for ending, base in (("", 1000), ("b", 1000), ("ib", 1024))
}
DURATIONS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
KEY_DIGITS = 12
IN_USE = "kept: a process is computing it"

help = "list, prune or verify the cached results"


def configure(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "list every entry, the most recently used first"
    ls = actions.add_parser("ls", help=text, description=text)
    ls.add_argument("--json", action="store_true", help="print JSON")
    text = "remove what killed runs left, and entries by age, size or all"
    prune = actions.add_parser("prune", help=text, description=text)
    text = "least recently used first: 10GB"
    prune.add_argument("--max-bytes", metavar="SIZE", type=parse_size, help=text)
    text = "not used for so long: 30d"
    prune.add_argument("--older-than", metavar="TIME", type=parse_duration, help=text)
    prune.add_argument("--all", action="store_true", help="every entry that is not in use")
    prune.add_argument("--dry-run", action="store_true", help="only say what would go")
    text = "read every byte of every entry; exit code 1 if one is damaged"
    verify = actions.add_parser("verify", help=text, description=text)
    verify.add_argument("--remove", action="store_true", help="remove the damaged ones")


def run(args: Namespace) -> int:
    return {"ls": run_ls, "prune": run_prune, "verify": run_verify}[args.action](args)


def amount(units: Mapping[str, int], expected: str) -> Callable[[str], float]:
    """Return a function that reads a number with a unit."""

    def parse(text: str) -> float:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower(), re.ASCII)
        if match is None or match[2] not in units:
            raise ArgumentTypeError(f"{text!r} is not {expected}")
        return float(match[1]) * units[match[2]]

    return parse


parse_size = amount(SIZES, "a number of bytes, or one with kB, MB, GB, TB or KiB ... TiB: 10GB")
parse_duration = amount(DURATIONS, "a number with s, m, h, d (days) or w (weeks): 30d")


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
    rows = []
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        count, state = str(entry.rows), ""
        if not entry.complete:
            count, state = "", "being computed" if is_locked(entry.key) else "left by a killed run"
        names = [entry.key[:KEY_DIGITS], entry.kind, entry.function]
        rows.append([*names, count, filesize.decimal(entry.bytes), used, state])
    print_table(["key", "kind", "function", "rows", "size", "last used", ""], rows)
    total = sum(entry.bytes for entry in entries)
    print(f"{len(entries)} entries, {filesize.decimal(total)} in {cache.cache_root()}")
    return 0


# -------------------------------------------------------------------------------------------- prune


def run_prune(args: Namespace) -> int:
    """Remove what has a reason to go, then what must make room; the least recently used first."""
    limit, now = args.max_bytes, time.time()
    freed, count, failed = 0, 0, False
    entries = [(reason_to_go(entry, args, now), entry) for entry in all_entries()]
    left = sum(entry.bytes for _, entry in entries)
    for reason, entry in sorted(entries, key=lambda pair: (pair[0] is None, pair[1].used)):
        if reason is None and limit is not None and left > limit:
            reason = f"more than {filesize.decimal(int(limit))} in all"
        if reason is None:
            continue
        outcome = remove(entry, args.dry_run)
        if outcome is None:
            freed, left, count = freed + entry.bytes, left - entry.bytes, count + 1
        failed = failed or outcome not in (None, IN_USE)
        done = outcome or ("would be removed" if args.dry_run else "removed")
        print(f"{entry.path.name[:KEY_DIGITS]} {entry.function or entry.kind}: {done} ({reason})")
    locks = 0 if args.dry_run else remove_locks()
    would = "would free" if args.dry_run else "freed"
    sizes = f"{would} {filesize.decimal(freed)}; {filesize.decimal(left)} left"
    print(f"{count} entries, {sizes}; {locks} lock files")
    return int(failed)


def reason_to_go(entry: Entry, args: Namespace, now: float) -> str | None:
    """Return why an entry goes whatever room there is, or None."""
    if not entry.complete:
        return "left by a killed run"
    if args.all:
        return "--all"
    if args.older_than is not None and now - entry.used > args.older_than:
        return f"not used for {(now - entry.used) / DURATIONS['d']:.1f} days"
    return None


def remove(entry: Entry, dry_run: bool = False) -> str | None:
    """Remove an entry under its lock; return why that was not possible, or None."""
    with cache.lock(entry.key, wait=False) as ours:
        if not ours:
            return IN_USE
        try:
            if not dry_run:
                files.remove_folder(entry.path)  # if killed, the next prune removes the rest
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
            with cache.lock(path.name, wait=False) as ours, contextlib.suppress(OSError):
                if ours:
                    path.unlink()  # which Windows refuses, as it is open
                    removed += 1
    return removed


# ------------------------------------------------------------------------------------------- verify


def run_verify(args: Namespace) -> int:
    entries = [entry for entry in all_entries() if "." not in entry.path.name]
    damaged = 0
    for entry in entries:
        try:
            files.verify_folder(entry.path)
            continue
        except (DataError, OSError) as error:
            problem = str(error).replace("\n", " ")
        if not entry.path.exists() or (not entry.complete and is_locked(entry.key)):
            continue  # removed meanwhile, or being computed
        damaged += 1
        outcome = f"; {remove(entry) or 'removed'}" if args.remove else ""
        print(f"{entry.key[:KEY_DIGITS]} {entry.function or entry.kind}: {problem}{outcome}")
    print(f"{len(entries)} entries, {damaged} damaged")
    return int(damaged > 0)
