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
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from minift.data.features import ClassLabel, Features, Json, Value, as_array, holds
from minift.data.storage import read_stream
from minift.errors import ConfigError, DataError, nearest

# The header of GLUE's own MRPC files: quotes in them are plain characters, and the columns have
# names that no other copy of MRPC uses. Pass any option of the format to load them otherwise.
GLUE_MRPC = {"Quality": "label", "#1 String": "sentence1", "#2 String": "sentence2"}


# The cells of a column of numbers; arrow would also read 0x1F, and a column of the word "nan".
WHOLE = r"^[+-]?[0-9]+$"
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
NO_NUMBER = "^[+-]?(?i:nan|inf|infinity)$"
END = "\x1eend of the file\x1e"

# What pandas takes for a missing value, quoted or not.
PANDAS_NA = ["", "#N/A N/A", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"]
PANDAS_NA += ["#N/A", "#NA", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"]


@dataclass(frozen=True)
class Options:
    """How to read files; None means "as the format usually is"."""

    delimiter: str = ""
    quotes: bool | None = None
    column_names: Sequence[str] | None = None
    na_values: Literal[None, "pandas"] = None
    on_bad_lines: Literal["error", "skip"] = "error"
    field: str | None = None
    keep_linebreaks: bool = False
    sample_by: Literal["line", "paragraph", "document"] = "line"
    columns: Sequence[str] | None = None
    filters: Any = None
    features: Features | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, known = getattr(self, field.name), get_args(field.type)
            if get_origin(field.type) is Literal and value not in known:
                raise ConfigError(f"no such {field.name}", got=repr(value), expected=known)


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
    any_option = dataclasses.replace(options, features=None) != Options()
    glue = {"#1 String", "#2 String"} <= set(first) and delimiter == "\t" and not any_option
    quotes = not glue if options.quotes is None else options.quotes
    options = dataclasses.replace(options, delimiter=delimiter, quotes=quotes)
    lines = io.StringIO(text, newline="")
    names, skipped = list(options.column_names or ()), 0
    if not names:
        reader = csv_rows(lines, options)
        names = unique_names(next(row for row in reader if row))
        skipped = reader.line_num
    if glue:
        names = [GLUE_MRPC.get(name, name) for name in names]
    table = parse_csv(path, text[lines.tell() :], names, skipped, options)
    features = options.features or Features()
    columns = [typed(table.column(name), features.get(name)) for name in names]
    return pa.table(columns, names=names)


def csv_rows(lines: Any, options: Options) -> Any:
    """Python's own reader: slow, but it knows the line that it is at."""
    plain: Any = {} if options.quotes else {"quoting": csv.QUOTE_NONE}
    return csv.reader(lines, delimiter=options.delimiter, **plain)


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


def parse_csv(path: Path, text: str, names: list[str], skipped: int, options: Options) -> pa.Table:
    """The rows behind the header as text. A row with more or fewer cells is an error or skipped."""
    if not text.strip("\r\n"):
        return pa.table({name: pa.array([], pa.string()) for name in names})
    bad: list[Any] = []

    def ragged(row: Any) -> str:
        bad.append(row)
        return "skip"

    # One row more: a quote that is never closed swallows the rest of the file, and this row too.
    body = f"{text}\n{options.delimiter.join([END] * len(names))}\n".encode()
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(body),
            read_options=pyarrow.csv.ReadOptions(
                column_names=names, use_threads=False, block_size=min(len(body), 1 << 30)
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=options.delimiter,
                quote_char='"' if options.quotes else False,
                newlines_in_values=options.quotes,
                invalid_row_handler=ragged,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                null_values=PANDAS_NA,
                strings_can_be_null=bool(options.na_values),
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not a readable csv file: {error}") from None
    rows, skip = table.num_rows - 1, options.on_bad_lines == "skip"
    closed = rows >= 0 and table.column(0)[rows].as_py() == END
    if not closed or (bad and not skip):
        line, row = bad_line(text, 0 if skip else len(names), options)
        what = "a quote is opened and never closed"
        if bad and not skip:
            what = f"a row has {bad[0].actual_columns} cells, the header {len(names)}"
        raise DataError(
            f"{path}:{line + skipped}: {what}",
            got=f"{row!r:.120}",
            expected=f"{len(names)} cells: {', '.join(names)}",
            do="correct the file; in text that holds the delimiter, quote the cell "
            "(or pass quotes=False where quotes are plain characters)",
        )
    if bad:
        warnings.warn(f"{path}: {len(bad)} rows have not {len(names)} cells and are skipped")
    return table.slice(0, rows)


def bad_line(text: str, cells: int, options: Options) -> tuple[int, list[str]]:
    """The line where the first row with another number of cells begins, or else the last row."""
    csv.field_size_limit(max(len(text), csv.field_size_limit()))
    reader = csv_rows(io.StringIO(text, newline=""), options)
    line, start, row = 1, 1, []
    for row in reader:
        start, line = line, reader.line_num + 1
        if cells and row and len(row) != cells:
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
    """JSON lines, an array, one object, or with `field` an array inside one object.

    The rows are objects; or strings, which become the column `text`.
    """
    text = decode(path, read_bytes(path))
    first = text.strip().partition("\n")[0].rstrip()
    rows: Any = []
    # The first of several lines ends as a row ends, unless it begins what they all are.
    if first and (first[0] == "[" or options.field or first[-1] not in '}"'):
        rows = parse_json(path, text, 1)
        if options.field:
            if not isinstance(rows, dict) or options.field not in rows:
                known = nearest(options.field, rows) if isinstance(rows, dict) else None
                raise DataError(f"{path} has no field {options.field!r}", expected=known)
            rows = rows[options.field]
        elif isinstance(rows, dict):
            rows = [rows]
        if not isinstance(rows, list):
            raise DataError(f"{path} holds no list of objects", got=f"{rows!r:.80}")
    else:
        lines = enumerate(text.split("\n"), start=1)
        rows = [parse_json(path, line, number) for number, line in lines if line.strip()]
    if all(isinstance(row, str | None) for row in rows):
        rows = [{"text": row} for row in rows]
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(
                f"{path}: row {number} is no object",
                got=f"{row!r:.80}",
                expected='{"column": value}',
            )
    features = options.features or Features()
    names = list(dict.fromkeys(name for row in rows for name in row)) or list(features)
    if rows and not names:
        raise DataError(f"{path} has no columns", expected='{"column": value}')
    return pa.table({name: json_column(path, name, rows, features.get(name)) for name in names})


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


def json_column(path: Path, name: str, rows: Sequence[Mapping[str, Any]], feature: Any) -> pa.Array:
    """The values of a key; dicts that no struct fits, because types vary in them, are Json."""
    values = [row.get(name) for row in rows]
    if holds(feature, Json):
        return as_array(name, values, feature)
    if fit(values):
        return as_array(name, values)
    items = [item for value in values for item in (value if isinstance(value, list) else [value])]
    if all(isinstance(item, dict | None) for item in items):
        return as_array(name, values, Json())
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
    """One row a line, paragraph or document, in the column `text`."""
    text = decode(path, read_bytes(path)).replace("\r\n", "\n").replace("\r", "\n")
    rows = [text]
    if options.sample_by == "paragraph":
        rows = [paragraph for paragraph in text.split("\n\n") if paragraph]
    elif options.sample_by == "line":
        rows = io.StringIO(text).readlines()
        if not options.keep_linebreaks:
            rows = [row.removesuffix("\n") for row in rows]
    return pa.table({"text": pa.array(rows, pa.string())})


def read_parquet(path: Path, options: Options) -> pa.Table:
    from pyarrow import parquet  # 0.1 s that other formats need not pay

    try:
        table = parquet.read_table(path, columns=options.columns, filters=options.filters)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable parquet file: {error}") from None
    return plain_types(table)


def read_arrow(path: Path, options: Options) -> pa.Table:
    return plain_types(read_stream(path))


def plain_types(table: pa.Table) -> pa.Table:
    """Dictionary-encoded columns as what they encode."""
    for i, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(i, column.name, table.column(i).cast(column.type.value_type))
    return table
