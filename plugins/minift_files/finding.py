"""Which files there are, and which split each belongs to, from their names."""

import difflib
import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minift.data.file_formats import DatasetFiles, format_of
from minift.errors import ConfigError, MissingFileError
from minift.files import local_path
from minift_files.formats import FORMATS

# The words in a file's name that say which split it is.
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}

# A shard of a dataset on the Hub.
SHARD = re.compile(r"data/(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*")


def find(
    path: str, name: str | None, data_files: Any, data_dir: str | Path | None = None
) -> DatasetFiles | None:
    """The answer to `minift_find_dataset`."""
    kind, folder, formats = "json" if path == "jsonl" else path, local_path(path), FORMATS
    if kind in FORMATS and (data_files, data_dir) != (None, None):
        formats, folder = {kind: FORMATS[kind]}, local_path(data_dir or ".")
    elif not folder.exists():
        return None
    else:
        folder /= data_dir or ""
    if data_dir is not None and not folder.is_dir():
        raise MissingFileError(f"there is no folder {folder}", do="check data_dir=")
    if name is not None and formats is FORMATS:  # a configuration is a folder in the dataset's
        folder /= name
        if not folder.is_dir():
            expected = f"a folder {folder}"
            raise ConfigError(f"{path} has no configuration {name!r}", expected=expected)
    if data_files is None:
        return infer_files(folder, formats)
    files = by_split(data_files, folder)
    kinds = {kind} if kind in formats else {format_of(p) for paths in files.values() for p in paths}
    if len(kinds) != 1:
        raise ConfigError("data_files= must be of one format", got=sorted(kinds))
    return DatasetFiles(files, file_format=kinds.pop())


def by_split(data_files: Any, folder: Path = Path()) -> dict[str, list[Path]]:
    """`data_files` in any of its forms, as existing files by split."""
    if not isinstance(data_files, Mapping):
        data_files = {"train": data_files}
    files: dict[str, list[Path]] = {}
    for split, patterns in data_files.items():
        many = [patterns] if isinstance(patterns, str | Path) else list(patterns)
        files[split] = [file for pattern in many for file in expand(folder, str(pattern))]
    return files


def expand(folder: Path, pattern: str) -> list[Path]:
    """Return the files that a path or a pattern means; folders that are there are no pattern."""
    path = folder / local_path(pattern)
    if path.is_file():
        return [path]
    literal = next(parent for parent in path.parents if parent.is_dir())
    rest = str(path.relative_to(literal))
    found = sorted(literal / name for name in glob.glob(rest, root_dir=literal, recursive=True))
    found = [p for p in found if p.is_file() and not p.name.startswith(".")]
    if not found:
        near = difflib.get_close_matches(path.name, [p.name for p in literal.iterdir()], n=1)
        expected = f"{literal / near[0]}, perhaps" if near else None
        do = "for the files of a folder pass data_dir=" if path.is_dir() else "check the path"
        raise MissingFileError(f"there is no file {pattern!r}", expected=expected, do=do)
    return found


def infer_files(path: Path, formats: Mapping[str, Any]) -> DatasetFiles:
    """Return a file or a folder's files, by their names; say which are left alone."""
    if path.is_file():
        return DatasetFiles({"train": [path]}, file_format=format_of(path))
    present = [p.relative_to(path) for p in sorted(path.rglob("*")) if p.is_file()]
    present = [name for name in present if not re.search(r"(^|/)(\.|__)", name.as_posix())]
    kind, splits = files_by_split(present, formats)
    if not splits:
        raise MissingFileError(f"{path} holds no data files", expected=", ".join(formats))
    used = {name for names in splits.values() for name in names}
    left = ", ".join(str(name) for name in present if name not in used)
    shown = ", ".join(f"{s}: {', '.join(n.name for n in names)}" for s, names in splits.items())
    print(f"{path}: reading {shown}" + (f"; left alone: {left}" if left else ""))
    files = {split: [path / name for name in names] for split, names in splits.items()}
    return DatasetFiles(files, file_format=kind)


def files_by_split(
    paths: Sequence[Path], formats: Mapping[str, Any]
) -> tuple[str, dict[str, list[Path]]]:
    """Choose data files by their names: those of one format, by the split that they name.

    Args:
        paths: relative to the folder of the data set, in order.
        formats: {name: `FileFormat`}.

    Returns:
        The format whose files name splits, then the one with most files, then the first; and its
        files by split. Shards of a data set on the Hub exclude other files. Where no name says a
        split, all files are for training.
    """
    of_format = {name: [p for p in paths if one.matches(p)] for name, one in formats.items()}
    kind = max(
        of_format, key=lambda name: (any(map(split_of, of_format[name])), len(of_format[name]))
    )
    shards = [path for path in of_format[kind] if SHARD.fullmatch(path.as_posix())]
    splits: dict[str, list[Path]] = {}
    for path in shards or of_format[kind]:
        splits.setdefault(split_of(path), []).append(path)
    if len(splits) > 1:
        splits.pop("", None)
    order = dict.fromkeys([*SPLIT_WORDS, *sorted(splits)])
    return kind, {split or "train": splits[split] for split in order if split in splits}


def split_of(relative: Path) -> str:
    """Return the split that a file's name says, or its folder's name; "" if neither does."""
    if shard := SHARD.fullmatch(relative.as_posix()):
        return shard[1]
    for part in reversed(relative.parts):
        words = "".join(c if c.isalpha() else " " for c in part.lower()).split()
        for split, known in SPLIT_WORDS.items():
            if any(word in known for word in words):
                return split
    return ""
