"""Files and folders that are there whole or not at all, whatever ends the process meanwhile.

Each is written beside its place under a hidden name, `.NAME.tmp-ID`, brought to the disk, and
renamed. The manifest of a folder is written last and holds the length and the SHA-256 of each file:

    manifest.json    {"format": 2, "files": {NAME: {"bytes": ..., "sha256": ...}}, "meta": {...}}

For a reader a folder without a manifest does not exist. Cached results (data/storage.py),
checkpoints and saved states are such folders; model files are written one by one in the same way.
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError

from minift.errors import DataError, MiniftError, ModelError, WriteError

MANIFEST = "manifest.json"
AGAIN = "write it again, or copy all of its files again"
FORMAT = 2  # of a manifest; a folder that has another one is refused, never misread

# ------------------------------------------------------------------------------------------- files


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that a user passed, with "~" as the home folder that it is in a shell."""
    return Path(os.path.expanduser(path))


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes `path` when the block ends without an error.

    A file that has the name already is replaced then, and stays as it is after an error.

    Raises:
        WriteError: it cannot be written.
    """
    with scratch_folder(path) as scratch:
        yield scratch / path.name
        sync(scratch / path.name)
        os.replace(scratch / path.name, path)
        sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it is there whole or not at all, and still there after a crash."""
    with new_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `path` to write in; what others left there is put right first.

    Raises:
        WriteError: something in the block could not be written.
    """
    scratch = scratch_path(path)
    try:
        with explained(path):
            recover(path.parent, path.name)
            scratch.mkdir(parents=True)
            yield scratch
    finally:  # a full disk is not filled by what failed
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def explained(path: Path, size: int = 0, kind: type[MiniftError] = WriteError) -> Iterator[None]:
    """Explain why `path` cannot be written: how much is needed, and what is safe.

    Args:
        path: what will be there.
        size: bytes that are needed, if that is known.
        kind: of the error if something in the block cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        scratch = path.parent.glob(f".{glob.escape(path.name)}.tmp-*/**/*")
        size = size or sum(file.stat().st_size for file in scratch if file.is_file())
        need = getattr(error, "expected", f"more than {size:,} bytes free, and the right to write")
        do = "make it so, or choose another folder, then go on; what was there before is intact"
        got, what = getattr(error, "got", error), f"{path} cannot be written"
        raise kind(what, got=got, expected=need, do=do) from None


def scratch_path(path: Path) -> Path:
    """Return the hidden name beside `path` under which this process writes or removes it."""
    identity = f"{uuid.uuid4().hex[:12]}.{os.getpid()}.{socket.gethostname()}"
    return path.with_name(f".{path.name}.tmp-{identity}")


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk so that they survive a power cut."""
    if os.name == "posix" or path.is_file():  # of a folder neither possible nor needed on Windows
        descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_alive(pid: int, host: str) -> bool:
    """Tell whether a process may live: one of another machine always may."""
    if os.name == "posix" and host == socket.gethostname():
        try:
            os.kill(pid, 0)
        except OSError as error:  # another user's may not be asked
            return error.errno != errno.ESRCH
    return True


def check_space(folder: Path, size: int) -> None:
    """Raise the error of a full disk, an OSError, if `size` bytes are not free in a folder."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(errno.ENOSPC, f"no space for {size:,} bytes: {free:,} are free", str(folder))


# ----------------------------------------------------------------------------------------- folders


@contextlib.contextmanager
def new_folder(
    folder: Path, meta: Mapping[str, Any] | None = None, replace: bool = True
) -> Iterator[Path]:
    """Yield a folder to write to; it becomes `folder` when the block ends without an error.

    A folder that has the name already gives way at the very end, and comes back if that fails.

    Args:
        folder: its final name.
        meta, replace: see `put_in_place`; what the block adds to `meta` is written too.
    """
    with scratch_folder(folder) as scratch:
        yield scratch
        put_in_place(scratch, folder, meta, replace)


def put_in_place(
    scratch: Path, folder: Path, meta: Mapping[str, Any] | None = None, replace: bool = True
) -> None:
    """Write a folder's manifest, bring all of it to the disk and give it its name.

    Args:
        scratch: the folder, beside its final place.
        folder: its final name.
        meta: JSON that the manifest holds beside the files; None for a folder without manifest.
        replace: put it in the place of a complete folder that has the name; if False, that one
            stays, because it has the same content and others may be reading it.
    """
    recover(scratch)
    if meta is not None:
        names = sorted({p.name for p in scratch.iterdir() if p.is_file()} - {MANIFEST})
        manifest = {"format": FORMAT, "files": {n: file_entry(scratch / n) for n in names}}
        text = json.dumps({**manifest, "meta": meta}, indent=1)
        (scratch / MANIFEST).write_text(text, encoding="utf-8")
    for path in [*scratch.rglob("*"), scratch]:
        sync(path)
    old = scratch.with_name(f"{scratch.name}-old")
    try:
        for attempt in range(10):  # others may be doing the same
            try:
                os.replace(scratch, folder)
                break
            except OSError:
                if not replace and (folder / MANIFEST).is_file():
                    break
                if attempt == 9 or folder.is_file():
                    raise
            shutil.rmtree(old, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder, old)
        sync(folder.parent)  # before the old content goes
    finally:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        shutil.rmtree(old, ignore_errors=True)


def recover(parent: Path, name: str = "*") -> None:
    """Put right what killed writers of this machine left in a folder; others may be writing.

    A folder that was about to be replaced gets its name back; the rest is removed.

    Args:
        parent: the folder that they wrote to.
        name: of the folder that they wrote, by default of any.
    """
    pattern = name if name == "*" else glob.escape(name)
    for left in parent.glob(f".{pattern}.tmp-*"):
        final, _, identity = left.name[1:].removesuffix("-old").rpartition(".tmp-")
        _, pid, host = [*identity.split(".", 2), "", ""][:3]
        if not pid.isdigit() or is_alive(int(pid), host):
            continue
        if left.name.endswith("-old") and not (parent / final).exists():  # killed between renames
            os.replace(left, parent / final)
        shutil.rmtree(left, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder in one step: after a kill no part of it is left under its own name."""
    scratch = scratch_path(folder)
    os.replace(folder, scratch)
    sync(folder.parent)  # after a power cut it is whole or gone
    shutil.rmtree(scratch)


# --------------------------------------------------------------------------------------- manifests


class Manifest(NamedTuple):
    """The files of a folder, {name: {"bytes": length, "sha256": digest}}, and what else it says."""

    files: dict[str, dict[str, Any]]
    meta: dict[str, Any]


def file_entry(path: Path) -> dict[str, Any]:
    """Return a file's length and digest, as a manifest holds them."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def read_manifest(folder: Path) -> Manifest:
    """Return a folder's manifest; the files themselves are not looked at.

    Raises:
        DataError: there is none, it is damaged, or another version of minift wrote it.
    """
    keys = ("bytes", "sha256")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if (version := manifest.get("format")) == FORMAT:
            files = {n: {key: e[key] for key in keys} for n, e in manifest["files"].items()}
            meta = dict(manifest["meta"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{folder} is not complete: no readable {MANIFEST}", do=AGAIN) from None
    if version != FORMAT:
        what, got = f"{folder} was written by another version of minift", f"format {version}"
        raise DataError(what, got=got, expected=FORMAT, do="write it again with this version")
    if any(Path(name).name != name for name in files):
        raise damaged(folder, "its manifest names files elsewhere")
    return Manifest(files, meta)


def damaged(path: Path, why: str, got: object = None, expected: object = None) -> DataError:
    """Return the error that a file or folder is not as it was written."""
    return DataError(f"{path} is damaged: {why}", got=got, expected=expected, do=AGAIN)


def check_file(path: Path, entry: Mapping[str, Any], digest: bool = False) -> None:
    """Compare a file with its entry in a manifest: its length, and if asked for its digest.

    Raises:
        DataError: the file is missing or damaged.
    """
    if not path.is_file():
        raise damaged(path, "it is missing")
    if (size := path.stat().st_size) != entry.get("bytes", size):
        raise damaged(path, "its length differs", got=size, expected=entry["bytes"])
    if digest and "sha256" in entry and file_entry(path)["sha256"] != entry["sha256"]:
        raise damaged(path, "its checksum differs")


def verify_folder(folder: Path) -> Manifest:
    """Return the manifest of a folder in which every byte is as it was written.

    Raises:
        DataError: there is no manifest, or a file is missing, shorter, or changed; names it.
    """
    manifest = read_manifest(folder)
    for name, entry in manifest.files.items():
        check_file(folder / name, entry, digest=True)
    return manifest


# ------------------------------------------------------------------------------------------ models


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a model's file, {} if there is no such file.

    Raises:
        ModelError: the file is not JSON, or holds something else than an object.
    """
    if not path.is_file():
        return {}
    do = "copy the file from the model again"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON", got=error, expected="an object", do=do) from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is no object", got=f"{content!r:.60}", expected="{...}", do=do)
    return content
