"""Files to Arrow tables: csv, tsv, json, jsonl, text, parquet, arrow.

Columns of a csv file are read as text first and become numbers only if every cell is one and no
integer would lose a digit, so nothing is guessed row by row; what `features` calls text stays as it
was written. Errors name file and line.
"""

import bisect
import csv
import dataclasses
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from minift.data.features import ClassLabel, Features, Value, cast_array
from minift.data.storage import read_stream
from minift.errors import DataError, nearest

# The header of GLUE's own MRPC files: quotes in them are plain characters, and the columns have
# names that no other copy of MRPC uses. Pass any option of the format to load them otherwise.
GLUE_MRPC = {"Quality": "label", "#1 String": "sentence1", "#2 String": "sentence2"}


# The cells of a column of numbers; arrow would also read 0x1F, and a column of the word "nan".
WHOLE = r"^[+-]?[0-9]+$"
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
NO_NUMBER = "^[+-]?(?i:nan|inf|infinity)$"
END = "\x1eend of the file\x1e"


@dataclass(frozen=True)
class Options:
    """How to read files; None means "as the format usually is"."""

    delimiter: str | None = None
    quotes: bool | None = None
    column_names: tuple[str, ...] | None = None
    field: str | None = None
    features: Features | None = None
    # What the user passed, for fingerprints.
    said: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def read_bytes(path: Path) -> bytes:
    """A file's bytes, unpacked if it is gzipped."""
    raw = path.read_bytes()
    if path.suffix == ".gz":
        try:
            return gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is not a complete gzip file: {error}") from None
    return raw


def read_csv(path: Path, options: Options, delimiter: str = ",") -> pa.Table:
    """A csv file with a header, or with `column_names` one without."""
    text = decode(path, read_bytes(path))
    delimiter = options.delimiter or delimiter
    if not text.strip():
        raise DataError(f"{path} is empty", expected="a header line and rows")
    first = text.lstrip().partition("\n")[0].rstrip("\r").split(delimiter)
    glue = {"#1 String", "#2 String"} <= set(first) and delimiter == "\t" and not options.said
    quotes = not glue if options.quotes is None else options.quotes
    lines = io.StringIO(text, newline="")
    names, skipped = list(options.column_names or ()), 0
    if not names:
        reader = csv_rows(lines, delimiter, quotes)
        names = unique_names(next(row for row in reader if row))
        skipped = reader.line_num
    if glue:
        names = [GLUE_MRPC.get(name, name) for name in names]
    table = parse_csv(path, text[lines.tell() :], names, delimiter, quotes, skipped)
    features = options.features or Features()
    columns = [typed(table.column(name), features.get(name)) for name in names]
    return pa.table(columns, names=names)


def csv_rows(lines: Any, delimiter: str, quotes: bool) -> Any:
    """Python's own reader: slow, but it knows the line that it is at."""
    plain: Any = {} if quotes else {"quoting": csv.QUOTE_NONE}
    return csv.reader(lines, delimiter=delimiter, **plain)


def decode(path: Path, raw: bytes) -> str:
    """The text of a file in UTF-8, without a byte-order mark."""
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: not UTF-8 text", got=f"byte 0x{raw[error.start]:02x}"
        ) from None


def unique_names(names: Sequence[str]) -> list[str]:
    """`a,a` becomes `a`, `a.1`."""
    unique: list[str] = []
    for name in names:
        numbered = (f"{name}.{i}" for i in itertools.count(1))
        unique.append(next(n for n in itertools.chain([name], numbered) if n not in unique))
    return unique


def parse_csv(
    path: Path, text: str, names: list[str], delimiter: str, quotes: bool, skipped: int
) -> pa.Table:
    """The rows behind the header as text. A row with more or fewer cells is an error."""
    if not text.strip("\r\n"):
        return pa.table({name: pa.array([], pa.string()) for name in names})
    bad: list[Any] = []

    def ragged(row: Any) -> str:
        bad.append(row)
        return "skip"

    # One row more: a quote that is never closed swallows the rest of the file, and this row too.
    body = f"{text}\n{delimiter.join([END] * len(names))}\n".encode()
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(body),
            read_options=pyarrow.csv.ReadOptions(
                column_names=names, use_threads=False, block_size=min(len(body), 1 << 30)
            ),
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
        line, row = bad_line(text, len(names), delimiter, quotes)
        raise DataError(
            f"{path}:{line + skipped}: a row has {bad[0].actual_columns} cells, the header "
            f"{len(names)}",
            got=f"{row!r:.120}",
            expected=f"{len(names)} cells: {', '.join(names)}",
            do="correct the file; in text that holds the delimiter, quote the cell "
            "(or pass quotes=False where quotes are plain characters)",
        )
    rows = table.num_rows - 1
    if rows < 0 or table.column(0)[rows].as_py() != END:
        line, row = bad_line(text, len(names), delimiter, quotes)
        raise DataError(
            f"{path}:{line + skipped}: a quote is opened and never closed",
            got=f"{row!r:.120}",
            do="correct the file, or pass quotes=False where quotes are plain characters",
        )
    return table.slice(0, rows)


def bad_line(text: str, cells: int, delimiter: str, quotes: bool) -> tuple[int, list[str]]:
    """The line where the first row with another number of cells begins, or else the last row."""
    csv.field_size_limit(max(len(text), csv.field_size_limit()))
    reader = csv_rows(io.StringIO(text, newline=""), delimiter, quotes)
    line, start, row = 1, 1, []
    for row in reader:
        start, line = line, reader.line_num + 1
        if row and len(row) != cells:
            break
    return start, row


def typed(column: pa.ChunkedArray, feature: Any) -> pa.ChunkedArray:
    """Text cells as integers, floats or booleans if all of them are; an empty cell is then null.

    With a feature that is text, nothing changes: `007` keeps its zeros.
    """
    if isinstance(feature, Value) and feature.dtype in ("string", "large_string"):
        return column
    cells = pc.utf8_trim_whitespace(column)
    empty = pc.equal(cells, "")
    cells = pc.if_else(empty, pa.scalar(None, pa.string()), cells)
    if isinstance(feature, ClassLabel):  # by name; "1" may be one
        return cells
    if cells.null_count == len(cells):
        return column
    try:
        if matches(cells, WHOLE):
            return pc.utf8_ltrim(cells, "+").cast(pa.int64())
        if matches(cells, f"{NUMBER}|{NO_NUMBER}") and not matches(cells, NO_NUMBER):
            whole = cells.filter(pc.match_substring_regex(cells, WHOLE))
            pc.utf8_ltrim(whole, "+").cast(pa.int64()).cast(pa.float64())  # fails if one is rounded
            return cells.cast(pa.float64())
        if matches(cells, "^(?i:true|false)$"):
            return pc.utf8_lower(cells).cast(pa.bool_())
    except pa.ArrowInvalid:  # more digits than a number holds: they stay, as text
        pass
    return column


def matches(cells: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(cells, pattern)).as_py())


def read_json(path: Path, options: Options) -> pa.Table:
    """JSON lines, an array of objects, or with `field` such an array inside one object."""
    text = decode(path, read_bytes(path))
    rows: Any = []
    if text.lstrip()[:1] == "[" or options.field:
        rows = parse_json(path, text, 1)
        if options.field:
            if not isinstance(rows, dict) or options.field not in rows:
                known = nearest(options.field, rows) if isinstance(rows, dict) else None
                raise DataError(f"{path} has no field {options.field!r}", expected=known)
            rows = rows[options.field]
        if not isinstance(rows, list):
            raise DataError(f"{path} holds no list of objects", got=f"{rows!r:.80}")
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
        lines = text.split("\n")
        where = f"{path}:{line + error.lineno - 1}:{error.colno}"
        raise DataError(
            f"{where}: not JSON: {error.msg}",
            got=f"{lines[error.lineno - 1]!r:.80}",
            expected="one object a line, or one array of objects",
        ) from None


def json_column(path: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Array:
    values = [row.get(name) for row in rows]
    if fit(values):
        return pa.array(values)
    bad = bisect.bisect_left(range(len(values)), True, key=lambda i: not fit(values[: i + 1]))
    first = next(value for value in values if value is not None)
    raise DataError(
        f"{path}: the column {name!r} mixes types, or a number needs more than 64 bits",
        got=f"row {bad}: {values[bad]!r:.60} ({type(values[bad]).__name__})",
        expected=f"{type(first).__name__} as in the rows before",
    )


def fit(values: list[Any]) -> bool:
    """Whether Arrow has one type for all of them."""
    try:
        pa.array(values)
    except (pa.ArrowException, OverflowError):
        return False
    return True


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
    try:
        columns = [cast_array(n, table.column(n), feature) for n, feature in features.items()]
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return pa.table(columns, schema=features.arrow_schema)


READERS: dict[str, Callable[[Path, Options], pa.Table]] = {
    "csv": read_csv,
    "tsv": lambda path, options: read_csv(path, options, "\t"),
    "json": read_json,
    "text": read_text,
    "parquet": read_parquet,
    "arrow": lambda path, options: plain_types(read_stream(path)),
}
