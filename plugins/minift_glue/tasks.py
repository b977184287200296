"""The table of tasks: where the data is, what its columns hold, how it is scored, what others got.

A name is the configuration's, or BENCHMARK/NAME: `mrpc` and `glue/mrpc` are one task. SuperGLUE's
RTE is GLUE's data again, so it goes by its long name, super_glue/rte.

Splits name those of the data set; "rte:train" is one of another configuration. Where there is no
validation split, a share of the training rows (`validation_fraction`) is one: stratified by the
label, and always the same rows. Rows labelled -1 hide their label: a split of such rows can be
predicted, never scored.
"""

from dataclasses import replace
from typing import Any

from minift.tasks import Reference, Task
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
                 prepare=pairs.prepare_with(pairs.choices, several=True)),
    "multirc": task("super_glue", "multirc", "paragraph question_answer", "False True",
                    to_metric_inputs=pairs.answered,
                    prepare=pairs.prepare_with(pairs.question_and_answer)),
    "record": task("super_glue", "record", "passage filled", "wrong right",
                   to_metric_inputs=pairs.filled_in,
                   prepare=pairs.prepare_with(pairs.candidates, several=True)),
    "super_glue/rte": task("super_glue", "rte", "premise hypothesis", TWO_WAY),
    "wic": task("super_glue", "wic", "first second", "False True",
                prepare=pairs.prepare_with(pairs.word_in_context)),
    # The version whose spans are where the indices say they are.
    "wsc": task("super_glue", "wsc.fixed", "first second", "False True",
                prepare=pairs.prepare_with(pairs.pronoun_and_noun)),
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

# Scores of others in percent, on the validation rows unless the source says otherwise; the order of
# two numbers is that of the metric's keys unless the source names them.
DISTILLATION = "transformers, examples/distillation/README: median of 5 runs, column metric unsaid"
MINILM = "microsoft/unilm, minilm/README"
REFERENCES: list[tuple[str, str, dict[str, str]]] = [
    ("bert-base-uncased", "Hugging Face course, chapter 3: lr 5e-5, batch 8, 3 epochs",
     {"mrpc": "85.78 / 89.97"}),
    ("bert-base-cased", "transformers, text-classification README: lr 2e-5, batch 32, 3 epochs "
     "(MRPC, WNLI 5)", {"cola": "56.53", "sst2": "92.32", "mrpc": "84.07 / 88.85",
     "stsb": "88.64 / 88.48", "qqp": "90.71 / 87.49", "mnli": "83.91", "mnli-mm": "84.10",
     "qnli": "90.66", "rte": "65.70", "wnli": "56.34"}),
    ("bert-base-uncased", DISTILLATION, {"cola": "56.3", "mnli": "84.7", "mrpc": "88.6",
     "qnli": "91.8", "qqp": "89.6", "rte": "69.3", "sst2": "92.7", "stsb": "89.0", "wnli": "53.5"}),
    ("distilbert-base-uncased", DISTILLATION, {"cola": "51.3", "mnli": "82.1", "mrpc": "87.5",
     "qnli": "89.2", "qqp": "88.5", "rte": "59.9", "sst2": "91.3", "stsb": "86.9", "wnli": "56.3"}),
    ("roberta-base", DISTILLATION + " (as reported)", {"cola": "63.6", "mnli": "87.6",
     "mrpc": "90.2", "qnli": "92.8", "qqp": "91.9", "rte": "78.7", "sst2": "94.8", "stsb": "91.2"}),
    ("MiniLM-L12-H384", MINILM, {"cola": "58.5", "mnli": "85.7", "mrpc": "89.5", "qnli": "91.5",
     "qqp": "91.3", "rte": "73.3", "sst2": "93.0"}),
    ("MiniLM-L6-H384", MINILM, {"cola": "47.5", "mnli": "83.3", "mrpc": "88.9", "qnli": "90.5",
     "qqp": "90.6", "rte": "68.8", "sst2": "91.5"}),
    ("bert-large-cased", "arXiv 1905.00537, table 3: test rows; MultiRC exact / F1a, AX-g "
     "accuracy / parity", {"boolq": "77.4", "cb": "83.6 / 75.7", "copa": "70.6",
     "multirc": "24.1 / 70.0", "record": "71.3 / 72.0", "super_glue/rte": "71.7", "wic": "69.6",
     "wsc": "64.4", "axb": "23.0", "axg": "51.7 / 97.8"}),
    ("BiLSTM", "Abu Farha and Magdy 2020, abstract: F1, test rows", {"ar_sarcasm": "46"}),
    ("distilbert-base-uncased", "model card nemilentsau/bert_model: test rows; lr 2e-5, batch 16, "
     "1 epoch", {"imdb": "92.72"}),
    ("bert-base-uncased", "textattack/bert-base-uncased-rotten-tomatoes: lr 2e-5, batch 16",
     {"rotten_tomatoes": "87.52"}),
    ("distilbert-base-uncased", "six model cards distilbert-base-uncased-finetuned-emotion: "
     "lr 2e-5, batch 64, 2 epochs", {"emotion": "92.1 to 93.1"}),
]
# fmt: on


def table() -> dict[str, Task]:
    """Return {name: task}, each with its published scores."""
    published = {
        name: [
            Reference(model, scores[name], source)
            for model, source, scores in REFERENCES
            if name in scores
        ]
        for name in TASKS
    }
    return {name: replace(task, references=published[name]) for name, task in TASKS.items()}
