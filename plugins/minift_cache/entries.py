"""The entries of the cache, and what killed runs left of them."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from minift import files
from minift.data import cache
from minift.errors import DataError


@dataclass(frozen=True)
class Entry:
    """A result in the cache, or what a killed run left of one.

    Attributes:
        key: its fingerprint, by which it is locked too.
        kind: "map" or "src".
        path: its folder.
        rows: 0 if it is not complete.
        bytes: of all its files.
        function: the name of what computed it, "" if that is not known.
        used: seconds since 1970.
        complete: it has a readable manifest, so that it can be opened.
    """

    key: str
    kind: str
    path: Path
    rows: int
    bytes: int
    function: str
    used: float
    complete: bool


def all_entries() -> list[Entry]:
    """Return all entries, what killed runs left included."""
    entries = []
    kinds = [cache.cache_root() / kind for kind in ("map", "src")]
    patterns = ("[!.]*", ".*.tmp-*")  # results and what is computed; what was being written
    for path in sorted(p for kind in kinds for pattern in patterns for p in kind.glob(pattern)):
        with contextlib.suppress(OSError):  # removed meanwhile
            if path.is_dir() and not path.is_symlink():
                entries.append(describe(path))
    return entries


def describe(path: Path) -> Entry:
    """Return the entry in a folder."""
    key, dot, _ = path.name.lstrip(".").partition(".")  # KEY, KEY.work, .KEY.tmp-ID
    rows, function, complete = 0, "", False
    with contextlib.suppress(DataError, ValueError, KeyError, TypeError):
        meta = files.read_manifest(path).meta
        function = str(meta.get("function", ""))
        rows, complete = int(meta["rows"]), not dot
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return Entry(key, path.parent.name, path, rows, size, function, path.stat().st_mtime, complete)


def is_locked(fingerprint: str) -> bool:
    """Tell whether a living process holds the lock; False on a file system without locks."""
    with cache.lock(fingerprint, wait=False) as ours:
        return not ours
