"""Weight files: every name accounted for, nothing half-read, nothing half-written."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from minift.errors import MissingFileError, ModelError
from minift.models import weights
from minift.models.weights import LoadReport, match_names, read_shapes, read_tensors, save_weights

ENCODER = {"bert.layer.weight": (2, 3), "bert.layer.LayerNorm.weight": (3,)}
SHAPES = {**ENCODER, "classifier.weight": (2, 3), "classifier.bias": (2,)}
HEAD = ("classifier.",)


def matched(file_shapes, model_shapes=SHAPES, new_head=True):
    return match_names(file_shapes, model_shapes, "bert", HEAD, "the file", new_head)


def tensors_of(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


# -------------------------------------------------------------------------------------------- names


def test_equal_names_are_paired():
    names, report = matched(SHAPES)
    assert names == {name: name for name in SHAPES}
    assert (report.loaded, report.new, report.unused) == (4, [], [])


@pytest.mark.parametrize(
    "renamed",
    [
        lambda name: name.removeprefix("bert."),
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma"),
        lambda name: name.removeprefix("bert.").replace("LayerNorm.weight", "LayerNorm.gamma"),
    ],
    ids=["without_prefix", "gamma", "both"],
)
def test_older_names_are_paired(renamed):
    names, report = matched({renamed(name): shape for name, shape in SHAPES.items()})
    assert names == {renamed(name): name for name in SHAPES}
    assert report.loaded == 4


def test_beta_is_a_bias():
    names, _ = matched(
        {"LayerNorm.beta": (3,), "LayerNorm.gamma": (3,)},
        {"bert.LayerNorm.bias": (3,), "bert.LayerNorm.weight": (3,)},
    )
    assert names["LayerNorm.beta"] == "bert.LayerNorm.bias"


def test_a_prefix_that_the_model_does_not_have_is_dropped():
    """AutoModel reads a file that was saved with a head."""
    plain = {name.removeprefix("bert."): shape for name, shape in ENCODER.items()}
    names, report = matched(SHAPES, plain)
    assert set(names.values()) == set(plain)
    assert report.unused == ["classifier.weight", "classifier.bias"]


def test_a_missing_head_is_new_and_said_to_be():
    _, report = matched(ENCODER)
    assert report.new == ["classifier.bias", "classifier.weight"]
    assert "newly initialised      classifier.bias, classifier.weight" in str(report)
    assert "train the model before you use it" in str(report)


def test_a_head_of_another_size_is_new_and_left_over():
    names, report = matched({**ENCODER, "classifier.weight": (5, 3), "classifier.bias": (5,)})
    assert set(names) == set(ENCODER)
    assert report.new == ["classifier.bias", "classifier.weight"]
    assert report.unused == ["classifier.weight", "classifier.bias"]


def test_a_head_of_another_size_is_an_error_unless_another_was_asked_for():
    shapes = {**ENCODER, "classifier.weight": (5, 3), "classifier.bias": (5,)}
    with pytest.raises(ModelError, match=r"classifier.weight does not have the shape"):
        matched(shapes, new_head=False)


@pytest.mark.parametrize(
    "name", ["bert.encoder.layer.7.output.dense.bias", "layers.3.attn.Wo.bias"]
)
def test_layers_that_the_configuration_does_not_count_are_an_error(name):
    """They would be dropped without a word, and the model be another one."""
    with pytest.raises(ModelError, match="does not count") as caught:
        matched({**SHAPES, name: (3,)})
    assert name in str(caught.value) and "number of layers" in str(caught.value)


def test_a_missing_encoder_weight_is_an_error():
    with pytest.raises(ModelError, match="lacks 1 weights") as caught:
        matched({k: v for k, v in SHAPES.items() if k != "bert.layer.weight"})
    assert "bert.layer.weight" in str(caught.value)


def test_an_encoder_weight_of_another_shape_is_an_error():
    with pytest.raises(ModelError, match=r"bert\.layer\.weight") as caught:
        matched({**SHAPES, "bert.layer.weight": (9, 3)})
    assert "(9, 3)" in str(caught.value) and "(2, 3)" in str(caught.value)


def test_one_parameter_under_two_names_is_an_error():
    """Which of the two would win would depend on their order in the file."""
    with pytest.raises(ModelError, match="two names"):
        matched({**SHAPES, "layer.weight": (2, 3)})


def test_what_is_usual_in_files_is_left_over_quietly():
    _, report = matched({**SHAPES, "bert.embeddings.position_ids": (1, 5), "cls.bias": (3,),
                         "something.else": (1,)})  # fmt: skip
    assert report.unused == ["something.else"]


def test_report_without_anything_new():
    text = str(LoadReport("model", loaded=7))
    assert "7 tensors" in text and "none" in text and "train" not in text


# -------------------------------------------------------------------------------------------- files


def test_shapes_and_tensors_come_back(tmp_path):
    tensors = tensors_of(SHAPES)
    save_weights(tensors, tmp_path / "model.safetensors")
    assert read_shapes(tmp_path) == SHAPES
    back = read_tensors(tmp_path, {"bert.layer.weight": "renamed"})
    assert list(back) == ["renamed"] and torch.equal(back["renamed"], tensors["bert.layer.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_fp32(tmp_path, dtype):
    tensor = torch.randn(4, 5).to(dtype)
    save_file({"w": tensor}, tmp_path / "model.safetensors")
    back = read_tensors(tmp_path, {"w": "w"})["w"]
    assert back.dtype == torch.float32 and torch.equal(back, tensor.float())


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(tmp_path, dtype):
    """Without their scales the numbers would be wrong, and nothing would show it."""
    save_file({"w": torch.ones(4, 5).to(dtype)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="quantised"):
        read_tensors(tmp_path, {"w": "w"})


def test_tensors_do_not_change_with_the_file(tmp_path):
    """The library hands out views of the file; somebody may write to it in place."""
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(1000)}, path)
    back = read_tensors(tmp_path, {"w": "w"})["w"]
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 4000)
        file.write(bytes(4000))
    assert (back == 1).all()


@pytest.mark.parametrize("size", [0, 1, 100, "half", "all but one", "one more"])
def test_a_file_of_the_wrong_length_is_refused(tmp_path, size):
    path = tmp_path / "model.safetensors"
    save_weights(tensors_of(SHAPES), path)
    whole = path.read_bytes()
    named = {"half": len(whole) // 2, "all but one": len(whole) - 1, "one more": len(whole) + 1}
    path.write_bytes((whole + b"x")[: named.get(size, size)])
    with pytest.raises(ModelError, match="not a complete safetensors file") as caught:
        read_shapes(tmp_path)
    assert "bytes" in str(caught.value) and "again" in str(caught.value)


@pytest.mark.parametrize("junk", [b"\x80\x04pickle", b"PK\x03\x04" * 50, b"\xff" * 500])
def test_garbage_is_refused(tmp_path, junk):
    (tmp_path / "model.safetensors").write_bytes(junk)
    with pytest.raises(ModelError, match="not a complete safetensors file"):
        read_shapes(tmp_path)


def test_a_pickle_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(MissingFileError, match=r"no model\.safetensors") as caught:
        read_shapes(tmp_path)
    assert "pytorch_model.bin" in str(caught.value) and "convert" in str(caught.value)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(MissingFileError, match=r"no model\.safetensors"):
        read_shapes(tmp_path)


# ------------------------------------------------------------------------------------------- shards


def make_shards(folder, tensors):
    """Two shards and their index; {name: file}."""
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[:2], names[2:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    write_index(folder, {"metadata": {"total_size": 1}, "weight_map": weight_map})
    return weight_map


def write_index(folder, content):
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def test_shards_are_read_as_one(tmp_path):
    tensors = tensors_of(SHAPES)
    make_shards(tmp_path, tensors)
    assert read_shapes(tmp_path) == SHAPES
    back = read_tensors(tmp_path, {name: name for name in SHAPES})
    assert all(torch.equal(back[name], tensors[name]) for name in SHAPES)


def test_a_missing_shard_is_named(tmp_path):
    weight_map = make_shards(tmp_path, tensors_of(SHAPES))
    (tmp_path / weight_map["bert.layer.weight"]).unlink()
    with pytest.raises(MissingFileError, match=weight_map["bert.layer.weight"]):
        read_shapes(tmp_path)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/x.safetensors"])
def test_a_shard_outside_the_folder_is_refused(tmp_path, name):
    save_file({"w": torch.ones(1)}, tmp_path / "secret.safetensors")
    inner = tmp_path / "model"
    inner.mkdir()
    write_index(inner, {"weight_map": {"w": name}})
    with pytest.raises(ModelError, match="outside its folder"):
        read_shapes(inner)


@pytest.mark.parametrize("content", [{}, {"weight_map": {}}, {"weight_map": ["a"]}, []])
def test_a_useless_index_is_refused(tmp_path, content):
    write_index(tmp_path, content)
    with pytest.raises(ModelError):
        read_shapes(tmp_path)


# ------------------------------------------------------------------------------------------- saving


def test_saved_as_transformers_saves(tmp_path):
    from safetensors import safe_open

    save_weights(tensors_of(SHAPES), tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_weights({"w": torch.ones(3)}, path)

    def half(tensors, target, metadata):
        target.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(weights, "save_file", half)
    with pytest.raises(OSError, match="No space"):
        save_weights({"w": torch.zeros(3)}, path)
    assert (load_file(path)["w"] == 1).all()
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.slow
def test_a_killed_save_leaves_the_old_file(tmp_path):
    """Killed after the bytes were written and before they have their name."""
    path = tmp_path / "model.safetensors"
    save_weights({"w": torch.ones(3)}, path)
    script = (
        "import os, sys, signal, torch, pathlib; from minift.models import weights;"
        "os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL);"
        "weights.save_weights({'w': torch.zeros(3)}, pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -9
    assert (load_file(path)["w"] == 1).all()
    assert read_shapes(tmp_path) == {"w": (3,)}
