"""`load_dataset`: from a name to datasets, by way of files that plugins find and read.

A folder of `save_to_disk` is opened as it is. For anything else plugins are asked which files it
means (`minift_find_dataset`: minift_files knows local paths and comes first) and how files of that
format become tables (`minift_register_file_formats`, which also says how datasets become files and
folders).

    src/<fingerprint>/    in the cache: the parsed table of one large file, see storage.py
"""

import functools
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from minift.data import cache, storage
from minift.data.combining import concatenate_datasets
from minift.data.dataset import Dataset
from minift.data.dataset_dict import DatasetDict
from minift.data.features import Features, cast_array, check_names
from minift.data.fingerprint import fingerprint
from minift.errors import ArgumentError, ConfigError, DataError, MissingFileError, nearest
from minift.plugins import default_manager, provided, registry

LOAD_VERSION = 2  # part of every fingerprint: change it when the same file gives other rows

# Smaller files are parsed each time, which takes no longer than opening an entry of the cache and
# leaves no thousand folders behind.
KEPT_BYTES = 1 << 20

# A part of `split=`: both bounds in rows, or both in percent.
ROW, PERCENT = r"(-?\d+)?", r"(-?(?:100|\d\d?)%)?"
PART = re.compile(rf"(.+?)(?:\[(?:{ROW}:{ROW}|{PERCENT}:{PERCENT})\])?")


@dataclass(frozen=True)
class DatasetFiles:
    """What a plugin's `minift_find_dataset` answers.

    Attributes:
        files: {split: paths on this machine}.
        features: the columns' features where the files do not say them.
        source: where they come from, for run.json.
        revision: the exact version, or "".
        kind: the files' format, where their names do not say it.
    """

    files: Mapping[str, Sequence[str | Path]]
    features: Features | None = None
    source: str = ""
    revision: str = ""
    kind: str = ""


@dataclass(frozen=True)
class FileFormat:
    """What a plugin's `minift_register_file_formats` answers for one format.

    Attributes:
        suffixes: of the names of such files.
        read: `read(path, options, features)` returns an Arrow table; the features are what the
            user wants the columns to be, or None.
        options: the names that `load_dataset` may be given for it.
        write: `write(dataset, path, **options)`, if it can be written.
        maps: whether the table's memory is the file itself, so that no copy is kept in the cache.
    """

    suffixes: tuple[str, ...]
    read: Callable[[Path, Mapping[str, Any], Features | None], pa.Table]
    options: tuple[str, ...] = ()
    write: Callable[..., None] | None = None
    maps: bool = False

    def matches(self, path: Path) -> bool:
        return path.name.lower().removesuffix(".gz").endswith(self.suffixes)


@dataclass(frozen=True)
class FolderFormat:
    """The same for a layout of folders, each of which is one `Dataset` or `DatasetDict`.

    Attributes:
        matches: `matches(folder)`, whether it is one.
        read: `read(folder, verify)` returns what is in it.
        write: `write(dataset, folder, **options)`, for either.
    """

    matches: Callable[[Path], bool]
    read: Callable[[Path, bool], Dataset | DatasetDict]
    write: Callable[..., None]


def file_formats() -> dict[str, FileFormat]:
    """All formats of files that plugins know."""
    found = registry(default_manager(), "minift_register_file_formats")
    return {name: one.value for name, one in found.items() if isinstance(one.value, FileFormat)}


def format_named(kind: str) -> Any:
    """A `FileFormat` or `FolderFormat`; a PluginError if no plugin brings it."""
    return provided("minift_register_file_formats", kind, "minift_files")


def load_from_disk(dataset_path: str | Path, verify: bool = False) -> Dataset | DatasetDict:
    """What `save_to_disk` wrote, here or in `datasets`, memory-mapped.

    Args:
        dataset_path: the folder.
        verify: also read every byte and compare the checksums that were written here.

    Raises:
        DataError: a file is shorter than it was when it was written, is damaged or missing.
    """
    return format_named("disk").read(Path(dataset_path), verify)


def format_of(path: Path) -> str:
    """The name of a file's format."""
    known = file_formats()
    for name, form in known.items():
        if form.matches(path):
            return name
    suffixes = ", ".join(suffix for form in known.values() for suffix in form.suffixes)
    raise DataError(f"cannot tell the format of {path}", expected=suffixes)


def load_dataset(
    path: str,
    name: str | None = None,
    *,
    data_files: Any = None,
    split: str | Sequence[str] | None = None,
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
        split: the one to return, or part of it, or several joined: "train", "train[:50%]" (rounded
            to the closest row), "train[10:-5]+test"; a list of these for a list of datasets.
        revision: a version, for plugins.
        features: the columns' features, instead of inferring them.
        options: of the format; for csv `delimiter` (or `sep`), `quotes` (False: quotes are plain
            characters), `column_names`, `na_values="pandas"` (what pandas takes for missing),
            `on_bad_lines="skip"`; for json `field`; for text `keep_linebreaks` and
            `sample_by="paragraph"` or "document"; for parquet `columns` and `filters`.

    Raises:
        DataError: a file cannot be read as what it should be; the message has file and line.
    """
    local = Path(path).expanduser()
    disk = registry(default_manager(), "minift_register_file_formats").get("disk")
    if disk and local.is_dir() and disk.value.matches(local):
        loaded = disk.value.read(local, False)
        if split is None:
            return loaded
        saved = loaded if isinstance(loaded, DatasetDict) else {"train": loaded}
        return chosen(split, saved, saved.__getitem__)
    found = default_manager().hook.minift_find_dataset(
        path=path, name=name, revision=revision, data_files=data_files
    )
    if found is None:
        nothing = "no such file or folder, and no plugin knows the name"
        raise MissingFileError(
            f"there is no dataset {path!r}",
            got="no plugin that reads it (minift_files does)" if local.exists() else nothing,
            expected="a path, a name that a plugin knows (`minift plugins`), or one of "
            f"{', '.join(sorted(file_formats()))} with data_files=",
        )
    if not any(found.files.values()):
        raise MissingFileError(f"{path!r} has no data files", expected="files for a split")
    files = {key: [Path(p) for p in paths] for key, paths in found.files.items()}
    kind = found.kind or format_of(next(filter(None, files.values()))[0])
    check_options(kind, options)
    wanted = features or found.features

    def load(split: str) -> Dataset:
        dataset = load_files(kind, files[split], options, wanted)
        dataset.origin = {"source": found.source, "revision": found.revision}
        return dataset

    return chosen(split, files, functools.cache(load))


def check_options(kind: str, options: Mapping[str, Any]) -> None:
    known = format_named(kind).options
    for option in options:
        if option not in known:
            said = f"the option {option!r} means nothing for {kind} files"
            raise ArgumentError(said, expected=nearest(option, known))


def chosen(split: Any, known: Mapping[str, Any], load: Callable[[str], Dataset]) -> Any:
    """All splits, or what `split` says of those that are known."""
    if split is None:
        return DatasetDict({name: load(name) for name in known})
    if not isinstance(split, str):
        return [chosen(one, known, load) for one in split]
    parts = []
    for text in split.split("+"):
        match = PART.fullmatch(text.strip())
        if match is None or match[1] not in known:
            raise ConfigError(
                f'Unknown split "{match[1] if match else text}". Should be one of {list(known)}.',
                do='write a part of one as "train[:100]" or "train[10%:20%]"',
            )
        dataset = load(match[1])
        start, stop = (row_number(match[i] or match[i + 2], len(dataset)) for i in (2, 3))
        parts.append(dataset.select(range(len(dataset))[start:stop]))
    return concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def row_number(bound: str | None, rows: int) -> int | None:
    """A bound of a slice; percentages are rounded to the closest row."""
    if not bound or not bound.endswith("%"):
        return int(bound) if bound else None
    return round(int(bound[:-1]) * rows / 100) + (rows if bound[0] == "-" else 0)


# ------------------------------------------------------------------------------------- reading them


def load_files(
    kind: str, paths: Sequence[Path], options: Mapping[str, Any], features: Features | None
) -> Dataset:
    """One split, from one or more files of a format."""
    parts = [load_file(kind, path, options, features) for path in paths]
    joined = parts[0]
    for path, part in zip(paths[1:], parts[1:], strict=True):
        try:
            joined = concatenate_datasets([joined, part])
        except DataError as error:
            raise DataError(f"{path} does not fit {paths[0]}: {error}") from None
    return joined


def load_file(
    kind: str, path: Path, options: Mapping[str, Any], features: Features | None
) -> Dataset:
    """One file. Large ones are parsed once, into the cache; those of Arrow are mapped in place."""
    if not path.is_file():
        raise MissingFileError(f"there is no file {path}")
    form, said = format_named(kind), features.to_dict() if features else None
    stat = path.stat()  # before reading: what is written meanwhile must not pass for what was read
    identity = (LOAD_VERSION, str(path.resolve()), stat.st_size, stat.st_mtime_ns, kind)
    source = fingerprint("file", identity, sorted(options.items()), said)

    def parse() -> pa.Table:
        table = form.read(path, options, features)
        return table if features is None else apply_features(table, features, path)

    keep = not form.maps and stat.st_size >= KEPT_BYTES
    table = kept(source, kind, path, parse) if keep else parse()
    return Dataset(table, features, digests={n: f"{source} {n}" for n in table.column_names})


def apply_features(table: pa.Table, features: Features, path: Path) -> pa.Table:
    """The table as the given features; class names become their numbers."""
    check_names(features, table.column_names, f"{path}: ")
    try:
        columns = [cast_array(n, table.column(n), feature) for n, feature in features.items()]
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return pa.table(columns, schema=features.arrow_schema)


def kept(key: str, kind: str, path: Path, parse: Callable[[], pa.Table]) -> pa.Table:
    """The table with this key, mapped from the cache; the first time it is put there."""
    folder, table = cache.entry_path("src", key), None
    try:
        with cache.lock(key):
            try:
                return storage.open_folder(folder)[0]
            except DataError as error:
                if (folder / storage.MANIFEST).exists():
                    warnings.warn(f"a cached table is damaged and parsed again: {error}")
                    (folder / storage.MANIFEST).unlink()
            table = parse()
            meta = {"function": f"load_dataset({kind})", "source": str(path)}
            storage.write(folder, [table], table.schema, meta)
            return storage.open_folder(folder)[0]
    except (OSError, ConfigError) as error:
        warnings.warn(f"{path} stays in memory; move the cache with MINIFT_CACHE: {error}")
    return parse() if table is None else table
