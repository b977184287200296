"""The formats, in the order in which a folder that holds several is read."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from minift.data.features import Features
from minift.data.file_formats import FileFormat, FolderFormat
from minift.data.loading import source_of
from minift_files import saving
from minift_files.arrow_reader import read_arrow, read_parquet
from minift_files.csv_reader import read_csv
from minift_files.json_reader import read_json
from minift_files.options import Options
from minift_files.parsing import parsed
from minift_files.text_reader import read_text
from minift_files.writers import write_csv, write_json, write_parquet

CSV_OPTIONS = (
    "delimiter",
    "sep",
    "quotes",
    "column_names",
    "na_values",
    "on_bad_lines",
    "encoding",
)
TEXT_OPTIONS = ("keep_linebreaks", "sample_by", "encoding")


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
        (".parquet",), reader("parquet", read_parquet), ("columns", "filters"), write_parquet
    ),
    "arrow": FileFormat((".arrow",), reader("arrow", read_arrow)),
    "json": FileFormat(
        (".json", ".jsonl", ".ndjson"), reader("json", read_json), ("field", "encoding"), write_json
    ),
    "csv": FileFormat((".csv",), reader("csv", read_csv), CSV_OPTIONS, write_csv),
    "tsv": FileFormat(
        (".tsv",),
        reader("tsv", read_csv, delimiter="\t"),
        CSV_OPTIONS,
        partial(write_csv, sep="\t"),
    ),
    "text": FileFormat((".txt",), reader("text", read_text), TEXT_OPTIONS),
}

FOLDERS = {"disk": FolderFormat(saving.is_saved, saving.read, saving.save)}
