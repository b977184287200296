"""Files to datasets: csv, tsv, json, jsonl, text, parquet, arrow; and `load_dataset`.

`load_dataset(path)` takes, in this order: a format word with `data_files`, a path that exists on
this machine, a name that a plugin knows. Columns of a csv file are read as text first and become
numbers only if every cell is one, so nothing is guessed row by row; errors name file and line.
"""

import csv
import dataclasses
import glob
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from minift.data.dataset import Dataset, concatenate_datasets
from minift.data.dataset_dict import DatasetDict, is_saved, load_from_disk
from minift.data.features import ClassLabel, Features, arrow_type
from minift.data.fingerprint import fingerprint
from minift.data.storage import read_stream
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

# The words in a file's name that say which split it is.
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}

# The header of GLUE's own MRPC files: quotes in them are plain characters, and the columns have
# names that no other copy of MRPC uses. Pass any option of the format to load them otherwise.
GLUE_MRPC = {"Quality": "label", "#1 String": "sentence1", "#2 String": "sentence2"}


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


@dataclass(frozen=True)
class Options:
    """How to read files; None means "as the format usually is"."""

    delimiter: str | None = None
    quotes: bool | None = None
    column_names: tuple[str, ...] | None = None
    field: str | None = None
    said: Mapping[str, Any] = dataclasses.field(
        default_factory=dict
    )  # what the user passed, for fingerprints


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
    reading = check_options(options)
    local = Path(path).expanduser()
    if data_files is not None and path in {*SUFFIXES.values(), "jsonl"}:
        kind = "json" if path == "jsonl" else path
        files = by_split(data_files)
    elif local.exists():
        if local.is_dir() and is_saved(local):
            loaded = load_from_disk(local)
            return loaded[split] if split and isinstance(loaded, DatasetDict) else loaded
        kind, files = infer_files(local)
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
    if split is not None and split not in files:
        raise ConfigError(f'Unknown split "{split}". Should be one of {list(files)}.')
    wanted = {split: files[split]} if split else files
    splits = {key: load_files(kind, paths, reading, features) for key, paths in wanted.items()}
    return splits[split] if split else DatasetDict(splits)


def check_options(options: Mapping[str, Any]) -> Options:
    known = {"delimiter": "delimiter", "sep": "delimiter", "quotes": "quotes"}
    known |= {"column_names": "column_names", "field": "field"}
    said: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise ArgumentError(
                f"load_dataset has no option {name!r}", expected=nearest(name, known)
            )
        said[known[name]] = tuple(value) if name == "column_names" and value else value
    return Options(**said, said=said)


# ---------------------------------------------------------------------------- which files there are


def by_split(data_files: Any) -> dict[str, list[Path]]:
    """`data_files` in any of its forms, as existing files by split."""
    if not isinstance(data_files, Mapping):
        data_files = {"train": data_files}
    files: dict[str, list[Path]] = {}
    for split, patterns in data_files.items():
        many = [patterns] if isinstance(patterns, str | Path) else list(patterns)
        files[split] = [file for pattern in many for file in expand(str(pattern))]
    return files


def expand(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
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
    present = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    kinds: dict[str, list[Path]] = {}
    for file in present:
        suffix = file.with_suffix("").suffix if file.suffix == ".gz" else file.suffix
        if suffix.lower() in SUFFIXES:
            kinds.setdefault(SUFFIXES[suffix.lower()], []).append(file)
    if not kinds:
        raise MissingFileError(f"{path} holds no data files", expected=", ".join(SUFFIXES))
    preference = ["parquet", "arrow", "json", "csv", "tsv", "text"]
    kind = max(kinds, key=lambda k: (len(kinds[k]), -preference.index(k)))
    splits: dict[str, list[Path]] = {}
    for file in kinds[kind]:
        for split in split_of(file.relative_to(path)):
            splits.setdefault(split, []).append(file)
    if not splits:  # no name says a split, so all of it is for training
        splits = {"train": kinds[kind]}
    used = {file for files in splits.values() for file in files}
    left = [str(file.relative_to(path)) for file in present if file not in used]
    shown = ", ".join(f"{s}: {', '.join(f.name for f in fs)}" for s, fs in splits.items())
    print(f"{path}: reading {shown}" + (f"; left alone: {', '.join(left)}" if left else ""))
    return kind, {split: splits[split] for split in SPLIT_WORDS if split in splits}


def split_of(relative: Path) -> list[str]:
    """The split that a file's name says, or its folder's name; [] if neither does."""
    for part in reversed(relative.parts):
        text = part.lower().split(".")[0]
        words = "".join(c if c.isalpha() else " " for c in text).split()
        for split, known in SPLIT_WORDS.items():
            if any(word in known for word in words):
                return [split]
    return []


# ------------------------------------------------------------------------------------- reading them


def load_files(
    kind: str, paths: Sequence[Path], options: Options, features: Features | None
) -> Dataset:
    """One split, from one or more files of a format."""
    parts = []
    for path in paths:
        if not path.is_file():
            raise MissingFileError(f"there is no file {path}")
        table = READERS[kind](path, options)
        if features is not None:
            table = apply_features(table, features, path)
        stat = path.stat()
        said = features.to_dict() if features else None
        identity = (str(path.resolve()), stat.st_size, stat.st_mtime_ns, kind)
        source = fingerprint("file", identity, sorted(options.said.items()), said)
        parts.append(Dataset(table, source=source))
    return parts[0] if len(parts) == 1 else concatenate_datasets(parts)


def read_bytes(path: Path) -> bytes:
    """A file's bytes, unpacked if it is gzipped."""
    raw = path.read_bytes()
    if path.suffix == ".gz":
        try:
            return gzip.decompress(raw)
        except (OSError, EOFError) as error:
            raise DataError(f"{path} is not a complete gzip file: {error}") from None
    return raw


def read_csv(path: Path, options: Options, delimiter: str = ",") -> pa.Table:
    """A csv file with a header, or with `column_names` one without."""
    raw = read_bytes(path).removeprefix(b"\xef\xbb\xbf")  # byte-order mark
    delimiter = options.delimiter or delimiter
    text = raw.decode("utf-8", errors="strict") if raw.isascii() else decode(path, raw)
    if not text.strip():
        raise DataError(f"{path} is empty", expected="a header line and rows")
    header = text.split("\n", 1)[0].rstrip("\r").split(delimiter)
    dialect = set(header) & set(GLUE_MRPC) and delimiter == "\t" and not options.said
    quotes = not dialect if options.quotes is None else options.quotes
    names, skip = list(options.column_names or ()), 0
    if not names:
        plain: Any = {} if quotes else {"quoting": csv.QUOTE_NONE}
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **plain)
        names = unique_names(next(reader))
        skip = reader.line_num
    body = text.encode().split(b"\n", skip)[-1] if skip <= text.count("\n") else b""
    table = parse_csv(path, body, names, delimiter, quotes, skip)
    if dialect:
        table = table.rename_columns([GLUE_MRPC.get(name, name) for name in names])
    return table


def decode(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: not UTF-8 text", got=f"byte 0x{raw[error.start]:02x}"
        ) from None


def unique_names(names: Sequence[str]) -> list[str]:
    """`a,a` becomes `a`, `a.1`."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        count = seen.get(name, 0)
        unique.append(f"{name}.{count}" if count else name)
        seen[name] = count + 1
    return unique


def parse_csv(
    path: Path, body: bytes, names: list[str], delimiter: str, quotes: bool, skipped: int
) -> pa.Table:
    """Rows as text, then typed by column. A row with more or fewer cells is an error."""
    bad: list[Any] = []

    def ragged(row: Any) -> str:
        bad.append(row)
        return "skip"

    if not body.strip():
        return pa.table({name: pa.array([], pa.string()) for name in names})
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(body),
            read_options=pyarrow.csv.ReadOptions(column_names=names, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if quotes else False,
                newlines_in_values=quotes,
                invalid_row_handler=ragged,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not a readable csv file: {error}") from None
    if bad:
        row = bad[0]
        line = f":{row.number + skipped}" if row.number is not None else ""
        raise DataError(
            f"{path}{line}: a row has {row.actual_columns} cells, the header {len(names)}",
            got=f"{row.text!r:.120}",
            expected=f"{len(names)} cells: {', '.join(names)}",
            do="correct the file; in text that holds the delimiter, quote the cell "
            "(or pass quotes=False where quotes are plain characters)",
        )
    columns = [typed(table.column(name)) for name in names]
    return pa.table(columns, names=names)


def typed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text cells as integers, floats or booleans if all of them are; an empty cell is then null."""
    empty = pc.equal(pc.utf8_trim_whitespace(column), "")
    if pc.all(empty).as_py() or not len(column):
        return column
    cells = pc.if_else(empty, pa.scalar(None, pa.string()), column)
    for type_ in (pa.int64(), pa.float64()):
        try:
            return cells.cast(type_)
        except pa.ArrowInvalid:
            continue
    if pc.all(pc.is_in(cells, pa.array(["True", "False", "true", "false", None]))).as_py():
        return pc.utf8_lower(cells).cast(pa.bool_())
    return column


def read_json(path: Path, options: Options) -> pa.Table:
    """JSON lines, an array of objects, or with `field` such an array inside one object."""
    text = decode(path, read_bytes(path).removeprefix(b"\xef\xbb\xbf"))
    rows: list[Any] = []
    if text.lstrip()[:1] == "[" or options.field:
        document = parse_json(path, text, 1)
        rows = document[options.field] if options.field else document
    else:
        lines = enumerate(text.split("\n"), start=1)
        rows = [parse_json(path, line, number) for number, line in lines if line.strip()]
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(
                f"{path}: row {number} is no object",
                got=f"{row!r:.80}",
                expected='{"column": value}',
            )
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise DataError(f"{path} is empty", expected="one JSON object a line")
    return pa.table({name: json_column(path, name, rows) for name in names})


def parse_json(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{line + error.lineno - 1}:{error.colno}"
        raise DataError(f"{where}: not JSON: {error.msg}", got=f"{text[:80]!r}") from None


def json_column(path: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Array:
    try:
        return pa.array([row.get(name) for row in rows])
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        first = next(row[name] for row in rows if row.get(name) is not None)
        odd = ((i, row[name]) for i, row in enumerate(rows) if row.get(name) is not None)
        number, value = next((p for p in odd if type(p[1]) is not type(first)), (0, first))
        raise DataError(
            f"{path}: the column {name!r} mixes types, or a number needs more than 64 bits",
            got=f"row {number}: {value!r:.60} ({type(value).__name__})",
            expected=f"{type(first).__name__} as in the first row",
        ) from None


def read_text(path: Path, options: Options) -> pa.Table:
    """One row a line, in the column `text`."""
    text = decode(path, read_bytes(path)).replace("\r\n", "\n").replace("\r", "\n")
    return pa.table(
        {"text": pa.array(text.removesuffix("\n").split("\n") if text else [], pa.string())}
    )


def read_parquet(path: Path, options: Options) -> pa.Table:
    from pyarrow import parquet  # 0.1 s that other formats need not pay

    try:
        return plain_types(parquet.read_table(path))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file: {error}") from None


def plain_types(table: pa.Table) -> pa.Table:
    """Dictionary-encoded columns as what they encode."""
    for i, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(i, column.name, table.column(i).cast(column.type.value_type))
    return table


def apply_features(table: pa.Table, features: Features, path: Path) -> pa.Table:
    """The table as the given features; class names become their numbers."""
    if set(features) != set(table.column_names):
        raise DataError(
            f"{path}: features= does not name its columns",
            got=sorted(features),
            expected=sorted(table.column_names),
        )
    dataset = Dataset(table.select(list(features)).replace_schema_metadata(None))
    for name, feature in features.items():
        if isinstance(feature, ClassLabel) or arrow_type(feature) != table.schema.field(name).type:
            dataset = dataset.cast_column(name, feature)
    return dataset.table()


READERS: dict[str, Callable[[Path, Options], pa.Table]] = {
    "csv": read_csv,
    "tsv": lambda path, options: read_csv(path, options, "\t"),
    "json": read_json,
    "text": read_text,
    "parquet": read_parquet,
    "arrow": lambda path, options: plain_types(read_stream(path)),
}
