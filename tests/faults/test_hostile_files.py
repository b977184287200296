"""Folders and files that somebody made to harm: each is refused in our words, at once."""

import json

import pytest
import tiny

from minift import AutoConfig, AutoTokenizer, Dataset, files, load_from_disk
from minift.errors import DataError, MiniftError

NESTED = '{"a":' * 100_000 + "1" + "}" * 100_000  # Python's own reader gives up, and says so


@pytest.fixture
def saved(tmp_path):
    Dataset.from_dict({"a": [1, 2]}).save_to_disk(tmp_path / "elsewhere")
    Dataset.from_dict({"a": [1, 2]}).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_models_json_that_nests_without_end(tmp_path, name):
    folder = tiny.make_model(tmp_path / "model")
    (folder / name).write_text(NESTED)
    load = AutoConfig if name == "config.json" else AutoTokenizer
    with pytest.raises(MiniftError, match=name):
        load.from_pretrained(folder)


def test_a_manifest_that_nests_without_end(tmp_path):
    (tmp_path / "manifest.json").write_text(NESTED)
    with pytest.raises(DataError, match=r"manifest\.json"):
        files.read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "dataset_dict.json"])
@pytest.mark.parametrize("text", [NESTED, "[1]", "5", '{"splits": 5, "_data_files": 5}', "{"])
def test_a_saved_dataset_whose_json_is_something_else(saved, name, text):
    (saved / name).write_text(text)
    with pytest.raises(DataError, match=name):
        load_from_disk(saved)


def test_a_saved_dataset_does_not_lead_out_of_its_folder(saved):
    state = json.loads((saved / "state.json").read_text())
    name = state["_data_files"][0]["filename"]
    state["_data_files"][0]["filename"] = f"../elsewhere/{name}"
    (saved / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="elsewhere"):
        load_from_disk(saved)


def test_a_split_does_not_lead_out_of_its_folder(saved):
    folder = saved.parent / "splits"
    folder.mkdir()
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["../saved"]}))
    with pytest.raises(DataError, match="not a name for a split"):
        load_from_disk(folder)


def test_a_file_that_all_may_read(tmp_path):
    """safetensors makes its files for their owner only."""
    folder = tiny.make_model(tmp_path / "model")
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert len(modes) == 1, modes
