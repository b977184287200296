"""map: the same rows as `{**input, **returned}`, computed once, and nothing lost on the way."""

import json
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny import count, make_model

from minift import AutoTokenizer, ClassLabel, Dataset, DatasetDict, Features, List, Value, files
from minift.data import cache, storage
from minift.data.mapping import call
from minift.data.ragged import RUNS
from minift.errors import ArgumentError, ColumnError, ConfigError, DataError


@pytest.fixture
def ds():
    return Dataset.from_dict({"a": [0, 1, 2], "b": ["x", "y", "z"]})


def plus_one(row):
    count()
    return {"c": row["a"] + 1}


# --- as the course types it ----------------------------------------------------------------------


def test_as_in_the_course():
    def tokenize_function(example):
        ids = [[len(s), len(t)] for s, t in zip(example["s1"], example["s2"], strict=True)]
        return {"input_ids": ids, "attention_mask": [[1, 1] for _ in ids]}

    rows = {"s1": ["He ate.", "She"], "s2": ["He has.", "ran"], "label": [1, 0]}
    features = Features(
        {"s1": Value("string"), "s2": Value("string"), "label": ClassLabel(names=["no", "yes"])}
    )
    raw = DatasetDict(train=Dataset.from_dict(rows, features))
    tokenized = raw.map(tokenize_function, batched=True)
    assert tokenized["train"].column_names == ["s1", "s2", "label", "input_ids", "attention_mask"]
    assert tokenized["train"][0]["input_ids"] == [7, 7]
    assert tokenized["train"].features["label"].names == ["no", "yes"]
    assert tokenized["train"].features["input_ids"] == List(Value("int32"))
    assert tokenized["train"].features["attention_mask"] == List(Value("int8"))
    only = raw.map(tokenize_function, batched=True, remove_columns=raw["train"].column_names)
    assert only["train"].column_names == ["input_ids", "attention_mask"]


# --- merging -------------------------------------------------------------------------------------


def test_returned_columns_replace_in_place_and_follow(ds):
    result = ds.map(lambda row: {"d": 1, "a": row["a"] * 10, "c": row["b"]})
    assert result.column_names == ["a", "b", "d", "c"]
    assert result[:] == {"a": [0, 10, 20], "b": list("xyz"), "d": [1] * 3, "c": list("xyz")}


def test_a_key_that_a_row_does_not_return_keeps_the_input(ds):
    """`{**row, **{}}` is the row: it must not become None."""
    assert ds.map(lambda row: {"b": "new"} if row["a"] == 1 else {})["b"] == ["x", "new", "z"]
    assert ds.map(lambda row: {"b": "new"} if row["a"] == 0 else {})["b"] == ["new", "y", "z"]
    shown = ds.with_format("torch", columns=["a"])
    result = shown.map(lambda row: {"b": "new"} if row["a"] == 1 else {})
    assert result["b"] == ["x", "new", "z"]


def test_a_key_that_appears_late_is_kept(ds):
    """F5: `datasets` drops it."""
    assert ds.map(lambda row: {"c": 1} if row["a"] == 2 else {})["c"] == [None, None, 1]
    assert ds.map(lambda row: {"c": 1} if row["a"] == 0 else {"d": 2})[:] == {
        **{"a": [0, 1, 2], "b": list("xyz"), "c": [1, None, None], "d": [None, 2, 2]}
    }


def test_a_key_that_appears_in_a_late_batch_is_kept(ds):
    late = ds.map(
        lambda b: {} if 0 in b["a"] else {"c": b["a"], "b": ["new"]}, batched=True, batch_size=1
    )
    assert late[:] == {"a": [0, 1, 2], "b": ["x", "new", "new"], "c": [None, 1, 2]}


@pytest.mark.parametrize("none_at", [0, 1, 2])
def test_none_for_one_row_loses_nothing(ds, none_at):
    """F5: `datasets` deletes the row, or the whole result, or crashes, depending on where."""
    with pytest.raises(DataError, match=f"returned None for row {none_at} and a dict for others"):
        ds.map(lambda row: None if row["a"] == none_at else {"c": 1})


def test_none_for_one_batch_loses_nothing(ds):
    with pytest.raises(DataError, match="returned None for row 2 and a dict for others"):
        ds.map(lambda b: None if 2 in b["a"] else {"c": b["a"]}, batched=True, batch_size=2)


def test_none_for_a_thousand_rows_and_a_dict_for_others():
    large = Dataset.from_dict({"a": range(1500)})
    with pytest.raises(DataError, match="returned None for row 1000"):
        large.map(lambda row: {"c": 1} if row["a"] < 1000 else None)


def test_none_for_every_row_means_for_its_effect(ds):
    seen = []
    result = ds.map(lambda row: seen.append(row["a"]))
    assert seen == [0, 1, 2]
    assert result.fingerprint == ds.fingerprint and result[:] == ds[:]
    assert ds.map(lambda batch: None, batched=True)[:] == ds[:]


def test_what_is_assigned_counts_and_what_is_popped_goes(ds):
    """What `datasets` does."""

    def assign(row):
        row["a"] = 9
        return {"c": 1}

    def pop(row):
        row.pop("a")
        return {"c": 1}

    def pop_and_return(row):
        row.pop("a")
        return row

    def pop_and_give_back(row):
        return {"a": row.pop("a") + 1}

    def change(row):
        row["a"] += 5
        row["n"] = row["b"]
        return row

    assert ds.map(assign)[:] == {"a": [9] * 3, "b": list("xyz"), "c": [1] * 3}
    assert ds.map(pop)[:] == {"b": list("xyz"), "c": [1] * 3}
    assert ds.map(pop_and_return)[:] == {"b": list("xyz")}
    assert ds.map(pop_and_give_back)[:] == {"a": [1, 2, 3], "b": list("xyz")}
    assert ds.map(change)[:] == {"a": [5, 6, 7], "b": list("xyz"), "n": list("xyz")}
    assert ds[:] == {"a": [0, 1, 2], "b": list("xyz")}, "the input is as it was"


def test_the_same_in_batches(ds):
    def assign(batch):
        batch["a"] = [9] * len(batch["b"])
        return {"c": batch["b"]}

    def pop(batch):
        batch.pop("a")
        return {"c": batch["b"]}

    def effect_only(batch):
        batch["a"] = None

    assert ds.map(assign, batched=True)[:] == {"a": [9] * 3, "b": list("xyz"), "c": list("xyz")}
    assert ds.map(pop, batched=True, batch_size=2)[:] == {"b": list("xyz"), "c": list("xyz")}
    assert ds.map(effect_only, batched=True)[:] == ds[:]


def test_popped_in_some_rows_is_missing_there(ds):
    def pop_one(row):
        if row["a"] == 1:
            row.pop("a")
        return {"c": 0}

    assert ds.map(pop_one)["a"] == [0, None, 2]


@pytest.mark.parametrize("bad", [5, "text", [1], {1, 2}])
def test_what_is_no_dict(ds, bad):
    with pytest.raises(ArgumentError, match="must return a dict") as caught:
        ds.map(lambda row: bad)
    assert isinstance(caught.value, TypeError) and type(bad).__name__ in str(caught.value)
    with pytest.raises(ArgumentError, match="must return a dict"):
        ds.map(lambda batch: bad, batched=True)


# --- columns -------------------------------------------------------------------------------------


def test_remove_columns(ds):
    assert ds.map(lambda row: {"c": row["a"]}, remove_columns="b").column_names == ["a", "c"]
    assert ds.map(lambda row: {"c": 1}, remove_columns=["a", "b"])[:] == {"c": [1, 1, 1]}
    back = ds.map(lambda row: {"b": row["b"].upper()}, remove_columns=["a", "b"])
    assert back[:] == {"b": ["X", "Y", "Z"]}
    shown = ds.with_format("numpy", columns=["a"]).map(lambda row: {"c": 1}, remove_columns="b")
    assert shown.column_names == ["a", "c"], "the same for formatted rows"
    with pytest.raises(ColumnError, match="'zz'"):
        ds.map(lambda row: {}, remove_columns=["zz"])


def test_a_removed_column_is_not_filled_from_the_input(ds):
    removed = ds.map(lambda row: {"b": "new"} if row["a"] else {}, remove_columns="b")
    assert removed["b"] == [None, "new", "new"]


def test_input_columns(ds):
    assert ds.map(lambda b, a: {"c": f"{a}{b}"}, input_columns=["b", "a"])["c"] == [
        "0x",
        "1y",
        "2z",
    ]
    assert ds.map(lambda a: {"c": a}, input_columns="a").column_names == ["a", "b", "c"]
    assert ds.map(lambda a: {"c": a[::-1]}, input_columns="a", batched=True)["c"] == [2, 1, 0]
    counted = ds.map(lambda i: {"c": i}, input_columns=[], with_indices=True)
    assert counted["c"] == [0, 1, 2]
    hidden = ds.with_format("numpy", columns=["a"])
    assert hidden.map(lambda b: {"c": b}, input_columns="b")["c"][:].tolist() == list("xyz")
    with pytest.raises(ColumnError, match="'zz'"):
        ds.map(lambda zz: {}, input_columns="zz")


def test_only_the_input_columns_are_read(ds, monkeypatch):
    read = []
    original = Dataset.read
    monkeypatch.setattr(
        Dataset,
        "read",
        lambda self, key, columns=None: (read.append(columns), original(self, key, columns))[1],
    )
    ds.map(lambda a: {"c": a}, input_columns="a", load_from_cache_file=False)
    assert read == [("a",)]


def test_with_indices_are_positions_in_this_dataset(ds):
    chosen = ds.select([2, 0])
    assert chosen.map(lambda row, i: {"i": [i, row["a"]]}, with_indices=True)["i"] == [
        [0, 2],
        [1, 0],
    ]
    batches = []
    ds.map(lambda b, i: batches.append(i), with_indices=True, batched=True, batch_size=2)
    assert batches == [[0, 1], [2]] and all(type(i) is int for batch in batches for i in batch)


def test_fn_kwargs(ds):
    def scale(row, by, *, plus=0):
        return {"c": row["a"] * by + plus}

    assert ds.map(scale, fn_kwargs={"by": 2})["c"] == [0, 2, 4]
    assert ds.map(scale, fn_kwargs={"by": 2, "plus": 1})["c"] == [1, 3, 5]
    assert ds.map(scale, fn_kwargs={"by": 3})["c"] == [0, 3, 6]


def test_order_of_rows_follows_the_selection(ds):
    assert ds.select([2, 0]).map(lambda row: {"c": row["a"]})["c"] == [2, 0]
    assert (
        ds.shuffle(seed=1).map(lambda b: {"c": b["a"]}, batched=True)["c"]
        == ds.shuffle(seed=1)["a"]
    )


# --- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "sizes"), [(1, [1, 1, 1]), (2, [2, 1]), (3, [3]), (1000, [3]), (None, [3]), (0, [3])]
)
def test_batch_sizes(ds, size, sizes):
    seen = []

    def look(batch):
        seen.append(len(batch["a"]))
        return {"c": batch["a"]}

    assert ds.map(look, batched=True, batch_size=size)["c"] == [0, 1, 2]
    assert seen == sizes


def test_more_rows_and_fewer(ds):
    doubled = ds.map(lambda b: {"c": b["a"] * 2}, batched=True, remove_columns=["a", "b"])
    assert doubled["c"] == [0, 1, 2, 0, 1, 2]
    fewer = ds.map(lambda b: {"a": b["a"][:1], "b": b["b"][:1]}, batched=True, batch_size=2)
    assert fewer[:] == {"a": [0, 2], "b": ["x", "z"]}
    none = ds.map(lambda b: {"c": []}, batched=True, remove_columns=["a", "b"])
    assert len(none) == 0 and none.column_names == ["c"]


def test_other_rows_beside_columns_that_stay(ds):
    with pytest.raises(
        DataError, match=r"returned 6 rows for 3, but the columns a, b keep 3"
    ) as caught:
        ds.map(lambda b: {"c": b["a"] * 2}, batched=True)
    assert "pass remove_columns=['a', 'b']" in str(caught.value)


@pytest.mark.parametrize("first", ["c", "d"])
def test_an_empty_column_beside_a_full_one(ds, first):
    """F6: `datasets` returns no rows at all."""
    columns = {"c": [], "d": [1, 2, 3]} if first == "c" else {"d": [1, 2, 3], "c": []}
    with pytest.raises(DataError, match="different lengths") as caught:
        ds.map(lambda b: columns, batched=True, remove_columns=["a", "b"])
    assert "'c': 0" in str(caught.value) and "'d': 3" in str(caught.value)
    with pytest.raises(DataError, match="returned 0 rows for 3"):
        ds.map(lambda b: {"c": []}, batched=True)


@pytest.mark.parametrize(
    "value", [1, "xyz", None, {"x": 1}, {1, 2, 3}, np.array(1), torch.tensor(1), b"xyz"]
)
def test_a_batch_needs_lists(ds, value):
    with pytest.raises(ArgumentError, match="must return a list for each column") as caught:
        ds.map(lambda b: {"c": value}, batched=True)
    assert "'c'" in str(caught.value)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, pa.array])
def test_kinds_of_columns(ds, kind):
    assert ds.map(lambda b: {"c": kind(b["a"])}, batched=True)["c"] == [0, 1, 2]


def test_returned_tables_and_formatted_rows(ds):
    arrow = ds.with_format("arrow")
    table = arrow.map(lambda t: t.append_column("c", pa.array([1] * len(t))), batched=True)
    assert table.with_format(None)[:] == {**ds[:], "c": [1, 1, 1]}
    rows = arrow.map(lambda t: {"c": t.column("a")[0].as_py()})
    assert rows.with_format(None)["c"] == [0, 1, 2]
    tensors = ds.with_format("torch").map(lambda row: {"c": row["a"] + torch.tensor(0.5)})
    assert tensors.features["c"] == Value("float32")
    assert torch.equal(tensors["c"][:], torch.tensor([0.5, 1.5, 2.5]))


def test_transformed_rows(ds):
    ds.set_transform(lambda batch: {"a": [i * 10 for i in batch["a"]]})
    mapped = ds.map(lambda row: {"c": row["a"]}, load_from_cache_file=False)
    assert mapped.with_format(None)["c"] == [0, 10, 20]


# --- types ---------------------------------------------------------------------------------------


def test_text_stays_text_and_numbers_become_text(ds):
    """F4: `datasets` makes integers of "0", "1", "2" again."""
    result = ds.map(lambda row: {"a": str(row["a"])})
    assert result["a"] == ["0", "1", "2"] and result.features["a"] == Value("string")


@pytest.mark.parametrize(
    ("feature", "before", "function", "after"),
    [
        (Value("int32"), [1, 2], lambda v: v + 1, Value("int32")),
        (Value("int8"), [1, 2], lambda v: v + 1000, Value("int64")),  # needs more bits
        (Value("float32"), [1, 2], lambda v: v / 2, Value("float32")),
        (Value("int32"), [1, 2], lambda v: v / 2, Value("float64")),
        (Value("float32"), [1, 2], int, Value("int64")),
        (Value("large_string"), ["a", "b"], str.upper, Value("large_string")),
        (Value("bool"), [True, False], lambda v: not v, Value("bool")),
        (Value("bool"), [True, False], int, Value("int64")),
        (Value("timestamp[s]"), [0, 1], lambda v: v, Value("timestamp[s]")),
        (List(Value("int32")), [[1], []], lambda v: [*v, 7], List(Value("int32"))),
        (List(Value("int8")), [[1], []], lambda v: [*v, 700], List(Value("int64"))),
        (List(Value("int64")), [[1], []], lambda v: v, List(Value("int64"))),
        (List(Value("float32")), [[1], [2]], lambda v: v, List(Value("float32"))),
        (List(Value("int32")), [[1], []], lambda v: [], List(Value("int32"))),
        (List(List(Value("int8"))), [[[1]], []], lambda v: v, List(List(Value("int8")))),
        ({"x": Value("int8")}, [{"x": 1}, {"x": 2}], lambda v: v, {"x": Value("int8")}),
        (ClassLabel(names=["n", "p"]), [0, 1], lambda v: 1 - v, ClassLabel(names=["n", "p"])),
        (ClassLabel(names=["n", "p"]), [0, 1], lambda v: None, ClassLabel(names=["n", "p"])),
        (ClassLabel(names=["n", "p"]), [0, 1], str, Value("string")),
        (Value("int32"), [1, 2], lambda v: None, Value("int32")),
    ],
)
@pytest.mark.parametrize("batched", [False, True])
def test_a_column_changes_its_type_only_if_its_values_do(feature, before, function, after, batched):
    ds = Dataset.from_dict({"x": before}, Features({"x": feature}))
    values = ds["x"].tolist()
    if batched:
        result = ds.map(lambda b: {"x": [function(v) for v in b["x"]]}, batched=True, batch_size=1)
    else:
        result = ds.map(lambda row: {"x": function(row["x"])})
    assert result.features == {"x": after}
    assert result["x"] == [function(value) for value in values]


def test_all_columns_returned_as_they_were_keep_everything():
    features = Features(
        {
            "label": ClassLabel(names=["n", "p"]),
            "chat": List({"role": ClassLabel(names=["u"]), "n": Value("int8")}),
            "when": Value("timestamp[s]"),
        }
    )
    rows = {"label": [1, -1], "chat": [[{"role": 0, "n": 1}], []], "when": [0, None]}
    ds = Dataset.from_dict(rows, features)
    assert ds.map(lambda row: row).features == features
    assert ds.map(lambda row: row)[:] == ds[:]
    assert ds.map(lambda b: b, batched=True, batch_size=1).features == features


def test_a_number_that_is_no_class_is_an_error():
    ds = Dataset.from_dict({"l": [0, 1]}, Features({"l": ClassLabel(names=["n", "p"])}))
    with pytest.raises(DataError, match="column 'l' cannot become ClassLabel"):
        ds.map(lambda row: {"l": row["l"] + 5})


def test_new_lists_of_integers_are_narrow():
    ds = Dataset.from_dict({"i": [0, 1]})
    new = ds.map(
        lambda row: {
            **{"input_ids": [1, 30000], "attention_mask": [1], "n": 5, "large": [2**40]},
            "wide": [2**40] if row["i"] else [1],
        }
    )
    assert new.features == {
        **{"i": Value("int64"), "input_ids": List(Value("int32")), "n": Value("int64")},
        **{"attention_mask": List(Value("int8")), "large": List(Value("int64"))},
        "wide": List(Value("int64")),
    }
    apart = ds.map(lambda b: {"w": [[2**40] if 1 in b["i"] else [1]]}, batched=True, batch_size=1)
    assert apart.features["w"] == List(Value("int64")) and apart["w"] == [[1], [2**40]]


@pytest.mark.parametrize(
    ("first", "second", "type_"),
    [
        (None, 1, "int64"),
        (1, None, "int64"),
        (1, 2.5, "float64"),
        (2.5, 1, "float64"),
        (None, "x", "string"),
        ([], [1], List(Value("int32"))),
        ([1], [], List(Value("int32"))),
        ([None], [1], List(Value("int32"))),
        ([1], [2.5], List(Value("float64"))),
        (None, [[1]], List(List(Value("int64")))),
        (np.int8(1), np.int32(2), "int32"),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_types_of_later_rows_count(first, second, type_, batch_size):
    """`datasets` fixes the type by the first batch and fails, or converts."""
    ds = Dataset.from_dict({"a": [0, 1]})
    result = ds.map(
        lambda b: {"c": [second if i else first for i in b["a"]]},
        batched=True,
        batch_size=batch_size,
    )
    assert result.features["c"] == (Value(type_) if isinstance(type_, str) else type_)
    assert result["c"] == [first, second]


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize(
    ("first", "second"),
    [(1, "x"), ("x", 1), (True, 1), ([1], ["x"]), ([1], 1), (2**53 + 1, 0.5), (0.5, 2**53 + 1)],
)
def test_types_that_do_not_go_together(first, second, batch_size):
    ds = Dataset.from_dict({"a": [0, 1]})
    with pytest.raises(DataError) as caught:
        ds.map(
            lambda b: {"c": [second if i else first for i in b["a"]]},
            batched=True,
            batch_size=batch_size,
        )
    text = str(caught.value)
    assert "different types for one column" in text if batch_size == 1 else "column 'c' mix" in text


# --- features= -----------------------------------------------------------------------------------


def test_features(ds):
    features = Features(
        {"c": ClassLabel(names=["even", "odd"]), "b": Value("large_string"), "a": Value("int8")}
    )
    result = ds.map(lambda row: {"c": "odd" if row["a"] % 2 else "even"}, features=features)
    assert result.features == features and result.column_names == ["c", "b", "a"]
    assert result[1] == {"c": 1, "b": "y", "a": 1}
    again = ds.map(lambda row: {"c": "odd" if row["a"] % 2 else "even"}, features=features)
    assert again.features == features, "from the cache too"


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c", "d"], ["a", "b", "d"]])
def test_features_must_name_the_result(ds, names):
    features = Features({name: Value("string") for name in names})
    with pytest.raises(DataError, match="the features do not name the columns") as caught:
        ds.map(lambda row: {"c": 1}, features=features)
    assert "['a', 'b', 'c']" in str(caught.value)


def test_features_that_the_values_do_not_fit(ds):
    base = {"a": Value("int64"), "b": Value("string")}
    for feature in (Value("int64"), ClassLabel(names=["n"]), List(Value("int8"))):
        with pytest.raises(DataError, match="column 'c' cannot become"):
            ds.map(lambda row: {"c": "text"}, features=Features({**base, "c": feature}))
    with pytest.raises(DataError, match="column 'a' cannot become"):
        ds.map(lambda row: {}, features=Features({**base, "a": ClassLabel(names=["n"])}))


# --- nothing to do -------------------------------------------------------------------------------


def test_an_empty_dataset(ds):
    def never(row):
        raise AssertionError("called")

    empty = ds.select([])
    assert empty.map(never).features == ds.features
    assert empty.map(never, batched=True, remove_columns="a").column_names == ["b"]
    features = Features({"c": Value("int8")})
    result = empty.map(never, remove_columns=["a", "b"], features=features)
    assert result.features == features and len(result) == 0


def test_no_function(ds):
    assert ds.map(None) is ds


# --- errors in the function ----------------------------------------------------------------------


@pytest.mark.parametrize("batched", [False, True])
def test_an_exception_says_which_rows(batched):
    ds = Dataset.from_dict({"a": range(2500)})

    def fails(given):
        values = given["a"] if batched else [given["a"]]
        if 1700 in values:
            raise KeyError("no such thing")
        return {"c": values if batched else values[0]}

    with pytest.raises(KeyError, match="no such thing") as caught:
        ds.map(fails, batched=batched, batch_size=1000)
    first, last = (1000, 1999) if batched else (1570, 1726)
    note, kept = caught.value.__notes__
    assert note.startswith(f"while mapping rows {first} to {last} with ") and "fails" in note
    assert kept.startswith(f"{1 if batched else 10} of {3 if batched else 16} shards are kept")


def test_a_bad_result_says_which_rows(ds):
    with pytest.raises(DataError) as caught:
        ds.map(lambda b: {"c": [1, "x", 2]}, batched=True)
    assert "while mapping rows 0 to 2" in caught.value.__notes__[0]


def test_a_failed_map_leaves_nothing(ds, own_cache):
    def fails(row):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        ds.map(fails)
    assert not list(own_cache.glob("map/*"))


# --- the cache -----------------------------------------------------------------------------------


def test_a_hit_calls_nothing(ds, calls):
    first = ds.map(plus_one)
    assert calls() == 3
    again = Dataset.from_dict({"a": [0, 1, 2], "b": ["x", "y", "z"]}).map(plus_one)
    assert calls() == 3
    assert again[:] == first[:] and again.features == first.features
    assert again.fingerprint == first.fingerprint
    ds.with_format("python").select(range(3)).map(plus_one, desc="counting")
    assert calls() == 3
    ds.with_format("numpy").map(plus_one)
    assert calls() == 6, "the function got other rows"


def test_a_hit_of_a_chain(ds, calls):
    def chain(start):
        mapped = start.map(plus_one).shuffle(seed=1).filter(lambda row: row["c"] != 2)
        return mapped.rename_column("c", "d").map(lambda row: (count(), {"e": row["d"]})[1])

    first = chain(ds)
    assert calls() == 3 + 2
    assert chain(ds)[:] == first[:]
    assert calls() == 3 + 2


@pytest.mark.parametrize(
    "other",
    [
        lambda ds: ds.select([0, 1]).map(plus_one),
        lambda ds: ds.select([2, 1, 0]).map(plus_one),
        lambda ds: ds.rename_column("b", "z").map(plus_one),
        lambda ds: ds.cast_column("b", ClassLabel(names=["x", "y", "z"])).map(plus_one),
        lambda ds: ds.map(plus_one, remove_columns="b"),
        lambda ds: ds.map(lambda row: plus_one(row)),
        lambda ds: ds.map(plus_one, cache_key="mine"),
        lambda ds: ds.map(
            plus_one, features=Features(a=Value("int64"), b=Value("string"), c=Value("int8"))
        ),
        lambda ds: ds.map(lambda row, i: plus_one(row), with_indices=True),
        lambda ds: ds.map(plus_one, load_from_cache_file=False),
    ],
)
def test_what_is_no_hit(ds, calls, other):
    ds.map(plus_one)
    before = calls()
    result = other(ds)
    assert calls() - before == len(result)


def test_the_batch_size_is_part_of_the_result(ds, calls):
    """F2: a function may look across the rows of its batch."""

    def number(batch):
        count()
        return {"c": [len(batch["a"])] * len(batch["a"])}

    assert ds.map(number, batched=True, batch_size=2)["c"] == [2, 2, 1]
    assert ds.map(number, batched=True, batch_size=3)["c"] == [3, 3, 3]
    assert calls() == 3
    ds.map(plus_one, batch_size=7)
    ds.map(plus_one, batch_size=8)
    assert calls() == 3 + 3, "but not where there are no batches"


def test_an_edited_helper_is_noticed(ds):
    scope: dict = {"__name__": "__main__"}
    exec("def helper(x): return x + 1\ndef f(row): return {'c': helper(row['a'])}", scope)
    assert ds.map(scope["f"])["c"] == [1, 2, 3]
    exec("def helper(x): return x + 100", scope)
    assert ds.map(scope["f"])["c"] == [100, 101, 102]


def test_the_result_is_mapped_from_disk_and_says_what_it_is(ds, own_cache):
    result = ds.map(plus_one_quietly)
    (folder,) = own_cache.glob("map/*")
    table, meta = storage.open_folder(folder, verify=True)
    assert meta["function"] == "plus_one_quietly"
    assert table.column_names == ["c"], "what the input has is not written again"
    assert Features.from_dict(meta["features"]) == result.features
    assert result.data.select(["c"]).equals(table) and result.column_names == ["a", "b", "c"]


def plus_one_quietly(row):
    return {"c": row["a"] + 1}


DAMAGE = ["cut", "removed", "no rows", "manifest", "no features", "older version"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_computed_again(ds, calls, own_cache, damage):
    ds = Dataset.from_dict({"a": range(2000)})
    good = ds.map(plus_one)[:]
    (folder,) = own_cache.glob("map/*")
    path = folder / "data-00000.arrow"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    if damage == "removed":
        path.unlink()
    if damage == "no rows":
        path.write_bytes(b"")
    if damage == "manifest":
        (folder / files.MANIFEST).write_text("{")
    if damage == "no features":
        text = (folder / files.MANIFEST).read_text()
        (folder / files.MANIFEST).write_text(text.replace('"features"', '"futures"'))
    if damage == "older version":
        file = {"name": path.name, "rows": 2000, "bytes": path.stat().st_size, "crc32": 1}
        manifest = {"rows": 2000, "files": [file], "meta": files.read_manifest(folder).meta}
        (folder / files.MANIFEST).write_text(json.dumps(manifest))
    with pytest.warns(UserWarning, match="a cached result is computed again") as caught:
        again = ds.map(plus_one)
    assert [warning.filename for warning in caught] == [__file__]
    assert again[:] == good and calls() == 4000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ds.map(plus_one)[:] == good
    assert calls() == 4000


def test_a_result_that_was_never_committed_is_not_there(ds, calls, own_cache):
    ds.map(plus_one)
    (folder,) = own_cache.glob("map/*")
    (folder / files.MANIFEST).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds.map(plus_one)
    assert calls() == 6


def test_a_reader_of_a_damaged_result_never_deletes_a_new_one(ds, monkeypatch, own_cache):
    """Two processes see the damage; the second must not remove what the first one wrote."""
    ds.map(plus_one_quietly)
    (folder,) = own_cache.glob("map/*")
    path = folder / "data-00000.arrow"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    lock = cache.lock

    def repaired_meanwhile(key):
        path.write_bytes(whole)
        return lock(key)

    monkeypatch.setattr(cache, "lock", repaired_meanwhile)
    inode = path.stat().st_ino
    assert ds.map(plus_one_quietly)["c"] == [1, 2, 3]
    assert path.stat().st_ino == inode


def test_a_function_that_cannot_be_digested(ds, own_cache):
    lock = threading.Lock()

    def guarded(row):
        with lock:
            return {"c": row["a"]}

    with pytest.warns(UserWarning, match="closure 'lock'") as caught:
        result = ds.map(guarded)
    assert result["c"] == [0, 1, 2] and result.fingerprint
    assert "is not kept in the cache" in str(caught[0].message) and "cache_key=" in str(
        caught[0].message
    )
    assert caught[0].filename == __file__
    assert not list(own_cache.glob("map/*"))


def test_cache_key_names_the_result(ds, calls):
    lock = threading.Lock()

    def guarded(row):
        with lock:
            return plus_one(row)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ds.map(guarded, cache_key="v1")["c"] == [1, 2, 3]
        assert ds.map(guarded, cache_key="v1")["c"] == [1, 2, 3]
        assert calls() == 3
        ds.map(guarded, cache_key="v2")
        ds.select([0]).map(guarded, cache_key="v1")
    assert calls() == 3 + 3 + 1


def test_a_version_of_the_engine_is_part_of_the_result(ds, calls, monkeypatch):
    ds.map(plus_one)
    monkeypatch.setattr(call, "MAP_VERSION", call.MAP_VERSION + 1)
    ds.map(plus_one)
    assert calls() == 6


def test_random_functions_do_not_disturb_the_key(ds, calls):
    """A function that draws from a global generator reads the module, not its state."""

    def draw(row):
        count()
        return {"c": random.random()}

    first = ds.map(draw)
    random.seed(5)
    assert ds.map(draw)[:] == first[:] and calls() == 3


TWO = """
    import os, sys, time
    from minift import Dataset

    def slow(batch):
        with open(os.environ["TEST_CALLS"], "a") as file:
            file.write("called\\n")
        time.sleep(0.15)
        return {"c": [i + 1 for i in batch["a"]]}

    ds = Dataset.from_dict({"a": range(6)})
    print("ready", flush=True)
    sys.stdin.readline()
    print(ds.map(slow, batched=True, batch_size=2)["c"].tolist())
"""


@pytest.mark.skipif(cache.fcntl is None, reason="no locks on this system")
def test_two_processes_compute_once(tmp_path, calls):
    script = tmp_path / "two.py"
    script.write_text(textwrap.dedent(TWO))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, str(script)], **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in both] == ["[1, 2, 3, 4, 5, 6]\n"] * 2
    assert calls() == 3


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_map_is_computed_again_and_whole(tmp_path, calls):
    script = tmp_path / "two.py"
    script.write_text(textwrap.dedent(TWO))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, str(script)], **pipes)
    process.stdin.write("go\n")
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while calls() < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    again = subprocess.run(
        [sys.executable, str(script)], input="go\n", capture_output=True, text=True, check=True
    )
    assert again.stdout == "ready\n[1, 2, 3, 4, 5, 6]\n"


# --- formats -------------------------------------------------------------------------------------


def test_the_format_is_extended_to_new_columns(ds):
    shown = ds.with_format("numpy", columns=["a"])
    result = shown.map(lambda row: {"c": row["a"]})
    assert list(result[:]) == ["a", "c"] and result.column_names == ["a", "b", "c"]
    everything = ds.with_format("numpy", columns=["a"], output_all_columns=True)
    result = everything.map(lambda row: {"c": 1})
    assert sorted(result[:]) == ["a", "b", "c"] and isinstance(result[:]["c"], np.ndarray)
    assert isinstance(result[:]["b"], list)


# --- what is written, and where ------------------------------------------------------------------


def entry_files(own_cache):
    """{name: rows} of the one result in the cache."""
    (folder,) = own_cache.glob("map/*")
    return {path.name: storage.read_stream(path) for path in sorted(folder.glob("*.arrow"))}


def test_only_new_columns_are_written(own_cache):
    ds = Dataset.from_dict({"a": range(320), "b": [f"text {i}" for i in range(320)]})
    result = ds.map(lambda row: {"c": row["a"] * 2})
    files = entry_files(own_cache)
    assert len(files) == 16 and {t.num_rows for t in files.values()} == {20}
    assert all(table.column_names == ["c"] for table in files.values())
    assert result[319] == {"a": 319, "b": "text 319", "c": 638}
    assert result.shuffle(seed=3)["c"] == [2 * a for a in result.shuffle(seed=3)["a"]]
    part = ds.select(range(100, 200)).map(lambda row: {"c": row["a"]}, cache_key="part")
    assert part["a"] == part["c"] == list(range(100, 200)), "a slice is referred to as well"


def test_columns_of_a_shuffled_input_are_written_in_its_order(own_cache):
    ds = Dataset.from_dict({"a": range(50), "b": [str(i) for i in range(50)]}).shuffle(seed=1)
    result = ds.map(lambda row: {"c": row["a"]})
    assert result["a"] == ds["a"] == result["c"] and result["b"] == ds["b"]
    assert next(iter(entry_files(own_cache).values())).column_names == ["a", "b", "c"]
    assert result.column_names == ["a", "b", "c"]


def tokenized(batch):
    n = len(batch["a"])
    return {
        "input_ids": [[5, 6, 7][: i % 4] for i in batch["a"]],
        "attention_mask": [[1, 1, 1][: i % 4] for i in batch["a"]],
        "token_type_ids": [[0, 1, 1][: i % 4] for i in batch["a"]],
        "label": [i % 2 for i in range(n)],
    }


def test_masks_and_type_ids_are_two_numbers_a_row(own_cache, tmp_path):
    """And yet they are columns for everybody who looks."""
    ds = Dataset.from_dict({"a": range(64)}).map(tokenized, batched=True, batch_size=8)
    schemas = [table.schema for table in entry_files(own_cache).values()]
    types = {field.name: field.type for schema in schemas for field in schema}
    assert types["attention_mask"] == types["token_type_ids"] == RUNS
    expected = {"a": list(range(64)), **tokenized({"a": range(8)})}
    expected |= {k: (v * 8)[:64] for k, v in tokenized({"a": range(8)}).items()}
    assert ds[:] == expected and ds[7] == {name: v[7] for name, v in expected.items()}
    assert ds.features["attention_mask"] == List(Value("int8"))
    picked = ds.shuffle(seed=2).select([3, 1, 60])
    rows = picked["a"].tolist()
    assert picked["token_type_ids"] == [expected["token_type_ids"][i] for i in rows]
    assert picked.lengths("attention_mask").tolist() == [i % 4 for i in rows]
    renamed = ds.rename_column("attention_mask", "m").remove_columns("input_ids")
    assert renamed["m"] == expected["attention_mask"], "also without the tokens"
    assert renamed.add_column("z", [0] * 64)["m"] == expected["attention_mask"]
    assert renamed.map(lambda row: {"n": len(row["m"])})["n"] == [i % 4 for i in range(64)]
    assert renamed.select(range(3, 9)).flatten_indices()["m"] == expected["attention_mask"][3:9]
    ds.save_to_disk(tmp_path / "saved")
    from minift import concatenate_datasets, load_from_disk

    assert load_from_disk(tmp_path / "saved")[:] == expected
    joined = concatenate_datasets([ds, picked])[:]["token_type_ids"]
    assert joined == expected["token_type_ids"] + picked["token_type_ids"].tolist()
    assert ds.with_format("torch")[7]["attention_mask"].tolist() == [1, 1, 1]
    again = Dataset.from_dict({"a": range(64)}).map(tokenized, batched=True, batch_size=8)
    assert again.fingerprint == ds.fingerprint and again[:] == expected


def test_other_masks_stay_lists(own_cache):
    def padded(batch):
        return {"input_ids": [[5, 0]] * 4, "attention_mask": [[1, 0]] * 4}

    ds = Dataset.from_dict({"a": range(4)}).map(padded, batched=True)
    assert ds["attention_mask"] == [[1, 0]] * 4
    (table,) = entry_files(own_cache).values()
    assert table.schema.field("attention_mask").type == pa.list_(pa.int8())

    def mixed(batch):
        good = batch["a"][0] < 20
        return {"input_ids": [[5, 6]] * 10, "attention_mask": [[0, 1] if good else [1, 0]] * 10}

    ds = Dataset.from_dict({"a": range(40)}).map(mixed, batched=True, batch_size=10)
    assert ds["attention_mask"] == [[0, 1]] * 20 + [[1, 0]] * 20, "by shard, then all of them"


def test_mapped_rows_are_padded(tmp_path):
    ds = Dataset.from_dict({"a": range(64)}).map(tokenized, batched=True, batch_size=8)
    ds = ds.remove_columns("a").shuffle(seed=5)
    tokenizer = AutoTokenizer.from_pretrained(make_model(tmp_path / "model"))
    tokenizer.pad_token_id = 9

    def pad(ds, indices, *padding):
        columns = ds.__getitems__(indices).columns()
        return tokenizer.pad(columns, *padding, return_tensors="np")

    block = pad(ds, [0, 5, -1], True, None, 4)
    rows = [ds[i] for i in (0, 5, -1)]
    for name, pad_value in (("input_ids", 9), ("attention_mask", 0), ("token_type_ids", 0)):
        assert block[name].tolist() == [(row[name] + [pad_value] * 4)[:4] for row in rows]
    assert block["labels"].tolist() == [row["label"] for row in rows]
    tokenizer.padding_side = "left"
    left = pad(ds, [0, 5, -1], "max_length", 5)["input_ids"]
    assert left.tolist() == [([9] * 5 + row["input_ids"])[-5:] for row in rows]
    with pytest.raises(DataError, match="longer than the length to pad to"):
        pad(ds, range(64), "max_length", 2)
    with pytest.raises(DataError, match="'t' cannot be made into a tensor"):
        pad(ds.add_column("t", ["x"] * 64), [0])


# --- options -------------------------------------------------------------------------------------


def test_drop_last_batch():
    ds = Dataset.from_dict({"a": range(25)})
    assert ds.map(lambda b: b, batched=True, batch_size=10, drop_last_batch=True)["a"] == list(
        range(20)
    )
    kept = ds.map(lambda b: {"c": b["a"]}, batched=True, batch_size=10, drop_last_batch=True)
    assert kept["a"] == kept["c"] == list(range(20))
    assert len(ds.map(lambda b: b, batched=True, batch_size=30, drop_last_batch=True)) == 0


def test_a_result_that_leaves_no_file(ds, own_cache, calls):
    result = ds.map(plus_one, keep_in_memory=True)
    assert result["c"] == [1, 2, 3] and not list(own_cache.glob("*/*"))
    assert calls() == 3 and result.fingerprint == ds.map(plus_one, keep_in_memory=True).fingerprint


def test_a_forced_result_replaces_the_old_one(ds, calls, own_cache):
    old = ds.map(plus_one)
    new = ds.map(plus_one, load_from_cache_file=False)
    assert calls() == 6 and len(list(own_cache.glob("map/*"))) == 1
    assert old[:] == new[:] == ds.map(plus_one)[:] and calls() == 6
    assert old.fingerprint != new.fingerprint, "what was made from the old one is not from this"


def test_names_of_results(ds, calls, own_cache, tmp_path):
    named = ds.map(plus_one, new_fingerprint="mine")
    assert (own_cache / "map" / "mine").is_dir()
    assert ds.map(lambda row: {}, new_fingerprint="mine")[:] == named[:] and calls() == 3
    for bad in ("", "a/b", "..", "x" * 65):
        with pytest.raises(ConfigError, match="new_fingerprint"):
            ds.map(plus_one, new_fingerprint=bad)
    placed = ds.map(plus_one, cache_file_name=tmp_path / "here")
    assert (tmp_path / "here" / files.MANIFEST).is_file() and calls() == 6
    assert ds.map(plus_one, cache_file_name=tmp_path / "here")[:] == placed[:] and calls() == 6
    with pytest.raises(ConfigError, match="result of another map"):
        ds.select([0]).map(plus_one, cache_file_name=tmp_path / "here")


def test_answers_of_a_filter_are_kept(ds, calls):
    def odd(row):
        count()
        row["b"] = "changed"
        return row["a"] % 2

    assert ds.filter(odd)[:] == {"a": [1], "b": ["y"]}
    assert ds.filter(odd, num_proc=2)[:] == {"a": [1], "b": ["y"]} and calls() == 3
    assert ds.filter(lambda row, i: i > 0, with_indices=True)["a"] == [1, 2]
    assert ds.filter(lambda b, i: [j > 0 for j in i], with_indices=True, batched=True)["a"] == [
        1,
        2,
    ]
