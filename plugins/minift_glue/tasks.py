"""The table of tasks: where the data is, what its columns hold, how it is scored.

What others scored is in published.toml.

A name is the configuration's, or BENCHMARK/NAME: `mrpc` and `glue/mrpc` are one task. SuperGLUE's
RTE is GLUE's data again, so it goes by its long name, super_glue/rte.

Splits name those of the data set; "rte:train" is one of another configuration. Where there is no
validation split, a share of the training rows (`validation_fraction`) is one: stratified by the
label, and always the same rows. Rows labelled -1 hide their label: a split of such rows can be
predicted, never scored.
"""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from minift.tasks import Task
from minift_glue import pairs

SPLITS = {"train": "train", "validation": "validation", "test": "test"}
MNLI = {"train": "train", "validation": "validation_matched", "test": "test_matched"}
NO_VALIDATION: dict[str, Any] = {
    "splits": {"train": "train", "test": "test"},
    "validation_fraction": 0.1,
}
ON_RTE = "A diagnostic: trained on RTE, and scored on its own rows, so choose nothing by its score."
NLI, TWO_WAY = "entailment neutral contradiction", "entailment not_entailment"


def task(
    dataset: str, config: str | None, columns: str, names: str | None, *metrics: str, **more: Any
) -> Task:
    """Return one row of the table; `names` is None where a number is to be predicted."""
    return Task(
        dataset=dataset,
        config=config,
        columns=columns.split(),
        label_names=names and names.split(),
        metrics=list(metrics) or [f"{dataset}/{config}"],
        **{"splits": SPLITS, **more},
    )


# fmt: off
TASKS = {
    # Wang et al. 2019, arXiv 1804.07461
    "cola": task("glue", "cola", "sentence", "unacceptable acceptable"),
    "sst2": task("glue", "sst2", "sentence", "negative positive"),
    "mrpc": task("glue", "mrpc", "sentence1 sentence2", "not_equivalent equivalent"),
    "qqp": task("glue", "qqp", "question1 question2", "not_duplicate duplicate"),
    "stsb": task("glue", "stsb", "sentence1 sentence2", None),  # how alike, from 0 to 5
    "mnli": task("glue", "mnli", "premise hypothesis", NLI, splits=MNLI,
                 prepare=pairs.mnli_columns),
    "mnli-mm": task("glue", "mnli", "premise hypothesis", NLI, "glue/mnli_mismatched", splits={
        "train": "train", "validation": "validation_mismatched", "test": "test_mismatched"},
        prepare=pairs.mnli_columns),
    "qnli": task("glue", "qnli", "question sentence", TWO_WAY),
    "rte": task("glue", "rte", "sentence1 sentence2", TWO_WAY),
    "wnli": task("glue", "wnli", "sentence1 sentence2", "not_entailment entailment"),
    "ax": task("glue", "ax", "premise hypothesis", NLI, note="A diagnostic: trained and scored on "
        "MNLI; its own rows hide their labels, so `minift predict --split test` is for them.",
        prepare=pairs.mnli_columns,
        splits={"train": "mnli:train", "validation": "mnli:validation_matched", "test": "test"}),
    # Wang et al. 2019, arXiv 1905.00537
    "boolq": task("super_glue", "boolq", "question passage", "False True"),
    "cb": task("super_glue", "cb", "premise hypothesis", "entailment contradiction neutral"),
    "copa": task("super_glue", "copa", "context choice", "wrong right",
                 to_metric_inputs=pairs.chosen,
                 prepare=pairs.with_rows(pairs.choices)),
    "multirc": task("super_glue", "multirc", "paragraph question_answer", "False True",
                    to_metric_inputs=pairs.answered,
                    prepare=pairs.with_texts(pairs.question_and_answer)),
    "record": task("super_glue", "record", "passage filled", "wrong right",
                   to_metric_inputs=pairs.filled_in,
                   prepare=pairs.with_rows(pairs.candidates)),
    "super_glue/rte": task("super_glue", "rte", "premise hypothesis", TWO_WAY),
    "wic": task("super_glue", "wic", "first second", "False True",
                prepare=pairs.with_texts(pairs.word_in_context)),
    # The version whose spans are where the indices say they are.
    "wsc": task("super_glue", "wsc.fixed", "first second", "False True",
                prepare=pairs.with_texts(pairs.pronoun_and_noun)),
    "axb": task("super_glue", "axb", "sentence1 sentence2", TWO_WAY, prepare=pairs.same_columns,
                splits={"train": "rte:train", "validation": "test"}, note=ON_RTE),
    "axg": task("super_glue", "axg", "premise hypothesis", TWO_WAY,
                splits={"train": "rte:train", "validation": "test"}, note=ON_RTE),
    # Saravia et al. 2018 (D18-1404)
    "emotion": task("emotion", "split", "text", "sadness joy love anger fear surprise", "accuracy"),
    # Abu Farha and Magdy 2020 (osact-1.5)
    "ar_sarcasm": task("ar_sarcasm", None, "tweet", "non-sarcastic sarcastic", "accuracy", "f1",
                       label="sarcasm", **NO_VALIDATION, note="--label-column sentiment (what its "
                       "annotators say), original_sentiment or dialect takes other labels."),
    # Maas et al. 2011 (P11-1015)
    "imdb": task("imdb", None, "text", "neg pos", "accuracy", **NO_VALIDATION,
                 note='The rows of the split "unsupervised" are not used.'),
    # Pang and Lee 2005 (P05-1015)
    "rotten_tomatoes": task("rotten_tomatoes", None, "text", "neg pos", "accuracy"),
}
# fmt: on


def table() -> dict[str, Task]:
    """Return {name: task}, each with its published scores."""
    text = Path(__file__).with_name("published.toml").read_text(encoding="utf-8")
    references: dict[str, list[tuple[str, str, str]]] = {name: [] for name in TASKS}
    for one in tomllib.loads(text)["published"]:
        for name, score in one["scores"].items():
            references[name].append((one["model"], score, one["source"]))
    return {name: replace(task, references=references[name]) for name, task in TASKS.items()}
