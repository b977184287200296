"""Files and folders that are there whole or not at all, whatever ends the process meanwhile.

Each is written beside its place under another name, brought to the disk, and then renamed.
"""

import os
import shutil
import uuid
from pathlib import Path


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
