"""Splits by name, and datasets on disk in the layout of `datasets`."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from minift import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    List,
    Value,
    load_dataset,
    load_from_disk,
    plugins,
)
from minift.data import storage
from minift.errors import ColumnError, ConfigError, DataError, MissingFileError, PluginError

FEATURES = Features(
    {
        "text": Value("string"),
        "label": ClassLabel(names=["neg", "pos"]),
        "ids": List(Value("int32")),
    }
)


def rows(n: int, start: int = 0) -> dict:
    numbers = range(start, start + n)
    return {
        "text": [f"row {i}" for i in numbers],
        "label": [i % 2 for i in numbers],
        "ids": [list(range(i % 5)) for i in numbers],
    }


@pytest.fixture
def splits():
    return DatasetDict(
        train=Dataset.from_dict(rows(6), FEATURES), test=Dataset.from_dict(rows(2, 6), FEATURES)
    )


# --- a dict of splits ----------------------------------------------------------------------------


def test_what_it_is(splits):
    assert isinstance(splits, dict) and list(splits) == ["train", "test"]
    assert splits.num_rows == {"train": 6, "test": 2}
    assert splits.column_names == {name: ["text", "label", "ids"] for name in ("train", "test")}
    assert splits.shape == {"train": (6, 3), "test": (2, 3)}


def test_printed_form(splits):
    assert repr(splits) == (
        "DatasetDict({\n"
        "    train: Dataset({\n"
        "        features: ['text', 'label', 'ids'],\n"
        "        num_rows: 6\n"
        "    })\n"
        "    test: Dataset({\n"
        "        features: ['text', 'label', 'ids'],\n"
        "        num_rows: 2\n"
        "    })\n"
        "})"
    )


@pytest.mark.parametrize("key", [0, "validation", slice(2)])
def test_select_a_split_first(splits, key):
    with pytest.raises(KeyError, match="Please first select a split") as caught:
        splits[key]
    assert "['test', 'train']" in str(caught.value)


def test_what_is_done_to_it_is_done_to_each(splits):
    assert splits.map(lambda row: {"n": len(row["ids"])})["test"]["n"] == [1, 2]
    assert splits.filter(lambda row: row["label"] == 0).num_rows == {"train": 3, "test": 1}
    assert splits.shuffle(seed=1)["train"]["text"] == splits["train"].shuffle(seed=1)["text"]
    assert splits.sort("text", reverse=True)["train"]["text"][0] == "row 5"
    assert splits.select_columns("ids").column_names["test"] == ["ids"]
    assert splits.remove_columns(["ids", "text"]).column_names["train"] == ["label"]
    assert splits.rename_column("label", "labels").column_names["test"] == ["text", "labels", "ids"]
    assert splits.rename_columns({"text": "t"}).column_names["test"] == ["t", "label", "ids"]
    assert splits.cast_column("label", Value("int8"))["test"].features["label"] == Value("int8")
    with pytest.raises(ColumnError):
        splits.remove_columns("zz")
    assert splits.column_names["train"] == ["text", "label", "ids"]


def test_formats(splits):
    view = splits.with_format("torch", ["label"])
    assert torch.equal(view["train"][:2]["label"], torch.tensor([0, 1])) and list(
        view["test"][0]
    ) == ["label"]
    assert isinstance(splits["train"][0]["label"], int)
    splits.set_format("numpy", columns=["label"], output_all_columns=True)
    assert isinstance(splits["test"][:]["label"], np.ndarray) and "text" in splits["test"][0]
    splits.reset_format()
    assert splits["test"][:] == rows(2, 6)


# --- on disk -------------------------------------------------------------------------------------


def test_a_dataset_comes_back(tmp_path, splits):
    splits["train"].save_to_disk(tmp_path / "new" / "ds")
    back = load_from_disk(tmp_path / "new" / "ds")
    assert back[:] == rows(6) and back.features == FEATURES
    assert back.fingerprint == splits["train"].fingerprint
    assert os.listdir(tmp_path / "new") == ["ds"]


def test_splits_come_back_in_order(tmp_path, splits):
    splits.save_to_disk(str(tmp_path / "dd"))
    back = load_from_disk(str(tmp_path / "dd"))
    assert isinstance(back, DatasetDict) and list(back) == ["train", "test"]
    assert back["train"][:] == rows(6) and back["test"][:] == rows(2, 6)
    assert json.loads((tmp_path / "dd" / "dataset_dict.json").read_text()) == {
        "splits": ["train", "test"]
    }


def test_the_layout_is_that_of_datasets(tmp_path, splits):
    splits["train"].save_to_disk(tmp_path / "ds")
    assert sorted(os.listdir(tmp_path / "ds")) == [
        *("data-00000-of-00001.arrow", "dataset_info.json", "state.json")
    ]
    state = json.loads((tmp_path / "ds" / "state.json").read_text())
    (file,) = state.pop("_data_files")
    assert file["filename"] == "data-00000-of-00001.arrow" and file["rows"] == 6
    assert file["bytes"] == (tmp_path / "ds" / file["filename"]).stat().st_size
    assert state == {
        "_fingerprint": splits["train"].fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    info = json.loads((tmp_path / "ds" / "dataset_info.json").read_text())
    assert info["features"] == FEATURES.to_dict()
    with pa.ipc.open_stream(tmp_path / "ds" / file["filename"]) as reader:  # the stream format
        assert Features.from_arrow_schema(reader.schema) == FEATURES
        assert reader.read_all().num_rows == 6


def test_a_selection_is_saved_as_its_rows(tmp_path, splits):
    splits["train"].select([5, 0]).save_to_disk(tmp_path / "ds")
    assert load_from_disk(tmp_path / "ds")["text"] == ["row 5", "row 0"]
    renamed = splits["train"].rename_column("label", "labels").remove_columns("ids")
    renamed.save_to_disk(tmp_path / "renamed")
    back = load_from_disk(tmp_path / "renamed")
    assert back.column_names == ["text", "labels"] and back.features["labels"].names == [
        "neg",
        "pos",
    ]


def test_the_format_comes_back(tmp_path, splits):
    ds = splits["train"].with_format("numpy", columns=["label"], output_all_columns=True)
    ds.save_to_disk(tmp_path / "ds")
    back = load_from_disk(tmp_path / "ds")
    assert isinstance(back[:]["label"], np.ndarray) and back[0]["text"] == "row 0"
    splits["train"].with_format("torch", columns=["ids"]).save_to_disk(tmp_path / "torch")
    assert list(load_from_disk(tmp_path / "torch")[0]) == ["ids"]


def test_no_rows(tmp_path, splits):
    """`datasets` cannot load what it saves here."""
    splits["train"].select([]).save_to_disk(tmp_path / "ds")
    back = load_from_disk(tmp_path / "ds")
    assert len(back) == 0 and back.features == FEATURES
    state = json.loads((tmp_path / "ds" / "state.json").read_text())
    (tmp_path / "ds" / "state.json").write_text(json.dumps(state | {"_data_files": []}))
    back = load_from_disk(tmp_path / "ds")
    assert len(back) == 0 and back.features == FEATURES


def test_several_files(tmp_path, splits):
    """As `datasets` writes large ones; it says nothing of their lengths."""
    splits["train"].save_to_disk(tmp_path / "ds")
    names = [f"data-0000{i}-of-00002.arrow" for i in range(2)]
    for i, name in enumerate(names):
        part = Dataset.from_dict(rows(3, 3 * i), FEATURES)
        storage.write_stream(tmp_path / "ds" / name, [part.to_arrow()], FEATURES.arrow_schema)
    state = json.loads((tmp_path / "ds" / "state.json").read_text())
    state["_data_files"] = [{"filename": name} for name in names]
    (tmp_path / "ds" / "state.json").write_text(json.dumps(state))
    assert load_from_disk(tmp_path / "ds")[:] == rows(6)
    path = tmp_path / "ds" / names[0]
    path.write_bytes(path.read_bytes()[:-8])  # without its end it is a stream of as many rows
    with pytest.raises(DataError, match="cut off"):
        load_from_disk(tmp_path / "ds")


def test_the_selection_of_old_folders(tmp_path, splits):
    """The first versions of `datasets` saved all rows, and which of them were meant."""
    splits["train"].save_to_disk(tmp_path / "ds")
    indices = pa.table({"indices": pa.array([4, 1], pa.uint64())})
    storage.write_stream(tmp_path / "ds" / "indices.arrow", [indices], indices.schema)
    state = json.loads((tmp_path / "ds" / "state.json").read_text())
    state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (tmp_path / "ds" / "state.json").write_text(json.dumps(state))
    assert load_from_disk(tmp_path / "ds")["text"] == ["row 4", "row 1"]


def test_a_cut_file_is_an_error_and_not_fewer_rows(tmp_path, splits, monkeypatch):
    """F3: `datasets` returns 3000 of 5000 rows."""
    monkeypatch.setattr(storage, "BATCH_BYTES", 500)
    Dataset.from_dict({"i": range(1000)}).save_to_disk(tmp_path / "ds")
    path = tmp_path / "ds" / "data-00000-of-00001.arrow"
    raw = path.read_bytes()
    for end in range(0, len(raw), 97):
        path.write_bytes(raw[:end])
        with pytest.raises(DataError, match="damaged"):
            load_from_disk(tmp_path / "ds")
    path.unlink()
    with pytest.raises(DataError, match="damaged"):
        load_from_disk(tmp_path / "ds")


def test_a_folder_that_exists_is_not_touched(tmp_path, splits):
    for thing in (splits, splits["train"]):
        folder = tmp_path / type(thing).__name__
        folder.mkdir()
        thing.save_to_disk(folder)  # empty is fine
        before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
        with pytest.raises(DataError, match="exists and is not empty"):
            thing.save_to_disk(folder)
        assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*")) == before
    assert sorted(os.listdir(tmp_path)) == ["Dataset", "DatasetDict"]


def test_an_error_while_saving_leaves_nothing(tmp_path, splits, monkeypatch):
    def disk_full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("minift.files.write_text", disk_full)
    for thing in (splits, splits["train"]):
        with pytest.raises(OSError, match="disk full"):
            thing.save_to_disk(tmp_path / "ds")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
def test_damaged_json(tmp_path, splits, name):
    splits["train"].save_to_disk(tmp_path / "ds")
    (tmp_path / "ds" / name).write_text("{")
    with pytest.raises(DataError, match="ds is damaged"):
        load_from_disk(tmp_path / "ds")
    (tmp_path / "ds" / name).unlink()
    with pytest.raises(MissingFileError, match="not a saved dataset"):
        load_from_disk(tmp_path / "ds")


def test_what_is_no_saved_dataset(tmp_path, splits):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match="not a saved dataset"):
            load_from_disk(path)
    splits.save_to_disk(tmp_path / "dd")
    (tmp_path / "dd" / "test" / "state.json").unlink()
    with pytest.raises(MissingFileError, match="test is not a saved dataset"):
        load_from_disk(tmp_path / "dd")


def test_load_dataset_opens_it_too(tmp_path, splits):
    splits.save_to_disk(tmp_path / "dd")
    assert load_dataset(str(tmp_path / "dd"))["test"][:] == rows(2, 6)
    assert load_dataset(str(tmp_path / "dd"), split="test")[:] == rows(2, 6)
    with pytest.raises(ValueError, match='Unknown split "dev"'):
        load_dataset(str(tmp_path / "dd"), split="dev")
    splits["train"].save_to_disk(tmp_path / "ds")
    assert load_dataset(str(tmp_path / "ds"))[:] == rows(6)


def test_saving_over_a_map_from_the_same_file(tmp_path, splits):
    """The rows are read from the first folder while the second is written."""
    splits["train"].save_to_disk(tmp_path / "one")
    load_from_disk(tmp_path / "one").shuffle(seed=0).save_to_disk(tmp_path / "two")
    assert sorted(load_from_disk(tmp_path / "two")["text"]) == rows(6)["text"]


def test_a_flipped_byte_is_found_when_asked_for(tmp_path):
    ds = Dataset.from_dict({"a": list(range(1000))})
    ds.save_to_disk(tmp_path / "ds", num_shards=2)
    path = tmp_path / "ds" / "data-00001-of-00002.arrow"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    assert len(load_from_disk(tmp_path / "ds")) == 1000
    with pytest.raises(DataError, match=r"data-00001-of-00002\.arrow is damaged: its checksum"):
        load_from_disk(tmp_path / "ds", verify=True)


def test_shards_and_replacing(tmp_path):
    ds = Dataset.from_dict({"a": list(range(1000))})
    ds.save_to_disk(tmp_path / "ds", max_shard_size="2KB")
    assert len(list(tmp_path.glob("ds/*.arrow"))) == 4
    with pytest.raises(DataError, match="overwrite=True"):
        ds.save_to_disk(tmp_path / "ds")
    ds.select([0]).save_to_disk(tmp_path / "ds", overwrite=True)
    assert load_from_disk(tmp_path / "ds")[:] == {"a": [0]}
    with pytest.raises(ConfigError, match="not a size"):
        ds.save_to_disk(tmp_path / "new", max_shard_size="big")
    assert not (tmp_path / "new").exists()


def test_splits_by_name():
    splits = DatasetDict(a=Dataset.from_dict({"i": [1]}), b=Dataset.from_dict({"i": [2]}))
    named = splits.map(lambda row, split: {"split": split}, with_split=True)
    assert named["a"][:] == {"i": [1], "split": ["a"]} and named["b"]["split"] == ["b"]
    counted = splits.map(lambda row, i, split: {"n": f"{split}{i}"}, True, with_split=True)
    assert counted["b"]["n"] == ["b0"]
    ten = Dataset.from_dict({"i": range(10)})
    both = DatasetDict(a=ten, b=ten).shuffle(seeds={"a": 1, "b": 2})
    assert both["a"][:] == ten.shuffle(1)[:] and both["b"][:] == ten.shuffle(2)[:]
    assert both.num_columns == {"a": 1, "b": 1} and both.shape == {"a": (10, 1), "b": (10, 1)}


def test_without_the_plugin_that_saves(tmp_path, splits):
    """It says which plugin is missing, and writes nothing."""
    splits.save_to_disk(tmp_path / "saved")
    plugins.set_default_manager(plugins.build_manager(["no:files"]))
    for call in (
        lambda: splits.save_to_disk(tmp_path / "new"),
        lambda: splits["train"].save_to_disk(tmp_path / "new"),
        lambda: load_from_disk(tmp_path / "saved"),
        lambda: splits["train"].to_csv(tmp_path / "new"),
    ):
        with pytest.raises(PluginError, match="do not leave out minift_files"):
            call()
    with pytest.raises(MissingFileError, match="no plugin knows the name"):
        load_dataset(str(tmp_path / "saved"))
    assert os.listdir(tmp_path) == ["saved"]


def test_what_both_kinds_of_saving_take(tmp_path, splits):
    splits.save_to_disk(tmp_path / "dd", None, {"train": 3}, True)
    assert len(list(tmp_path.glob("dd/train/*.arrow"))) == 3
    splits.save_to_disk(dataset_dict_path=tmp_path / "dd", num_shards={"test": 2}, overwrite=True)
    assert len(list(tmp_path.glob("dd/test/*.arrow"))) == 2
    splits["train"].save_to_disk(dataset_path=str(tmp_path / "dd"), num_shards=2, overwrite=True)
    assert load_from_disk(str(tmp_path / "dd"))[:] == rows(6)
    for thing in (splits, splits["train"]):
        with pytest.raises(TypeError, match="storage_options"):
            thing.save_to_disk(tmp_path / "new", storage_options={})
    assert not (tmp_path / "new").exists()


def test_overwrite_replaces_saved_datasets_and_nothing_else(tmp_path):
    """A training checkpoint has a state.json too."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "state.json").write_text("{}")
    with pytest.raises(DataError, match="not empty"):
        Dataset.from_dict({"a": [1]}).save_to_disk(tmp_path / "other", overwrite=True)
    assert (tmp_path / "other" / "state.json").read_text() == "{}"


def test_an_interrupt_while_overwriting_brings_the_old_one_back(tmp_path, monkeypatch):
    Dataset.from_dict({"a": [1]}).save_to_disk(tmp_path / "saved")
    replace = os.replace

    def interrupted(source, target):
        place, between = tmp_path / "saved", not (tmp_path / "saved").exists()
        if Path(target) == place and between and not str(source).endswith("-old"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Dataset.from_dict({"a": [2]}).save_to_disk(tmp_path / "saved", overwrite=True)
    monkeypatch.undo()
    assert load_from_disk(tmp_path / "saved")["a"][:] == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
