"""`load_dataset`: which files there are, which split each belongs to, and what reads them.

`load_dataset(path)` takes, in this order: a format word with `data_files`, a path that exists on
this machine, a name that a plugin knows. How a file is read is in `readers.py`.
"""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minift.data.dataset import Dataset, concatenate_datasets
from minift.data.dataset_dict import DatasetDict, is_saved, load_from_disk
from minift.data.features import Features
from minift.data.fingerprint import fingerprint
from minift.data.readers import READERS, Options, apply_features
from minift.errors import ArgumentError, ConfigError, DataError, MissingFileError, nearest
from minift.plugins import default_manager

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".txt": "text",
    ".parquet": "parquet",
    ".arrow": "arrow",
}

LOAD_VERSION = 1  # part of every fingerprint: change it when the same file gives other rows

# What each format can be told; `sep` is another name for `delimiter`.
CSV_OPTIONS = ("delimiter", "quotes", "column_names")
KNOWN_OPTIONS = {"csv": CSV_OPTIONS, "tsv": CSV_OPTIONS, "json": ("field",)}

# The words in a file's name that say which split it is.
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True)
class Found:
    """What a plugin's `minift_find_dataset` answers.

    Attributes:
        files: {split: paths on this machine}.
        features: the columns' features where the files do not say them.
        source: where they come from, for run.json.
        revision: the exact version, or "".
    """

    files: Mapping[str, Sequence[str | Path]]
    features: Features | None = None
    source: str = ""
    revision: str = ""


def load_dataset(
    path: str,
    name: str | None = None,
    *,
    data_files: Any = None,
    split: str | None = None,
    revision: str | None = None,
    features: Features | None = None,
    **options: Any,
) -> Any:
    """A `DatasetDict` of all splits, or with `split` one `Dataset`.

    Args:
        path: "csv", "tsv", "json", "text", "parquet" or "arrow" with `data_files`; or a file or
            folder; or a name that a plugin knows.
        name: the configuration, where a name has several.
        data_files: a path, a glob, a list of these, or {split: any of these}.
        split: the one to return.
        revision: a version, for plugins.
        features: the columns' features, instead of inferring them.
        options: for csv `delimiter` (or `sep`), `quotes` (False: quotes are plain characters),
            `column_names`; for json `field`.

    Raises:
        DataError: a file cannot be read as what it should be; the message has file and line.
    """
    said = check_options(options)
    local = Path(path).expanduser()
    if data_files is not None and path in {*SUFFIXES.values(), "jsonl"}:
        kind = "json" if path == "jsonl" else path
        files = by_split(data_files)
    elif local.is_dir() and is_saved(local):
        loaded = load_from_disk(local)
        if split is None or not isinstance(loaded, DatasetDict):
            return loaded
        return loaded[known_split(split, loaded)]
    elif local.exists():
        kind, files = infer_files(local) if data_files is None else named_files(local, data_files)
    else:
        found = default_manager().hook.minift_find_dataset(
            path=path, name=name, revision=revision, data_files=data_files
        )
        if found is None:
            raise MissingFileError(
                f"there is no dataset {path!r}",
                got="no such file or folder, and no plugin knows the name",
                expected="a path, a name that a plugin knows (`minift plugins`), or one of "
                f"{', '.join(sorted(set(SUFFIXES.values())))} with data_files=",
            )
        files = {key: [Path(p) for p in paths] for key, paths in found.files.items()}
        kind = kind_of(next(iter(files.values()))[0])
        features = features or found.features
    for option in said:
        if option not in KNOWN_OPTIONS.get(kind, ()):
            raise ArgumentError(f"the option {option!r} means nothing for {kind} files")
    reading = Options(**said, features=features, said=said)
    wanted = {known_split(split, files): files[split]} if split is not None else files
    splits = {key: load_files(kind, paths, reading) for key, paths in wanted.items()}
    return splits[split] if split is not None else DatasetDict(splits)


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options under the names of `Options`."""
    known = ("delimiter", "sep", "quotes", "column_names", "field")
    said: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise ArgumentError(
                f"load_dataset has no option {name!r}", expected=nearest(name, known)
            )
        said["delimiter" if name == "sep" else name] = value
    if said.get("column_names"):
        said["column_names"] = tuple(said["column_names"])
    return said


def known_split(split: str, splits: Mapping[str, Any]) -> str:
    if split not in splits:
        raise ConfigError(f'Unknown split "{split}". Should be one of {list(splits)}.')
    return split


# ---------------------------------------------------------------------------- which files there are


def by_split(data_files: Any, folder: Path = Path()) -> dict[str, list[Path]]:
    """`data_files` in any of its forms, as existing files by split."""
    if not isinstance(data_files, Mapping):
        data_files = {"train": data_files}
    files: dict[str, list[Path]] = {}
    for split, patterns in data_files.items():
        many = [patterns] if isinstance(patterns, str | Path) else list(patterns)
        files[split] = [file for pattern in many for file in expand(folder, str(pattern))]
    return files


def named_files(folder: Path, data_files: Any) -> tuple[str, dict[str, list[Path]]]:
    """The format and the splits of some files in a folder."""
    files = by_split(data_files, folder)
    kinds = {kind_of(path) for paths in files.values() for path in paths}
    if len(kinds) != 1:
        raise ConfigError("data_files= must be of one format", got=sorted(kinds))
    return kinds.pop(), files


def expand(folder: Path, pattern: str) -> list[Path]:
    path = folder / Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if glob.has_magic(pattern):
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        found = [p for p in found if p.is_file() and not p.name.startswith(".")]
        if found:
            return found
    raise MissingFileError(f"there is no file {pattern!r}", do="check the path")


def kind_of(path: Path) -> str:
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix.lower() not in SUFFIXES:
        raise DataError(f"cannot tell the format of {path}", expected=", ".join(SUFFIXES))
    return SUFFIXES[suffix.lower()]


def infer_files(path: Path) -> tuple[str, dict[str, list[Path]]]:
    """The format and the splits of a file or folder, from names; says what it leaves alone."""
    if path.is_file():
        return kind_of(path), {"train": [path]}
    present = sorted(p for p in path.rglob("*") if p.is_file())
    hidden = (".", "__")
    present = [
        p for p in present if not any(x.startswith(hidden) for x in p.relative_to(path).parts)
    ]
    kinds: dict[str, list[Path]] = {}
    for file in present:
        suffix = file.with_suffix("").suffix if file.suffix == ".gz" else file.suffix
        if suffix.lower() in SUFFIXES:
            kinds.setdefault(SUFFIXES[suffix.lower()], []).append(file)
    if not kinds:
        raise MissingFileError(f"{path} holds no data files", expected=", ".join(SUFFIXES))
    preference = ["parquet", "arrow", "json", "csv", "tsv", "text"]

    def rank(kind: str) -> tuple[bool, int, int]:
        says_split = any(split_of(file.relative_to(path)) for file in kinds[kind])
        return says_split, len(kinds[kind]), -preference.index(kind)

    kind = max(kinds, key=rank)
    splits: dict[str, list[Path]] = {}
    for file in kinds[kind]:
        split = split_of(file.relative_to(path))
        if split:
            splits.setdefault(split, []).append(file)
    if not splits:  # no name says a split, so all of it is for training
        splits = {"train": kinds[kind]}
    splits = {split: splits[split] for split in SPLIT_WORDS if split in splits}
    used = {file for files in splits.values() for file in files}
    left = [str(file.relative_to(path)) for file in present if file not in used]
    shown = ", ".join(f"{s}: {', '.join(f.name for f in fs)}" for s, fs in splits.items())
    print(f"{path}: reading {shown}" + (f"; left alone: {', '.join(left)}" if left else ""))
    return kind, splits


def split_of(relative: Path) -> str:
    """The split that a file's name says, or its folder's name; "" if neither does."""
    for part in reversed(relative.parts):
        words = "".join(c if c.isalpha() else " " for c in part.lower()).split()
        for split, known in SPLIT_WORDS.items():
            if any(word in known for word in words):
                return split
    return ""


# ------------------------------------------------------------------------------------- reading them


def load_files(kind: str, paths: Sequence[Path], options: Options) -> Dataset:
    """One split, from one or more files of a format."""
    features, parts = options.features, []
    for path in paths:
        if not path.is_file():
            raise MissingFileError(f"there is no file {path}")
        table = READERS[kind](path, options)
        if features is not None:
            table = apply_features(table, features, path)
        stat = path.stat()
        said = features.to_dict() if features else None
        identity = (LOAD_VERSION, str(path.resolve()), stat.st_size, stat.st_mtime_ns, kind)
        source = fingerprint("file", identity, sorted(options.said.items()), said)
        parts.append(Dataset(table, features, source=source))
    if len(parts) == 1:
        return parts[0]
    try:
        return concatenate_datasets(parts)
    except DataError as error:
        names = ", ".join(map(str, paths))
        raise DataError(f"the files of a split do not fit: {names}: {error}") from None
