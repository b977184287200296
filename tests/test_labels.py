"""`minift train` and the labels of files: which classes there are, and which number each one has.

An advice that an error gives is followed here.
"""

import json
import re

import pytest
from minift_commands.build import Inputs
from minift_commands.options import DataOptions
from tiny import make_model

from minift import ClassLabel, Dataset, cli
from minift.errors import ConfigError, DataError

TEXTS = [f"w{i} w{i + 1}" for i in range(30)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_model(tmp_path_factory.mktemp("model")))


def write(path, labels, label="label", text="text"):
    """A csv file, or where the name says so JSON lines, with a text and a label in each row."""
    rows = [{text: TEXTS[i % 30], label: value} for i, value in enumerate(labels)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        Dataset.from_list(rows).to_parquet(path)
    else:
        lines = [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
        path.write_text("\n".join([f"{text},{label}", *lines, ""]))
    return str(path)


def inputs(tmp_path, suffix=".csv", validation=None, **options):
    """The inputs of a file with these labels, or of two."""
    labels = options.pop("labels")
    options["train_file"] = write(tmp_path / f"train{suffix}", labels)
    if validation is not None:
        options["validation_file"] = write(tmp_path / f"dev{suffix}", validation)
    return Inputs.prepare(DataOptions(**options))


def classes(found, split="train"):
    return [found.label_names[n] for n in found.data[split]["labels"]]


FILES = [".csv", ".jsonl", ".parquet"]


@pytest.mark.parametrize("suffix", FILES)
def test_text_labels_need_no_names(suffix, tmp_path, capsys):
    """Sorted, over all files: a class that only one of them has numbers the others alike."""
    found = inputs(tmp_path, suffix, labels=["pos", "neg", "pos"], validation=["neutral", "neg"])
    assert found.label_names == ["neg", "neutral", "pos"]
    assert classes(found) == ["pos", "neg", "pos"]
    assert classes(found, "validation") == ["neutral", "neg"]
    said = capsys.readouterr().err
    assert "classes of 'label', in the order of text: neg, neutral, pos" in said
    assert "no training row is of neutral" in said


def test_names_given_have_the_last_word(tmp_path):
    found = inputs(tmp_path, labels=["pos", "neg", " POS"], label_names="pos,neg,other")
    assert found.label_names == ["pos", "neg", "other"]
    assert list(found.data["train"]["labels"]) == [0, 1, 0]


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize(
    ("labels", "names", "meaning"),
    [
        ([1, 4], "1,2,3,4,5", ["1", "4"]),
        ([1, 2, 3, 4, 5], "1,2,3,4,5", ["1", "2", "3", "4", "5"]),
        ([0, 4, 2], "1,2,3,4,5", ["1", "5", "3"]),  # 0 is no name: these are class numbers
        ([1.0, 4.0], "1,2,3,4,5", ["1", "4"]),
        ([-1, 0, 1], "-1,0,1", ["-1", "0", "1"]),
        ([-1, 1], "-1,0,1", ["-1", "1"]),
        ([0.0, 1.0], "0.0,1.0", ["0.0", "1.0"]),
        ([0.0, 1.0], "neg,pos", ["neg", "pos"]),
        ([0, 1], "neg,pos", ["neg", "pos"]),
        ([True, False], "neg,pos", ["pos", "neg"]),
        ([True, False], "False,True", ["True", "False"]),
        ([True, False], "True,False", ["True", "False"]),
        (["1", "4", "x"], "1,4,x", ["1", "4", "x"]),
        ([10, 2], "1,2,10", ["10", "2"]),
    ],
    ids=str,
)
def test_labels_mean_the_same_in_every_file(suffix, labels, names, meaning, tmp_path):
    assert classes(inputs(tmp_path, suffix, labels=labels, label_names=names)) == meaning


@pytest.mark.parametrize("suffix", FILES)
def test_two_files_are_read_in_one_sense(suffix, tmp_path):
    """1 and 2 alone could be names; where the other file has 0, they are class numbers in both."""
    found = inputs(tmp_path, suffix, labels=[0, 1, 4], validation=[1, 2], label_names="1,2,3,4,5")
    assert classes(found) == ["1", "2", "5"] and classes(found, "validation") == ["2", "3"]


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1, 1], ["LABEL_0", "LABEL_1"]),
        ([0.0, 1.0, 2.0], ["LABEL_0", "LABEL_1", "LABEL_2"]),
        ([True, False], ["False", "True"]),
    ],
    ids=str,
)
def test_numbers_and_booleans_need_no_names(suffix, labels, names, tmp_path):
    found = inputs(tmp_path, suffix, labels=labels)
    assert found.label_names == names and list(found.data["train"]["labels"]) == labels
    assert found.data["train"].features["labels"].dtype == "int64"


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize("labels", [[1, 2, 3], [1, 4], [-1, 0, 1], [0, 99999999], [2, 10]], ids=str)
def test_the_advice_for_numbers_with_gaps_keeps_every_class(suffix, labels, tmp_path):
    with pytest.raises(DataError, match="are not 0, 1, 2") as caught:
        inputs(tmp_path, suffix, labels=labels)
    names = re.search(r"--label-names=(\S+)", caught.value.do)[1]
    found = inputs(tmp_path, suffix, labels=labels, label_names=names)
    assert classes(found) == [str(label) for label in labels]


def test_names_that_begin_with_a_minus_are_a_flag_s_value(model, tmp_path):
    """As the advice is written: `--label-names=-1,0,1`."""
    file, out = write(tmp_path / "train.csv", [-1, 0, 1] * 3), tmp_path / "out"
    words = ["--train-file", file, "--label-names=-1,0,1", "--max-steps", "1", "--device", "cpu"]
    assert cli.main(["train", "--model", model, "--output-dir", str(out), *words]) == 0
    names = json.loads((out / "config.json").read_text())["id2label"]
    assert list(names.values()) == ["-1", "0", "1"]


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize(
    ("labels", "validation", "message"),
    [
        (["a", "b"], [0, 1], "the labels of the validation data are numbers"),
        ([0, 1], ["a", "b"], "the labels of the train data are numbers"),
        (["Neg", "neg", "pos"], None, "two spellings of one class"),
        (["a", "a"], None, "are the same"),
        (["a", None, "b"], None, "rows without a label"),
        (["a", "  ", "b"], None, "rows without a label"),
        ([0.5, 1.5], None, "no class numbers"),
    ],
    ids=str,
)
def test_labels_that_leave_a_doubt_are_an_error(suffix, labels, validation, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        inputs(tmp_path, suffix, labels=labels, validation=validation)
    assert caught.value.do


def test_a_word_that_python_reads_as_a_number_is_a_name(tmp_path):
    assert inputs(tmp_path, labels=["nan", "inf", "x"]).label_names == ["inf", "nan", "x"]


def test_two_spellings_can_be_meant(tmp_path):
    with pytest.raises(DataError, match="two spellings") as caught:
        inputs(tmp_path, labels=["Neg", "neg"])
    names = re.search(r"--label-names=(\S+)", caught.value.do)[1]
    assert classes(inputs(tmp_path, labels=["Neg", "neg"], label_names=names)) == ["Neg", "neg"]


@pytest.mark.parametrize("hidden", [[-1, -1], [None, None]], ids=str)
def test_validation_rows_whose_labels_hide_are_not_scored(hidden, model, tmp_path, capsys):
    train = write(tmp_path / "train.jsonl", [0, 1, 1])
    dev = write(tmp_path / "dev.jsonl", hidden)
    words = ["--train-file", train, "--validation-file", dev, "--max-steps", "1", "--device", "cpu"]
    out = str(tmp_path / "out")
    code = cli.main(["train", "--model", model, "--output-dir", out, *words])
    said = capsys.readouterr()
    assert code == 0 and "no labels, so nothing is scored" in said.out


def test_names_in_one_file_and_numbers_in_the_other(tmp_path):
    named = Dataset.from_dict({"text": TEXTS[:2], "label": [0, 1]})
    named = named.cast_column("label", ClassLabel(names=["neg", "pos"]))
    named.to_parquet(tmp_path / "train.parquet")
    files = {"train_file": str(tmp_path / "train.parquet")}
    files["validation_file"] = write(tmp_path / "dev.csv", [1, 0])
    with pytest.raises(DataError, match="numbers without names") as caught:
        Inputs.prepare(DataOptions(**files))
    names = re.search(r"--label-names=(\S+)", caught.value.do)[1]
    found = Inputs.prepare(DataOptions(**files, label_names=names))
    assert classes(found, "validation") == ["pos", "neg"]
    with pytest.raises(DataError, match="other names, or another order"):
        Inputs.prepare(DataOptions(**files, label_names="pos,neg"))


# --- what is missing, and what is measured -------------------------------------------------------


def test_all_that_is_missing_is_said_at_once(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("review,comment,stars\na,b,1\nc,d,4\n")
    with pytest.raises(ConfigError) as caught:
        Inputs.prepare(DataOptions(train_file=str(path)))
    assert "which columns hold the text" in caught.value.what
    assert "which column holds the labels" in caught.value.what
    assert "--text-columns" in caught.value.do and "--label-column" in caught.value.do
    with pytest.raises(ConfigError) as caught:
        Inputs.prepare(DataOptions(train_file=str(path), label_column="stars"))
    assert "which columns hold the text" in caught.value.what
    assert "not 0, 1, 2" in caught.value.what and "--label-names=1,4" in caught.value.do
    given = {"label_column": "stars", "text_columns": "review", "label_names": "1,2,3,4,5"}
    assert classes(Inputs.prepare(DataOptions(train_file=str(path), **given))) == ["1", "4"]


def test_the_only_text_beside_the_label_is_the_text(tmp_path):
    path = write(tmp_path / "train.csv", ["good", "bad"], label="label", text="review")
    found = Inputs.prepare(DataOptions(train_file=path))
    assert found.text_columns == ["review"] and found.label_names == ["bad", "good"]


@pytest.mark.parametrize(
    ("labels", "metrics"),
    [
        ([0, 1], ["accuracy", "f1"]),
        ([0, 1, 2], ["accuracy", "f1_macro", "f1_weighted"]),
        (["a", "b", "c", "d"], ["accuracy", "f1_macro", "f1_weighted"]),
    ],
)
def test_the_usual_metrics(labels, metrics, tmp_path):
    assert inputs(tmp_path, labels=labels).metrics == metrics


def test_a_metric_of_three_classes_that_the_advice_names(tmp_path):
    with pytest.raises(ConfigError, match="two classes") as caught:
        inputs(tmp_path, labels=[0, 1, 2], metric="f1")
    metric = re.search(r"--metric (\S+),", caught.value.do)[1]
    assert inputs(tmp_path, labels=[0, 1, 2], metric=metric).metrics == metric.split(",")


def test_three_text_classes_from_files_to_predictions(model, tmp_path, capsys):
    train = write(tmp_path / "train.csv", ["pos", "neg", "mid"] * 4)
    dev = write(tmp_path / "dev.csv", ["neg", "pos"])
    words = ["--train-file", train, "--validation-file", dev, "--max-steps", "2", "--device", "cpu"]
    out = str(tmp_path / "out")
    assert cli.main(["train", "--model", model, "--output-dir", out, *words]) == 0
    printed = capsys.readouterr().out
    assert "eval_f1_macro" in printed and "eval_f1_weighted" in printed
    assert cli.main(["eval", out, "--device", "cpu"]) == 0  # its own rows, its own names
    assert "validation_f1_macro" in capsys.readouterr().out
    assert cli.main(["predict", out, "w1 w2"]) == 0
    assert {line.split()[1] for line in capsys.readouterr().out.splitlines()} == {
        "mid",
        "neg",
        "pos",
    }
