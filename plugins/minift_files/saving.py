"""What `save_to_disk` and `load_from_disk` do: datasets as folders, shared with `datasets`.

A folder is in the layout that `datasets` writes (state.json, dataset_info.json and IPC
stream files), with the length and checksum of each file added to what it says about them, so that
a damaged folder is an error here and the folder still opens there.
"""

import contextlib
import json
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from minift.data import storage
from minift.data.dataset import Dataset
from minift.data.dataset_dict import DatasetDict
from minift.data.features import Features
from minift.data.formatting import KINDS
from minift.errors import ConfigError, DataError, MissingFileError
from minift.files import replace_folder, write_text

WRITE_ROWS = 10_000  # rows in memory at once while exporting
SHARD_BYTES = 500_000_000
SPLIT = re.compile(r"\w[\w.-]*")  # the name of one becomes that of a folder


@contextlib.contextmanager
def new_folder(folder: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder that appears whole or not at all.

    Args:
        folder: its name.
        overwrite: replace one that holds a saved dataset; any other is never touched.
    """
    if folder.exists() and any(folder.iterdir()) and not (overwrite and is_saved(folder)):
        raise DataError(
            f"{folder} exists and is not empty",
            do="choose another folder, or pass overwrite=True to replace a saved dataset",
        )
    scratch = folder.with_name(f"{folder.name}.tmp-{uuid.uuid4().hex[:12]}")
    scratch.mkdir(parents=True)
    try:
        yield scratch
        replace_folder(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def save(dataset: Dataset | DatasetDict, path: Path, *args: Any, **options: Any) -> None:
    """Either as a folder; for what else may be given see the function that does it."""
    if isinstance(dataset, DatasetDict):
        save_splits(dataset, path, *args, **options)
    else:
        save_dataset(dataset, path, *args, **options)


def save_splits(
    splits: DatasetDict,
    path: Path,
    max_shard_size: int | str | None = None,
    num_shards: dict[str, int] | None = None,
    overwrite: bool = False,
) -> None:
    """One folder a split, and the list of splits; see `save_dataset`."""
    for name in splits:
        check_split(name)
    with new_folder(path, overwrite) as folder:
        for name, dataset in splits.items():
            shards = (num_shards or {}).get(name)
            write_dataset(dataset, folder / name, max_shard_size, shards)
        write_text(folder / "dataset_dict.json", json.dumps({"splits": list(splits)}))


def check_split(name: object) -> None:
    """A DataError if a split's name could not be that of a folder, or would lead out of it."""
    if not SPLIT.fullmatch(str(name)):
        allowed = "letters, digits, _, - and ., not . or - first"
        raise DataError("not a name for a split", got=repr(name)[:80], expected=allowed)


def save_dataset(
    dataset: Dataset,
    path: Path,
    max_shard_size: int | str | None = None,
    num_shards: int | None = None,
    overwrite: bool = False,
) -> None:
    """One dataset as a folder.

    Args:
        dataset: what to write; a selection is written as the rows that it selects.
        path: the folder.
        max_shard_size: of a file, in bytes or as "500MB".
        num_shards: the number of files, instead.
        overwrite: replace the dataset that is saved there.
    """
    with new_folder(path, overwrite) as folder:
        write_dataset(dataset, folder, max_shard_size, num_shards)


def write_dataset(
    dataset: Dataset,
    folder: Path,
    max_shard_size: int | str | None = None,
    num_shards: int | None = None,
) -> None:
    """The files of one dataset."""
    if num_shards is None:
        size = dataset.data.nbytes * len(dataset) // max(dataset.data.num_rows, 1)
        num_shards = max(-(-size // in_bytes(max_shard_size or SHARD_BYTES)), 1)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i in range(num_shards):
        shard = dataset.shard(num_shards, i)
        name = f"data-{i:05d}-of-{num_shards:05d}.arrow"
        said = storage.write_stream(folder / name, tables(shard), dataset.features.arrow_schema)
        files.append({"filename": name, **said})
    form = dataset.row_format
    state: dict[str, Any] = {
        "_data_files": files,
        "_fingerprint": dataset.fingerprint,
        "_format_columns": list(form.columns) if form.columns else None,
        "_format_kwargs": {k: v for k, v in form.options.items() if isinstance(v, str | int)},
        "_format_type": form.kind if form.kind != "transform" else None,
        "_output_all_columns": form.output_all_columns,
        "_split": None,
    }
    info: dict[str, Any] = {"features": dataset.features.to_dict()}
    info |= dict.fromkeys(("citation", "description", "homepage", "license"), "")
    write_text(folder / "dataset_info.json", json.dumps(info, indent=2))
    write_text(folder / "state.json", json.dumps(state, indent=2))


def in_bytes(size: int | str) -> int:
    """A size such as "500MB"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT]?)B?", str(size).upper())
    if match is None:
        raise ConfigError("not a size", got=size, expected='bytes, or such as "500MB"')
    return max(int(float(match[1]) * 1000 ** " KMGT".index(match[2] or " ")), 1)


def tables(dataset: Dataset) -> Iterator[pa.Table]:
    """The rows in order, some at a time."""
    for start in range(0, len(dataset), WRITE_ROWS):
        yield dataset.to_arrow(range(start, min(start + WRITE_ROWS, len(dataset))))


def is_saved(folder: Path) -> bool:
    """Whether a folder holds what `save_to_disk` writes."""
    one = all((folder / name).is_file() for name in ("state.json", "dataset_info.json"))
    return one or (folder / "dataset_dict.json").is_file()


def read(folder: Path, verify: bool = False) -> Dataset | DatasetDict:
    """What `save` wrote, here or in `datasets`, memory-mapped."""
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = json.loads(splits.read_text())["splits"]
        return DatasetDict({name: read_dataset(folder / name, verify) for name in names})
    return read_dataset(folder, verify)


def read_dataset(folder: Path, verify: bool = False) -> Dataset:
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
    found = [storage.open_file(folder / s["filename"], s, verify) for s in state["_data_files"]]
    # `datasets` writes no file for a dataset without rows.
    table = pa.concat_tables(found) if found else features.arrow_schema.empty_table()
    dataset = Dataset(table, features)
    for said in state.get("_indices_data_files") or ():  # a selection, as its first versions did
        dataset = dataset.select(
            storage.open_file(folder / said["filename"], said).column(0).to_numpy()
        )
    shown, rest = state.get("_format_columns"), state.get("_output_all_columns", False)
    if state.get("_format_type") in (None, *KINDS):
        options = state.get("_format_kwargs") or {}
        dataset.set_format(state.get("_format_type"), shown, rest, **options)
    return dataset
