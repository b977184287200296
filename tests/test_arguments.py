"""TrainingArguments: every field is checked by its row of the table, wherever it is set."""

import dataclasses
import enum
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from minift import Trainer, TrainingArguments
from minift.errors import ArgumentError, ConfigError, MiniftError
from minift.settings import TYPES, types_of
from minift.testing import tiny

FIELDS = {each.name: each for each in dataclasses.fields(TrainingArguments)}
NUMBERS = [name for name, one in FIELDS.items() if {int, float} & set(types_of(one.type))]
WHOLE = [name for name, one in FIELDS.items() if int in types_of(one.type)]
SWITCHES = [name for name, one in FIELDS.items() if bool in types_of(one.type)]
PURE_SWITCHES = [name for name in SWITCHES if str not in types_of(FIELDS[name].type)]


class Strategy(enum.StrEnum):
    """As the peer spells its words."""

    EPOCH = "epoch"
    LINEAR = "linear"


def refused(**given):
    with pytest.raises((ArgumentError, ConfigError)) as caught:
        TrainingArguments(None, **given)
    (name,) = given
    assert name in str(caught.value), "the error names the argument"
    assert " must be " in str(caught.value) and ", got " in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", FIELDS)
def test_defaults_are_values_that_the_table_allows(name):
    if name != "output_dir":
        TrainingArguments(None, **{name: FIELDS[name].default})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["2", "8.0", "", "half", [2], (1,), {}, True, math.nan, math.inf])
def test_a_number_is_a_number(name, value):
    """Text is not: in a list of settings "1e-5" would stay text until the first step."""
    refused(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-math.inf, -2, 10**30, 1e300, 1 + 2j, Fraction(1, 2), print])
def test_a_number_is_finite_and_in_its_range(name, value):
    if value == -2 and name in ("seed", "data_seed", "num_train_epochs"):
        TrainingArguments(None, max_steps=1, **({} if name == "max_steps" else {name: value}))
    else:
        refused(**{name: value})


@pytest.mark.parametrize("name", PURE_SWITCHES)
@pytest.mark.parametrize("value", ["false", "False", "no", "true", "1", 0, 1, 1.0, [], [False]])
def test_a_switch_is_a_switch(name, value):
    """Text that says false would count as true."""
    assert isinstance(refused(**{name: value}), TypeError)


@pytest.mark.parametrize("name", PURE_SWITCHES)
def test_a_switch_of_numpy(name):
    args = TrainingArguments("x", eval_strategy="epoch", **{name: np.bool_(True)})
    assert getattr(args, name) is True


@pytest.mark.parametrize(
    "name", [n for n, one in FIELDS.items() if type(None) not in types_of(one.type)]
)
def test_none_is_no_value_where_there_is_a_default(name):
    assert isinstance(refused(**{name: None}), TypeError)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_in_all_their_types(name):
    for value in (8, 8.0, 8e0, np.int64(8), np.uint8(8), np.float32(8), torch.tensor(8)):
        got = getattr(TrainingArguments(None, **{name: value}), name)
        assert got == 8 and type(got) is int
    assert isinstance(refused(**{name: 4.5}), TypeError)


def test_numbers_of_numpy_and_torch_become_pythons():
    args = TrainingArguments(
        None, learning_rate=np.float32(0.5), weight_decay=torch.tensor(0.25),
        eval_steps=np.int32(2), lr_scheduler_kwargs={"power": np.int64(2)},
    )  # fmt: skip
    said = args.to_dict()
    assert (said["learning_rate"], said["weight_decay"], said["eval_steps"]) == (0.5, 0.25, 2)
    assert type(said["lr_scheduler_kwargs"]["power"]) is int


@pytest.mark.parametrize("name", ["save_steps", "eval_steps", "logging_steps"])
def test_steps_are_whole_or_a_share_of_all(name):
    for value in (0.1, 1, 1.0, 500):
        assert getattr(TrainingArguments(None, **{name: value}), name) == value
    assert isinstance(refused(**{name: 2.5}), ValueError)
    refused(**{name: 0})


def test_a_fraction_of_a_step_is_one_more_step():
    """Rows / batch * epochs = 4.5 means that four steps are too few."""
    settings = {"device": "cpu", "precision": "fp32", "logging_strategy": "no"}
    args = TrainingArguments(None, max_steps=np.float64(4.5), **settings)
    trained = Trainer(
        tiny.model(), args, data_collator=tiny.collate, train_dataset=tiny.rows(60)
    ).train()
    assert trained.global_step == 5
    refused(max_steps=0.5)


WORDS = {
    "eval_strategy": "epoch",
    "logging_strategy": "epoch",
    "save_strategy": "best",
    "lr_scheduler_type": "cosine",
    "precision": "fp32",
    "train_sampling_strategy": "sequential",
}


@pytest.mark.parametrize("name", WORDS)
def test_words_are_those_of_the_table(name):
    """In another case they are others, as for the peer; `no` without quotes is False in YAML."""
    word = WORDS[name]
    args = TrainingArguments("x", **{"eval_strategy": "epoch", name: word})
    assert getattr(args, name) == word
    for value in (word.title(), word.upper(), f" {word}", "sometimes", "", False, 1, [word], b"no"):
        error = refused(**{name: value})
        assert word in str(error), "the error says what is possible"


def test_members_of_the_peers_enums():
    args = TrainingArguments("x", eval_strategy=Strategy.EPOCH, lr_scheduler_type=Strategy.LINEAR)
    assert type(args.eval_strategy) is str and type(args.lr_scheduler_type) is str


@pytest.mark.parametrize("value", [5, 1.5, True, ["x"], {"a": 1}, b"x"])
@pytest.mark.parametrize("name", ["output_dir", "run_name", "device", "metric_for_best_model"])
def test_text_is_text(name, value):
    with pytest.raises(ArgumentError, match=f"{name} must be"):
        TrainingArguments(**{name: value})


def test_paths():
    args = TrainingArguments(Path("a") / "b", resume_from_checkpoint=Path("a/b/checkpoint-2"))
    assert args.output_dir == str(Path("a/b"))
    assert args.resume_from_checkpoint == str(Path("a/b/checkpoint-2"))
    assert TrainingArguments("x", resume_from_checkpoint=True).resume_from_checkpoint is True
    with pytest.raises(ConfigError, match="output_dir must be a folder"):
        TrainingArguments("")


@pytest.mark.parametrize(
    "value",
    ["power=2", {"power": "2"}, {"power": None}, {"power": math.nan}, [("power", 2)]],
)
def test_settings_of_a_schedule_are_numbers_by_name(value):
    refused(lr_scheduler_kwargs=value)


@pytest.mark.parametrize(
    "name", ["evaluation_strategy", "warmup_ratio", "group_by_length", "no_cuda"]
)
def test_none_under_an_older_name_says_nothing(name):
    """It was the default there."""
    assert vars(TrainingArguments("x", **{name: None})) == vars(TrainingArguments("x"))


def test_errors_name_what_the_user_wrote():
    assert "evaluation_strategy must be no, steps" in str(refused(evaluation_strategy="Epoch"))
    assert "group_by_length must be random" in str(refused(group_by_length="false"))
    for value in ("0.1", 1, True, 2.0):
        assert "from 0 to below 1" in str(refused(warmup_ratio=value))
    refused(warmup_ratio=-0.1)


def test_a_field_is_checked_whenever_it_is_set():
    args = TrainingArguments("x")
    args.learning_rate = np.float32(0.5)
    assert type(args.learning_rate) is float
    for name, value in (("learning_rate", "5e-5"), ("fp16", "false"), ("max_steps", None)):
        with pytest.raises(ArgumentError, match=f"{name} must be"):
            setattr(args, name, value)
    with pytest.raises(ArgumentError, match="learning_rate"):
        args.learnign_rate = 1.0
    args.evaluation_strategy = "epoch"
    assert args.eval_strategy == "epoch"


ODD = [
    None, "2", "false", "", 0, 1, -1, 2, 8.0, 0.5, 4.5, -0.5, 10**12, 10**30, 1e-300, math.nan,
    math.inf, True, False, np.int64(2), np.float32(2), np.array([1, 2]), [], [1], {},
    {"a": "b"}, b"x", print, Path("x"), Strategy.EPOCH, "Epoch", object(), 1j,
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(FIELDS) - {"output_dir", "device"}))
def test_whatever_is_passed_means_something_or_is_refused_by_name(name):
    """No bare TypeError, now or in the first step."""
    for value in ODD:
        try:
            args = TrainingArguments(None, **{name: value})
        except MiniftError as error:
            assert name in str(error) or "output_dir" in str(error) or "evaluating" in str(error)
            continue
        assert type(getattr(args, name)) in (*TYPES, type(None))
        assert args.warmup(100) >= 0 and args.log_every(100) >= 1
