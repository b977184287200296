"""`DatasetDict`: splits by name, and datasets on disk.

`save_to_disk` writes the layout that `datasets` writes (state.json, dataset_info.json and IPC
stream files), with the length and checksum of each file added to what it says about them, so that
a damaged folder is an error here and the folder still opens there.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from minift.data import storage
from minift.data.dataset import Dataset
from minift.data.features import Features
from minift.errors import DataError, MissingFileError


class DatasetDict(dict[str, Dataset]):
    """{"train": Dataset, "validation": Dataset, ...}; what is done to it is done to each."""

    def __getitem__(self, key: str) -> Dataset:
        if isinstance(key, str) and key in self:  # a slice has no hash
            return super().__getitem__(key)
        raise KeyError(
            f"Invalid key: {key!r}. Please first select a split. Available splits: {sorted(self)}"
        )

    def _each(self, method: Callable[..., Dataset], *args: Any, **options: Any) -> "DatasetDict":
        return DatasetDict({name: method(ds, *args, **options) for name, ds in self.items()})

    @property
    def num_rows(self) -> dict[str, int]:
        return {name: ds.num_rows for name, ds in self.items()}

    @property
    def column_names(self) -> dict[str, list[str]]:
        return {name: ds.column_names for name, ds in self.items()}

    @property
    def shape(self) -> dict[str, tuple[int, int]]:
        return {name: ds.shape for name, ds in self.items()}

    def map(self, function: Callable[..., Any] | None = None, **options: Any) -> "DatasetDict":
        return self._each(Dataset.map, function, **options)

    def filter(self, function: Any, **options: Any) -> "DatasetDict":
        return self._each(Dataset.filter, function, **options)

    def shuffle(self, seed: int | None = None) -> "DatasetDict":
        return self._each(Dataset.shuffle, seed)

    def sort(self, column_names: Any, reverse: bool = False) -> "DatasetDict":
        return self._each(Dataset.sort, column_names, reverse)

    def select_columns(self, column_names: Any) -> "DatasetDict":
        return self._each(Dataset.select_columns, column_names)

    def remove_columns(self, column_names: Any) -> "DatasetDict":
        return self._each(Dataset.remove_columns, column_names)

    def rename_column(self, original_column_name: str, new_column_name: str) -> "DatasetDict":
        return self._each(Dataset.rename_column, original_column_name, new_column_name)

    def rename_columns(self, column_mapping: dict[str, str]) -> "DatasetDict":
        return self._each(Dataset.rename_columns, column_mapping)

    def cast_column(self, column: str, feature: Any) -> "DatasetDict":
        return self._each(Dataset.cast_column, column, feature)

    def with_format(
        self, type: str | None = None, columns: Any = None, **options: Any
    ) -> "DatasetDict":
        return self._each(Dataset.with_format, type, columns, **options)

    def set_format(self, type: str | None = None, columns: Any = None, **options: Any) -> None:
        for dataset in self.values():
            dataset.set_format(type, columns, **options)

    def reset_format(self) -> None:
        self.set_format(None)

    def save_to_disk(self, dataset_dict_path: str | Path) -> None:
        """One folder a split, and the list of splits."""
        with new_folder(Path(dataset_dict_path)) as folder:
            for name, dataset in self.items():
                write_dataset(dataset, folder / name)
            storage.write_text(folder / "dataset_dict.json", json.dumps({"splits": list(self)}))

    def __repr__(self) -> str:
        splits = "\n".join(f"{name}: {dataset!r}" for name, dataset in self.items())
        indented = splits.replace("\n", "\n    ")
        return f"DatasetDict({{\n    {indented}\n}})"


class new_folder:
    """A folder that appears whole or not at all; one that exists already is never touched."""

    def __init__(self, folder: Path) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise DataError(f"{folder} exists and is not empty", do="choose another folder")
        self.folder = folder
        self.scratch = folder.with_name(f"{folder.name}.tmp-{uuid.uuid4().hex[:12]}")

    def __enter__(self) -> Path:
        self.scratch.mkdir(parents=True)
        return self.scratch

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            if self.folder.exists():
                self.folder.rmdir()
            os.replace(self.scratch, self.folder)
        shutil.rmtree(self.scratch, ignore_errors=True)


def save_dataset(dataset: Dataset, path: str | Path) -> None:
    with new_folder(Path(path)) as folder:
        write_dataset(dataset, folder)


def write_dataset(dataset: Dataset, folder: Path) -> None:
    """One dataset in the layout of `datasets`; a selection is written as the rows it selects."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "data-00000-of-00001.arrow"
    schema = dataset.features.arrow_schema
    file = storage.write_stream(folder / name, [dataset.table()], schema)
    form = dataset._format
    state: dict[str, Any] = {
        "_data_files": [{"filename": name, **file}],
        "_fingerprint": dataset.fingerprint,
        "_format_columns": list(form.columns) if form.columns else None,
        "_format_kwargs": {},
        "_format_type": form.kind if form.kind != "transform" else None,
        "_output_all_columns": form.output_all_columns,
        "_split": None,
    }
    info = {
        "citation": "",
        "description": "",
        "features": dataset.features.to_dict(),
        "homepage": "",
        "license": "",
    }
    storage.write_text(folder / "dataset_info.json", json.dumps(info, indent=2))
    storage.write_text(folder / "state.json", json.dumps(state, indent=2))


def load_from_disk(dataset_path: str | Path) -> Dataset | DatasetDict:
    """What `save_to_disk` wrote, here or in `datasets`, memory-mapped.

    Raises:
        DataError: a file is shorter than it was when it was written, or is missing.
    """
    folder = Path(dataset_path)
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = json.loads(splits.read_text())["splits"]
        return DatasetDict({name: read_dataset(folder / name) for name in names})
    return read_dataset(folder)


def is_saved(folder: Path) -> bool:
    """Whether a folder holds what `save_to_disk` writes."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def read_dataset(folder: Path) -> Dataset:
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    except OSError:
        raise MissingFileError(
            f"{folder} is not a saved dataset", expected="state.json and dataset_info.json"
        ) from None
    except ValueError as error:
        raise DataError(f"{folder} is damaged: {error}") from None
    features = Features.from_dict(info["features"])
    tables = [read_data_file(folder, said) for said in state["_data_files"]]
    # `datasets` writes no file for a dataset without rows.
    table = pa.concat_tables(tables) if tables else features.arrow_schema.empty_table()
    dataset = Dataset(table, features)
    for said in state.get("_indices_data_files") or ():  # a selection, as its first versions did
        dataset = dataset.select(read_data_file(folder, said).column(0).to_numpy())
    if state.get("_format_type") in ("numpy", "torch", "arrow"):
        shown, rest = state.get("_format_columns"), state.get("_output_all_columns", False)
        dataset.set_format(state["_format_type"], shown, rest)
    return dataset


def read_data_file(folder: Path, said: dict[str, Any]) -> pa.Table:
    """A file that state.json lists, if it is as long as that says."""
    path = folder / said["filename"]
    size = path.stat().st_size if path.is_file() else None
    if size is None or size != said.get("bytes", size):
        raise DataError(f"{path} is damaged", got=f"{size} bytes", expected=said.get("bytes"))
    return storage.read_stream(path)
