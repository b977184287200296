"""`load_dataset`: from a name to datasets, by way of files that plugins find and read.

A folder of `save_to_disk` is opened as it is. For any other name, plugins are asked which files it
means (`minift_find_dataset`: minift_files knows local paths and comes first) and how files of that
format become tables (`minift_register_file_formats`); see file_formats.py.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from minift.data import file_formats
from minift.data.combining import concatenate_datasets
from minift.data.dataset import Dataset, DatasetDict
from minift.data.features import Features, cast_array, check_names
from minift.data.file_formats import DatasetFiles, folder_format, format_named, format_of
from minift.data.fingerprint.values import fingerprint
from minift.errors import ArgumentError, ConfigError, DataError, MissingFileError, nearest
from minift.files import file_entry, local_path
from minift.plugins import default_manager

LOAD_VERSION = 3  # part of every fingerprint: change it when the same file gives other rows

DIGESTED_BYTES = 16 << 20

# A part of `split=`: both bounds in rows, or both in percent.
ROW, PERCENT = r"(-?\d+)?", r"(-?(?:100|\d\d?)%)?"
PART = re.compile(rf"(.+?)(?:\[(?:{ROW}:{ROW}|{PERCENT}:{PERCENT})\])?")


def load_dataset(
    path: str | Path, name: str | None = None, *, data_dir: str | Path | None = None,
    data_files: Any = None, split: str | Sequence[str] | None = None, revision: str | None = None,
    features: Features | None = None, **options: Any,
) -> Any:  # fmt: skip
    """Return a `DatasetDict` of all splits, or with `split` one `Dataset`.

    Args:
        path: "csv", "tsv", "json", "text", "parquet" or "arrow" with `data_files`; or a file or
            folder; or a name that a plugin knows.
        name: the configuration, where a name has several.
        data_dir: the folder of the dataset, or below `path`, that the files are in.
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
    local = local_path(path)
    if saved := folder_format(local):
        loaded = saved.read(local, False)
        splits = loaded if isinstance(loaded, DatasetDict) else {"train": loaded}
        return loaded if split is None else read_splits(split, list(splits), splits.__getitem__)
    dataset_files = find_files(str(path), name, revision, data_files, data_dir)
    files = {key: [Path(file) for file in paths] for key, paths in dataset_files.files.items()}
    file_format = dataset_files.file_format or format_of(next(filter(None, files.values()))[0])
    check_options(file_format, options)

    @functools.cache
    def read_split(name: str) -> Dataset:
        dataset = load_files(file_format, files[name], options, features or dataset_files.features)
        origin = {"source": dataset_files.source, "revision": dataset_files.revision}
        return dataset.replace(origin=origin)

    return read_splits(split, list(files), read_split)


def load_from_disk(dataset_path: str | Path, verify: bool = False) -> Dataset | DatasetDict:
    """Return what `save_to_disk` wrote, here or in `datasets`, memory-mapped.

    Args:
        dataset_path: the folder.
        verify: also read every byte and compare the checksums that were written here.

    Raises:
        DataError: a file is shorter than it was when it was written, is damaged or missing.
    """
    return format_named("disk").read(local_path(dataset_path), verify)


# ------------------------------------------------------------------------------ files and splits


def find_files(
    path: str, name: str | None, revision: str | None, data_files: Any, data_dir: Any
) -> DatasetFiles:
    """Return the first plugin's answer for a dataset's name; an error if there is none."""
    answer = default_manager().hook.minift_find_dataset(
        path=path, name=name, revision=revision, data_files=data_files, data_dir=data_dir
    )
    if answer is None:
        raise MissingFileError(
            f"there is no dataset {path!r}: no file or folder, and no plugin knows the name",
            expected=f"a path, a name, or one of {', '.join(sorted(file_formats.file_formats()))} "
            "with data_files= or data_dir=",
        )
    if not any(answer.files.values()):
        raise MissingFileError(f"{path!r} has no data files", expected="files for a split")
    return answer


def check_options(file_format: str, options: Mapping[str, Any]) -> None:
    """Raise an ArgumentError that suggests the nearest name if a format has no such option."""
    known = format_named(file_format).options
    for option in options:
        if option not in known:
            what = f"the option {option!r} means nothing for {file_format} files"
            raise ArgumentError(what, expected=nearest(option, known))


def read_splits(split: Any, names: Sequence[str], read_split: Callable[[str], Dataset]) -> Any:
    """Return all splits, or those parts of them that `split` names."""
    if split is None:
        return DatasetDict({name: read_split(name) for name in names})
    if not isinstance(split, str):
        return [read_splits(one, names, read_split) for one in split]
    parts = []
    for text in split.split("+"):
        match = PART.fullmatch(text.strip())
        if match is None or match[1] not in names:
            raise ConfigError(
                f'Unknown split "{match[1] if match else text}". Should be one of {names}.',
                do='write a part of one as "train[:100]" or "train[10%:20%]"',
            )
        dataset = read_split(match[1])
        start, stop = (row_index(match[i] or match[i + 2], len(dataset)) for i in (2, 3))
        parts.append(dataset.select(range(len(dataset))[start:stop]))
    return concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def row_index(bound: str | None, num_rows: int) -> int | None:
    """Return a bound of a slice in rows; percentages are rounded to the closest row."""
    if not bound or not bound.endswith("%"):
        return int(bound) if bound else None
    return round(int(bound[:-1]) * num_rows / 100) + (num_rows if bound[0] == "-" else 0)


# --------------------------------------------------------------------------------- reading files


def load_files(
    file_format: str, paths: Sequence[Path], options: Mapping[str, Any], features: Features | None
) -> Dataset:
    """Return one split, from one or more files of a format."""
    joined = load_file(file_format, paths[0], options, features)
    for path in paths[1:]:
        part = load_file(file_format, path, options, features)
        try:
            joined = concatenate_datasets([joined, part])
        except DataError as error:
            raise DataError(f"{path} does not fit {paths[0]}: {error}") from None
    return joined


def load_file(
    file_format: str, path: Path, options: Mapping[str, Any], features: Features | None
) -> Dataset:
    """Return one file as a dataset that the cache of `map` knows by its source."""
    source = source_of(file_format, path, options, features)
    data = format_named(file_format).read(path, options, features)
    if features is not None:
        data = apply_features(data, features, path)
    return Dataset(data, features, digests={name: f"{source} {name}" for name in data.column_names})


def source_of(
    file_format: str, path: Path, options: Mapping[str, Any], features: Features | None
) -> str:
    """Return a digest of a file, before it is read, and of how it is read.

    Length and time of a file may stay when its content changes: it is written twice within a tick
    of the clock, or its time is set back. So files of up to 16 MiB are digested, and their content
    decides alone. Of a larger one the time counts too at which it was last changed in any way,
    which no program can set (`ctime`).
    """
    if not path.is_file():
        raise MissingFileError(f"there is no file {path}")
    stat = path.stat()
    content: Any = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    content = file_entry(path) if stat.st_size <= DIGESTED_BYTES else content
    identity = (LOAD_VERSION, str(path.resolve()), content, file_format)
    return fingerprint("file", identity, sorted(options.items()), features and features.to_dict())


def apply_features(data: pa.Table, features: Features, path: Path, start: int = 0) -> pa.Table:
    """Return a table, whose first row has the number `start`, with the given features."""
    where = f"{path}: "
    check_names(features, data.column_names, where)
    stored = Features.from_arrow_schema(data.schema)
    parts = {n: (data.column(n), f, start, where, stored[n]) for n, f in features.items()}
    columns = [cast_array(name, *part) for name, part in parts.items()]
    return pa.table(columns, schema=features.arrow_schema)
