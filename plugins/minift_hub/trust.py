"""What may be read: names that stay in their folder, sizes, and content as its hash says.

The client checks lengths, not content. The cache has what is needed to do so, offline too: a file
is a link to a blob that is called by its hash, and the listing of the commit has the hashes.
"""

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from minift.errors import DataError, MiniftError, ModelError
from minift_hub.download import Snapshot

SMALL = 2_000_000  # bytes of a card, a configuration, an index
MEMORY = 16_000_000_000  # bytes that a dataset may take when it is read
BLOCK = 1 << 20
LARGE = 10_000_000  # bytes from which hashing a file takes time that one would notice

_verified: dict[tuple[str, int, int], str] = {}  # (file, size, time of change): its hash


def error_of(snapshot: Snapshot) -> type[MiniftError]:
    return ModelError if snapshot.kind == "model" else DataError


def check_names(snapshot: Snapshot, names: list[str]) -> None:
    """Refuse a name that leads out of the repository's folder, here or on another system."""
    for name in names:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or ":" in name or not parts:
            raise error_of(snapshot)(
                f"{snapshot.repo} names a file outside its folder",
                got=repr(name),
                expected="paths inside the repository",
                do="do not use this repository",
            )


def check_size(snapshot: Snapshot, name: str, most: int = SMALL) -> None:
    """Refuse a file that is too large for what it is, before it is downloaded."""
    size = snapshot.files[name].size
    if size > most:
        raise error_of(snapshot)(
            f"{name} of {snapshot.repo} is too large for what it is",
            got=f"{size:,} bytes",
            expected=f"at most {most:,}",
        )


def read_json(snapshot: Snapshot, name: str) -> dict[str, Any]:
    """A small JSON file that has been fetched.

    Raises:
        ModelError, DataError: it is no object, or is nested so deeply that it cannot be read.
    """
    try:
        said = json.loads((snapshot.folder / name).read_text(encoding="utf-8"))
        got: object = f"a {type(said).__name__}"
    except (ValueError, RecursionError) as error:
        said, got = None, error
    if not isinstance(said, dict):
        what = f"{name} of {snapshot.repo} is not a JSON object"
        raise error_of(snapshot)(what, got=got, expected='{"name": value, ...}')
    return said


def verify(snapshot: Snapshot, names: list[str]) -> None:
    """Compare files with the hashes that git or LFS knows them by.

    Raises:
        ModelError, DataError: a file is not what it was, or not where it should be.
    """
    for name in names:
        path = snapshot.folder / name
        wanted = expected_hash(snapshot, name)
        found = hash_of(path, "sha1" if len(wanted) == 40 else "sha256")
        if found != wanted:
            blob = os.path.realpath(path)
            raise error_of(snapshot)(
                f"{name} of {snapshot.repo} is damaged: it is not what the Hub has",
                got=found,
                expected=wanted,
                do=f"delete {blob} and load it again",
            )


def expected_hash(snapshot: Snapshot, name: str) -> str:
    """The hash a file should have: what the commit's listing says, or the name of its blob.

    A link is followed one step only: a blob may itself be a link into a store that names files
    otherwise.
    """
    path, blobs = snapshot.folder / name, os.path.realpath(snapshot.folder.parent.parent / "blobs")
    stays = os.path.realpath(path.parent).startswith(os.path.realpath(snapshot.folder))
    blob = ""
    if path.is_symlink():
        blob = os.path.join(os.path.realpath(path.parent), os.readlink(path))
        stays = stays and os.path.dirname(os.path.normpath(blob)) == blobs
    if not stays:
        what = f"{name} of {snapshot.repo} lies outside its folder in the cache"
        do = f"delete {snapshot.folder} and load it again"
        raise error_of(snapshot)(what, got=os.path.realpath(path), do=do)
    known = snapshot.files[name].digest or os.path.basename(blob)
    if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", known):
        what = f"{name} of {snapshot.repo} cannot be verified: nothing says what its hash is"
        raise error_of(snapshot)(what, do=f"delete {snapshot.folder} and load it again")
    return known


def hash_of(path: Path, kind: str) -> str:
    """sha256 of the content, or sha1 as git has it: of a header with the length, and the content.

    A file that was hashed by this process and has not been touched since is not read again.
    """
    stat = path.stat()
    key = (f"{kind} {os.path.realpath(path)}", stat.st_size, stat.st_mtime_ns)
    if key not in _verified:
        with path.open("rb") as file:
            if kind == "sha256":
                digest = hashlib.file_digest(file, "sha256")
            else:
                digest = hashlib.sha1(b"blob %d\0" % stat.st_size, usedforsecurity=False)
                while block := file.read(BLOCK):
                    digest.update(block)
        _verified[key] = digest.hexdigest()
    return _verified[key]


# ----------------------------------------------------------------------- while it is being written


@contextlib.contextmanager
def hashing(snapshot: Snapshot, names: list[str]) -> Iterator[None]:
    """Hash large files while they are downloaded, so that `verify` need not read them again."""
    blobs, done = snapshot.folder.parent.parent / "blobs", threading.Event()
    wanted = {entry.digest: entry.size for entry in map(snapshot.files.__getitem__, names)}
    threads = [
        threading.Thread(target=follow, args=(blobs / digest, size, done), daemon=True)
        for digest, size in wanted.items()
        if size >= LARGE and len(digest) == 64
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def follow(blob: Path, size: int, done: threading.Event) -> None:
    """Read what the client writes as it grows, under the name that it has until it is whole.

    What was read counts only if it is, in the end, the same file: one that was begun again is
    another, or shrank. Anything that is odd leaves the work to `verify`.
    """
    with contextlib.suppress(OSError):
        while not (parts := list(blob.parent.glob(f"{blob.name}.*.incomplete"))):
            if done.wait(0.01):
                return
        digest, read, block = hashlib.sha256(), 0, memoryview(bytearray(BLOCK))
        with parts[0].open("rb", buffering=0) as file:
            while read < size:
                ended = done.wait(0 if os.fstat(file.fileno()).st_size > read else 0.005)
                count = file.readinto(block) or 0
                if os.fstat(file.fileno()).st_size < read or (ended and not count):
                    return
                digest.update(block[:count])
                read += count
            done.wait()
            stat = os.fstat(file.fileno())
            if read == size == stat.st_size and os.path.samestat(stat, blob.stat()):
                key = (f"sha256 {os.path.realpath(blob)}", stat.st_size, stat.st_mtime_ns)
                _verified[key] = digest.hexdigest()
