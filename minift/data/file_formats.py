"""Formats of files and folders: the types that plugins answer with, and the registry of them.

`minift_register_file_formats` says how files of a format become Arrow tables and datasets become
files; `minift_find_dataset` says which files a dataset's name means.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from minift.data.features import Features
from minift.errors import DataError, PluginError
from minift.plugins import default_manager, registry

PACKED = r"\.(gz|bz2|xz|zst|zip)$"  # what may follow the suffix of a format


@dataclass(frozen=True)
class DatasetFiles:
    """The answer of a plugin's `minift_find_dataset`.

    Attributes:
        files: {split: paths on this machine}.
        features: the columns' features where the files do not say them.
        source: where they come from, for run.json.
        revision: the exact version, or "".
        file_format: of the files, where their names do not say it.
    """

    files: Mapping[str, Sequence[str | Path]]
    features: Features | None = None
    source: str = ""
    revision: str = ""
    file_format: str = ""


@dataclass(frozen=True)
class FileFormat:
    """A format of files, each of which is one table.

    Attributes:
        suffixes: of the names of such files.
        read: `read(path, options, features)` returns an Arrow table; the features are what the
            user asks the columns to be, or None. `minift_files.parsing` keeps large ones.
        options: the names that `load_dataset` may be given for it.
        write: `write(dataset, path, **options)`, if it can be written.
    """

    suffixes: tuple[str, ...]
    read: Callable[[Path, Mapping[str, Any], Features | None], pa.Table]
    options: tuple[str, ...] = ()
    write: Callable[..., None] | None = None

    def matches(self, path: Path) -> bool:
        return re.sub(PACKED, "", path.name.lower()).endswith(self.suffixes)


@dataclass(frozen=True)
class FolderFormat:
    """A layout of folders, each of which is one `Dataset` or `DatasetDict`.

    Attributes:
        matches: `matches(folder)` is True if it is one.
        read: `read(folder, verify)` returns what is in it.
        write: `write(dataset, folder, **options)`, for either.
    """

    matches: Callable[[Path], bool]
    read: Callable[[Path, bool], Any]
    write: Callable[..., None]


def file_formats() -> dict[str, FileFormat]:
    """Return all formats of files that plugins register, by name."""
    formats = registry(default_manager(), "minift_register_file_formats")
    return {name: one.value for name, one in formats.items() if isinstance(one.value, FileFormat)}


def folder_format(folder: Path) -> FolderFormat | None:
    """Return the format whose layout a folder has, or None."""
    formats = registry(default_manager(), "minift_register_file_formats").values()
    layouts = (one.value for one in formats if isinstance(one.value, FolderFormat))
    return next((layout for layout in layouts if layout.matches(folder)), None)


def format_named(name: str) -> Any:
    """Return a `FileFormat` or `FolderFormat`.

    Raises:
        PluginError: no plugin brings it.
    """
    formats = registry(default_manager(), "minift_register_file_formats")
    if name not in formats:
        what = f"no plugin brings {name!r} (hook minift_register_file_formats)"
        do = "do not leave out minift_files; `minift plugins` shows which are loaded"
        raise PluginError(what, got=", ".join(sorted(formats)) or "nothing", do=do)
    return formats[name].value


def format_of(path: Path) -> str:
    """Return the name of a file's format."""
    formats = file_formats()
    if names := [name for name, one in formats.items() if one.matches(path)]:
        return names[0]
    suffixes = ", ".join(suffix for one in formats.values() for suffix in one.suffixes)
    do = f'name the format: load_dataset("csv", data_files={str(path)!r})'
    raise DataError(f"cannot tell the format of {path}", expected=suffixes, do=do)
