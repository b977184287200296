"""Parquet and Arrow files to tables whose types every operation knows."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from minift.data.storage import read_stream
from minift.errors import DataError
from minift_files.options import Options
from minift_files.unpacking import packed_in

READ_ROWS = 10_000
LISTS = (pa.ListType, pa.LargeListType, pa.ListViewType, pa.LargeListViewType)
PLAIN = {pa.large_string(): pa.string(), pa.string_view(): pa.string()}
PLAIN |= {pa.large_binary(): pa.binary(), pa.binary_view(): pa.binary()}


def read_parquet(path: Path, options: Options) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file, some at a time."""
    from pyarrow import parquet  # 0.1 s that other formats need not pay

    check_unpacked(path)
    try:
        if options.filters is not None:
            some = parquet.read_table(path, columns=options.columns, filters=options.filters)
            yield plain_types(some)
            return
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            names = schema.names if options.columns is None else list(options.columns)
            if missing := sorted(set(names) - set(schema.names)):
                what = f"there are no columns {', '.join(missing)}"
                raise DataError(what, expected=f"of {', '.join(schema.names)}")
            yield plain_types(schema.empty_table().select(names))
            for batch in file.iter_batches(READ_ROWS, columns=names):
                yield plain_types(pa.Table.from_batches([batch]).select(names))
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise DataError(f"{path}: {error.what}", expected=error.expected, do=error.do) from None
        raise DataError(f"{path} is not a readable parquet file: {error}") from None


def read_arrow(path: Path, options: Options) -> pa.Table | Iterator[pa.Table]:
    """Return the mapped file; yield copies of its rows if it has types that few operations know."""
    check_unpacked(path)
    table = read_stream(path)
    if plain_types(table.slice(0, 0)).schema == table.schema:
        return table
    starts = range(0, max(table.num_rows, 1), READ_ROWS)
    return (plain_types(table.slice(start, READ_ROWS)) for start in starts)


def check_unpacked(path: Path) -> None:
    """Raise a DataError if a file is packed: these formats are read from a file alone."""
    with path.open("rb") as file:
        if kind := packed_in(file):
            raise DataError(f"{path} is packed ({kind})", do="unpack it, and load what was in it")


# -------------------------------------------------------------------------------------------- types


def plain_types(table: pa.Table) -> pa.Table:
    """Return a table without large, view and coded types, which few operations on columns know.

    pandas and polars write them. A table may have any number of chunks of text of 2 GiB.
    """
    for i, field in enumerate(table.schema):
        if "map<" in str(field.type):
            what = f"the column {field.name!r} is of a type that is not read: {field.type}"
            raise DataError(what, do="name the other columns: columns=[...], for Parquet files")
        plain, column = plain_type(field.type), table.column(i)
        if field.type != plain:
            try:
                if "list_view" in str(field.type):  # Arrow's cast gives arrays that are not valid
                    raise pa.ArrowNotImplementedError
                column = column.cast(plain)
            except pa.ArrowNotImplementedError:
                column = pa.array(column.to_pylist(), plain)
            table = table.set_column(i, field.with_type(plain), column)
    return table


def plain_type(type_: pa.DataType) -> pa.DataType:
    """Return the type that holds the same values and that every operation knows."""
    types = pa.types
    if types.is_dictionary(type_) or types.is_run_end_encoded(type_):
        return plain_type(type_.value_type)
    if types.is_fixed_size_list(type_):
        return pa.list_(plain_type(type_.value_type), type_.list_size)
    if isinstance(type_, LISTS):
        return pa.list_(plain_type(type_.value_type))
    if types.is_struct(type_):
        return pa.struct([field.with_type(plain_type(field.type)) for field in type_])
    return PLAIN.get(type_, type_)
