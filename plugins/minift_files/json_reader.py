"""JSON files to Arrow tables, block by block.

Each block has types of its own. Where every column is plain, Arrow's parser reads the blocks after
the first.
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from minift.data.features import JSON, Features, Json, as_array, holds, to_objects
from minift.errors import DataError, convert_rows, nearest
from minift_files.json_values import Quick, Values
from minift_files.options import Options
from minift_files.parsing import in_types_of_all
from minift_files.unpacking import text_blocks

PLAIN = [pa.string(), pa.int64(), pa.bool_(), pa.float64()]
PLAIN += [pa.list_(type_) for type_ in PLAIN[:3]]
BLOCK = 4 << 20  # bytes: enough for several threads
EXACT = 2.0**53  # whole numbers below it are floats, too


class Piece(NamedTuple):
    """Some rows of a file, the first of which has this number: a list of objects, or a table."""

    start: int
    rows: Any


def read_json(path: Path, options: Options) -> Iterator[pa.Table]:
    """Return the rows of a file: objects, or texts, which become the column `text`.

    Where a table has another schema than the one before it, the file begins anew: see parsing.py.
    """
    columns = Columns(path, options.features or Features())

    def pieces() -> Iterator[Piece]:
        yield from read_pieces(path, options, columns.quick)
        columns.check()

    return in_types_of_all(pieces, columns.note, lambda: columns.schema, columns.table)


# ------------------------------------------------------------------------------------------ columns


class Columns:
    """The columns of a file, as far as it is read.

    Attributes:
        types: {column: the type that fits all rows so far}.
        mixed: {column: the error of the first row that does not fit those before}.
        nested: the columns that have lists or dicts: their types may mix.
    """

    def __init__(self, path: Path, features: Features) -> None:
        self.path, self.features = path, features
        self.types: dict[str, pa.DataType] = {}
        self.mixed: dict[str, DataError] = {}
        self.nested: set[str] = set()

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(list(self.types.items()))

    def note(self, piece: Piece) -> dict[str, Any]:
        """Widen the types to fit a piece; return its columns in types of their own."""
        if isinstance(piece.rows, pa.Table):
            return dict(zip(piece.rows.column_names, piece.rows.columns, strict=True))
        names = dict.fromkeys(name for row in piece.rows for name in row)
        if piece.rows and not names and not self.types:
            raise DataError(f"{self.path} has no columns", expected='{"column": value}')
        names = {**self.types, **(names if piece.rows else self.features)}
        return {name: self.note_column(name, piece) for name in names}

    def note_column(self, name: str, piece: Piece) -> pa.Array:
        """Widen the type of one column; one whose types mix is Json from then on."""
        values = [row.get(name) for row in piece.rows]
        if any(isinstance(value, list | dict) for value in values):
            self.nested.add(name)
        known, feature = self.types.get(name, pa.null()), self.features.get(name)

        def convert(some: list[Any], wanted: Any) -> pa.Array:
            array = as_array(name, some, wanted)
            what = f"the values of column {name!r} mix types"
            if pa.types.is_floating(array.type) and any(isinstance(one, bool) for one in some):
                raise DataError(f"{what}: true is not 1.0")
            if unify(known, array.type) is None:
                raise DataError(what, expected=f"{known} as in the rows before")
            return array

        def converted(wanted: Any) -> pa.Array:
            return convert_rows(str(self.path), values, lambda v: convert(v, wanted), piece.start)

        if known == JSON and not holds(feature, Json):
            return converted(Json())
        try:
            array = converted(feature if holds(feature, Json) else None)
        except DataError as error:
            self.mixed.setdefault(name, error)
            array = converted(Json())
        self.types[name] = unify(known, array.type)
        return array

    def check(self) -> None:
        """Raise the error of a column that mixes texts, numbers or booleans, and nothing else."""
        for name, error in self.mixed.items():
            if name not in self.nested:
                raise error

    def table(self, piece: Piece, arrays: Mapping[str, Any]) -> pa.Table:
        """Return a piece, of these columns, in the types that fit so far."""
        columns = []
        for name, wanted in self.types.items():
            array = arrays[name]
            if wanted == JSON and array.type != JSON:
                array = as_array(name, to_objects(array), Json())
            what = f"{self.path}: the values of column {name!r} mix types"
            cast = functools.partial(pc.cast, target_type=wanted)
            columns.append(convert_rows(what, array, cast, piece.start))
        return pa.table(columns, schema=self.schema)

    def quick(self, lines: bytes) -> pa.Table | None:
        """Return lines of objects as a table, if they surely are what Python's parser would give.

        Arrow's parser is told the types: it would guess dates, and fill up dicts.
        """
        json = any(holds(feature, Json) for feature in self.features.values())
        if json or not self.types or any(type_ not in PLAIN for type_ in self.types.values()):
            return None
        # One object a line, no blank: Arrow takes a null for an object, and crashes on the first.
        text = np.frombuffer(lines, np.uint8)
        ends = np.flatnonzero(text == ord("\n"))
        if lines[:1] != b"{" or (text[ends[:-1] + 1] != ord("{")).any():
            return None
        how = pyarrow.json.ParseOptions(
            explicit_schema=self.schema, unexpected_field_behavior="error"
        )
        try:
            table = pyarrow.json.read_json(pa.BufferReader(lines), parse_options=how)
        except pa.ArrowException:
            return None
        floats = [c for c in table.columns if pa.types.is_floating(c.type)]
        exact = all(pc.all(pc.less(pc.abs(column), EXACT)).as_py() for column in floats)
        return table if exact and table.num_rows == len(ends) else None  # a longer one was rounded


def unify(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type for values of both; None if there is none, as for numbers and text."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_list(one) and pa.types.is_list(other):
        inner = unify(one.value_type, other.value_type)
        return JSON if inner in (None, JSON) else pa.list_(inner)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {field.name: field.type for field in other}
        types = {f.name: unify(f.type, fields.get(f.name, JSON)) for f in one}
        same = set(types) == set(fields) and not {None, JSON}.intersection(types.values())
        return pa.struct(list(types.items())) if same else JSON
    nested = pa.types.is_nested(one) or pa.types.is_nested(other)
    return JSON if nested or JSON in (one, other) else None


# --------------------------------------------------------------------------------------------- rows


def read_pieces(path: Path, options: Options, quick: Quick) -> Iterator[Piece]:
    """Yield the rows of a file a block at a time; at least one piece."""
    blocks = text_blocks(path, options.encoding, BLOCK)
    parser, start, texts, held = Values(path), 0, False, Piece(0, [])
    if options.field is not None:
        values = parser.parse(b"".join(blocks).decode(), True)[0]
        parts: Iterator[Any] = iter([rows_in_field(path, options.field, values)])
    else:
        parts = parser.read(blocks, quick)
    for values in parts:
        if not len(values):
            continue
        if start:
            yield held
        elif not isinstance(values, pa.Table):
            texts = all(isinstance(value, str | None) for value in values)
        held = Piece(start, as_rows(path, start, values, texts))
        start += len(values)
    alone = start == 1 and options.field is None and not parser.array
    if alone and not texts and path.suffix not in (".jsonl", ".ndjson"):
        check_only_row(path, held.rows[0])
    yield held


def as_rows(path: Path, start: int, values: Any, texts: bool) -> Any:
    """Return values as rows: objects and tables as they are, texts in the column `text`."""
    if isinstance(values, pa.Table):
        return values
    for number, value in enumerate(values, start):
        if not isinstance(value, (str | None) if texts else dict):
            raise DataError(
                f"{path}: row {number} is no {'text' if texts else 'object'}",
                got=f"{value!r:.80}",
                expected="text, as before it" if texts else '{"column": value}',
            )
    return [{"text": value} for value in values] if texts else values


def rows_in_field(path: Path, field: str, values: list[Any]) -> list[Any]:
    """Return what is under a key of the one object in a file: rows, or columns, as rows."""
    content = values[0] if len(values) == 1 and isinstance(values[0], dict) else {}
    if field not in content:
        raise DataError(f"{path} has no field {field!r}", expected=nearest(field, content))
    rows = content[field]
    columns = as_columns(rows)
    if columns:
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if not isinstance(rows, list):
        what = f"{path} holds no list of objects under {field!r}"
        raise DataError(what, got=f"{rows!r:.80}", expected='[{"column": value}, ...]')
    return rows


def as_columns(content: Any) -> dict[str, list[Any]]:
    """Return {column: values} if an object is a table by columns, as pandas writes it; else {}."""
    if not isinstance(content, dict) or not content:
        return {}
    parts = list(content.values())
    if all(isinstance(part, dict) and part.keys() == parts[0].keys() for part in parts):
        return {name: list(part.values()) for name, part in content.items()}
    lists = all(isinstance(part, list) and len(part) == len(parts[0]) for part in parts)
    return content if lists else {}


def check_only_row(path: Path, row: dict[str, Any]) -> None:
    """Raise a DataError if the one object in a file looks like a whole table."""
    one = "if it is one row, put it in [ ], or call the file .jsonl"
    rows = [name for name, value in row.items() if isinstance(value, list) and value]
    rows = [name for name in rows if all(isinstance(item, dict) for item in row[name])]
    if rows:
        what = f"{path} holds one object, and rows under its key {rows[0]!r}"
        raise DataError(what, got=f"keys {list(row)!r:.200}", do=f"pass field={rows[0]!r}; {one}")
    split = set(row) == {"columns", "index", "data"}  # as pandas writes it with orient="split"
    if split or as_columns(row):
        do = f"Dataset.from_dict(json.load(open({str(path)!r})))"
        if split or isinstance(next(iter(row.values())), dict):
            orient = "split" if split else "index" if all(map(str.isdigit, row)) else "columns"
            frame = f"pandas.read_json({str(path)!r}, orient={orient!r})"
            do = f"Dataset.from_pandas({frame}, preserve_index=False)"
        what = f"{path} holds one object, whose keys look like columns"
        raise DataError(what, got=f"keys {list(row)!r:.200}", do=f"{do}; {one}")
