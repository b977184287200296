"""The command line as a stranger types it: the happy path, every kind of bad input, Ctrl-C."""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from tiny import make_model, make_rows, write_csv

from minift import TrainingArguments, cli, plugins

QUICK = ["--max-steps", "3", "--disable-tqdm", "true", "--device", "cpu"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def data(tmp_path):
    """A folder with train.csv, validation.csv and test.csv."""
    folder = tmp_path / "data"
    folder.mkdir()
    for i, split in enumerate(("train", "validation", "test")):
        write_csv(folder / f"{split}.csv", make_rows(24, seed=i))
    return folder


def refused(capsys, tmp_path, *words):
    """Run a command that must fail; its message."""
    out = tmp_path / "out"
    code = cli.main([*words, "--output-dir", str(out)])
    said = capsys.readouterr().err
    assert code == 2, said
    assert "Traceback" not in said
    assert not out.exists(), "something was written"
    return said


def train(model, out, *words):
    return cli.main(["train", "--model", model, "--output-dir", str(out), *QUICK, *words])


# ----------------------------------------------------------------------------------- the happy path


def test_a_configuration_of_a_data_set(model, data, tmp_path, capsys):
    """Of a folder, a folder in it; on the Hub, a name. `eval` finds it again."""
    data.rename(tmp_path / "two")
    (tmp_path / "all").mkdir()
    (tmp_path / "two").rename(tmp_path / "all" / "two")
    words = ["--dataset", str(tmp_path / "all"), "--dataset-config", "two"]
    assert train(model, tmp_path / "out", *words) == 0
    assert cli.main(["eval", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert "has no configuration 'three'" in refused(
        capsys, tmp_path / "other", "train", "--model", model, *words[:-1], "three"
    )


def test_train_eval_predict(model, data, tmp_path, capsys):
    out = tmp_path / "out"
    assert train(model, out, "--dataset", str(data)) == 0
    printed = capsys.readouterr().out
    assert "eval_accuracy" in printed and f"saved to {out}" in printed
    files = {path.name for path in out.iterdir()}
    assert {"run.json", "metrics.jsonl", "config.json", "model.safetensors"} <= files
    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "finished"
    assert run["inputs"]["columns"] == ["sentence1", "sentence2"]

    assert cli.main(["eval", str(out), "--split", "test"]) == 0  # the data it was trained with
    found = json.loads(capsys.readouterr().out.split("\n", 1)[1])
    assert set(found) >= {"test_loss", "test_accuracy", "test_f1"}

    assert cli.main(["predict", str(out), "w1 w2", "w1 w30"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[1] for line in lines) == ["LABEL_0", "LABEL_1"]
    assert sum(float(line.split()[0]) for line in lines) == pytest.approx(1, abs=1e-3)


def test_predict_the_rows_of_a_file(model, data, tmp_path, capsys):
    out = tmp_path / "out"
    train(model, out, "--train-file", str(data / "train.csv"), "--label-names", "no,yes")
    capsys.readouterr()
    assert cli.main(["predict", str(out), "--file", str(data / "test.csv")]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 24
    assert set(rows[0]["scores"]) == {"no", "yes"}
    assert rows[0]["label"] == max(rows[0]["scores"], key=rows[0]["scores"].get)


def test_string_labels_with_their_names(model, data, tmp_path):
    rows = make_rows(24)
    rows["label"] = [["no", "yes"][label] for label in rows["label"]]
    file = write_csv(tmp_path / "words.csv", rows)
    out = tmp_path / "out"
    assert train(model, out, "--train-file", str(file), "--label-names", "no,yes") == 0
    assert json.loads((out / "config.json").read_text())["id2label"] == {"0": "no", "1": "yes"}


def test_single_texts_and_other_columns(model, tmp_path, capsys):
    rows = {"review": ["w1 w2 w3"] * 8, "stars": [0, 1, 2, 1] * 2, "id": range(8)}
    file = write_csv(tmp_path / "reviews.csv", rows)
    columns = ["--text-columns", "review", "--label-column", "stars"]
    out = tmp_path / "out"
    assert train(model, out, "--train-file", str(file), *columns) == 0
    assert len(json.loads((out / "config.json").read_text())["id2label"]) == 3
    capsys.readouterr()
    assert cli.main(["predict", str(out), "w1", "w2"]) == 2
    assert "single texts" in capsys.readouterr().err


def test_settings_from_a_toml_file_give_way_to_the_command_line(model, data, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(
        f'model = "{model}"\ndataset = "{data}"\nlearning-rate = 0.002\nmax_steps = 2\n'
        f'output_dir = "{tmp_path / "out"}"\ndisable_tqdm = true\n'
    )
    assert cli.main(["train", "--config", str(config), "--max-steps", "1"]) == 0
    said = json.loads((tmp_path / "out" / "run.json").read_text())
    assert said["arguments"]["learning_rate"] == 0.002
    assert said["state"]["global_step"] == 1


def test_every_training_argument_is_a_flag(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    said = capsys.readouterr().out
    for field in dataclasses.fields(TrainingArguments):
        assert f"--{field.name.replace('_', '-')} VALUE" in said


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [
        ("--fp16", "false", False),
        ("--fp16", "No", False),
        ("--full-determinism", "1", True),
        ("--save-total-limit", "none", None),
        ("--save-total-limit", "3", 3),
        ("--max-steps", "1e3", 1000),
        ("--eval-steps", "0.25", 0.25),
        ("--logging-steps", "auto", "auto"),
        ("--logging-steps", "10", 10),
        ("--lr-scheduler-kwargs", "power=2,lr_end=0", {"power": 2, "lr_end": 0}),
        ("--resume-from-checkpoint", "true", "true"),
        ("--run-name", "none", "none"),
    ],
)
def test_the_text_of_a_flag_is_read_as_the_argument_s_type(flag, text, value):
    args = cli.build_parser().parse_args(["train", flag, text])
    assert getattr(args, flag[2:].replace("-", "_")) == value


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        *[("--fp16", "perhaps"), ("--fp16", "2"), ("--learning-rate", "nan")],
        *[("--save-steps", "2.5"), ("--per-device-train-batch-size", "none")],
        *[("--lr-scheduler-kwargs", "power"), ("--lr-scheduler-kwargs", "power=x")],
        *[("--eval-strategy", "Steps"), ("--logging-steps", "often"), ("--max-length", "long")],
    ],
)
def test_a_flag_says_what_is_possible(flag, text, capsys):
    with pytest.raises(SystemExit):
        cli.build_parser().parse_args(["train", flag, text])
    assert f"{flag[2:].replace('-', '_')} must be " in capsys.readouterr().err


def test_a_task_brings_its_columns_names_and_metric(model, tmp_path):
    folder = tmp_path / "mrpc"
    folder.mkdir()
    rows = make_rows(12)
    for name in ("train.tsv", "dev.tsv"):
        lines = ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        for first, second, label in zip(*rows.values(), strict=True):
            lines.append(f'{label}\t1\t2\t{first} "w3\t{second}')
        (folder / name).write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    assert train(model, out, "--task", "mrpc", "--dataset", str(folder)) == 0
    names = json.loads((out / "config.json").read_text())["id2label"]
    assert names == {"0": "not_equivalent", "1": "equivalent"}


# --------------------------------------------------------------------------------------- bad input


def test_missing_file(model, tmp_path, capsys):
    said = refused(capsys, tmp_path, "train", "--model", model, "--train-file", "nowhere.csv")
    assert "nowhere.csv" in said


def test_empty_file(model, tmp_path, capsys):
    (tmp_path / "empty.csv").write_text("")
    file = str(tmp_path / "empty.csv")
    assert "is empty" in refused(capsys, tmp_path, "train", "--model", model, "--train-file", file)


def test_a_file_with_a_header_and_no_rows(model, tmp_path, capsys):
    (tmp_path / "header.csv").write_text("sentence1,sentence2,label\n")
    file = str(tmp_path / "header.csv")
    said = refused(capsys, tmp_path, "train", "--model", model, "--train-file", file)
    assert "no rows" in said


@pytest.mark.parametrize("option", ["--text-columns", "--label-column"])
def test_wrong_column_name(model, data, tmp_path, capsys, option):
    words = ["train", "--model", model, "--dataset", str(data), option, "sentense1"]
    said = refused(capsys, tmp_path, *words)
    assert "sentense1" in said and "sentence1" in said


def test_a_label_never_seen(model, data, tmp_path, capsys):
    rows = make_rows(6)
    rows["label"][3] = 5
    write_csv(data / "validation.csv", rows)
    said = refused(capsys, tmp_path, "train", "--model", model, "--dataset", str(data))
    assert "5, first in row 3" in said and "0 to 1" in said


def test_a_label_name_never_given(model, tmp_path, capsys):
    rows = make_rows(4)
    rows["label"] = ["no", "yes", "maybe", "no"]
    file = str(write_csv(tmp_path / "train.csv", rows))
    words = ["train", "--model", model, "--train-file", file, "--label-names", "no,yes"]
    assert "'maybe'" in refused(capsys, tmp_path, *words)


def test_ragged_rows(model, data, tmp_path, capsys):
    with (data / "train.csv").open("a") as file:
        file.write("one,two,0,three\n")
    said = refused(capsys, tmp_path, "train", "--model", model, "--dataset", str(data))
    assert "train.csv:26" in said and "4 cells" in said


def test_a_model_folder_without_safetensors(model, data, tmp_path, capsys):
    folder = make_model(tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    said = refused(capsys, tmp_path, "train", "--model", str(folder), "--dataset", str(data))
    assert "pytorch_model.bin" in said and "pickle" in said


def test_an_unknown_model_type(data, tmp_path, capsys):
    folder = make_model(tmp_path / "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    said = refused(capsys, tmp_path, "train", "--model", str(folder), "--dataset", str(data))
    assert "'llama'" in said and "bert, distilbert" in said


def test_truncated_weights(data, tmp_path, capsys):
    folder = make_model(tmp_path / "cut")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    said = refused(capsys, tmp_path, "train", "--model", str(folder), "--dataset", str(data))
    assert "not a complete safetensors file" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--learning-rate", "fast"],
            "learning_rate must be a finite number, 0 or more, got 'fast'",
        ),
        (["--learning-rat", "1"], "unrecognized"),
        (["--per-device-train-batch-size", "0"], "at least 1"),
        (["--device", "abacus"], "abacus"),
        (["--task", "mrcp"], "'mrpc'"),
    ],
)
def test_bad_settings(model, data, tmp_path, capsys, words, expected):
    out = tmp_path / "out"
    try:
        code = cli.main(
            ["train", "--model", model, "--dataset", str(data), "--output-dir", str(out), *words]
        )
    except SystemExit as stop:  # argparse's own
        code = stop.code
    assert code == 2 and expected in capsys.readouterr().err
    assert not out.exists()


def test_a_metric_that_does_not_fit_fails_before_training(model, tmp_path, capsys):
    rows = make_rows(6)
    rows["label"] = [0, 1, 2, 0, 1, 2]
    file = str(write_csv(tmp_path / "train.csv", rows))
    words = ["train", "--model", model, "--train-file", file, "--metric", "f1"]
    said = refused(capsys, tmp_path, *words)
    assert "binary f1 is of two classes" in said
    assert "pass --metric" in said and "average=" not in said  # which no flag says


@pytest.mark.parametrize("labels", [[1, 2], [0, 99999999]])
def test_class_numbers_with_gaps(model, tmp_path, capsys, labels):
    """One name for each number up to the largest would be a hundred million of them."""
    rows = make_rows(4)
    rows["label"] = labels * 2
    file = str(write_csv(tmp_path / "train.csv", rows))
    said = refused(capsys, tmp_path, "train", "--model", model, "--train-file", file)
    assert "not 0, 1, 2" in said and "--label-names" in said


def test_text_that_is_no_text(model, tmp_path, capsys):
    rows = make_rows(4)
    file = str(write_csv(tmp_path / "numbers.csv", {**rows, "sentence1": [1, 2, 3, 4]}))
    said = refused(capsys, tmp_path, "train", "--model", model, "--train-file", file)
    assert "'sentence1'" in said and "no text" in said
    lines = [{"sentence1": "w1", "sentence2": "w2", "label": 0}] * 3
    lines.append({**lines[0], "sentence2": None})
    (tmp_path / "nulls.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    words = ["train", "--model", model, "--train-file", str(tmp_path / "nulls.jsonl")]
    said = refused(capsys, tmp_path, *words)
    assert "'sentence2'" in said and "row 3" in said


def test_more_than_two_text_columns(model, data, tmp_path, capsys):
    words = ["train", "--model", model, "--dataset", str(data)]
    said = refused(capsys, tmp_path, *words, "--text-columns", "sentence1,sentence2,label")
    assert "in two for pairs" in said


def test_a_run_folder_that_cannot_be_made(model, data, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        code = cli.main(
            ["train", "--model", model, "--dataset", str(data), "--output-dir", str(out)]
        )
        said = capsys.readouterr().err
        assert code == 2 and "cannot be written" in said
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "line",
    ['learning_rate = "fast"', "per_device_train_batch_size = 2.5", 'use_cpu = "perhaps"'],
)
def test_values_of_the_wrong_type_in_the_toml_file(model, tmp_path, capsys, line):
    (tmp_path / "run.toml").write_text(line + "\n")
    said = refused(capsys, tmp_path, "train", "--config", str(tmp_path / "run.toml"))
    assert line.split()[0] in said and "does not fit" in said


@pytest.mark.parametrize("value", ["auto", "0.5", "7"])
def test_logging_steps_takes_a_word_or_a_number(value):
    cli.choose_plugins([])
    args = cli.build_parser().parse_args(["train", "--logging-steps", value])
    assert args.logging_steps == (value if value == "auto" else float(value))


def test_the_commands_to_begin_with_stand_first_in_the_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = capsys.readouterr().out.partition("positional arguments:\n  COMMAND\n")[2]
    names = [line.split()[0] for line in listed.splitlines() if line[4:5].strip()]
    assert names[:4] == ["train", "eval", "plugins", "tasks"]


def test_the_help_says_which_plugin_does_not_load(capsys, monkeypatch):
    """Its commands are missing there, perhaps even the one that lists plugins."""
    broken = plugins.build_manager(["no:commands"])
    broken.load_errors["commands"] = ImportError("no module named x")
    monkeypatch.setattr(plugins, "build_manager", lambda *_: broken)
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "The plugin commands does not load: no module named x." in said


def test_without_their_plugin_there_are_no_such_commands(model, data, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--model", model, "--dataset", str(data), "-p", "no:commands"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "invalid choice: 'train'" in said and "demo" in said


@pytest.mark.parametrize(
    "words",
    [["train", "--mod", "x"], ["eval", "x", "--spl", "y"], ["predict", "x", "--dev", "cpu"]],
)
def test_flags_are_not_abbreviated(capsys, words):
    """A flag that a plugin or a later version adds must not change what a script means."""
    with pytest.raises(SystemExit):
        cli.main(words)
    assert "unrecognized arguments" in capsys.readouterr().err


def test_a_plugin_file_that_does_not_load(tmp_path, capsys):
    for text, expected in (("def (:", "SyntaxError"), ("x = 1", "implements no hook")):
        (tmp_path / "mine.py").write_text(text)
        assert cli.main(["plugins", "--plugin", str(tmp_path / "mine.py")]) == 2
        assert expected in capsys.readouterr().err


def test_eval_refuses_what_would_score_something_else(model, data, tmp_path, capsys):
    out = tmp_path / "out"
    train(model, out, "--train-file", str(data / "train.csv"), "--label-names", "no,yes")
    capsys.readouterr()
    assert cli.main(["eval", str(out), "--label-names", "yes,no"]) == 2
    said = capsys.readouterr().err
    assert "got:      yes, no" in said and "expected: no, yes" in said
    assert cli.main(["eval", str(out), "--split", "test"]) == 2
    assert "there is no split 'test'" in capsys.readouterr().err


def test_ctrl_c_after_the_last_step_does_not_count_as_finished(model, data, tmp_path, monkeypatch):
    from minift import Trainer

    def interrupted(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "save_model", interrupted)
    assert train(model, tmp_path / "out", "--dataset", str(data)) == 130
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "interrupted"


def test_an_unknown_option_in_the_toml_file(model, tmp_path, capsys):
    (tmp_path / "run.toml").write_text("learning_rat = 1\n")
    said = refused(capsys, tmp_path, "train", "--config", str(tmp_path / "run.toml"))
    assert "'learning_rate'" in said


def test_debug_shows_the_traceback(model, tmp_path):
    with pytest.raises(FileNotFoundError):
        cli.main(["--debug", "train", "--model", model, "--train-file", "nowhere.csv"])


# --------------------------------------------------------------------------------- real processes


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_folder_that_says_so(model, data, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "minift", "train", "--model", model, "--dataset", str(data)]
    command += ["--output-dir", str(out), "--max-steps", "100000", "--logging-steps", "1"]
    command += ["--dataloader-num-workers", "2"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **quiet)
    try:
        deadline = time.monotonic() + 120
        metrics = out / "metrics.jsonl"
        while not (metrics.is_file() and metrics.read_text()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to its workers, too
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in said and "interrupted" in said
    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "interrupted" and run["state"]["global_step"] > 0
    assert not [p.name for p in out.iterdir() if "tmp" in p.name]
    step = run["state"]["global_step"]
    _, _, lines = said.partition(f"it goes on from checkpoint-{step} with\n")
    again = shlex.split(lines.splitlines()[0])
    assert again[:2] == ["minift", "train"]
    process = subprocess.Popen([sys.executable, "-m", *again], **quiet)
    try:
        lines = iter(process.stderr)
        assert any(f"going on from {out / f'checkpoint-{step}'}" in line for line in lines)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_plain_lines_where_there_is_no_terminal(model, data, tmp_path):
    command = [sys.executable, "-m", "minift", "train", "--model", model, "--dataset", str(data)]
    command += ["--output-dir", str(tmp_path / "out"), "--max-steps", "2", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert "step 1/2  epoch" in done.stderr and "\x1b" not in done.stderr


# --------------------------------------------------------------------------- rows that are too long


def test_a_length_above_the_model_s_limit(model, data, tmp_path, capsys):
    """The tiny model has 32 positions; nothing is tokenized or written."""
    for length in ("33", "0"):
        words = ["train", "--model", model, "--dataset", str(data), "--max-length", length]
        said = refused(capsys, tmp_path, *words)
        assert "--max-length" in said and length in said and "32" in said


def test_rows_that_are_too_long_are_counted(model, tmp_path, capsys):
    texts = ["w1", *(" ".join(["w1"] * n) for n in (5, 6, 7, 40))]  # and two special tokens
    write_csv(tmp_path / "train.csv", {"text": texts, "label": [0, 1, 0, 1, 1]})
    words = ["--train-file", str(tmp_path / "train.csv"), "--max-length", "8"]
    assert train(model, tmp_path / "out", *words) == 0
    said = capsys.readouterr().err
    assert "2 of 5 train rows are cut to 8 tokens; the longest has 42" in said
    words[-1] = "32"
    assert train(model, tmp_path / "longer", *words) == 0
    assert "1 of 5 train rows are cut to 32 tokens" in capsys.readouterr().err
