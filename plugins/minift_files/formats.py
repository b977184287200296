"""The formats, in the order in which a folder that holds several is read."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from minift.data.features import Features
from minift.data.file_formats import FileFormat, FolderFormat
from minift_files import readers, saving, writers
from minift_files.readers import Options

CSV_OPTIONS = ("delimiter", "sep", "quotes", "column_names", "na_values", "on_bad_lines")


def reader(read: Callable[..., pa.Table], **fixed: Any) -> Callable[..., pa.Table]:
    """Return a reader with the signature that `FileFormat.read` has."""

    def read_file(path: Path, options: Mapping[str, Any], features: Features | None) -> pa.Table:
        named = {"delimiter" if name == "sep" else name: value for name, value in options.items()}
        return read(path, Options(**named, features=features), **fixed)

    return read_file


FORMATS = {
    "parquet": FileFormat(
        (".parquet",), reader(readers.read_parquet), ("columns", "filters"), writers.write_parquet
    ),
    "arrow": FileFormat((".arrow",), reader(readers.read_arrow), maps=True),
    "json": FileFormat(
        (".json", ".jsonl", ".ndjson"), reader(readers.read_json), ("field",), writers.write_json
    ),
    "csv": FileFormat((".csv",), reader(readers.read_csv), CSV_OPTIONS, writers.write_csv),
    "tsv": FileFormat(
        (".tsv",),
        reader(readers.read_csv, delimiter="\t"),
        CSV_OPTIONS,
        functools.partial(writers.write_csv, sep="\t"),
    ),
    "text": FileFormat((".txt",), reader(readers.read_text), ("keep_linebreaks", "sample_by")),
}

FOLDERS = {"disk": FolderFormat(saving.is_saved, saving.read, saving.save)}
