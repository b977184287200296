"""Files and folders that are there whole or not at all, whatever ends the process meanwhile.

Each is written beside its place under another name, brought to the disk, and then renamed.
"""

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from minift.errors import ModelError


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it is there whole or not at all, and still there after a crash."""
    scratch = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:12]}")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:  # a full disk is not filled by what failed
        scratch.unlink(missing_ok=True)
        raise


def replace_folder(scratch: Path, folder: Path) -> None:
    """Give a whole folder its name; one that has it gives way, and comes back if that fails."""
    old = scratch.with_name(f"{scratch.name}-old")
    try:
        if folder.exists():
            os.replace(folder, old)
        os.replace(scratch, folder)
    finally:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        shutil.rmtree(old, ignore_errors=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut (not possible, nor needed, on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


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
    except ValueError as error:
        raise ModelError(f"{path} is not JSON", got=error, expected="an object", do=do) from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is no object", got=f"{content!r:.60}", expected="{...}", do=do)
    return content


def bytes_as_text(count: float) -> str:
    """Return a size in bytes for people: 1234567 as "1.2 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
