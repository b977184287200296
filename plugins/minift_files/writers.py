"""Datasets to csv, JSON lines and parquet, some rows at a time."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pyarrow.csv

from minift.data.dataset import Dataset
from minift.data.features import Json, List
from minift.data.formatting import to_lists
from minift.errors import DataError
from minift.files import new_file
from minift_files.saving import tables


def target(path: Path) -> AbstractContextManager[Path]:
    """Return where to write a file: beside it, until it is whole; a pipe or a device itself."""
    path = path.resolve()
    return new_file(path) if path.is_file() or not path.exists() else nullcontext(path)


def write_csv(dataset: Dataset, path: Path, sep: str = ",", header: bool = True) -> None:
    """Columns of text and numbers; lists and dicts do not fit into cells."""
    nested = [n for n, f in dataset.features.items() if isinstance(f, List | Json | dict)]
    if nested:
        raise DataError("csv has no place for lists and dicts", got=nested, do="use to_json")
    options = pyarrow.csv.WriteOptions(include_header=header, delimiter=sep)
    schema = dataset.features.arrow_schema
    with target(path) as file, pyarrow.csv.CSVWriter(file, schema, write_options=options) as writer:
        for table in tables(dataset):
            writer.write_table(table)


def write_json(dataset: Dataset, path: Path, lines: bool = True) -> None:
    """A JSON object a line, or one array of them."""
    with target(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        rows = (
            json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, default=str)
            for columns in map(to_lists, tables(dataset))
            for row in zip(*columns.values(), strict=True)
        )
        if lines:
            file.writelines(f"{row}\n" for row in rows)
        else:
            file.write(f"[{', '.join(rows)}]\n")


def write_parquet(dataset: Dataset, path: Path) -> None:
    """With the features in its schema, so that class names come back."""
    from pyarrow import parquet

    schema = dataset.features.arrow_schema
    with target(path) as file, parquet.ParquetWriter(file, schema) as writer:
        for table in tables(dataset):
            writer.write_table(table.cast(schema))
