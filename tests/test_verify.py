"""`minift verify-resume`: equal for a run, different where resuming is broken, or why it cannot."""

import json
import shutil

import pytest
from minift_verify import command, comparing
from tiny import make_model, make_rows, write_csv

from minift import Dataset, Trainer, TrainingArguments, cli

pytestmark = pytest.mark.slow


QUICK = ["--disable-tqdm", "true", "--device", "cpu", "--max-steps", "6"]
SHORT = ["--steps", "6", "--save-steps", "2", "--kills", "1"]
# A plugin that makes a resumed run another one: what a forgotten piece of state would do.
FORGETFUL = """
import minift

@minift.hookimpl
def minift_on_train_begin(run):
    if run.state.global_step:
        run.args.seed += 1
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a model and data."""
    folder = tmp_path_factory.mktemp("inputs")
    make_model(folder / "model", hidden_dropout_prob=0.1)
    for i, split in enumerate(("train", "validation")):
        write_csv(folder / f"{split}.csv", make_rows(24, seed=i))
    return folder


def train(inputs, out, *words):
    named = ["--model", str(inputs / "model"), "--output-dir", str(out)]
    files = ["--train-file", str(inputs / "train.csv")]
    files += ["--validation-file", str(inputs / "validation.csv")]
    assert cli.main([*words[:2], "train", *named, *files, *QUICK, *words[2:]]) == 0


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    schedule = ["--lr-scheduler-type", "polynomial", "--lr-scheduler-kwargs", "power=2"]
    evaluation = ["--eval-strategy", "epoch", "--load-best-model-at-end", "true"]
    train(inputs, out, "-p", "no:progress", *schedule, *evaluation, "--label-names", "no,yes")
    return out


def test_a_run_that_resumes_exactly(run, tmp_path, capsys):
    """The kill comes late, so that there is a checkpoint to go on from."""
    kept = tmp_path / "kept"
    words = ["verify-resume", str(run), *SHORT, "--seed", "1", "--keep", str(kept)]
    code = cli.main(words)
    said = capsys.readouterr().out
    assert code == 0 and said.splitlines()[-1].startswith("EQUAL"), said
    assert said.count("B 1: ") == 1 and "went on from" in said
    record = json.loads((kept / "B" / "run.json").read_text())
    assert record["arguments"]["lr_scheduler_kwargs"] == {"power": 2.0}
    assert record["inputs"]["names"] == ["no", "yes"]
    assert record["state"]["global_step"] == 6
    assert "-pno:progress" in command.plugins_of(["minift", "-p", "no:progress", "train"])


def test_a_run_that_does_not_is_found_out(inputs, tmp_path, capsys, monkeypatch):
    plugin = tmp_path / "forgetful.py"
    plugin.write_text(FORGETFUL)
    out = tmp_path / "out"
    train(inputs, out, "--plugin", str(plugin))
    record = json.loads((out / "run.json").read_text())
    record["command"] = ["minift", "--plugin", str(plugin), "train"]  # pytest's own was recorded
    (out / "run.json").write_text(json.dumps(record))
    # Late enough for a checkpoint, and before the end: after two thirds of the steps or so.
    # A class of our own: tempfile draws its names from the library's, and would find one name only.
    half = type("Half", (command.random.Random,), {"random": lambda _: 0.5})
    monkeypatch.setattr(command.random, "Random", half)
    for _ in range(3):
        code = cli.main(["verify-resume", str(out), *SHORT, "--save-steps", "1"])
        said = capsys.readouterr().out
        if "went on from checkpoint-" in said and "from checkpoint-6" not in said:
            break
    assert code == 1, said
    different = [line for line in said.splitlines() if line.startswith("DIFFERENT: ")]
    assert any("metrics.jsonl, record of step" in line for line in different)
    assert any("model.safetensors: " in line for line in different)
    assert any("optimizer.safetensors: " in line for line in different)


def folders(run, tmp_path):
    """Two folders as `verify-resume` compares them; the checkpoint is that of the last step."""
    for name in "AB":
        shutil.copytree(run, tmp_path / name)
    return tmp_path / "A", tmp_path / "B"


def test_equal_folders_and_what_may_differ(run, tmp_path):
    a, b = folders(run, tmp_path)
    lines = [json.loads(line) for line in (b / "metrics.jsonl").read_text().splitlines()]
    lines = [{k: v + 1 if k.endswith("runtime") else v for k, v in x.items()} for x in lines]
    (b / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert comparing.differences(a, b) == []


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint-6/optimizer.safetensors"])
def test_one_bit_of_one_tensor_is_a_difference(run, tmp_path, name):
    a, b = folders(run, tmp_path)
    data = bytearray((b / name).read_bytes())
    data[-1] ^= 1
    (b / name).write_bytes(data)
    [line] = comparing.differences(a, b)
    assert line.startswith(f"{name}: ") and "tensors are equal" not in line
    (b / name).unlink()
    assert "is not there" in comparing.differences(a, b)[0]


def test_one_digit_of_one_record_is_a_difference(run, tmp_path):
    a, b = folders(run, tmp_path)
    path = b / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace('"loss": 0.', '"loss": 0.1', 1))
    assert "record of step 1: loss is" in comparing.differences(a, b)[0]
    path.write_text("".join(line + "\n" for line in whole.splitlines()[:-1]))
    assert "records in A" in comparing.differences(a, b)[0]


def test_what_is_no_run_or_cannot_be_made_again(inputs, tmp_path, capsys):
    assert cli.main(["verify-resume", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    rows = {"input_ids": [[2, 5, 3]] * 4, "labels": [0, 1] * 2}
    model, tokenizer = load_both(inputs / "model")
    args = TrainingArguments(str(tmp_path / "script"), max_steps=1, disable_tqdm=True)
    Trainer(model, args, train_dataset=Dataset.from_dict(rows), tokenizer=tokenizer).train()
    assert cli.main(["verify-resume", str(tmp_path / "script")]) == 2
    said = capsys.readouterr().err
    assert "written by a script" in said and "do this:" in said


def load_both(folder):
    from minift import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return model, AutoTokenizer.from_pretrained(folder)


def test_a_folder_that_is_not_empty_is_not_written_to(run, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert cli.main(["verify-resume", str(run), "--keep", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("by", ["flag", "file"])
def test_resume_from_checkpoint_true_as_a_flag_and_in_the_toml_file(run, tmp_path, capsys, by):
    """RUN has come to its end, so what goes on has no step left and only saves again."""
    out = tmp_path / "out"
    shutil.copytree(run, out)
    settings = command.settings_of(command.read_record(run), 6, 500)
    text = command.as_toml({**settings, "output_dir": str(out)})
    words = ["--resume-from-checkpoint", "true"] if by == "flag" else []
    if by == "file":
        text += "resume_from_checkpoint = true\n"
    (tmp_path / "run.toml").write_text(text)
    assert cli.main(["train", "--config", str(tmp_path / "run.toml"), *words]) == 0
    assert f"going on from {out / 'checkpoint-6'}" in capsys.readouterr().err
    same = "model.safetensors"
    assert (out / same).read_bytes() == (run / same).read_bytes()
