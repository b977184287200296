"""Every row of the task table, from its data set's own schema to a score.

And what tasks must not do: train on rows that hide their label or score them, mix up the rows of a
group, score other rows than those that were held out.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hub_repositories import (
    EMOTION,
    GLUE,
    IMDB,
    SARCASM,
    SUPER_GLUE,
    TOMATOES,
    in_metadata,
    write_model,
)
from minift_commands.build import Inputs
from minift_commands.options import DataOptions
from minift_commands.tasks import find_task
from minift_compare.intervals import wilson
from minift_glue import pairs
from minift_glue.tasks import TASKS, table

from minift import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Dataset,
    EvalPrediction,
    cli,
    hookimpl,
    load_dataset,
    plugins,
)
from minift.data.features import Features
from minift.data.file_formats import DatasetFiles
from minift.errors import DataError, PluginError
from minift.evaluate import find_metric
from minift.tasks import Task
from minift.training.evaluation import named_metrics

REPOSITORIES = {
    "glue": ("nyu-mll/glue", GLUE),
    "super_glue": ("aps/super_glue", SUPER_GLUE),
    "emotion": ("dair-ai/emotion", EMOTION),
    "ar_sarcasm": ("iabufarha/ar_sarcasm", SARCASM),
    "imdb": ("stanfordnlp/imdb", IMDB),
    "rotten_tomatoes": ("cornell-movie-review-data/rotten_tomatoes", TOMATOES),
}
QUICK = ["--max-steps", "2", "--per-device-train-batch-size", "8", "--save-strategy", "no"]
QUICK += ["--disable-tqdm", "true", "--device", "cpu", "--max-length", "32", "--precision", "fp32"]


class SmallHub:
    """What knows the data sets' names: the files of `hub_repositories`."""

    def __init__(self, repositories):
        self.repositories = repositories

    @hookimpl
    def minift_find_dataset(self, path, name):
        if path not in REPOSITORIES:
            return None
        repository, configs = REPOSITORIES[path]
        config = configs[name or next(iter(configs))]
        folder = self.repositories[repository]["main"]
        said = {column: in_metadata(kind) for column, kind in config.columns.items()}
        files = {split: sorted(folder.glob(f"**/{split}*.parquet")) for split in config.splits}
        if name is not None:
            files = {split: sorted(folder.glob(f"{name}/{split}-*")) for split in config.splits}
        return DatasetFiles(files, features=Features.from_dict(said), source=repository)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(autouse=True)
def small_hub(repositories, monkeypatch):
    """Commands find the small repositories by the names of the real ones."""
    build = plugins.build_manager

    def with_hub(select=(), files=(), more=()):
        return build(select, files, [*more, SmallHub(repositories)])

    monkeypatch.setattr(plugins, "build_manager", with_hub)
    plugins.set_default_manager(with_hub())


def train(model, out, task, *words):
    command = ["train", "--model", model, "--output-dir", str(out), "--task", task]
    return cli.main([*command, *QUICK, *words])


def printed_json(capsys):
    """What `minift eval` prints, after lines on what is read."""
    said = capsys.readouterr().out
    return json.loads(said[said.index("{\n") :])


def inputs_of(task, **options):
    return Inputs.prepare(DataOptions(task=task, **options))


# ---------------------------------------------------------------------------- each row of the table

KEYS = {
    "cola": "matthews_correlation",
    "stsb": "pearson spearmanr",
    "ax": "matthews_correlation",
    "axb": "matthews_correlation",
    "cb": "accuracy f1",
    "mrpc": "accuracy f1",
    "qqp": "accuracy f1",
    "ar_sarcasm": "accuracy f1",
    "multirc": "exact_match f1_m f1_a",
    "record": "exact_match f1",
}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_task_trains_and_is_scored(task, model, tmp_path, capsys):
    out = tmp_path / "out"
    assert train(model, out, task) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out.splitlines()[-2].split()
    scores = {name.removeprefix("eval_") for name in printed[::2]}
    assert scores == {"loss", *KEYS.get(task, "accuracy").split()}
    run = json.loads((out / "run.json").read_text())
    said = TASKS[task]
    assert run["status"] == "finished" and run["inputs"]["source"] == {"task": task}
    repository = REPOSITORIES[said.dataset][0]
    assert {part["source"] for part in run["data"].values()} == {repository}
    assert run["inputs"]["columns"] == said.columns and run["inputs"]["names"] == said.label_names
    classes = json.loads((out / "config.json").read_text())["id2label"]
    assert list(classes.values()) == (said.label_names or ["LABEL_0"])

    assert cli.main(["eval", str(out)]) == 0  # the same rows, the same scores
    again = printed_json(capsys)
    for name, value in zip(printed[::2], printed[1::2], strict=True):
        assert again["validation_" + name.removeprefix("eval_")] == pytest.approx(
            float(value), abs=1e-4
        )


@pytest.mark.parametrize("task", TASKS)
def test_no_row_without_a_label_is_trained_on_or_scored(task):
    inputs = inputs_of(task)
    for split, rows in inputs.data.items():
        if "labels" in rows.features:
            labels = np.array(list(rows["labels"]))
            assert (labels >= 0).all(), split
        else:
            assert split == "test"
    hidden = {"mrpc", "emotion", "ar_sarcasm", "imdb", "rotten_tomatoes", "axb", "axg"}
    assert ("test" in inputs.data and "labels" not in inputs.data["test"].features) == (
        task not in hidden
    )


def test_the_test_rows_of_a_task_that_hides_labels_can_be_predicted(model, tmp_path, capsys):
    """A diagnostic whose rows are of another configuration than those that train."""
    out = tmp_path / "out"
    assert train(model, out, "ax") == 0
    capsys.readouterr()
    assert cli.main(["eval", str(out), "--split", "test"]) == 2
    assert "no labels" in capsys.readouterr().err
    assert cli.main(["predict", str(out), "--split", "test"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == GLUE["ax"].splits["test"]
    assert set(rows[0]["scores"]) == {"entailment", "neutral", "contradiction"}


def test_a_number_is_predicted_as_it_is(model, tmp_path, capsys):
    out = tmp_path / "out"
    assert train(model, out, "stsb") == 0
    said = json.loads((out / "config.json").read_text())
    assert said["problem_type"] == "regression" and len(said["id2label"]) == 1
    capsys.readouterr()
    assert cli.main(["predict", str(out), "--split", "test"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert list(first["scores"]) == ["LABEL_0"]


def test_whole_numbers_to_predict_are_no_classes(tmp_path):
    """A csv file of STS-B scores that happen to be whole has a column of integers."""
    file = tmp_path / "train.csv"
    file.write_text("sentence1,sentence2,label\na,b,5\nc,d,0\n")
    inputs = inputs_of("stsb", train_file=str(file))
    assert inputs.label_names == [] and list(inputs.data["train"]["labels"]) == [5.0, 0.0]
    assert inputs.data["train"].features["labels"].dtype == "float32"


def test_both_parts_of_mnli(model, tmp_path, capsys):
    """One model, scored on either: --task of another task means that one's rows."""
    matched, mismatched = (inputs_of(task).data["validation"] for task in ("mnli", "mnli-mm"))
    assert (len(matched), len(mismatched)) == (16, 18)
    out = tmp_path / "out"
    assert train(model, out, "mnli") == 0
    capsys.readouterr()
    assert cli.main(["eval", str(out), "--task", "mnli-mm"]) == 0
    other = printed_json(capsys)
    assert cli.main(["eval", str(out)]) == 0
    assert other["validation_loss"] != printed_json(capsys)["validation_loss"]


# ------------------------------------------------------------------- a model on another task's rows


@pytest.fixture(scope="module")
def classifiers(model, tmp_path_factory):
    """A function: the folder of a model with these names of classes."""

    def make(*names):
        folder = tmp_path_factory.mktemp("classifier")
        if names:
            said = {"id2label": dict(enumerate(names))}
        else:
            said = {"num_labels": 1, "problem_type": "regression"}
        network = AutoModelForSequenceClassification.from_pretrained(model, **said)
        network.save_pretrained(folder)
        AutoTokenizer.from_pretrained(model).save_pretrained(folder)
        return str(folder)

    return make


@pytest.mark.parametrize(
    ("of", "task"),
    [
        ("rte", "wnli"),  # the other way round: an accuracy of 40 % would be one of 60 %
        ("ax", "cb"),  # the same three in another order
        ("rte", "mrpc"),
        ("emotion", "mnli"),
        ("sst2", "stsb"),
        ("stsb", "rte"),
    ],
)
def test_a_task_with_other_classes_is_not_scored(of, task, classifiers, capsys):
    folder = classifiers(*TASKS[of].label_names or ())
    words = ["--task", task, "--device", "cpu"]
    for command in (["eval", folder], ["compare", folder, folder]):
        assert cli.main([*command, *words]) == 2
        said = capsys.readouterr().err
        assert "the rows have other classes than the model" in said
        for name in (of, task):
            assert ", ".join(TASKS[name].label_names or ["a number"]) in said


@pytest.mark.parametrize(
    ("names", "task"),
    [
        (TASKS["mnli"].label_names, "mnli-mm"),
        (TASKS["super_glue/rte"].label_names, "axb"),
        (["NEGATIVE", "POSITIVE"], "sst2"),
        (["LABEL_0", "LABEL_1", "LABEL_2"], "cb"),
        ([], "stsb"),
    ],
)
def test_a_task_with_the_same_classes_is_scored(names, task, classifiers, capsys):
    assert cli.main(["eval", classifiers(*names), "--task", task, "--device", "cpu"]) == 0
    assert "validation_loss" in printed_json(capsys)


def test_classes_without_names_are_as_many(classifiers, capsys):
    folder = classifiers("LABEL_0", "LABEL_1", "LABEL_2")
    assert cli.main(["eval", folder, "--task", "rte", "--device", "cpu"]) == 2
    assert "other classes" in capsys.readouterr().err


def test_another_label_of_the_task_is_another_task(classifiers, capsys):
    """`--label-column` of a model that is no run: the names are those of that label."""
    folder = classifiers(*SARCASM["default"].columns["sentiment"])
    words = ["--task", "ar_sarcasm", "--label-column", "sentiment", "--split", "test"]
    assert cli.main(["eval", folder, *words, "--device", "cpu"]) == 0
    assert set(printed_json(capsys)) >= {"test_accuracy"}


def test_a_metric_that_another_label_does_not_fit(model, tmp_path, capsys):
    words = ["--label-column", "sentiment", "--metric", "f1"]
    assert train(model, tmp_path / "out", "ar_sarcasm", *words) == 2
    said = capsys.readouterr().err
    assert "two classes" in said and "pass --metric" in said and "average=" not in said


# --------------------------------------------------------------------------- where the rows are


@pytest.mark.parametrize("name", ["mrpc", "glue/mrpc"])
def test_a_task_goes_by_its_long_name_too(name):
    assert inputs_of(name).data["validation"]["sentence1"][0].startswith("the ")


def test_the_same_data_set_from_a_folder(repositories, tmp_path):
    """A clone with a folder for each configuration, or the files of one alone."""
    by_name = inputs_of("wic").data
    clone = repositories["aps/super_glue"]["main"]
    only = shutil.copytree(clone / "wic", tmp_path / "wic")
    for folder in (clone, only):
        inputs = inputs_of("wic", dataset=str(folder))
        assert inputs.source == {"task": "wic", "dataset": str(folder)}
        for split, rows in by_name.items():
            assert list(inputs.data[split]["first"]) == list(rows["first"])


def as_glue_names_it(folder, to):
    """MNLI's rows as GLUE's own files have them: other columns, words for classes, no quoting."""
    to.mkdir()
    for file in folder.glob("*.parquet"):
        name = file.name.partition("-")[0].replace("validation", "dev")
        labels = not name.startswith("test")
        lines = ["index\tgenre\tsentence1\tsentence2" + "\tlabel1\tgold_label" * labels]
        for i, row in enumerate(load_dataset(str(file), split="train")):
            lines.append(f'{i}\tfiction\t{row["premise"]}\t"{row["hypothesis"]}')
            if labels:
                lines[-1] += f"\tneutral\t{TASKS['mnli'].label_names[row['label']]}"
        (to / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return to


@pytest.mark.parametrize("task", ["mnli", "mnli-mm", "ax"])
def test_the_parts_of_mnli_from_a_folder(task, repositories, tmp_path, monkeypatch):
    """They are not mixed, whether it holds configurations, the files, GLUE's files, or is saved."""
    by_name = inputs_of(task).data
    clone = repositories["nyu-mll/glue"]["main"]
    saved = tmp_path / "saved"
    load_dataset("glue", "mnli").save_to_disk(saved)
    named_by_glue = as_glue_names_it(clone / "mnli", tmp_path / "MNLI")
    monkeypatch.chdir(clone.parent)
    for folder in (clone, "main", clone / "mnli", named_by_glue, saved):
        inputs = inputs_of(task, dataset=str(folder))
        for split in ("train", "validation"):
            rows = inputs.data[split]
            assert list(rows["premise"]) == list(by_name[split]["premise"]), folder
            assert list(rows["labels"]) == list(by_name[split]["labels"]), folder
            quoted = [text.startswith('"') for text in rows["hypothesis"]]
            assert all(quoted) if folder == named_by_glue else not any(quoted)
        if task == "ax" and folder not in (clone, "main"):
            assert "test" not in inputs.data, folder  # MNLI's test rows are not AX's
        else:
            assert list(inputs.data["test"]["premise"]) == list(by_name["test"]["premise"]), folder


def test_a_folder_with_the_usual_names_serves_mnli(tmp_path):
    for split, text in (("train", "a"), ("dev", "b")):
        (tmp_path / f"{split}.csv").write_text(f"premise,hypothesis,label\n{text},c,0\n")
    data = inputs_of("mnli", dataset=str(tmp_path)).data
    assert list(data["train"]["premise"]) == ["a"] and list(data["validation"]["premise"]) == ["b"]


def test_a_run_of_a_task_is_scored_on_rows_from_elsewhere(repositories, model, tmp_path, capsys):
    """Which become pairs there too."""
    out = tmp_path / "out"
    assert train(model, out, "copa") == 0
    capsys.readouterr()
    assert cli.main(["eval", str(out)]) == 0
    here = printed_json(capsys)
    clone = str(repositories["aps/super_glue"]["main"])
    assert cli.main(["eval", str(out), "--dataset", clone]) == 0
    there = printed_json(capsys)
    assert there["validation_loss"] == here["validation_loss"]
    assert there["validation_accuracy"] == here["validation_accuracy"]


def test_an_unknown_task_names_the_nearest(capsys):
    assert cli.main(["train", "--model", "x", "--task", "mrcp"]) == 2
    assert "'mrpc'" in capsys.readouterr().err


def test_rows_that_nobody_labelled_are_not_even_read():
    assert set(inputs_of("imdb").data) == {"train", "validation", "test"}


# ----------------------------------------------------------------------------------- hidden labels


@pytest.mark.parametrize(("task", "right"), [("rte", "0"), ("stsb", "2.5")])
def test_hidden_labels_among_others_are_an_error(task, right, tmp_path):
    """As numbers to predict, -1 would be learned from or scored like any other."""
    for split, expected in (("train", "1 of 3"), ("validation", "1 of 3")):
        for other in ("train", "validation"):
            last = "-1" if other == split else right
            rows = "".join(f"a,b,{label}\n" for label in (right, right, last))
            (tmp_path / f"{other}.csv").write_text("sentence1,sentence2,label\n" + rows)
        with pytest.raises(Exception, match=f"{split} data has rows without a label") as error:
            inputs_of(task, dataset=str(tmp_path))
        assert expected in str(error.value)


def test_training_rows_that_all_hide_their_label_are_an_error(tmp_path):
    (tmp_path / "train.csv").write_text("sentence1,sentence2,label\na,b,-1\nc,d,-1\n")
    with pytest.raises(Exception, match="2 of 2 are labelled -1"):
        inputs_of("rte", train_file=str(tmp_path / "train.csv"))


# ------------------------------------------------------------------------------- held out, chosen


def test_held_out_rows_are_stratified_apart_and_always_the_same():
    first, second = (inputs_of("ar_sarcasm").data for _ in range(2))
    columns = ["tweet", "labels", "dialect", "sentiment"]
    rows = {split: ds.select_columns(columns).to_list() for split, ds in first.items()}
    assert rows["validation"] == second["validation"].select_columns(columns).to_list()
    assert len(rows["train"]) == 54 and len(rows["validation"]) == 6
    assert sorted(map(str, rows["train"] + rows["validation"])) == sorted(
        map(str, whole_training_set(columns))
    )
    assert sum(row["labels"] for row in rows["validation"]) == 3  # half, as in all


def whole_training_set(columns):
    from minift import load_dataset

    rows = load_dataset("ar_sarcasm", split="train").rename_column("sarcasm", "labels")
    return rows.select_columns(columns).to_list()


def test_held_out_rows_are_those_that_eval_scores(model, tmp_path, capsys):
    """Whatever the seed of the run, which is recorded with the share."""
    out = tmp_path / "out"
    assert train(model, out, "imdb", "--seed", "7") == 0
    said = capsys.readouterr()
    assert "4 of 40 training rows are held out for validation" in said.err
    run = json.loads((out / "run.json").read_text())
    assert run["inputs"]["validation"].startswith("0.1 of train") and "seed 42" in str(
        run["inputs"]
    )
    assert run["data"]["train"]["rows"] == 36 and run["data"]["eval"]["rows"] == 4
    assert cli.main(["eval", str(out)]) == 0
    loss = printed_json(capsys)["validation_loss"]
    assert f"eval_loss {loss:.4f}" in said.out


@pytest.mark.parametrize("label", ["sentiment", "dialect"])
def test_the_label_that_is_asked_for(label, model, tmp_path, capsys):
    out = tmp_path / "out"
    assert train(model, out, "ar_sarcasm", "--label-column", label) == 0
    assert "eval_accuracy" in capsys.readouterr().out
    run = json.loads((out / "run.json").read_text())
    assert run["inputs"]["names"] == list(SARCASM["default"].columns[label])
    assert run["inputs"]["label"] == label
    assert cli.main(["eval", str(out)]) == 0  # of that label, which the task alone does not say
    assert "validation_accuracy" in printed_json(capsys)


# ------------------------------------------------------------------------------ rows become pairs


def test_words_in_context_are_marked_where_they_are_meant():
    row = {
        "word": "bank",
        "sentence1": "a bank by the bank",
        "sentence2": "The banks closed",
        "start1": 14, "end1": 18, "start2": 4, "end2": 9,
    }  # fmt: skip
    made = pairs.word_in_context(row)
    assert made == {"first": "bank: a bank by the *bank*", "second": "The *banks* closed"}


def test_a_pronoun_and_what_it_may_mean_are_marked():
    row = {
        "text": "Mr. Singer saw Mark and he, too, smiled .",
        "span2_index": 5,
        "span2_text": "he",
    }
    one = pairs.pronoun_and_noun({**row, "span1_index": 0, "span1_text": "Mr. Singer"})
    other = pairs.pronoun_and_noun({**row, "span1_index": 3, "span1_text": "Mark"})
    assert one["first"] == "_Mr. Singer_ saw Mark and *he,* too, smiled ."
    assert other["first"] == "Mr. Singer saw _Mark_ and *he,* too, smiled ."
    assert (one["second"], other["second"]) == ("he: Mr. Singer", "he: Mark")


@pytest.mark.parametrize(
    ("text", "index", "span", "marked"),
    [
        ("Ada  saw Bruno .", 2, "Bruno", "Ada saw *Bruno* ."),  # two spaces
        ("Ada left.\nBruno slept .", 2, "bruno", "Ada left. *Bruno* slept ."),
        ("it was it, then .", 3, "it", "it was *it,* then ."),  # not this word: the nearest that is
        ("Ada was Ada's .", 2, "Ada.", "Ada was *Ada's* ."),
        ("Ada, who left, and Bruno .", 0, "Ada and Bruno", "*Ada, who left,* and Bruno ."),
        ("then Ada", 9, "Ada", "then *Ada*"),
    ],
)
def test_the_words_of_a_span(text, index, span, marked):
    assert pairs.marked_words(text, index, span, "*") == marked


@pytest.mark.parametrize("index", [1, 7, -1])
def test_a_span_that_is_not_in_the_text(index):
    with pytest.raises(DataError, match=f"no 'Carla D' at word {index}") as error:
        pairs.marked_words("Ada saw", index, "Carla D", "*")
    assert "Ada saw" in str(error.value)
    with pytest.raises(DataError, match="no ''"):
        pairs.marked_words("Ada saw", index, "", "*")


def test_choices_become_two_rows():
    rows = Dataset.from_dict({
        "premise": ["The road was wet.", "It rained."],
        "question": ["cause", "effect"],
        "choice1": ["It rained.", "The sun rose."],
        "choice2": ["It was Monday.", "The road was wet."],
        "label": [0, -1],
        "idx": [4, 5],
    })  # fmt: skip
    made = TASKS["copa"].prepare(rows)
    assert made.to_dict() == {
        "context": ["The road was wet because"] * 2 + ["It rained so"] * 2,
        "choice": ["It rained.", "It was Monday.", "The sun rose.", "The road was wet."],
        "label": [1, 0, -1, -1],
        "idx": [4, 4, 5, 5],
    }


def test_entities_become_rows():
    rows = {
        "passage": ["Ada met Bruno .\n@highlight\nIn Rome", "Elif slept", "Nobody"],
        "query": ["@placeholder left", "Where is @placeholder ?", "@placeholder ?"],
        "entities": [["Ada", "Bruno"], ["Elif"], []],
        "answers": [["Bruno"], [], []],
        "idx": [{"passage": i, "query": i} for i in range(3)],
    }
    made = TASKS["record"].prepare(Dataset.from_dict(rows))
    assert made.to_dict() == {
        "passage": ["Ada met Bruno . In Rome"] * 2 + ["Elif slept"],
        "filled": ["Ada left", "Bruno left", "Where is Elif ?"],
        "label": [0, 1, -1],
        "entity": ["Ada", "Bruno", "Elif"],
        "answers": [["Bruno"], ["Bruno"], []],
        "idx": [rows["idx"][0]] * 2 + [rows["idx"][1]],
    }


def test_a_question_and_its_answer_become_one_text():
    row = {"question": "Who ?", "answer": "Ada ."}
    assert pairs.question_and_answer(row) == {"question_answer": "Who ? Ada ."}


def test_prepared_rows_keep_what_scoring_needs():
    data = inputs_of("record").data["validation"]
    assert {"idx", "entity", "answers", "passage", "filled", "labels"} <= set(data.features)
    assert len(data) == 3 * SUPER_GLUE["record"].splits["validation"]
    assert data.features["labels"].names == ["wrong", "right"]
    right = [row["entity"] in row["answers"] for row in data]
    assert list(data["labels"]) == list(map(int, right)) and any(right) and not all(right)


# ------------------------------------------------------------------------------ scores of groups


def prediction(margins, labels, rows):
    """Logits that differ by a margin, around different middles: those must not matter."""
    margins = np.array(margins, np.float32)
    middle = np.linspace(-3, 3, len(margins), dtype=np.float32)
    logits = np.stack([middle - margins / 2, middle + margins / 2], 1)
    return EvalPrediction(logits, np.array(labels), Dataset.from_dict(rows))


def scored(metric, answers, prediction):
    return named_metrics([metric], answers)(prediction)


def test_a_choice_is_right_if_it_beats_the_other():
    """Also where both, or neither, would be called right by themselves; in whatever order."""
    idx = [8, 3, 8, 3, 5, 5]
    found = scored(
        "super_glue/copa",
        pairs.chosen,
        prediction([2, -3, 1, -1, 0.5, 0.7], [1, 0, 0, 1, 1, 0], {"idx": idx}),
    )
    assert found == {"accuracy": pytest.approx(2 / 3)}


def test_answers_are_counted_by_question():
    idx = [{"paragraph": 0, "question": q, "answer": a} for a, q in enumerate((0, 0, 1, 1))]
    found = scored(
        "super_glue/multirc", pairs.answered, prediction([1, -1, 1, 1], [1, 0, 1, 0], {"idx": idx})
    )
    assert found["exact_match"] == 0.5  # of two questions
    assert found["f1_a"] == pytest.approx(0.8)  # 2 right of 3 said and 2 true


def test_the_entity_with_the_largest_margin_is_the_answer():
    rows = {
        "idx": [{"passage": 0, "query": 1}] * 2 + [{"passage": 0, "query": 2}] * 3,
        "entity": ["Ada", "Bruno", "Ada", "the Bruno Bridge", "Carla"],
        "answers": [["Bruno"]] * 2 + [["Bruno Bridge", "Dario"]] * 3,
    }
    found = scored(
        "super_glue/record",
        pairs.filled_in,
        prediction([-2, -1, 0.1, 0.2, -5], [0, 1, 0, 1, 0], rows),
    )
    assert found == {"exact_match": 1.0, "f1": 1.0}
    found = scored(
        "super_glue/record",
        pairs.filled_in,
        prediction([-1, -2, 0.1, 0.2, -5], [0, 1, 0, 1, 0], rows),
    )
    assert found == {"exact_match": 0.5, "f1": 0.5}


@pytest.mark.parametrize("task", ["copa", "multirc", "record"])
def test_models_are_compared_by_groups(task, classifiers, capsys):
    folder = classifiers(*TASKS[task].label_names)
    words = ["--task", task, "--device", "cpu", "--json"]
    assert cli.main(["compare", folder, folder, *words]) == 0
    scores = printed_json(capsys)["scores"]
    assert list(scores) == KEYS.get(task, "accuracy").split()
    if task == "copa":  # 16 questions, of which 32 rows are
        hits = scores["accuracy"]["a"] * 16
        assert hits == int(hits) and scores["accuracy"]["a_interval"] == list(wilson(hits, 16))


# ------------------------------------------------------------------------------------- the table


def test_what_a_task_may_say_is_written_down():
    """In its docstring, and on the page for authors of plugins."""
    page = (Path(__file__).parent.parent / "plugins" / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith("| `minift_register_tasks()`")]
    for field in dataclasses.fields(Task):
        assert f"`{field.name}`" in row and f"{field.name}" in (Task.__doc__ or ""), field.name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("columns", "sentence"),  # a name alone is a list of letters
        ("columns", ["a", "b", "c"]),
        ("columns", []),
        ("label_names", ["yes"]),
        ("label_names", ["yes", "yes"]),
        ("label_names", "yes"),
        ("metrics", "accuracy"),
        ("metrics", []),
        ("splits", {"dev": "dev"}),
        ("validation_fraction", 1.5),
    ],
)
def test_a_wrong_task_is_an_error_that_names_its_plugin(field, value):
    right = {"columns": ["text"], "label_names": ["no", "yes"], "metrics": ["accuracy"]}
    register_task(Task(**right))
    assert find_task("mine") == Task(**right)
    register_task(Task(**{**right, field: value}))
    source = f"{field} of the task 'mine' of the plugin its_author"
    with pytest.raises(PluginError, match=source) as error:
        find_task("mine")
    assert repr(value) in str(error.value) and "expected" in str(error.value)
    register_task(Task(**{**right, "label_names": None, "validation_fraction": 0.1}))
    with pytest.raises(PluginError, match="validation_fraction"):
        find_task("mine")


def register_task(task):
    """Make "mine" the only task that plugins bring."""

    class Plugin:
        @hookimpl
        def minift_register_tasks(self):
            return {"mine": task}

    manager = plugins.build_manager(None)
    manager.register(Plugin(), name="its_author")
    plugins.set_default_manager(manager)


def test_a_plugin_whose_task_is_a_dict_is_named():
    register_task({"columns": ["text"]})
    with pytest.raises(PluginError, match=r"gives a task 'mine' that is no minift\.tasks\.Task"):
        find_task("mine")


def test_an_option_goes_before_the_task_and_the_task_before_a_guess(model, tmp_path):
    out = tmp_path / "out"
    names = ",".join(SARCASM["default"].columns["sentiment"])
    words = ["--label-column", "sentiment", "--label-names", names]
    assert train(model, out, "ar_sarcasm", *words) == 0
    inputs = json.loads((out / "run.json").read_text())["inputs"]
    assert inputs["columns"] == ["tweet"] and inputs["label"] == "sentiment"
    assert inputs["names"] == names.split(",") and inputs["max_length"] == 32


def test_the_table_names_every_task_without_torch():
    code = "import sys; from minift.cli import main; main(['tasks']); main(['tasks', 'wic'])"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert set(TASKS) <= set(names)
    assert "word marked" in done.stdout and "0 to 1, more is better" in done.stdout


@pytest.mark.parametrize("task", TASKS)
def test_all_that_is_known_of_a_task(task, capsys):
    assert cli.main(["tasks", task]) == 0
    said = capsys.readouterr().out
    assert all(column in said for column in TASKS[task].columns)
    assert "is better" in said and ("others" in said or task == "ax")
    if TASKS[task].prepare:
        assert "pairs" in said


def test_the_columns_of_the_table_are_those_of_the_schemas():
    for name, task in TASKS.items():
        configs = REPOSITORIES[task.dataset][1]
        config = configs[task.config or next(iter(configs))]
        label = config.columns.get(task.label, ())
        if task.prepare is None or task.prepare is pairs.mnli_columns:
            assert set(task.columns) <= set(config.columns), name
            assert (task.label_names or "float32") == (
                list(label) if isinstance(label, tuple) else label
            ), name


def test_two_reference_scores_are_in_the_order_of_the_metrics_keys():
    """Or the source names them."""
    named = {"multirc": "exact / F1a", "axg": "accuracy / parity"}
    tasks = table()
    for name, task in tasks.items():
        for source in [source for _, score, source in task.references if " / " in score]:
            two = len(find_metric(task.metrics[0]).score_info) == 2
            assert named[name] in source if name in named else two, name
    large = {
        name: score
        for name, task in tasks.items()
        for model, score, _ in task.references
        if model == "bert-large-cased"
    }
    assert large["cb"] == "83.6 / 75.7"  # accuracy and F1: the paper has them the other way round
    assert large["record"] == "71.3 / 72.0" and large["multirc"] == "24.1 / 70.0"


def test_reference_scores_have_a_source():
    for name, found in plugins.registry(plugins.default_manager(), "minift_register_tasks").items():
        for one in found.value.references:
            assert len(one) == 3 and all(one), name
