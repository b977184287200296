"""What may be read: names that stay in their folder, sizes, and content as its hash says.

The client checks lengths, not content. The cache has what is needed to do so, offline too: a file
is a link to a blob that is called by its hash, and the listing of the commit has the hashes.
"""

import functools
import hashlib
import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from minift.errors import DataError, MiniftError, ModelError
from minift_hub.snapshot import Snapshot

SMALL = 2_000_000  # bytes of a card, a configuration, an index
BLOCK = 1 << 20  # bytes that are read at a time


def error_type(snapshot: Snapshot) -> type[MiniftError]:
    return ModelError if snapshot.repo_type == "model" else DataError


def check_names(snapshot: Snapshot, names: list[str]) -> None:
    """Refuse a name that leads out of the repository's folder, on this or another system."""
    for name in names:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or ":" in name or not parts:
            what, do = f"{snapshot.repo} names a file outside its folder", "do not use it"
            expected = "paths inside the repository"
            raise error_type(snapshot)(what, got=repr(name), expected=expected, do=do)


def check_size(snapshot: Snapshot, name: str, limit: int = SMALL) -> None:
    """Refuse a file that is too large for what it is, before it is downloaded."""
    size = snapshot.files[name].size
    if size > limit:
        what = f"{name} of {snapshot.repo} is too large for what it is"
        raise error_type(snapshot)(what, got=f"{size:,} bytes", expected=f"at most {limit:,}")


def read_json(snapshot: Snapshot, name: str) -> dict[str, Any]:
    """Read a small JSON file that has been fetched.

    Raises:
        ModelError, DataError: it is no object, or is nested so deeply that it cannot be read.
    """
    try:
        content = json.loads((snapshot.folder / name).read_text(encoding="utf-8"))
        got: object = f"a {type(content).__name__}"
    except (ValueError, RecursionError) as error:
        content, got = None, error
    if not isinstance(content, dict):
        what = f"{name} of {snapshot.repo} is not a JSON object"
        raise error_type(snapshot)(what, got=got, expected='{"name": value, ...}')
    return content


def verify(snapshot: Snapshot, names: list[str]) -> None:
    """Compare files with the hashes that git or LFS knows them by.

    Raises:
        ModelError, DataError: a file is not what it was, or not where it should be.
    """
    for name in names:
        path = snapshot.folder / name
        expected = expected_hash(snapshot, name)
        got = hash_of(path, "sha1" if len(expected) == 40 else "sha256")
        if got != expected:
            what = f"{name} of {snapshot.repo} is damaged: it is not what the Hub has"
            do = f"delete {os.path.realpath(path)} and load it again"
            raise error_type(snapshot)(what, got=got, expected=expected, do=do)


def expected_hash(snapshot: Snapshot, name: str) -> str:
    """Return the hash that a file should have, from the commit's listing or its blob's name.

    A link is followed one step only: a blob may itself be a link into a store that names files
    otherwise.
    """
    path, parent = snapshot.folder / name, os.path.realpath((snapshot.folder / name).parent)
    inside = parent.startswith(os.path.realpath(snapshot.folder))
    blob = ""
    if path.is_symlink():
        blob = os.path.join(parent, os.readlink(path))
        blobs = os.path.realpath(snapshot.blobs)
        inside = inside and os.path.dirname(os.path.normpath(blob)) == blobs
    do = f"delete {snapshot.folder} and load it again"
    if not inside:
        what = f"{name} of {snapshot.repo} lies outside its folder in the cache"
        raise error_type(snapshot)(what, got=os.path.realpath(path), do=do)
    expected = snapshot.files[name].digest or os.path.basename(blob)
    if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", expected):
        what = f"{name} of {snapshot.repo} cannot be verified: nothing says what its hash is"
        raise error_type(snapshot)(what, do=do)
    return expected


def hash_of(path: Path, algorithm: str) -> str:
    """Return sha256 of the content, or "sha1" as git has it: of a header with the length, and it.

    A file that this process has hashed before is read again only if its size or time has changed.
    """
    stat = path.stat()
    return hash_of_content(os.path.realpath(path), algorithm, stat.st_size, stat.st_mtime_ns)


@functools.cache
def hash_of_content(path: str, algorithm: str, size: int, changed: int) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    if algorithm == "sha1":
        digest.update(b"blob %d\0" % size)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
