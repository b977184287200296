"""What must hold of the finders of datasets and models; see `minift_find_dataset` and its kin.

A finder turns a name into files on this machine, and says None to a name that is not its own, so
that the next plugin is asked. It answers as `load_dataset` and `from_pretrained` ask.
"""

import uuid
import zipfile
from pathlib import Path

import torch

from minift import AutoModel, AutoTokenizer, DatasetDict, load_dataset
from minift.data.file_formats import DatasetFiles

PICKLES = (".pkl", ".pickle", ".joblib")


def ask_for_dataset(manager, path):
    asked = dict.fromkeys(("name", "revision", "data_files", "data_dir"))
    return manager.hook.minift_find_dataset(path=path, **asked)


def ask_for_checkpoint(manager, name):
    return manager.hook.minift_find_checkpoint(name=name, revision=None, component="model")


def is_pickled(path: Path) -> bool:
    """By its content: a pickle of protocol 2 or later, or torch's archive with one in it."""
    with path.open("rb") as file:
        start = file.read(2)
    if start[:1] == b"\x80" and start[1:] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    if zipfile.is_zipfile(path):
        return any(name.endswith(PICKLES) for name in zipfile.ZipFile(path).namelist())
    return path.name.endswith(PICKLES)


# ----------------------------------------------------------------------------------------- datasets


def test_a_dataset_that_nobody_knows_is_left_to_the_next(manager, dataset_name):
    assert ask_for_dataset(manager, f"{dataset_name}-{uuid.uuid4().hex}") is None


def test_the_files_of_a_dataset_are_there(manager, dataset_name):
    found = ask_for_dataset(manager, dataset_name)
    assert isinstance(found, DatasetFiles) and found.files
    for split, paths in found.files.items():
        assert split and paths
        for path in map(Path, paths):
            assert path.is_file() and ".." not in path.parts, path
            assert not is_pickled(path), f"{path} is a pickle"


def test_a_dataset_is_found_in_the_same_place_again(manager, dataset_name):
    assert ask_for_dataset(manager, dataset_name) == ask_for_dataset(manager, dataset_name)


def test_a_dataset_has_rows_of_known_types(dataset_name):
    data = load_dataset(dataset_name)
    assert isinstance(data, DatasetDict) and all(len(split) for split in data.values())
    for split in data.values():
        row = split[0]
        assert split.features and set(row) == set(split.features)
        assert all(feature is not None for feature in split.features.values())


def test_a_dataset_loaded_again_is_the_same_one(dataset_name):
    """Equal fingerprints: what was computed from it before is found in the cache."""
    first, second = load_dataset(dataset_name), load_dataset(dataset_name)
    assert {name: split.fingerprint for name, split in first.items()} == {
        name: split.fingerprint for name, split in second.items()
    }


# ------------------------------------------------------------------------------------------- models


def test_a_model_that_nobody_knows_is_left_to_the_next(manager, checkpoint_name):
    assert ask_for_checkpoint(manager, f"{checkpoint_name}-{uuid.uuid4().hex}") is None


def test_the_files_of_a_model_are_there(manager, checkpoint_name):
    folder = Path(ask_for_checkpoint(manager, checkpoint_name))
    assert (folder / "config.json").is_file() and list(folder.glob("*.safetensors"))
    for path in folder.rglob("*"):
        assert path.exists() and ".." not in path.parts, path  # no link into nothing
        assert path.is_dir() or not is_pickled(path), f"{path} is a pickle"


def test_a_model_is_found_in_the_same_place_again(manager, checkpoint_name):
    first, second = (ask_for_checkpoint(manager, checkpoint_name) for _ in range(2))
    assert Path(first) == Path(second)


def test_a_model_and_its_tokenizer_load(checkpoint_name):
    """And fit each other: what the tokenizer gives, the model takes."""
    tokenizer, model = (
        kind.from_pretrained(checkpoint_name) for kind in (AutoTokenizer, AutoModel)
    )
    batch = tokenizer(["one text", "another, longer text"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        state = model(**batch).last_hidden_state
    assert len(state) == 2 and bool(torch.isfinite(state).all())
