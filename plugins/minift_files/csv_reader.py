"""Delimited files to Arrow tables, block by block: csv and tsv.

Columns are read as text and become numbers only if every cell of the file is one and no integer
would lose a digit.
"""

import csv
import dataclasses
import io
import itertools
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from minift.data.features import Features
from minift.errors import DataError
from minift_files.cells import as_type, is_text, read_cells, type_of
from minift_files.options import Options
from minift_files.parsing import in_types_of_all
from minift_files.unpacking import BLOCK, text_blocks

# The header of GLUE's own MRPC files: quotes in them are plain characters, and the columns have
# names that no other copy of MRPC uses. Pass any option of the format to load them otherwise.
GLUE_MRPC = {"Quality": "label", "#1 String": "sentence1", "#2 String": "sentence2"}

# A row that is added to each file: a quote that is never closed would swallow it.
END = "\x03\x04\x03"

# What pandas takes for a missing value, quoted or not.
PANDAS_NA = ["", "#N/A N/A", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"]
PANDAS_NA += ["#N/A", "#NA", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"]


def read_csv(path: Path, options: Options, delimiter: str = ",") -> Iterator[pa.Table]:
    """Return the rows of a file with a header, or with `column_names` of one without.

    Where a table has another schema than the one before it, the file begins anew: see parsing.py.
    """
    layout = read_layout(path, options, delimiter)
    if hint := layout.delimiter_hint():
        warnings.warn(f"{path}: the only column is {layout.names[0]!r:.80}; {hint}")
    features = options.features or Features()
    kinds = {name: {"text"} if is_text(features.get(name)) else set() for name in layout.names}

    def note(cells: pa.Table) -> dict[str, pa.ChunkedArray]:
        """Add the kinds of these cells; return the columns, those of numbers as such."""
        columns = {}
        for name, seen in kinds.items():
            columns[name], new = read_cells(cells.column(name), seen)
            seen |= new
        return columns

    def types() -> pa.Schema:
        return pa.schema([(name, type_of(seen)) for name, seen in kinds.items()])

    def typed(cells: pa.Table, columns: Mapping[str, pa.ChunkedArray]) -> pa.Table:
        """Return cells in the types that fit all so far."""
        fitting = dict(columns)
        for name, type_ in zip(kinds, types().types, strict=True):
            if columns[name].type != type_ or name in features:
                fitting[name] = as_type(cells.column(name), type_, features.get(name))
        return pa.table(fitting)

    return in_types_of_all(lambda: larger(text_tables(layout)), note, types, typed)


# --------------------------------------------------------------------------------------- the header


@dataclass(frozen=True)
class Layout:
    """How a file is laid out: its columns, and the bytes of UTF-8 before the first row."""

    path: Path
    options: Options
    names: list[str]
    start: int = 0

    def delimiter_hint(self) -> str:
        """Return what may be wrong where the name of an only column holds a delimiter."""
        only = self.names[0] if len(self.names) == 1 else ""
        held = next((c for c in ",;\t|" if c in only), "")
        return f"if {held!r} separates columns, pass sep={held!r}" if held else ""

    def rows(self, lines: Any) -> Any:
        """Return Python's own reader: slow, but it knows the line that it is at."""
        csv.field_size_limit((1 << 31) - 1)
        plain: Any = {} if self.options.quotes else {"quoting": csv.QUOTE_NONE}
        return csv.reader(lines, delimiter=self.options.delimiter, **plain)


def read_layout(path: Path, options: Options, delimiter: str) -> Layout:
    """Return the layout of a file from its first block.

    Raises:
        DataError: the file is empty, or its header does not end.
    """
    blocks = text_blocks(path, options.encoding)
    head = next(blocks, b"").decode()
    if not head.strip():
        raise DataError(f"{path} is empty", expected="a header line and rows")
    delimiter = options.delimiter or delimiter
    first = head.lstrip().partition("\n")[0].rstrip("\r").split(delimiter)
    any_option = dataclasses.replace(options, features=None) != Options()
    glue = {"#1 String", "#2 String"} <= set(first) and delimiter == "\t" and not any_option
    quotes = not glue if options.quotes is None else options.quotes
    options = dataclasses.replace(options, delimiter=delimiter, quotes=quotes)
    if options.column_names:
        return Layout(path, options, list(options.column_names))
    lines = io.StringIO(f"{head}\n{END}", newline="")
    row = next(filter(None, Layout(path, options, []).rows(lines)))
    if END in row[-1] or (lines.tell() > len(head) and next(blocks, b"")):
        raise DataError(
            f"{path}: the header does not end, or a quote in it is never closed",
            got=f"{row[-1]!r:.120}",
            do="correct the file, or pass quotes=False where quotes are plain characters",
        )
    names = [name or f"Unnamed: {i}" for i, name in enumerate(row)]  # as pandas calls them
    names = [GLUE_MRPC.get(name, name) if glue else name for name in unique_names(names)]
    return Layout(path, options, names, len(head[: lines.tell()].encode()))


def unique_names(names: Sequence[str]) -> list[str]:
    """Return `a,a` as `a`, `a.1`."""
    unique: list[str] = []
    for name in names:
        numbered = (f"{name}.{i}" for i in itertools.count(1))
        unique.append(next(n for n in itertools.chain([name], numbered) if n not in unique))
    return unique


# ----------------------------------------------------------------------------------------- the rows


def text_tables(layout: Layout) -> Iterator[pa.Table]:
    """Yield the rows, all cells as text; at least one table."""
    bad: list[int] = []  # how many cells the rows of a wrong length have
    skip, count = layout.options.on_bad_lines == "skip", len(layout.names)
    table = pa.table({name: pa.array([], pa.string()) for name in layout.names})
    for following in parse(layout, bad):
        if bad and not skip:
            break
        if table.num_rows:
            yield table
        table = following
    if bad and not skip:
        raise bad_row(layout, f"a row has {bad[0]} cells, the header {count}", count)
    if not table.num_rows or table.column(0)[-1].as_py() != END:
        raise bad_row(layout, "a quote is opened and never closed")
    if bad:
        warnings.warn(f"{layout.path}: {len(bad)} rows have not {count} cells and are skipped")
    yield table.slice(0, table.num_rows - 1)


def larger(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows in fewer tables, so that fewer calls are made for each column."""
    while some := list(itertools.islice(tables, 8)):
        yield pa.concat_tables(some)


def parse(layout: Layout, bad: list[int]) -> Iterator[pa.Table]:
    """Yield what Arrow's parser makes of the rows and, behind them, of the row END.

    A row must fit into two blocks. If one does not, reading begins again with larger blocks, and
    the rows that are out already are passed over.
    """
    done = 0
    for size in (BLOCK, BLOCK << 4, BLOCK << 8):
        seen = 0
        bad.clear()
        try:
            for table in parse_blocks(layout, bad, size):
                seen += table.num_rows
                if seen > done:
                    yield table.slice(max(done - (seen - table.num_rows), 0))
                    done = seen
            return
        except pa.ArrowInvalid as error:
            if "straddling" not in str(error):
                raise DataError(f"{layout.path} is not a readable csv file: {error}") from None
    raise bad_row(layout, "a row has more than a gigabyte, or a quote is never closed")


def parse_blocks(layout: Layout, bad: list[int], size: int) -> Iterator[pa.Table]:
    """Yield what Arrow's parser makes of blocks of a size; note the lengths of ragged rows."""
    options, names = layout.options, layout.names

    def ragged(row: Any) -> str:
        bad.append(row.actual_columns)
        return "skip"

    def blocks() -> Iterator[bytes]:
        text = text_blocks(layout.path, options.encoding, size)
        if rows := next(text)[layout.start :]:
            yield rows
        yield from text
        yield f"\n{options.delimiter.join([END] * len(names))}\n".encode()

    file = Blocks(blocks())
    batches = pyarrow.csv.open_csv(
        pa.BufferedInputStream(pa.PythonFile(file, mode="r"), size),
        read_options=pyarrow.csv.ReadOptions(column_names=names, block_size=size),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=options.delimiter,
            quote_char='"' if options.quotes else False,
            newlines_in_values=options.quotes,
            invalid_row_handler=ragged,
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            check_utf8=False,  # it is what text_blocks yields
            column_types={name: pa.string() for name in names},
            null_values=PANDAS_NA,
            strings_can_be_null=bool(options.na_values),
        ),
    )
    # Arrow's threads give objects of Python's back some time after the last batch. One that does so
    # while the interpreter ends aborts the process, so wait for both.
    given_back = [threading.Event(), threading.Event()]
    for held, event in zip((file, ragged), given_back, strict=True):
        weakref.finalize(held, event.set)
    try:
        for batch in batches:
            yield pa.Table.from_batches([batch])
    finally:
        del batches, file, ragged, held
        for event in given_back:
            event.wait(timeout=10)


class Blocks(io.RawIOBase):
    """Blocks of bytes as a file that Arrow can read."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self.blocks, self.rest = blocks, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, but none that end between \\r and \\n.

        Where the bytes after those complete no row, Arrow takes it for the end of the file.
        """
        while len(self.rest) < size and (block := next(self.blocks, b"")):
            self.rest += block
        end = min(size, len(self.rest))
        end -= end > 1 and self.rest[end - 1 : end] == b"\r"
        block, self.rest = self.rest[:end], self.rest[end:]
        return block


def lines_of(blocks: Iterator[bytes]) -> Iterator[str]:
    """Yield the lines of a text, with their ends."""
    rest = ""
    for block in blocks:
        *lines, rest = io.StringIO(rest + block.decode(), newline="")
        yield from lines
    yield rest


def bad_row(layout: Layout, what: str, cells: int = 0) -> DataError:
    """Return the error of the first row that has another number of cells, or else of the last."""
    reader = layout.rows(lines_of(text_blocks(layout.path, layout.options.encoding)))
    following, start, row = 1, 1, []
    for row in reader:
        start, following = following, reader.line_num + 1
        if cells and row and len(row) != cells:
            break
    expected = f"{len(layout.names)} cells: {', '.join(layout.names):.200}"
    do = "correct the file; in text that holds the delimiter, quote the cell "
    do = layout.delimiter_hint() or f"{do}(or pass quotes=False where quotes are plain characters)"
    what = f"{layout.path}:{start}: {what}"
    return DataError(what, got=f"{row!r:.120}", expected=expected, do=do)
