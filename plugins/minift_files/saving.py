"""`save_to_disk` and `load_from_disk`: datasets as folders, shared with `datasets`.

A folder is in the layout that `datasets` writes (state.json, dataset_info.json and IPC stream
files). The length and digest of each file are added to its entry in state.json, so that a damaged
folder is an error here. There is no manifest: `datasets` would leave it as it is when it saves to
the same folder, and it would then describe files that are gone.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from minift import files
from minift.data import storage
from minift.data.dataset import Dataset, DatasetDict
from minift.data.features import Features
from minift.data.formatting import TYPES
from minift.data.indices import split_range
from minift.errors import ConfigError, DataError, MissingFileError

WRITE_ROWS = 10_000  # rows in memory at once while exporting
SHARD_BYTES = 500_000_000
SPLIT = re.compile(r"\w[\w.-]*")  # a split's name becomes that of a folder


def save(
    dataset: Dataset | DatasetDict,
    path: Path,
    max_shard_size: int | str | None = None,
    num_shards: Any = None,
    overwrite: bool = False,
) -> None:
    """Save one dataset, or one a split, as a folder.

    Args:
        dataset: what to write; a selection is written as the rows that it selects.
        path: the folder.
        max_shard_size: of a file, in bytes or as "500MB".
        num_shards: the number of files, instead; of splits {split: number}.
        overwrite: replace the dataset that is saved there.
    """
    splits = dataset if isinstance(dataset, DatasetDict) else {}
    for name in splits:
        check_split(name)
    if path.exists() and any(path.iterdir()) and not (overwrite and is_saved(path)):
        do = "choose another folder, or pass overwrite=True to replace a saved dataset"
        raise DataError(f"{path} exists and is not empty", do=do)
    with files.new_folder(path) as folder:
        if isinstance(dataset, Dataset):
            return write_dataset(dataset, folder, max_shard_size, num_shards)
        for name, split in splits.items():
            write_dataset(split, folder / name, max_shard_size, (num_shards or {}).get(name))
        files.write_text(folder / "dataset_dict.json", json.dumps({"splits": list(splits)}))


def check_split(name: object) -> None:
    """Raise a DataError if a split's name cannot be that of a folder, or leads out of it."""
    if not SPLIT.fullmatch(str(name)):
        allowed = "letters, digits, _, - and ., not . or - first"
        raise DataError("not a name for a split", got=repr(name)[:80], expected=allowed)


def write_dataset(
    dataset: Dataset, folder: Path, max_shard_size: int | str | None, num_shards: int | None
) -> None:
    """Write the files of one dataset into a folder."""
    if num_shards is None:
        size = dataset.data.nbytes * len(dataset) // max(dataset.data.num_rows, 1)
        num_shards = max(-(-size // in_bytes(max_shard_size or SHARD_BYTES)), 1)
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for i in range(num_shards):
        shard = dataset.shard(num_shards, i)
        name = f"data-{i:05d}-of-{num_shards:05d}.arrow"
        rows = storage.write_stream(folder / name, tables(shard), dataset.features.arrow_schema)
        entries.append({"filename": name, "rows": rows, **files.file_entry(folder / name)})
    form = dataset.row_format
    state: dict[str, Any] = {
        "_data_files": entries,
        "_fingerprint": dataset.fingerprint,
        "_format_columns": list(form.columns) if form.columns else None,
        "_format_kwargs": {k: v for k, v in form.options.items() if isinstance(v, str | int)},
        "_format_type": form.type if form.type != "transform" else None,
        "_output_all_columns": form.output_all_columns,
        "_split": None,
    }
    info: dict[str, Any] = {"features": dataset.features.to_dict()}
    info |= dict.fromkeys(("citation", "description", "homepage", "license"), "")
    files.write_text(folder / "dataset_info.json", json.dumps(info, indent=2))
    files.write_text(folder / "state.json", json.dumps(state, indent=2))


def in_bytes(size: int | str) -> int:
    """Return a size such as "500MB" in bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT]?)B?", str(size).upper())
    if match is None:
        raise ConfigError("not a size", got=size, expected='bytes, or such as "500MB"')
    return max(int(float(match[1]) * 1000 ** " KMGT".index(match[2] or " ")), 1)


def tables(dataset: Dataset) -> Iterator[pa.Table]:
    """Yield the rows in order, WRITE_ROWS at a time."""
    for rows in split_range(range(len(dataset)), WRITE_ROWS):
        yield dataset.to_arrow(rows)


def is_saved(folder: Path) -> bool:
    """Tell whether a folder holds what `save_to_disk` writes."""
    one = all((folder / name).is_file() for name in ("state.json", "dataset_info.json"))
    return one or (folder / "dataset_dict.json").is_file()


def read(folder: Path, verify: bool = False) -> Dataset | DatasetDict:
    """Open what `save` wrote, here or in `datasets`, memory-mapped."""
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = read_json(splits, "splits")["splits"]
        for name in names:
            check_split(name)
        return DatasetDict({name: read_dataset(folder / name, verify) for name in names})
    return read_dataset(folder, verify)


def read_json(path: Path, key: str) -> dict[str, Any]:
    """Return the object in a file, which has a list or an object under a key.

    Raises:
        DataError: it has not; the file is damaged, or made to harm.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content[key], list | dict):
            return content
        raise TypeError(f"{key} is no list or object")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"{path.name}: {type(error).__name__}: {error}"
        raise files.damaged(path.parent, why) from None


def read_dataset(folder: Path, verify: bool = False) -> Dataset:
    """Open the folder of one dataset; see `read`."""
    try:
        state = read_json(folder / "state.json", "_data_files")
        info = read_json(folder / "dataset_info.json", "features")
    except OSError:
        expected = "state.json and dataset_info.json"
        raise MissingFileError(f"{folder} is not a saved dataset", expected=expected) from None
    features = Features.from_dict(info["features"])
    entries = state["_data_files"]
    for entry in (*entries, *(state.get("_indices_data_files") or ())):
        if Path(entry["filename"]).name != entry["filename"]:
            raise files.damaged(folder, "it names a file elsewhere", got=repr(entry["filename"]))
    stored = [storage.open_file(folder / e["filename"], e, verify) for e in entries]
    # `datasets` writes no file for a dataset without rows.
    table = pa.concat_tables(stored) if stored else features.arrow_schema.empty_table()
    dataset = Dataset(table, features)
    for entry in state.get("_indices_data_files") or ():  # a selection, as its first versions did
        indices = storage.open_file(folder / entry["filename"], entry)
        dataset = dataset.select(indices.column(0).to_numpy())
    columns, all_columns = state.get("_format_columns"), state.get("_output_all_columns", False)
    if state.get("_format_type") in (None, *TYPES):
        options = state.get("_format_kwargs") or {}
        dataset.set_format(state.get("_format_type"), columns, all_columns, **options)
    return dataset
