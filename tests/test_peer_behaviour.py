"""What users of `datasets` rely on, and what it gets wrong: minift's side of both.

The sections are numbered as the groups of the peer's own tests that define its behaviour; written
from what they ask, not from their code. What another file of these tests asks already is named and
not asked again. The last section has ten findings (F1 to F10) where the peer loses, changes or
invents data without a word, and where minift must not.
"""

import contextlib
import copy
import importlib
import json
import operator
import os
import pickle
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny import count
from torch.utils.data import DataLoader

from minift import (
    ClassLabel,
    Dataset,
    Features,
    List,
    Value,
    concatenate_datasets,
    load_dataset,
    load_from_disk,
)
from minift.data import cache, storage
from minift.data.fingerprint.values import fingerprint
from minift.errors import ColumnError, ConfigError, DataError

LABEL = ClassLabel(names=["neg", "pos"])


@pytest.fixture
def ten():
    return Dataset.from_dict({"i": range(10), "s": list("abcdefghij")})


@pytest.fixture
def labelled():
    """Features that a plain type does not tell: classes, a narrow number, lists, a dict."""
    features = {"text": Value("string"), "label": LABEL, "n": Value("int8")}
    features |= {"tags": List(LABEL), "meta": {"lang": Value("string"), "len": Value("int16")}}
    rows = {"text": ["a", "b", "c", "d"], "label": [0, 1, 1, 0], "n": [1, 2, 3, 4]}
    rows |= {"tags": [[0], [], [1, 1], [0, 1]], "meta": [{"lang": "en", "len": 1}] * 4}
    return Dataset.from_dict(rows, Features(features))


def double(row):
    count()
    return {"d": row["i"] * 2}


def plain(dataset):
    """All of its rows as Python objects, whatever the format."""
    return dataset.with_format(None)[:]


# --- 1: reading rows -----------------------------------------------------------------------------
# See test_dataset.py::test_one_row, test_several_rows, test_what_is_no_key, test_out_of_bounds.


@pytest.mark.parametrize("format_", [None, "numpy", "torch"])
@pytest.mark.parametrize(
    "make", [int, np.int64, np.uint8, np.array, torch.tensor, pa.scalar], ids=lambda m: m.__name__
)
def test_1_every_kind_of_integer_is_the_same_row(ten, make, format_):
    row = ten.with_format(format_)[make(3)]
    assert row == {"i": 3, "s": "d"} and list(row) == ["i", "s"]


# --- 2: map merges what is returned into the rows ------------------------------------------------
# See test_mapping.py::test_returned_columns_replace_in_place_and_follow, test_batch_sizes,
# test_with_indices_are_positions_in_this_dataset, test_features; with_rank: group 6.


def test_2_nested_values_become_lists_and_dicts(ten):
    result = ten.map(lambda row: {"n": {"a": [row["i"]], "b": {"c": row["s"]}}})
    assert result.features["n"] == {"a": List(Value("int64")), "b": {"c": Value("string")}}
    assert result[3]["n"] == {"a": [3], "b": {"c": "d"}}


# --- 3: rows that are changed, popped from or not returned ---------------------------------------
# See test_mapping.py::test_what_is_assigned_counts_and_what_is_popped_goes, test_remove_columns,
# test_popped_in_some_rows_is_missing_there, test_none_for_every_row_means_for_its_effect.


def returns_new(row):
    row["b"] = 0
    return {"c": 1}


def moves(row):
    return {"c": row.pop("a")}


def deletes(row):
    del row["a"]
    row["c"] = 1
    return row


@pytest.mark.parametrize("format_", [None, "numpy", "torch"])
@pytest.mark.parametrize(
    ("function", "removed", "columns"),
    [
        (returns_new, None, ["a", "b", "c"]),
        (returns_new, "a", ["b", "c"]),
        (moves, None, ["c"]),
        (deletes, None, ["c"]),
        (lambda row: {"a": -row["a"]}, "a", ["a"]),
        (lambda row: {}, None, ["a"]),
        (lambda row: row, None, ["a"]),
    ],
)
def test_3_a_format_does_not_change_which_columns_stay(format_, function, removed, columns):
    """With a format, the peer keeps columns that `remove_columns` names."""
    ds = Dataset.from_dict({"a": [1, 2]}).with_format(format_)
    assert ds.map(function, remove_columns=removed).column_names == columns


def test_3_what_a_function_does_to_a_row_leaves_the_dataset_alone(ten):
    before = ten[:]
    ten.map(lambda row: row.clear() or {"x": 1})
    ten.with_format("numpy").map(lambda b: {"i": operator.iadd(b["i"], 1)}, batched=True)
    assert ten[:] == before


@pytest.mark.parametrize("add", [operator.iadd, list.extend], ids=["+=", "extend"])
def test_3_a_list_that_is_extended_is_as_good_as_a_new_one(add):
    def extend(row):
        row["x"] = add(row["x"], [9]) or row["x"]
        return {"n": len(row["x"])}

    result = Dataset.from_dict({"x": [[1], [2]]}).map(extend)
    assert result[:] == {"x": [[1, 9], [2, 9]], "n": [2, 2]}


# --- 4: remove_columns, input_columns, fn_kwargs, features ---------------------------------------
# See test_mapping.py::test_remove_columns, test_input_columns, test_fn_kwargs, test_features,
# test_features_must_name_the_result.


def test_4_input_columns_in_batches_and_with_all_else(ten):
    def join(text, number, indices, sep):
        return {"j": [f"{t}{sep}{n + i}" for t, n, i in zip(text, number, indices, strict=True)]}

    result = ten.select([2, 4]).map(
        join,
        batched=True,
        input_columns=["s", "i"],
        with_indices=True,
        fn_kwargs={"sep": ":"},
        remove_columns=["i"],
    )
    assert result[:] == {"s": ["c", "e"], "j": ["c:2", "e:5"]}


def test_4_features_turn_names_into_classes(ten):
    features = Features({**ten.features, "l": LABEL})
    result = ten.map(lambda row: {"l": "pos" if row["i"] > 7 else "neg"}, features=features)
    assert result.features == features and result["l"] == [0] * 8 + [1] * 2


# --- 5: the cache of map -------------------------------------------------------------------------
# See test_mapping.py::test_a_hit_calls_nothing, test_what_is_no_hit (with load_from_cache_file),
# test_cache_key_names_the_result.


def test_5_any_num_proc_finds_what_another_left(ten, calls):
    first = ten.map(double, num_proc=2)
    assert calls() == 10
    for num_proc in (None, 0, 1, 3):
        again = ten.map(double, num_proc=num_proc)
        assert again[:] == first[:] and again.fingerprint == first.fingerprint
    assert calls() == 10


def test_5_a_map_that_failed_goes_on_where_it_was(calls, monkeypatch):
    """With any other num_proc; only the rows of whole shards are not asked for again."""
    ds = Dataset.from_dict({"i": range(100)})

    def fragile(row):
        if row["i"] == 57 and os.environ.get("TEST_FAILS"):
            raise RuntimeError("no")
        return double(row)

    monkeypatch.setenv("TEST_FAILS", "1")
    with pytest.raises(RuntimeError) as caught:
        ds.map(fragile)
    assert any("5 of 10 shards are kept" in note for note in caught.value.__notes__)
    monkeypatch.delenv("TEST_FAILS")
    before = calls()
    assert before == 57
    assert ds.map(fragile, num_proc=2)["d"] == [2 * i for i in range(100)]
    assert calls() - before == 50


def test_5_without_caching_nothing_is_left(ten, calls, own_cache):
    results = [ten.map(double, keep_in_memory=True), ten.map(double, keep_in_memory=True)]
    assert calls() == 20 and not list(own_cache.glob("map/*"))
    assert [r["d"].tolist() for r in results] == [list(range(0, 20, 2))] * 2


def test_5_a_file_of_another_map_is_no_hit(ten, tmp_path):
    """The peer returns whatever rows the file holds."""
    path = tmp_path / "result"
    first = ten.map(lambda row: {"d": 1}, cache_file_name=path)
    assert first[:] == ten.map(lambda row: {"d": 1}, cache_file_name=path)[:]
    with pytest.raises(ConfigError, match="holds the result of another map"):
        ten.select([3]).map(lambda row: {"d": 1}, cache_file_name=path)


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "x" * 65, "what?", "<>"])
def test_5_a_fingerprint_is_the_name_of_a_folder(ten, name):
    with pytest.raises(ConfigError, match="new_fingerprint"):
        ten.map(lambda row: {"d": 1}, new_fingerprint=name)


def test_5_where_a_result_is_kept_is_no_part_of_what_it_is(ten, calls):
    in_memory = ten.map(double, keep_in_memory=True)
    assert in_memory.fingerprint == ten.map(double).fingerprint


# --- 6: several processes ------------------------------------------------------------------------
# See test_worker.py::test_an_error_of_the_function_is_reported_as_itself,
# test_a_task_that_kills_two_workers_is_an_error, test_there_is_a_rank_wherever_num_proc_is_given.


@pytest.mark.slow
def test_6_rows_indices_and_columns_are_as_without():
    ds = Dataset.from_dict({"i": range(40), "s": ["x"] * 40}).shuffle(seed=3)
    ds.set_format("numpy", ["i"])

    def look(row, index, rank):
        return {"k": int(row["i"]) * 100 + index, "rank": -1 if rank is None else rank}

    options = {"with_indices": True, "with_rank": True, "remove_columns": "s"}
    options["load_from_cache_file"] = False
    one, two = (ds.map(look, num_proc=n, **options) for n in (None, 2))
    expected = [i * 100 + k for k, i in enumerate(ds["i"])]
    assert one["k"].tolist() == two["k"].tolist() == expected
    assert set(one["rank"]) == {-1} and set(two["rank"]) <= {0, 1}
    assert two.column_names == ["i", "k", "rank"] and two.format == one.format


@pytest.mark.slow
def test_6_the_last_batch_is_dropped_once_and_not_in_each_process():
    ds = Dataset.from_dict({"i": range(95)})
    for num_proc in (None, 2):
        result = ds.map(
            lambda b, rank: {"n": [len(b["i"])] * len(b["i"])},
            batched=True,
            batch_size=10,
            drop_last_batch=True,
            with_rank=True,
            num_proc=num_proc,
            keep_in_memory=True,
        )
        assert result["i"] == list(range(90)) and set(result["n"]) == {10}


@pytest.mark.slow
def test_6_a_function_with_state_begins_anew_in_each_process():
    seen = []

    def number(row, rank):
        seen.append(row["i"])
        return {"seen": len(seen)}

    numbers = Dataset.from_dict({"i": range(40)}).map(number, with_rank=True, num_proc=2)["seen"]
    assert not seen and min(numbers) == 1 and len(numbers) == 40


# --- 7: numpy, torch and Arrow as results --------------------------------------------------------
# See test_mapping.py::test_kinds_of_columns, test_returned_tables_and_formatted_rows,
# test_types_that_do_not_go_together; test_features.py::test_as_array_keeps_widths.


@pytest.mark.parametrize(
    ("value", "depth", "kind"),
    [
        (np.float32(0.5), 0, "float32"),
        (np.int8(3), 0, "int8"),
        (np.bool_(True), 0, "bool"),
        (np.str_("x"), 0, "string"),
        (np.array(7, np.int16), 0, "int16"),
        (torch.tensor(2), 0, "int64"),
        (np.ones(2, np.float16), 1, "float16"),
        (torch.ones(2, requires_grad=True), 1, "float32"),
        (torch.arange(6).reshape(2, 3).T.double(), 2, "float64"),
        (np.ones((2, 3), np.float32), 2, "float32"),
        (np.ones((1, 2, 1), np.uint8), 3, "uint8"),
        (torch.ones(2, 2, dtype=torch.int16), 2, "int16"),
        (torch.ones(2, dtype=torch.bfloat16), 1, "float32"),
    ],
    ids=lambda x: getattr(x, "dtype", x),
)
@pytest.mark.parametrize("batched", [False, True])
def test_7_arrays_and_tensors_keep_type_and_shape(ten, value, depth, kind, batched):
    if batched:
        result = ten.map(lambda b: {"x": [value] * len(b["i"])}, batched=True, batch_size=4)
    else:
        result = ten.map(lambda row: {"x": value})
    feature = Value(kind)
    for _ in range(depth):
        feature = List(feature)
    assert result[9]["x"] == value.tolist() and len(result) == 10
    assert result.features["x"] == feature


def test_7_missing_values_of_numpy_are_missing(ten):
    dates = np.array(["2020-01-01", "NaT"], "datetime64[D]")
    masked = np.ma.array([1, 2], mask=[False, True])
    result = ten.take(2).map(lambda b: {"when": dates, "n": masked}, batched=True)
    assert result["n"] == [1, None] and result["when"][1] is None
    assert result.features["when"] == Value("date32")


# --- 8: filter -----------------------------------------------------------------------------------
# See test_dataset.py::test_filter, test_filter_in_batches, test_filter_of_formatted_rows,
# test_filter_after_a_selection.


def test_8_indices_count_from_the_selection(ten):
    ds = ten.select([9, 4, 1])
    assert ds.filter(lambda row, i: i != 1, with_indices=True)["i"] == [9, 1]
    batched = ds.filter(
        lambda b, i: [k != 0 for k in i], with_indices=True, batched=True, batch_size=2
    )
    assert batched["i"] == [4, 1]
    assert batched.filter(lambda i: i > 1, input_columns="i")["i"] == [4]


def test_8_filter_keeps_its_answers(ten, calls):
    def large(row):
        count()
        return row["i"] > 6

    first = ten.filter(large)
    assert ten.filter(large).fingerprint == first.fingerprint and calls() == 10
    assert ten.select([8, 0]).filter(large)["i"] == [8] and calls() == 12


@pytest.mark.parametrize("batched", [False, True])
def test_8_nothing_in_nothing_out(ten, calls, batched):
    none = ten.select([]).filter(lambda row: count(), batched=batched)
    assert len(none) == 0 and none.features == ten.features and calls() == 0
    assert none.map(double).column_names == ["i", "s"]


# --- 9: features that survive --------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: ds.map(lambda row: {"text": row["text"].upper()}),
        lambda ds: ds.map(lambda row: row),
        lambda ds: ds.map(lambda b: b, batched=True, batch_size=3),
        lambda ds: ds.map(lambda row: {"tags": [*row["tags"], 1]}),
        lambda ds: ds.map(lambda row: {"meta": {"len": 9, "lang": "de"}}),
        lambda ds: ds.shuffle(seed=0).map(lambda row: {"text": "x"}),
        lambda ds: ds.filter(lambda row: row["label"]),
        lambda ds: ds.filter(lambda row: False),
        lambda ds: ds.select([2, 0]).flatten_indices(),
        lambda ds: ds.sort("n", reverse=True),
        lambda ds: ds.train_test_split(0.5, seed=0)["test"],
        lambda ds: concatenate_datasets([ds, ds.select([0])]),
        lambda ds: pickle.loads(pickle.dumps(ds)),
    ],
)
def test_9_features_survive(labelled, change):
    for _ in range(2):  # also from the cache
        assert change(labelled).features == labelled.features


# --- 10: select, flatten_indices -----------------------------------------------------------------
# See test_dataset.py::test_select, test_select_does_not_guess, test_selections_compose;
# test_mapping.py::test_what_is_no_hit (of a selection), test_order_of_rows_follows_the_selection.


def test_10_flat_rows_are_the_same_rows(labelled):
    chosen = labelled.select([3, 0]).with_format("numpy", ["n"])
    flat = chosen.flatten_indices()
    assert plain(flat) == plain(chosen) and flat.format == chosen.format
    assert flat.data.num_rows == 2
    assert labelled.flatten_indices() is labelled


# --- 11: order -----------------------------------------------------------------------------------
# See test_dataset.py::test_shuffle_is_that_of_datasets, test_sort.


@pytest.mark.parametrize(
    ("reverse", "place", "order"),
    [
        (False, "at_end", [1, 2, None]),
        (True, "at_end", [2, 1, None]),
        (False, "at_start", [None, 1, 2]),
        (True, "at_start", [None, 2, 1]),
    ],
)
@pytest.mark.filterwarnings("ignore:Specifying null_placement")
def test_11_missing_values_where_one_wants_them(reverse, place, order):
    ds = Dataset.from_dict({"a": [2, None, 1]})
    assert ds.sort("a", reverse=reverse, null_placement=place)["a"] == order


@pytest.mark.parametrize(("n", "shards"), [(10, 3), (10, 10), (2, 3), (7, 1)])
@pytest.mark.parametrize("contiguous", [True, False])
def test_11_shards_are_all_rows_in_like_parts(n, shards, contiguous):
    ds = Dataset.from_dict({"i": range(n)})
    parts = [ds.shard(shards, k, contiguous)["i"].tolist() for k in range(shards)]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    joined = [i for part in parts for i in part]
    assert joined == list(range(n)) if contiguous else parts[0] == ds["i"][::shards]
    assert sorted(joined) == list(range(n))


# --- 12: train_test_split ------------------------------------------------------------------------
# See test_dataset.py::test_train_test_split_is_that_of_datasets, test_a_split_that_would_be_empty.


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, (7, 3)),
        ({"train_size": 3}, (3, 7)),
        ({"train_size": 0.35}, (3, 7)),
        ({"train_size": 0.5, "test_size": 0.2}, (5, 2)),
        ({"train_size": 4, "test_size": 0.11}, (4, 2)),
        ({"train_size": 0.9, "test_size": 0.2}, None),
        ({"train_size": 8, "test_size": 3}, None),
        ({"train_size": 0}, None),
    ],
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_12_sizes_of_both_parts(ten, sizes, expected, shuffle):
    if expected is None:
        with pytest.raises(ConfigError, match="leave a part empty, or are too much"):
            ten.train_test_split(**sizes, shuffle=shuffle)
        return
    splits = ten.train_test_split(**sizes, shuffle=shuffle, seed=0)
    assert (len(splits["train"]), len(splits["test"])) == expected
    assert not {*splits["train"]["i"]} & {*splits["test"]["i"]}


def test_12_classes_in_like_shares():
    ds = Dataset.from_dict({"l": [0] * 80 + [1] * 20, "i": range(100)})
    ds = ds.cast_column("l", LABEL)
    splits = ds.train_test_split(0.25, stratify_by_column="l", seed=1)
    assert Counter(splits["train"]["l"]) == {0: 60, 1: 15}
    assert Counter(splits["test"]["l"]) == {0: 20, 1: 5}
    assert sorted([*splits["train"]["i"], *splits["test"]["i"]]) == list(range(100))
    again = ds.train_test_split(0.25, stratify_by_column="l", seed=1)["test"]
    other = ds.train_test_split(0.25, stratify_by_column="l", seed=2)["test"]
    assert again["i"] == splits["test"]["i"] != other["i"].tolist()


def test_12_the_peer_takes_the_same_rows_of_each_class():
    ds = Dataset.from_dict({"l": [0] * 6 + [1] * 4, "i": range(10)}).cast_column("l", LABEL)
    assert ds.train_test_split(0.3, stratify_by_column="l", seed=42)["test"]["i"] == [0, 1, 7]


@pytest.mark.parametrize(
    ("column", "feature", "options", "message"),
    [
        ([0, 1] * 5, None, {}, "must be a ClassLabel column"),
        ([0] * 9 + [1], LABEL, {}, "each part needs a row of each class"),
        ([0, 1] * 5, LABEL, {"test_size": 1}, "each part needs a row of each class"),
        ([0, 1] * 5, LABEL, {"shuffle": False}, "needs shuffle=True"),
        ([0, None] * 5, LABEL, {}, "missing labels"),
    ],
)
def test_12_what_cannot_be_stratified(column, feature, options, message):
    ds = Dataset.from_dict({"l": column}, feature and Features(l=feature))
    with pytest.raises((ConfigError, DataError), match=message):
        ds.train_test_split(**{"test_size": 0.3, "stratify_by_column": "l", **options})


# --- 13: one after the other, and side by side ---------------------------------------------------
# See test_dataset.py::test_concatenate, test_concatenate_null_yields, test_concatenate_refuses.


def test_13_side_by_side_in_the_order_of_each(ten):
    other = Dataset.from_dict({"l": ["pos", "neg"]}).cast_column("l", LABEL)
    both = concatenate_datasets([ten.select([7, 2]), other.select([1, 0])], axis=1)
    assert both[:] == {"i": [7, 2], "s": ["h", "c"], "l": [0, 1]} and both.features["l"] == LABEL
    with pytest.raises(DataError, match="same number of rows"):
        concatenate_datasets([ten, other], axis=1)
    with pytest.raises(ColumnError, match="in several datasets"):
        concatenate_datasets([ten, ten.select_columns("s")], axis=1)


def test_13_memory_and_disk_and_selections_of_both(ten, tmp_path):
    ten.save_to_disk(tmp_path / "ds")
    parts = [load_from_disk(tmp_path / "ds").shuffle(seed=42), ten.select([3, 1])]
    joined = pickle.loads(pickle.dumps(concatenate_datasets(parts)))
    assert joined["i"] == [5, 6, 0, 7, 3, 2, 4, 9, 1, 8, 3, 1]
    assert joined.select([11, 0]).map(lambda row: {"d": -row["i"]})["d"] == [-1, -5]


def test_13_a_format_is_kept_if_all_have_it(ten):
    shown = ten.with_format("numpy", ["i"])
    assert concatenate_datasets([shown, shown]).format == shown.format
    assert concatenate_datasets([shown, ten]).format["type"] is None


def test_13_an_axis_that_is_not_there(ten):
    with pytest.raises(ConfigError):
        concatenate_datasets([ten, ten], axis=2)


# --- 14: interleaving is deliberately not in minift ----------------------------------------------


# --- 15: columns as other features ---------------------------------------------------------------
# See test_dataset.py::test_class_encode_column, test_cast_column,
# test_rename_remove_and_select_columns, test_columns_that_are_not_there_or_there_twice.


def test_15_missing_values_are_a_class_only_if_asked():
    ds = Dataset.from_dict({"x": ["b", None, "a"]})
    encoded = ds.class_encode_column("x", include_nulls=True)
    assert encoded.features["x"].names == ["None", "a", "b"] and encoded["x"] == [2, 0, 1]


def test_15_cast_takes_the_names_in_any_order(labelled):
    wanted = Features(dict(reversed(labelled.features.items()))) | {"n": Value("string")}
    cast = labelled.select([1, 0]).cast(wanted)
    assert cast.column_names == list(wanted) and cast["n"] == ["2", "1"]
    with pytest.raises(DataError, match="do not name the columns"):
        labelled.cast(Features(text=Value("string")))


def test_15_dictionaries_and_lists_are_cast_inside():
    ds = Dataset.from_dict({"d": [{"a": 1, "b": "x"}], "l": [["1", "2"]]})
    inside = {"b": Value("string"), "a": Value("int8")}
    assert ds.cast_column("d", inside).features["d"] == inside
    assert ds.cast_column("d", inside)[0]["d"] == {"b": "x", "a": 1}
    fixed = ds.cast_column("l", List(Value("int64"), length=2)).with_format("numpy")
    assert fixed[:]["l"].tolist() == [[1, 2]]


def test_15_names_of_classes_in_lists():
    features = Features(tags=List(LABEL))
    assert Dataset.from_dict({"tags": [["pos"], []]}, features)["tags"] == [[1], []]


# --- 16: formats ---------------------------------------------------------------------------------
# See test_formats.py::test_numpy_corners, test_torch_corners, test_the_format_is_handed_on,
# test_renamed_and_removed_columns_of_a_format, test_transform_gets_batches.


def test_16_a_format_can_be_set_as_it_is_said(ten):
    other = ten.with_format("torch", ["i"], dtype=torch.int32)
    ten.set_format(**other.format)
    assert ten[:2]["i"].dtype == torch.int32 and ten.format == other.format


def test_16_a_transform_with_all_other_columns(ten):
    def negate(batch):
        return {"i": [-i for i in batch["i"]]}

    assert ten.with_transform(negate, ["i"], output_all_columns=True)[3] == {"i": -3, "s": "d"}


def test_16_an_option_is_never_ignored(ten):
    with contextlib.suppress(ConfigError):
        assert ten.with_format("numpy", dtype=np.float32)[:]["i"].dtype == np.float32


# --- 17: on disk and in pickles ------------------------------------------------------------------
# See test_dataset_dict.py::test_the_layout_is_that_of_datasets, test_the_format_comes_back,
# test_a_folder_that_exists_is_not_touched.


def chain(ds):
    ds = ds.shuffle(seed=1).map(lambda row: {"j": row["i"] * 2}).filter(lambda row: row["i"] > 4)
    return ds.rename_column("j", "k").sort("k").with_format("numpy", ["k"])


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
@pytest.mark.parametrize("on_disk", [False, True])
def test_17_a_pickle_is_the_same_dataset(ten, tmp_path, again, on_disk):
    if on_disk:
        ten.save_to_disk(tmp_path / "ds")
        ten = load_from_disk(tmp_path / "ds")
    made = chain(ten)
    back = again(made)
    assert plain(back) == plain(made) and plain(made)["k"] == [10, 12, 14, 16, 18]
    assert (back.fingerprint, back.features, back.format) == (
        made.fingerprint,
        made.features,
        made.format,
    )


def test_17_what_is_on_disk_is_pickled_as_its_name(tmp_path):
    Dataset.from_dict({"i": range(100_000)}).save_to_disk(tmp_path / "ds")
    ds = load_from_disk(tmp_path / "ds").map(lambda b: {"j": b["i"]}, batched=True)
    assert len(pickle.dumps(ds.select(range(10, 90_000)).with_format("torch"))) < 5000


def test_17_the_options_of_a_format_come_back(ten, tmp_path):
    ten.with_format("torch", ["i"], device="cpu").save_to_disk(tmp_path / "ds")
    assert load_from_disk(tmp_path / "ds").format["format_kwargs"] == {"device": "cpu"}


# --- 18: batches and DataLoader ------------------------------------------------------------------
# See test_dataset.py::test_iter_in_batches, test_torch_dataloader,
# test_a_row_batch_is_a_list_of_dicts.


@pytest.mark.parametrize("format_", [None, "torch"])
def test_18_a_loader_without_batches(ten, format_):
    rows = list(DataLoader(ten.with_format(format_), batch_size=None))
    assert [(int(row["i"]), row["s"]) for row in rows] == list(enumerate("abcdefghij"))


# --- 19: from files and generators ---------------------------------------------------------------
# See test_loading.py::test_features_of_json, test_features_of_a_csv.


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_19_names_in_files_become_classes(tmp_path, kind):
    text = {"json": '{"l": "pos", "n": 1}\n{"l": "neg", "n": 2}\n', "csv": "l,n\npos,1\nneg,2\n"}
    (tmp_path / "x").write_text(text[kind])
    features = Features(l=LABEL, n=Value("int8"))
    ds = load_dataset(kind, data_files=str(tmp_path / "x"), features=features, split="train")
    assert ds[:] == {"l": [1, 0], "n": [1, 2]} and ds.features == features
    (tmp_path / "x").write_text(text[kind].replace("neg", "neither"))
    with pytest.raises(DataError, match="invalid class label 'neither'"):
        load_dataset(kind, data_files=str(tmp_path / "x"), features=features, split="train")


def test_19_a_generator_is_what_it_yields():
    def rows(n, letters):
        yield from ({"i": i, "s": letters[i]} for i in range(n))

    one, same, more = (
        Dataset.from_generator(rows, gen_kwargs={"n": n, "letters": "abc"}) for n in (2, 2, 3)
    )
    assert one[:] == {"i": [0, 1], "s": ["a", "b"]}
    assert one.fingerprint == same.fingerprint != more.fingerprint
    features = Features(i=Value("int8"), s=Value("string"))
    assert Dataset.from_generator(lambda: iter(()), features).features == features


# --- 20: fingerprints of functions, classes and methods ------------------------------------------
# See test_fingerprint.py::test_an_edit_of_the_function, test_closures, test_recursion,
# test_an_edit_of_a_class, test_methods_partials_and_builtins.

# --- 21: where a function is written does not matter ---------------------------------------------
# See test_fingerprint.py::test_what_does_not_matter, test_the_file_does_not_matter,
# test_functions_made_by_exec (the cells of a notebook).

# --- 22: chance does not matter ------------------------------------------------------------------
# See test_fingerprint.py::test_stable_across_processes_and_hash_seeds,
# test_sets_do_not_depend_on_their_order, test_equal_containers_are_equal_whether_shared_or_not.

# --- 23: fingerprints of other values ------------------------------------------------------------
# See test_fingerprint.py::test_arrow_tables_by_their_content, test_torch_tensors,
# test_what_is_unhashable; test_mapping.py::test_a_version_of_the_engine_is_part_of_the_result.


@pytest.mark.parametrize(
    "make", [lambda seed: torch.Generator().manual_seed(seed), np.random.default_rng]
)
def test_23_a_generator_is_its_state(make):
    drawn = make(1)
    _ = torch.rand(1, generator=drawn) if isinstance(drawn, torch.Generator) else drawn.random()
    assert fingerprint(make(1)) == fingerprint(make(1))
    assert len({fingerprint(g) for g in (make(1), make(2), drawn)}) == 3


# --- 24: fingerprints of tokenizers --------------------------------------------------------------
# See test_tokenizer.py::test_calls_do_not_change_the_fingerprint,
# test_what_changes_the_ids_changes_the_fingerprint,
# test_another_vocabulary_has_another_fingerprint.


# --- 25: formatting, types, files, split names, locks --------------------------------------------
# Formatting: test_formats.py::test_numpy_corners, test_torch_floats_are_float32.
# Widths: test_mapping.py::test_new_lists_of_integers_are_narrow.
# Types that are not tried: test_mapping.py::test_types_of_later_rows_count.
# ClassLabel: test_features.py::test_str2int, test_int2str, test_what_fits_a_feature.
# JSON, csv, text: test_loading.py::test_shapes_of_json_files, test_types_of_cells, test_text,
# test_ways_to_cut_a_text, test_line_separators_inside_texts. Split names: test_loading.py::
# test_the_split_that_a_name_says. Concurrency: test_mapping.py::test_two_processes_compute_once.


def test_25_side_by_side_where_the_pieces_end_elsewhere():
    def pieces(name, sizes):
        starts = np.cumsum([0, *sizes[:-1]])
        parts = zip(starts, sizes, strict=True)
        return Dataset(pa.concat_tables([pa.table({name: range(a, a + n)}) for a, n in parts]))

    both = concatenate_datasets([pieces("a", [3, 1, 6]), pieces("b", [5, 5])], axis=1)
    assert all(both[i] == {"a": i, "b": i} for i in range(10))
    assert both.shuffle(seed=42).filter(lambda row: row["a"] == row["b"]).num_rows == 10


def test_25_files_of_class_names_meet_files_without(tmp_path):
    Dataset.from_dict({"l": [1]}, Features(l=LABEL)).to_parquet(tmp_path / "a.parquet")
    pq.write_table(pa.table({"l": pa.nulls(1)}), tmp_path / "b.parquet")
    ds = load_dataset("parquet", data_files=str(tmp_path / "*.parquet"), split="train")
    assert ds["l"] == [1, None] and ds.features["l"] == LABEL


def test_25_csv_has_no_place_for_objects(tmp_path):
    with pytest.raises(DataError, match="csv has no place"):
        Dataset.from_list([{"m": {"a": 1}}, {"m": {"b": 1}}]).to_csv(tmp_path / "x.csv")


# --- findings: where the peer says nothing and is wrong ------------------------------------------


def test_f1_an_edited_helper_in_another_module_is_noticed(ten, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for times in (2, 3):
        (tmp_path / "f1_helper.py").write_text(f"def scale(x): return x * {times}\n")
        sys.modules.pop("f1_helper", None)
        importlib.invalidate_caches()
        scale = importlib.import_module("f1_helper").scale
        result = ten.map(lambda row, scale=scale: {"n": scale(row["i"])})
        assert result["n"] == [i * times for i in range(10)]
    sys.modules.pop("f1_helper")


@pytest.mark.slow
def test_f2_the_number_of_processes_does_not_change_a_byte(tmp_path):
    """The peer gives 7 rows or 6."""

    def group(batch, rank):
        whole = len(batch["i"]) // 400
        return {"block": [batch["i"][k * 400 : (k + 1) * 400] for k in range(whole)]}

    ds, files = Dataset.from_dict({"i": range(2500)}), []
    for num_proc in (None, 2, 3):
        folder = tmp_path / str(num_proc)
        options = {"batched": True, "remove_columns": "i", "with_rank": True}
        result = ds.map(group, num_proc=num_proc, cache_file_name=folder, **options)
        assert len(result) == 2 + 2 + 1
        files.append([path.read_bytes() for path in sorted(folder.glob("*.arrow"))])
    assert files[0] == files[1] == files[2] and len(files[0]) == 3


def test_f3_a_file_that_was_cut_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "BATCH_BYTES", 4000)
    Dataset.from_dict({"i": range(5000)}).save_to_disk(tmp_path / "ds")
    (path,) = (tmp_path / "ds").glob("*.arrow")
    raw, unnoticed = path.read_bytes(), []
    for end in range(0, len(raw), 8):
        with contextlib.suppress(pa.ArrowException, OSError):
            if pa.ipc.open_stream(raw[:end]).read_all().num_rows < 5000:
                unnoticed.append(end)
    assert len(unnoticed) > 5, "here a stream ends with a batch, and Arrow reads fewer rows"
    for end in unnoticed:
        path.write_bytes(raw[:end])
        with pytest.raises(DataError, match="damaged"):
            load_from_disk(tmp_path / "ds")


@pytest.mark.parametrize("batched", [False, True])
def test_f4_numbers_that_become_text_are_text(ten, batched):
    if batched:
        result = ten.map(lambda b: {"i": [f"0{i}" for i in b["i"]]}, batched=True, batch_size=3)
    else:
        result = ten.map(lambda row: {"i": f"0{row['i']}"})
    assert result.features["i"] == Value("string") and result["i"][9] == "09"


@pytest.mark.parametrize("at", [0, 5, 9])
def test_f5_a_row_that_is_not_returned_is_an_error(ten, at):
    with pytest.raises(DataError, match=f"returned None for row {at}"):
        ten.map(lambda row: {"n": 1} if row["i"] != at else None)


def test_f5_a_key_that_comes_late_is_a_column(ten):
    result = ten.map(lambda row: {"late": 1} if row["i"] > 7 else {})
    assert result["late"] == [None] * 8 + [1, 1]


@pytest.mark.parametrize("names", ["xy", "yx"])
def test_f6_an_empty_column_does_not_empty_the_others(ten, names):
    columns = {"x": [], "y": [1, 2]}
    with pytest.raises(DataError, match="different lengths"):
        ten.map(lambda b: {n: columns[n] for n in names}, batched=True, remove_columns=["i", "s"])


def test_f7_integers_beside_missing_ones_stay_exact():
    ds = Dataset.from_dict({"id": [2**24 + 1, None]})
    assert ds.with_format("numpy")[:]["id"][0] == 2**24 + 1
    with pytest.raises(DataError, match="has missing values, which a tensor cannot hold"):
        ds.with_format("torch")[:]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [("x.csv", "a,b\n1,2\n1,2,3\n", 3), ("x.csv", "a,b\n1\n", 2), ("x.jsonl", "{}\n[1]\n", None)],
)
def test_f8_a_row_of_another_shape_is_an_error(tmp_path, name, text, line):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}:{line}" if line else "row 1 is no object"):
        load_dataset(str(tmp_path / name))


@pytest.mark.parametrize("number", [2**53 + 1, -(2**63), 2**63 - 1])
def test_f8_large_integers_stay_exact_or_are_an_error(tmp_path, number):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"n": n}) + "\n" for n in (number, 1)))
    assert load_dataset(str(path))["train"]["n"] == [number, 1]
    path.write_text("".join(json.dumps({"n": n}) + "\n" for n in (number, 2**64)))
    with pytest.raises(DataError, match="row 1: 18446744073709551616"):
        load_dataset(str(path))


def test_f9_words_that_pandas_takes_for_missing_are_words(tmp_path):
    words = ["NA", "null", "None", "nan", "NULL", "n/a", ""]
    (tmp_path / "x.csv").write_text(
        "w,n\n" + "".join(f"{word},{k}\n" for k, word in enumerate(words))
    )
    ds = load_dataset("csv", data_files=str(tmp_path / "x.csv"), split="train")
    assert ds["w"] == words and ds["n"] == list(range(7))


@pytest.mark.skipif(cache.fcntl is None, reason="no locks on this system")
@pytest.mark.parametrize("seed", ["0", "1"])
def test_f10_a_lock_is_one_lock_whatever_the_hash_seed(seed):
    name = "x" * 255  # the longest that file systems take
    code = """if True:
        import sys
        from minift.data.cache import lock
        with lock(sys.argv[1], wait=False) as ours:
            print(ours)
    """

    def other():
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        ask = [sys.executable, "-c", code, name]
        return subprocess.run(
            ask, capture_output=True, text=True, check=True, env=environment
        ).stdout

    with cache.lock(name):
        assert other() == "False\n"
    assert other() == "True\n"
