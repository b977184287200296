"""The formats, in the order in which a folder that holds several is read."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from minift.data.features import Features
from minift.data.file_formats import FileFormat, FolderFormat
from minift.data.loading import source_of
from minift_files import arrow_reader, csv_reader, json_reader, saving, text_reader, writers
from minift_files.options import Options
from minift_files.parsing import parsed

CSV_OPTIONS = (
    "delimiter",
    "sep",
    "quotes",
    "column_names",
    "na_values",
    "on_bad_lines",
    "encoding",
)


def reader(name: str, read: Callable[..., Any], **fixed: Any) -> Callable[..., pa.Table]:
    """Return the reader of a format with the signature that `FileFormat.read` has."""

    def read_file(path: Path, options: Mapping[str, Any], features: Features | None) -> pa.Table:
        named = {"delimiter" if key == "sep" else key: value for key, value in options.items()}
        chosen = Options(**named, features=features)
        rows = read(path, chosen, **fixed)
        if isinstance(rows, pa.Table):
            return rows
        source = source_of(name, path, options, features)
        meta = {"function": f"load_dataset({name})", "source": str(path)}
        return parsed(path, lambda: read(path, chosen, **fixed), features, source, meta)

    return read_file


FORMATS = {
    "parquet": FileFormat(
        (".parquet",),
        reader("parquet", arrow_reader.read_parquet),
        ("columns", "filters"),
        writers.write_parquet,
    ),
    "arrow": FileFormat((".arrow",), reader("arrow", arrow_reader.read_arrow)),
    "json": FileFormat(
        (".json", ".jsonl", ".ndjson"),
        reader("json", json_reader.read_json),
        ("field", "encoding"),
        writers.write_json,
    ),
    "csv": FileFormat(
        (".csv",), reader("csv", csv_reader.read_csv), CSV_OPTIONS, writers.write_csv
    ),
    "tsv": FileFormat(
        (".tsv",),
        reader("tsv", csv_reader.read_csv, delimiter="\t"),
        CSV_OPTIONS,
        functools.partial(writers.write_csv, sep="\t"),
    ),
    "text": FileFormat(
        (".txt",),
        reader("text", text_reader.read_text),
        ("keep_linebreaks", "sample_by", "encoding"),
    ),
}

FOLDERS = {"disk": FolderFormat(saving.is_saved, saving.read, saving.save)}
