""" "~" is the home folder wherever a path is taken, and os.chdir moves no run."""

import os
from pathlib import Path

import pytest
import torch
from tiny import make_model
from torch.utils.data import DataLoader

from minift import (
    Accelerator,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    ClassLabel,
    Dataset,
    DatasetDict,
    Trainer,
    TrainingArguments,
    hookimpl,
    load_dataset,
    load_from_disk,
    pipeline,
)
from minift.cli import main
from minift.data.cache import cache_root
from minift.files import local_path
from minift.testing import tiny

SETTINGS = {"device": "cpu", "precision": "fp32", "logging_strategy": "no", "disable_tqdm": True}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home folder; afterwards the working directory must be as empty as it was."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    yield home
    assert not list(here.iterdir())


def trainer(folder, callbacks=(), **settings):
    args = TrainingArguments(folder, **{"max_steps": 2, "save_steps": 1, **SETTINGS, **settings})
    return Trainer(
        tiny.model(),
        args,
        data_collator=tiny.collate,
        train_dataset=tiny.rows(8),
        eval_dataset=tiny.rows(8),
        callbacks=callbacks,
    )


def test_a_run_in_the_home_folder(home):
    first = trainer("~/run/")
    assert Path(first.args.output_dir) == home / "run"
    first.train()
    first.save_model()
    first.save_model("~/copy")
    assert {path.name for path in home.iterdir()} == {"run", "copy"}
    for folder in ("~/run", "~/copy/", Path("~/run")):
        assert AutoModelForSequenceClassification.from_pretrained(folder).config.num_labels == 2
    for resume in ("~/run/checkpoint-1", Path("~/run/checkpoint-1/")):
        again = trainer("~/run")
        again.train(resume_from_checkpoint=resume)
        assert again.state.global_step == 2
    again = trainer("~/run", resume_from_checkpoint="~/run/checkpoint-1")
    again.train()
    assert again.state.global_step == 2


def test_models_and_tokenizers(home):
    source = make_model(home / "source")
    AutoModel.from_pretrained(source).save_pretrained("~/model")
    AutoTokenizer.from_pretrained(source).save_pretrained("~/model/")
    assert AutoConfig.from_pretrained("~/model").hidden_size
    assert AutoModel.from_pretrained(Path("~/model")).config.hidden_size
    assert len(AutoTokenizer.from_pretrained("~/model/"))
    assert pipeline("text-classification", "~/source", device="cpu")("w1 w2")


def test_data(home):
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    rows.to_csv("~/rows.csv")
    rows.to_json("~/rows.jsonl")
    rows.to_parquet(Path("~/rows.parquet"))
    rows.save_to_disk("~/saved")
    DatasetDict(train=rows).save_to_disk("~/splits/")
    for path in ("~/rows.csv", Path("~/rows.jsonl"), "~/rows.parquet", "~/saved/", "~/splits"):
        assert load_dataset(path, split="train")["text"][:] == ["a", "b"]
    assert load_from_disk("~/saved")["label"][:] == [0, 1]
    assert load_from_disk(Path("~/splits"))["train"]["label"][:] == [0, 1]
    file = "~/rows.csv"
    for files in (file, Path(file), [file], (Path(file),), "~/*.csv", {"train": file}):
        assert len(load_dataset("csv", data_files=files)["train"]) == 2
    assert len(load_dataset("csv", data_files={"train": [file, Path(file)]})["train"]) == 4
    (home / "names.txt").write_text("no\nyes\n")
    assert ClassLabel(names_file="~/names.txt").names == ["no", "yes"]
    rows.map(lambda row: {"n": 1}, cache_file_name="~/mapped")
    assert (home / "mapped" / "manifest.json").is_file()


def test_the_cache(home, monkeypatch):
    monkeypatch.setenv("MINIFT_CACHE", "~/cache")
    assert cache_root() == home / "cache"
    monkeypatch.setenv("MINIFT_CACHE", "cache")
    assert cache_root() == Path.cwd() / "cache"
    monkeypatch.delenv("MINIFT_CACHE")
    assert cache_root() == home / ".cache" / "minift"


def test_states_of_a_loop(home):
    def prepared():
        accelerator = Accelerator(cpu=True)
        model = tiny.model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loader = DataLoader(tiny.rows(4), batch_size=2, collate_fn=tiny.collate)
        return accelerator, *accelerator.prepare(model, optimizer, loader)

    accelerator, model, *_ = prepared()
    accelerator.save_state("~/state/")
    accelerator.save_model(model, "~/model")
    prepared()[0].load_state(Path("~/state"))
    assert AutoModel.from_pretrained("~/model")


def test_a_name_that_is_no_user_stays_a_name():
    assert local_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_commands(home, capsys):
    """A shell expands --flag ~/x but not --flag=~/x, and nobody expands a file of settings."""
    make_model(home / "model")
    rows = Dataset.from_dict({"text": ["w1", "w2"] * 4, "label": [0, 1] * 4})
    rows.to_csv("~/train.csv")
    plugin = (
        "from minift import hookimpl\n@hookimpl\ndef minift_register_metrics():\n    return {}\n"
    )
    (home / "own.py").write_text(plugin)
    (home / "run.toml").write_text('train_file = "~/train.csv"\noutput_dir = "~/run"\n')
    words = ["--config=~/run.toml", "--model=~/model", "--label-names=no,yes", "--max-steps=1"]
    words += ["--validation-file=~/train.csv", "--text-columns=text", "--device=cpu"]
    assert main(["--plugin=~/own.py", "train", *words]) == 0
    assert main(["eval", "~/run/", "--device=cpu"]) == 0
    assert main(["predict", "~/run", "--file=~/train.csv", "--device=cpu"]) == 0
    assert (home / "run" / "run.json").is_file()


class Wanderer:
    """A callback that changes the working directory, as some launchers do."""

    @hookimpl
    def minift_on_step_end(self, run):
        os.chdir("/")


def test_a_relative_run_folder_stays_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = trainer(
        "run", [Wanderer()], max_steps=3, eval_strategy="steps", eval_steps=1,
        load_best_model_at_end=True,
    )  # fmt: skip
    run.train()
    run.save_model()
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"checkpoint-3", "run.json", "model.safetensors"}
    assert Path(run.state.best_model_checkpoint).is_dir()


def test_a_tokenizer_is_saved_whole_from_elsewhere(tmp_path, monkeypatch):
    folder = make_model(tmp_path / "model")
    (folder / "vocab.txt").write_text("[PAD]\n")
    monkeypatch.chdir(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained("model")
    monkeypatch.chdir("/")
    tokenizer.save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / "vocab.txt").read_text() == "[PAD]\n"
