"""The files of a repository that make up a dataset's configuration, by split.

In this order: what the caller names with `data_files`; what the card's `configs` say; what the
files' names say; and where a repository is a Python script, which is never run, the Parquet files
that the Hub itself made of it, in the branch refs/convert/parquet.
"""

import contextlib
import functools
import re
import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from minift_files.arrow_reader import plain_types
from minift_files.finding import SPLIT_WORDS, files_by_split
from minift_files.formats import FORMATS as LOCAL_FORMATS
from minift_files.saving import check_split
from minift_files.unpacking import unpacked
from rich import filesize

from minift.data.features import METADATA_KEY, Features
from minift.data.file_formats import DatasetFiles
from minift.errors import ConfigError, DataError, MiniftError, MissingFileError, nearest
from minift_hub import trust
from minift_hub.client import clean
from minift_hub.describing import Description, describe, features_of
from minift_hub.download import fetch
from minift_hub.snapshot import Snapshot, look_up

# An Arrow file is mapped into memory as it is, and nothing checks what it says of itself.
FORMATS = {name: one for name, one in LOCAL_FORMATS.items() if name != "arrow"}
CONVERTED = "refs/convert/parquet"
MEMORY = 16_000_000_000  # bytes that a dataset may take when it is read
COUNTED_ROWS = 256  # of a Parquet file in memory at once while it is counted
Files = dict[str, list[str]]  # {split: paths in the repository}


def find(
    repo: str, name: str | None, revision: str | None, data_files: Any, data_dir: str = ""
) -> DatasetFiles:
    """Answer `minift_find_dataset`: choose, check and download the files."""
    snapshot = look_up(repo, "dataset", revision)
    description = describe(snapshot)
    if data_files is not None:
        config, files = name or description.only, by_split(snapshot, data_files, data_dir)
    elif data_dir:
        config, files = name or "default", inferred(snapshot, data_dir)
    else:
        config, files = configuration(snapshot, description, name, revision)
    if not files and has_script(snapshot):
        snapshot = converted(snapshot, revision)
        config, files = converted_files(snapshot, name)
    names = sorted({name for some in files.values() for name in some})
    kind = format_of_all(repo, names)
    fetch(snapshot, names)
    paths = {split: [snapshot.folder / name for name in some] for split, some in files.items()}
    features = features_of(description, config)
    every = [path for some in paths.values() for path in some]
    check_memory(repo, kind, every)
    if kind == "parquet" and features:
        features = features_of_files(every, features)
    source = repo if config == "default" else f"{repo} {config}"
    return DatasetFiles(paths, features, source, snapshot.revision, kind)


def configuration(
    snapshot: Snapshot, description: Description, name: str | None, revision: str | None
) -> tuple[str, Files]:
    """Choose the configuration, and its files; none if only a script could tell.

    Raises:
        ConfigError: there are several, or none of that name; lists them.
    """
    repo, configs = snapshot.repo, description.configs
    with_files = {key: one for key, one in configs.items() if {"data_files", "data_dir"} & set(one)}
    if with_files:
        config = choose(repo, with_files, name)
        chosen = with_files[config]
        folder = str(chosen.get("data_dir") or "").strip("/")
        if "data_files" in chosen:
            return config, by_split(snapshot, chosen["data_files"], folder)
        return config, inferred(snapshot, folder)
    if revision and revision.startswith("refs/convert/"):
        return converted_files(snapshot, name)
    if has_script(snapshot):  # the other files may be anything: only it would know
        return name or "default", {}
    folder = "" if name in (None, "default") else str(name)
    found = inferred(snapshot, folder)
    if not found and name == description.only:
        folder, found = "", inferred(snapshot, "")
    if folder and not found:
        known = nearest(folder, {file.partition("/")[0] for file in snapshot.files if "/" in file})
        raise ConfigError(f"{repo} has no configuration {name!r}", expected=clean(known))
    return name or description.only, found


def has_script(snapshot: Snapshot) -> bool:
    return f"{snapshot.repo.partition('/')[2]}.py" in snapshot.files


def choose(repo: str, configs: Mapping[str, Any], name: str | None) -> str:
    """Return the configuration of that name, or the default one without a name."""
    what = f"{repo} has no configuration {name!r}"
    if name is None:
        what = f"{repo} has several configurations"
        marked = [key for key, config in configs.items() if config.get("default") is True]
        name = (marked or (list(configs) if len(configs) == 1 else ["default"]))[0]
    if name not in configs:
        do = f'load_dataset("{repo}", "{clean(next(iter(configs), ""))}")'
        raise ConfigError(what, expected=clean(f"one of {', '.join(configs)}"), do=do)
    return name


# ----------------------------------------------------------------------------------- files by split


def by_split(snapshot: Snapshot, data_files: Any, folder: str = "") -> Files:
    """Return `data_files`, in any of the ways to write it, as files of the repository.

    A path or pattern, a list of them; {split: any of these}; or a list of {split, path}.
    """
    dicts = isinstance(data_files, list) and all(isinstance(one, Mapping) for one in data_files)
    if isinstance(data_files, Mapping):
        pairs = list(data_files.items())
    elif dicts and data_files:
        pairs = [(one.get("split", "train"), one.get("path", [])) for one in data_files]
    else:
        pairs = [("train", data_files)]
    files: Files = {}
    for split, patterns in pairs:
        if not isinstance(patterns, str | list | tuple):
            what = f"the data files of {snapshot.repo} are not given as paths"
            raise DataError(what, got=f"{split!r}: {patterns!r:.80}", expected="a path, or a list")
        check_split(split)
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            found = matching(snapshot, str(pattern), folder)
            files.setdefault(str(split), []).extend(found)
    return files


def matching(snapshot: Snapshot, pattern: str, folder: str) -> list[str]:
    """Return the files that a pattern matches: `*`, `?`, `[0-9]` within a folder, `**` across them.

    The name of a file matches itself, whatever characters are in it.

    Raises:
        DataError: the pattern leads out of the repository, or is an address.
        MissingFileError: there is no such file.
    """
    trust.check_names(snapshot, [pattern])
    path = (PurePosixPath(folder) / pattern).as_posix()
    if path in snapshot.files:
        return [path]
    parts = path.split("/")
    found = sorted(name for name in snapshot.files if fits(name.split("/"), parts))
    if not found:
        what = f"{snapshot.repo} has no file {path!r}"
        raise MissingFileError(what, expected=snapshot.some_files())
    return found


def fits(name: Sequence[str], pattern: Sequence[str]) -> bool:
    """Match a path and a pattern, folder by folder; no pattern takes long."""
    ends = {0}  # how many folders the parts of the pattern so far can stand for
    for part in pattern:
        if part == "**":
            ends = set(range(min(ends, default=len(name) + 1), len(name) + 1))
        else:
            ends = {at + 1 for at in ends if at < len(name) and fnmatchcase(name[at], part)}
    return len(name) in ends


def inferred(snapshot: Snapshot, folder: str) -> Files:
    """Return the files of a folder by the split that their names say; {} if there are none."""
    prefix = f"{folder}/" if folder else ""
    inside = [name for name in sorted(snapshot.files) if name.startswith(prefix)]
    hidden = re.compile(r"(^|/)[._]|^dataset_infos\.json$")
    names = [name.removeprefix(prefix) for name in inside]
    paths = [Path(name) for name in names if not hidden.search(name)]
    _, splits = files_by_split(paths, FORMATS)
    return {split: [prefix + p.as_posix() for p in files] for split, files in splits.items()}


def format_of_all(repo: str, files: list[str]) -> str:
    """Return the one format of all files.

    Raises:
        MissingFileError: there are no files. DataError: there are several formats, or others.
    """
    if not files:
        what = f"{repo} has no data files that minift reads"
        raise MissingFileError(what, expected=", ".join(FORMATS), do="name some with data_files=")
    kinds = {format_name(PurePosixPath(file)) for file in files}
    if len(kinds) > 1 or not kinds <= set(FORMATS):
        what = f"the files of {repo} are of a format that minift does not read, or of several"
        got, expected = clean(", ".join(sorted(kinds))), f"one of {', '.join(FORMATS)}"
        raise DataError(what, got=got, expected=expected, do="name some with data_files=")
    return kinds.pop()


def format_name(path: PurePosixPath) -> str:
    """Return the name of a file's format; its ending, if that is none."""
    return next((name for name, one in FORMATS.items() if one.matches(Path(path))), path.suffix)


# ------------------------------------------------------------------------ what a script would give


def converted(snapshot: Snapshot, revision: str | None) -> Snapshot:
    """Look up the branch in which the Hub keeps a script's data as Parquet.

    Raises:
        DataError: there is none, or the script of another revision was asked for.
    """
    what = f"{snapshot.repo} is a Python script, which is never run"
    do = f'choose another copy of the data, or pass revision="{CONVERTED}"'
    if revision is not None:
        raise DataError(what, got=f"revision {revision!r}", expected="data files", do=do)
    try:
        return look_up(snapshot.repo, "dataset", CONVERTED)
    except MiniftError as error:
        got = f"no Parquet files made of it: {error.what}"
        expected = f"data files, or the branch {CONVERTED}"
        do = "choose another copy of the data: `hf datasets ls --search TEXT`"
        raise DataError(what, got=got, expected=expected, do=do) from None


def converted_files(snapshot: Snapshot, name: str | None) -> tuple[str, Files]:
    """List that branch's files: configuration/split/0000.parquet, partial-split/ if it was cut."""
    layout = re.compile(r"([^/]+)/(?:partial-)?(\w[\w.-]*)/\d+\.parquet")
    configs: dict[str, Files] = {}
    for file in sorted(snapshot.files):
        if match := layout.fullmatch(file):
            configs.setdefault(match[1], {}).setdefault(match[2], []).append(file)
            if "/partial-" in file:
                warnings.warn(f"{snapshot.repo}: {clean(file)} is only a part of the split")
    config = choose(snapshot.repo, {key: {} for key in configs}, name)
    order = dict.fromkeys([*SPLIT_WORDS, *configs[config]])
    return config, {split: configs[config][split] for split in order if split in configs[config]}


# ---------------------------------------------------------------------------------- before reading


def check_memory(repo: str, kind: str, paths: Sequence[Path]) -> None:
    """Refuse what would not fit into memory: a small file can stand for any number of bytes."""
    total, count = 0, parquet_bytes if kind == "parquet" else text_bytes
    for path in paths:
        total += count(path, MEMORY)
        if total > MEMORY:
            what = f"{repo} is too large to be read into memory"
            got = f"more than {filesize.decimal(MEMORY)} once unpacked"
            raise DataError(what, got=got, do="name some of its files with data_files=")


@functools.cache
def text_bytes(path: Path, limit: int) -> int:
    """Return the length of a file once it is unpacked; counting ends above the limit."""
    total = 0
    # Where it is damaged, who reads it says so.
    with contextlib.suppress(DataError), unpacked(path) as file:
        while total <= limit and (block := file.read(trust.BLOCK)):
            total += len(block)
    return total


@functools.cache
def parquet_bytes(path: Path, limit: int) -> int:
    """Return the bytes that a Parquet file takes in memory; counting ends above the limit.

    The footer says how large it is unpacked, but not how often a value repeats: to know that it is
    read, a few rows at a time. They are so few that, if each were as large as the largest group of
    rows is by the footer, they would still take a quarter of the limit. No footer can hide how many
    values there are, even if all are in one row: the reader does not go beyond that number.

    Raises:
        DataError: it is not readable.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
            sizes = [group.total_byte_size for group in groups]
            values = sum(g.column(i).num_values for g in groups for i in range(g.num_columns))
            if max(sum(sizes), values * 8) > limit:
                return limit + 1
            total, rows = 0, limit // 4 // max(*sizes, 1, 1)
            for batch in file.iter_batches(min(max(rows, 1), COUNTED_ROWS)):
                total += plain_types(pa.Table.from_batches([batch])).nbytes
                if total > limit:
                    break
            return total
    except (pa.ArrowException, OSError) as error:
        what = f"{path} is not a readable parquet file"
        raise DataError(what, got=clean(error)[:200]) from None


def features_of_files(paths: Sequence[Path], features: Features) -> Features | None:
    """Return the card's features, if the Parquet files have these columns and no features."""
    from pyarrow import parquet

    schemas = [parquet.read_schema(path) for path in paths]
    recorded = any(METADATA_KEY in (schema.metadata or {}) for schema in schemas)
    return None if recorded or set(schemas[-1].names) != set(features) else features
