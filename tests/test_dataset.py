"""Dataset: rows, columns, selections and orders, as the course uses them."""

import collections
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import name_of
from torch.utils.data import DataLoader

from minift import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    List,
    Value,
    concatenate_datasets,
    load_from_disk,
)
from minift.data.lazy import RowBatch
from minift.errors import ColumnError, ConfigError, DataError

# What `datasets` 5.2.0 gave for seed 42 and ten rows.
SHUFFLED = [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]


@pytest.fixture
def ten():
    return Dataset.from_dict({"i": range(10), "s": list("abcdefghij")})


@pytest.fixture
def mrpc():
    """Three rows in the form of the course's data set."""
    return Dataset.from_dict(
        {
            "sentence1": ["He ate.", "She ran.", "It fell."],
            "sentence2": ["He has eaten.", "They slept.", "It went down."],
            "label": [1, 0, 1],
            "idx": [0, 1, 2],
        },
        features=Features(
            {
                "sentence1": Value("string"),
                "sentence2": Value("string"),
                "label": ClassLabel(names=["not_equivalent", "equivalent"]),
                "idx": Value("int32"),
            }
        ),
    )


# --- as the course types it ----------------------------------------------------------------------


def test_as_in_the_course(mrpc):
    raw_datasets = DatasetDict(train=mrpc, validation=mrpc.select([0]))
    raw_train_dataset = raw_datasets["train"]
    assert raw_train_dataset[0] == {
        **{"sentence1": "He ate.", "sentence2": "He has eaten.", "label": 1, "idx": 0}
    }
    assert raw_train_dataset.features["label"].int2str(1) == "equivalent"
    assert repr(raw_train_dataset.features) == (
        "{'sentence1': Value('string'), 'sentence2': Value('string'), "
        "'label': ClassLabel(names=['not_equivalent', 'equivalent']), 'idx': Value('int32')}"
    )
    assert repr(raw_datasets) == (
        "DatasetDict({\n"
        "    train: Dataset({\n"
        "        features: ['sentence1', 'sentence2', 'label', 'idx'],\n"
        "        num_rows: 3\n"
        "    })\n"
        "    validation: Dataset({\n"
        "        features: ['sentence1', 'sentence2', 'label', 'idx'],\n"
        "        num_rows: 1\n"
        "    })\n"
        "})"
    )
    samples = raw_train_dataset[:2]
    samples = {k: v for k, v in samples.items() if k not in ["idx", "sentence1", "sentence2"]}
    assert samples == {"label": [1, 0]}
    renamed = raw_datasets.remove_columns(["sentence1", "sentence2", "idx"])
    renamed = renamed.rename_column("label", "labels")
    renamed.set_format("torch")
    assert renamed["train"].column_names == ["labels"]
    batch = next(iter(DataLoader(renamed["train"], batch_size=2)))
    assert torch.equal(batch["labels"], torch.tensor([1, 0]))


def test_printed_form(ten):
    assert repr(ten) == "Dataset({\n    features: ['i', 's'],\n    num_rows: 10\n})"
    assert str(ten) == repr(ten)


def test_what_it_is(ten):
    assert len(ten) == ten.num_rows == 10 and ten.num_columns == 2 and ten.shape == (10, 2)
    assert ten.column_names == ["i", "s"]
    assert ten.features == {"i": Value("int64"), "s": Value("string")}


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", [3, np.int64(3), np.int8(3), np.array(3), torch.tensor(3), -7, np.int64(-7)]
)
def test_one_row(ten, key):
    assert ten[key] == {"i": 3, "s": "d"}


@pytest.mark.parametrize(
    ("key", "rows"),
    [
        (slice(2, 5), [2, 3, 4]),
        (slice(None), list(range(10))),
        (slice(8, 100), [8, 9]),
        (slice(100, 200), []),
        (slice(5, 2), []),
        (slice(None, None, 3), [0, 3, 6, 9]),
        (slice(None, None, -4), [9, 5, 1]),
        (slice(-3, None), [7, 8, 9]),
        (slice(np.int64(1), np.int64(3)), [1, 2]),
        ([1, 1, 0], [1, 1, 0]),
        ([-1, 0], [9, 0]),
        ([], []),
        ((4, 2), [4, 2]),
        (range(3, 6), [3, 4, 5]),
        (range(9, 0, -4), [9, 5, 1]),
        (range(-3, 0), [7, 8, 9]),
        (range(5, 2), []),
        (np.array([7, -1]), [7, 9]),
        (np.array([], dtype=np.int64), []),
        (np.array([2, 1], dtype=np.uint64), [2, 1]),
        (torch.tensor([3, 1]), [3, 1]),
        (torch.tensor([3]), [3]),
        (pa.array([3, 1]), [3, 1]),
        (iter([3, 1]), [3, 1]),
        ({3: "x"}.keys(), [3]),
    ],
    ids=name_of,
)
def test_several_rows(ten, key, rows):
    batch = ten[key]
    assert batch == {"i": rows, "s": ["abcdefghij"[i] for i in rows]}


@pytest.mark.parametrize(
    "key",
    [
        *(True, np.bool_(True), 1.0, np.float64(1), None, [1.0], [True], np.array([True, False])),
        *(["a"], [None], [[1, 2], [3]], object(), np.array(1.0)),
    ],
    ids=name_of,
)
def test_what_is_no_key(ten, key):
    with pytest.raises((TypeError, ValueError)) as caught:
        ten[key]
    assert not isinstance(caught.value, IndexError)


@pytest.mark.parametrize("key", [True, 1.5, None, np.bool_(False)])
def test_a_scalar_that_is_no_key_is_a_type_error(ten, key):
    with pytest.raises(TypeError, match="wrong key"):
        ten[key]


@pytest.mark.parametrize("key", [10, -11, np.int64(10)])
def test_out_of_bounds(ten, key):
    with pytest.raises(IndexError, match=f"^Invalid key: {key} is out of bounds for size 10$"):
        ten[key]


@pytest.mark.parametrize("key", [[0, 49], [-11, 0], np.array([49]), range(45, 50, 4), range(5, 50)])
def test_several_out_of_bounds(ten, key):
    with pytest.raises(IndexError, match=r"Index -?\d+ out of range for dataset of size 10\."):
        ten[key]


def test_no_rows_to_index(ten):
    with pytest.raises(IndexError, match="Invalid key: 0 is out of bounds for size 0"):
        ten.select([])[0]
    assert ten.select([])[:] == {"i": [], "s": []}
    assert list(ten.select([])) == []


def test_an_unknown_column_lists_the_others(ten):
    with pytest.raises(ColumnError, match="'zzz' is not in the dataset") as caught:
        ten["zzz"]
    assert "columns i, s" in str(caught.value)
    assert isinstance(caught.value, KeyError) and isinstance(caught.value, ValueError)


def test_iterating(ten):
    assert list(ten) == [{"i": i, "s": "abcdefghij"[i]} for i in range(10)] == ten.to_list()
    assert ten.to_dict() == {"i": list(range(10)), "s": list("abcdefghij")}
    large = Dataset.from_dict({"i": range(2500)})
    assert [row["i"] for row in large] == list(range(2500))


def test_iter_in_batches(ten):
    assert [batch["i"] for batch in ten.iter(4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [batch["i"] for batch in ten.iter(4, drop_last_batch=True)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
    ]
    assert [batch["i"] for batch in ten.select([9, 0, 5]).iter(2)] == [[9, 0], [5]]


# --- making one ----------------------------------------------------------------------------------


def test_from_dict_takes_arrays_and_tensors():
    ds = Dataset.from_dict({"n": np.arange(2, dtype=np.int16), "t": torch.ones(2, 2), "l": (1, 2)})
    assert ds[:] == {"n": [0, 1], "t": [[1.0, 1.0], [1.0, 1.0]], "l": [1, 2]}
    assert ds.features == {"n": Value("int16"), "t": List(Value("float32")), "l": Value("int64")}


def test_from_dict_with_features():
    features = Features({"label": ClassLabel(names=["n", "p"]), "x": Value("float32")})
    ds = Dataset.from_dict({"x": [1, 2], "label": ["p", "n"]}, features)
    assert ds.column_names == ["label", "x"] and ds.features == features
    assert ds[:] == {"label": [1, 0], "x": [1.0, 2.0]}


@pytest.mark.parametrize(
    "features",
    [
        {"a": Value("int64")},
        {n: Value("int64") for n in "abc"},
        {"a": Value("int64"), "c": Value("int64")},
    ],
)
def test_features_must_name_the_columns(features):
    with pytest.raises(DataError, match="features do not name the columns"):
        Dataset.from_dict({"a": [1], "b": [2]}, Features(features))
    with pytest.raises(DataError, match="features do not name the columns"):
        Dataset(pa.table({"a": [1], "b": [2]}), Features(features))


def test_from_dict_refuses():
    with pytest.raises(DataError, match="different lengths") as caught:
        Dataset.from_dict({"a": [1, 2], "b": [1]})
    assert "{'a': 2, 'b': 1}" in str(caught.value)
    with pytest.raises(DataError, match="column 'a' mix types"):
        Dataset.from_dict({"a": [1, "x"]})


def test_from_list():
    ds = Dataset.from_list([{"a": 1}, {"b": "x"}, {"a": 3, "b": None}])
    assert ds[:] == {"a": [1, None, 3], "b": [None, "x", None]}
    assert len(Dataset.from_list([])) == 0
    features = Features({"a": Value("int8")})
    assert Dataset.from_list([], features).features == features


# --- choosing rows -------------------------------------------------------------------------------


def test_select(ten):
    assert ten.select([3, 3, 0])["i"] == [3, 3, 0]
    assert ten.select(range(2, 5))["i"] == [2, 3, 4]
    assert ten.select(i for i in (5, 1))["i"] == [5, 1]
    assert ten.select([-1, 0])["i"] == [9, 0]
    assert ten.select(np.array([4]))["i"] == [4]
    assert len(ten.select([])) == 0 and ten.select([]).features == ten.features
    with pytest.raises(IndexError, match=r"Index 49 out of range for dataset of size 10\."):
        ten.select([49])


@pytest.mark.parametrize("indices", [[True, False, True], [1.7], [None], ["a"], np.array([0.5])])
def test_select_does_not_guess(ten, indices):
    """A mask would silently select rows 1 and 0, and 1.7 the row 1."""
    with pytest.raises(TypeError, match="row numbers must be integers"):
        ten.select(indices)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_selections_compose(data):
    """Any chain of choices, against the same chain on a list."""
    ds, rows = Dataset.from_dict({"i": range(40)}), list(range(40))
    for _ in range(data.draw(st.integers(1, 4))):
        n = len(rows)
        kind = data.draw(st.sampled_from(["list", "slice", "range", "mask"]))
        if kind == "list" and n:
            wanted = data.draw(st.lists(st.integers(-n, n - 1), max_size=30))
        elif kind == "mask":
            mask = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
            ds, rows = (
                ds.filter(mask),
                [r for r, m in zip(rows, mask, strict=True) if m],
            )
            continue
        else:
            start, stop = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
            wanted = range(start, stop, data.draw(st.sampled_from([1, 1, 2]))) if n else range(0)
        ds, rows = ds.select(wanted), [rows[i] for i in wanted]
        assert ds["i"].tolist() == rows and ds[:]["i"] == rows and ds.num_rows == len(rows)
        assert ds.with_format("numpy")[:]["i"].tolist() == rows
        assert RowBatch(ds, np.arange(len(rows))).data_indices.tolist() == rows


def test_adjacent_rows_stay_a_slice(ten):
    for chosen in (ten.select([4, 5, 6]), ten.select([9, 4, 5, 6]).select([1, 2, 3])):
        assert chosen.indices == range(4, 7)
        assert chosen.select(range(3)).fingerprint == ten.select(range(4, 7)).fingerprint


def test_shuffle_is_that_of_datasets(ten):
    assert ten.shuffle(seed=42)["i"] == SHUFFLED
    assert ten.shuffle(generator=np.random.default_rng(42))["i"] == SHUFFLED
    assert ten.select(range(5, 10)).shuffle(seed=42)["i"] == [9, 7, 8, 6, 5]
    assert sorted(ten.shuffle()["i"]) == list(range(10))
    with pytest.raises(ConfigError, match="both a seed and a generator"):
        ten.shuffle(seed=1, generator=np.random.default_rng(1))


def test_without_a_seed_the_global_state_decides(ten):
    """As `set_seed` promises; each call moves on."""
    orders = []
    for _ in range(2):
        np.random.seed(42)
        orders.append([ten.shuffle()["i"].tolist() for _ in range(2)])
    assert orders[0] == orders[1]
    assert orders[0] == [SHUFFLED, [0, 9, 1, 8, 3, 7, 2, 5, 6, 4]]
    np.random.seed(42)
    assert ten.train_test_split(0.25)["test"]["i"] == SHUFFLED[:3]


@pytest.mark.parametrize(
    ("size", "n_test"), [(0.25, 3), (3, 3), (0.9, 9), (0.1, 1), (0.58, 6), (9, 9)]
)
def test_train_test_split_is_that_of_datasets(ten, size, n_test):
    splits = ten.train_test_split(test_size=size, seed=42)
    assert list(splits) == ["train", "test"]
    assert splits["test"]["i"] == SHUFFLED[:n_test]
    assert splits["train"]["i"] == SHUFFLED[n_test:]


def test_train_test_split_in_order(ten):
    splits = ten.train_test_split(test_size=0.25, shuffle=False)
    assert splits["train"]["i"] == [0, 1, 2, 3, 4, 5, 6] and splits["test"]["i"] == [7, 8, 9]


@pytest.mark.parametrize("n", [2, 3, 7, 10, 97, 100, 1000])
def test_no_row_is_lost_in_a_split(n):
    """(1 - 0.9) * 100 is 9.999999999999998."""
    ds = Dataset.from_dict({"i": range(n)})
    for percent in range(5, 100, 5):
        size = percent / 100
        if not 0 < int(np.ceil(size * n)) < n:
            continue
        splits = ds.train_test_split(size, seed=0)
        assert sorted([*splits["train"]["i"], *splits["test"]["i"]]) == list(range(n))


@pytest.mark.parametrize("size", [0, 10, 11, -1, 0.0, 1.0, 1.5])
def test_a_split_that_would_be_empty(ten, size):
    with pytest.raises(ConfigError, match="leave a part empty"):
        ten.train_test_split(size)


def test_filter(ten):
    assert ten.filter(lambda row: row["i"] % 3 == 0)["i"] == [0, 3, 6, 9]
    assert ten.filter(lambda i: i > 7, input_columns="i")["i"] == [8, 9]
    assert ten.filter(lambda s, i: s == "b" or i == 2, input_columns=["s", "i"])["i"] == [1, 2]
    assert ten.filter(lambda row, k: row["i"] < k, fn_kwargs={"k": 2})["i"] == [0, 1]
    assert ten.filter(lambda row: row["i"] == 2 or None)["i"] == [2]
    assert len(ten.filter(lambda row: False)) == 0
    assert ten.filter(lambda row: False).features == ten.features


@pytest.mark.parametrize("kind", [list, np.array, pa.array, torch.tensor, lambda x: map(bool, x)])
def test_filter_in_batches(ten, kind):
    """An Arrow array of False has elements that count as True in older versions of pyarrow."""
    sizes = []

    def late(batch):
        sizes.append(len(batch["i"]))
        return kind([i > 6 for i in batch["i"]])

    assert ten.filter(late, batched=True, batch_size=4)["i"] == [7, 8, 9]
    assert sizes == [4, 4, 2]


@pytest.mark.parametrize("kind", [None, "numpy", "torch", "arrow"])
def test_filter_of_formatted_rows(ten, kind):
    def late(row):
        i = row.column("i")[0].as_py() if kind == "arrow" else row["i"]
        return i > 6

    assert ten.with_format(kind).filter(late).with_format(None)["i"] == [7, 8, 9]


def test_filter_after_a_selection(ten):
    assert ten.select([9, 1, 8]).filter(lambda row: row["i"] > 5)["i"] == [9, 8]


@pytest.mark.parametrize(
    "mask", [np.arange(10) > 7, (np.arange(10) > 7).tolist(), pa.array([False] * 8 + [True] * 2)]
)
def test_filter_by_a_mask(ten, mask):
    assert ten.filter(mask)["i"] == [8, 9]


@pytest.mark.parametrize("mask", [[True], [0, 1, 2], list(range(10)), [None] * 10])
def test_what_is_no_mask(ten, mask):
    """Row numbers are for `select`; as a mask they would be all rows but the first."""
    with pytest.raises(DataError, match="the mask does not fit"):
        ten.filter(mask)


def test_filter_needs_an_answer_for_each_row(ten):
    with pytest.raises(DataError, match="filter got 1 answers for 4 rows"):
        ten.filter(lambda batch: [True], batched=True, batch_size=4)
    with pytest.raises(ColumnError, match="'zz'"):
        ten.filter(lambda zz: True, input_columns="zz")


def test_sort():
    ds = Dataset.from_dict({"a": [2, 1, None, 2, 1], "b": list("vwxyz")})
    assert ds.sort("a")["b"] == list("wzvyx")
    assert ds.sort("a", reverse=True)["b"] == list("vywzx"), "missing last, equal rows in order"
    assert ds.sort(["a", "b"], reverse=[False, True])["b"] == list("zwyvx")
    assert ds.sort(["a", "b"], reverse=True)["b"] == list("yvzwx")
    assert ds.select([3, 1]).sort("b")["b"] == ["w", "y"]
    with pytest.raises(ColumnError):
        ds.sort("c")
    with pytest.raises(ConfigError, match="one reverse= for each column"):
        ds.sort(["a", "b"], reverse=[True])


# --- columns -------------------------------------------------------------------------------------


def test_rename_remove_and_select_columns(mrpc):
    assert mrpc.rename_column("label", "labels").column_names == [
        "sentence1",
        "sentence2",
        "labels",
        "idx",
    ]
    swapped = mrpc.rename_columns({"sentence1": "sentence2", "sentence2": "sentence1"})
    assert swapped[0]["sentence1"] == "He has eaten."
    assert mrpc.remove_columns(["idx", "sentence1"]).column_names == ["sentence2", "label"]
    assert mrpc.remove_columns("idx").features["label"] == mrpc.features["label"]
    assert mrpc.select_columns(["label", "idx"]).column_names == ["label", "idx"]
    assert mrpc.select_columns("label")[:] == {"label": [1, 0, 1]}
    assert mrpc.column_names == ["sentence1", "sentence2", "label", "idx"], "the first is as it was"
    assert mrpc.select([2, 0]).rename_column("idx", "n")["n"] == [2, 0]


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: ds.rename_column("zz", "y"),
        lambda ds: ds.rename_column("i", "s"),
        lambda ds: ds.rename_column("i", ""),
        lambda ds: ds.rename_columns({"i": "x", "s": "x"}),
        lambda ds: ds.remove_columns("zz"),
        lambda ds: ds.remove_columns(["i", "zz"]),
        lambda ds: ds.select_columns(["zz"]),
        lambda ds: ds.add_column("i", [0] * 10),
        lambda ds: ds.cast_column("zz", Value("int8")),
        lambda ds: ds.class_encode_column("zz"),
        lambda ds: ds.unique("zz"),
        lambda ds: ds.lengths("zz"),
    ],
)
def test_columns_that_are_not_there_or_there_twice(ten, change):
    with pytest.raises(ColumnError):
        change(ten)


def test_add_column(ten):
    assert ten.add_column("n", range(10)).column_names == ["i", "s", "n"]
    chosen = ten.select([9, 0]).add_column("n", [90, 0])
    assert chosen[:] == {"i": [9, 0], "s": ["j", "a"], "n": [90, 0]}
    labelled = ten.select([1]).add_column("l", ["b"], ClassLabel(names=["a", "b"]))
    assert labelled[0]["l"] == 1 and labelled.features["l"].names == ["a", "b"]
    with pytest.raises(DataError, match="column 'n' does not fit"):
        ten.add_column("n", [1])
    with pytest.raises(DataError):
        ten.select([0]).add_column("n", range(10))


def test_unique():
    ds = Dataset.from_dict({"x": ["b", None, "a", "b", "c"]})
    assert ds.unique("x") == ["b", None, "a", "c"]
    assert ds.select([4, 3]).unique("x") == ["c", "b"]


def test_class_encode_column():
    ds = Dataset.from_dict(
        {"x": ["b", None, "a", "b"], "n": [10, 2, 10, None], "t": [True, False] * 2}
    )
    text = ds.class_encode_column("x")
    assert text["x"] == [1, None, 0, 1] and text.features["x"] == ClassLabel(names=["a", "b"])
    assert text.features["n"] == Value("int64") and text.column_names == ["x", "n", "t"]
    numbers = ds.class_encode_column("n")
    assert numbers.features["n"].names == ["10", "2"] and numbers["n"] == [0, 1, 0, None]
    assert ds.class_encode_column("t").features["t"].names == ["False", "True"]
    chosen = ds.select([3, 0]).class_encode_column("x")
    assert chosen.features["x"].names == ["b"] and chosen["n"] == [None, 10]


def test_class_encode_column_keeps_the_classes_of_others(mrpc):
    assert mrpc.class_encode_column("idx").features["label"] == mrpc.features["label"]
    with pytest.raises(DataError, match="'label' holds neither text nor numbers"):
        mrpc.class_encode_column("label")


def test_cast_column(mrpc):
    assert mrpc.cast_column("idx", Value("string"))["idx"] == ["0", "1", "2"]
    assert mrpc.cast_column("idx", Value("float32")).features["idx"] == Value("float32")
    named = Dataset.from_dict({"l": ["p", "n", None]}).cast_column(
        "l", ClassLabel(names=["n", "p"])
    )
    assert named["l"] == [1, 0, None] and named.features["l"].names == ["n", "p"]
    with pytest.raises(DataError, match="column 'label' cannot become"):
        mrpc.cast_column("label", ClassLabel(names=["only"]))
    with pytest.raises(DataError, match="column 'sentence1' cannot become"):
        mrpc.cast_column("sentence1", Value("int64"))
    with pytest.raises(DataError, match="truncated"):
        Dataset.from_dict({"x": [1.5]}).cast_column("x", Value("int64"))


def test_cast_column_looks_at_the_rows_that_are_there():
    """SNLI has the label -1... or "?" in rows that one filters out first."""
    ds = Dataset.from_dict({"l": ["p", "?", "n"], "i": [0, 1, 2]})
    chosen = ds.filter(lambda row: row["l"] != "?").cast_column("l", ClassLabel(names=["n", "p"]))
    assert chosen[:] == {"l": [1, 0], "i": [0, 2]}


# --- joining -------------------------------------------------------------------------------------


def test_concatenate(ten):
    joined = concatenate_datasets([ten.select([9]), ten.select(range(2)), ten.select([])])
    assert joined["i"] == [9, 0, 1] and joined.features == ten.features
    other = Dataset.from_dict({"i": [5], "x": [0.5]})
    assert concatenate_datasets([ten.select([0]), other])[:] == {
        **{"i": [0, 5], "s": ["a", None], "x": [None, 0.5]}
    }
    small = ten.cast_column("i", Value("int32"))
    assert concatenate_datasets([small, ten]).features["i"] == Value("int64")


def test_concatenate_null_yields():
    missing = Dataset.from_dict({"l": [None]})
    label = Dataset.from_dict({"l": [1]}, Features({"l": ClassLabel(names=["a", "b"])}))
    for order in ([missing, label], [label, missing]):
        joined = concatenate_datasets(order)
        assert joined.features["l"] == ClassLabel(names=["a", "b"]) and None in joined["l"]


def test_concatenate_refuses():
    def column(values):
        return Dataset.from_dict({"x": values})

    for one, two in (([1], ["a"]), ([True], [1]), ([[1]], [1]), ([2**53 + 1], [0.5])):
        with pytest.raises(DataError, match="cannot be joined"):
            concatenate_datasets([column(one), column(two)])
    with pytest.raises(ConfigError, match="at least one"):
        concatenate_datasets([])


def test_concatenate_does_not_mix_up_classes():
    """Number 0 is "a" here and "b" there."""
    ab, ba = (
        Dataset.from_dict({"l": [0]}, Features({"l": ClassLabel(names=list(n))}))
        for n in ("ab", "ba")
    )
    plain = Dataset.from_dict({"l": [0]})
    for pair in ([ab, ba], [ab, plain], [plain, ab]):
        with pytest.raises(DataError, match="'l' has other classes"):
            concatenate_datasets(pair)
    assert concatenate_datasets([ab, ab]).features == ab.features


# --- fingerprints --------------------------------------------------------------------------------


def test_equal_content_has_equal_fingerprints():
    def make():
        return Dataset.from_dict({"x": [1, 2, 3], "t": ["a", None, "c"]})

    routes = [
        make(),
        Dataset.from_list([{"x": 1, "t": "a"}, {"x": 2, "t": None}, {"x": 3, "t": "c"}]),
        make().rename_column("x", "y").rename_column("y", "x"),
        make().select(range(3)),
        make().select([2, 1, 0]).select([2, 1, 0]),
        make().with_format("torch"),
        make().filter(lambda row: True),
        make().remove_columns("t").add_column("t", ["a", None, "c"]),
        concatenate_datasets([make().select([0, 1]), make().select([2])]),
        concatenate_datasets([make().select(range(1)), make().select(range(1, 3))]),
    ]
    asked = make()
    assert asked.fingerprint  # asking is a step too
    routes.append(asked.rename_column("x", "y").rename_column("y", "x"))
    assert len({ds.fingerprint for ds in routes}) == 1
    assert json.dumps(routes[0].fingerprint)


def test_different_content_has_different_fingerprints(ten):
    label = ten.cast_column("i", ClassLabel(10))
    datasets = [
        *(ten, ten.select([0]), ten.select([1]), ten.select([1, 0]), ten.shuffle(seed=0)),
        *(ten.rename_column("i", "j"), ten.remove_columns("i"), ten.select_columns(["s", "i"])),
        *(ten.rename_columns({"i": "s", "s": "i"}), label, ten.cast_column("i", ClassLabel(11))),
        *(ten.cast_column("i", Value("int32")), ten.add_column("n", range(10))),
        Dataset.from_dict({"i": range(10), "s": list("abcdefghiJ")}),
        Dataset.from_dict({"i": [*range(9), None], "s": list("abcdefghij")}),
    ]
    assert len({ds.fingerprint for ds in datasets}) == len(datasets)


def test_rows_written_in_another_order_have_another_fingerprint(ten):
    """A new column writes the others in their order; `map` must not find the old order's result."""
    assert ten.fingerprint  # from here on, its columns' digests are known
    shuffled = ten.shuffle(seed=0).add_column("n", [0] * 10)
    assert shuffled.fingerprint != ten.add_column("n", [0] * 10).fingerprint


def test_a_known_source_is_not_read_again(monkeypatch):
    abc, abd = ({"x": f"{source} x", "y": f"{source} y"} for source in ("abc", "abd"))
    ds = Dataset(pa.table({"x": [1], "y": [2]}), digests=abc)
    monkeypatch.setattr("minift.data.table.column_digest", None)
    assert ds.rename_column("x", "z").select([0]).remove_columns("y").fingerprint
    assert ds.fingerprint != Dataset(pa.table({"x": [1], "y": [2]}), digests=abd).fingerprint


# --- batches for a DataLoader --------------------------------------------------------------------


def test_a_row_batch_is_a_list_of_dicts(ten):
    batch = ten.shuffle(seed=42).__getitems__([0, 1, -1])
    assert isinstance(batch, collections.abc.Sequence) and len(batch) == 3
    assert list(batch) == [{"i": i, "s": "abcdefghij"[i]} for i in (5, 6, 8)]
    assert batch[0] == {"i": 5, "s": "f"} and batch[-1]["i"] == 8 and len(batch[:2]) == 2
    assert batch.data_indices.tolist() == [5, 6, 8]
    assert [sorted(row) for row in batch] == [["i", "s"]] * 3
    assert list(ten.__getitems__([])) == []
    with pytest.raises(IndexError):
        ten.__getitems__([10])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [None, "torch"])
def test_torch_dataloader(ten, workers, kind):
    loader = DataLoader(ten.with_format(kind), batch_size=4, num_workers=workers)
    batches = list(loader)
    assert [batch["i"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [batch["s"] for batch in batches] == [list("abcd"), list("efgh"), list("ij")]


def test_torch_dataloader_with_lists_and_a_shuffle():
    ds = Dataset.from_dict({"ids": [[i, i + 1] for i in range(6)]}).with_format("torch")
    batches = list(DataLoader(ds, batch_size=3, shuffle=True))
    rows = torch.cat([batch["ids"] for batch in batches])
    assert rows.shape == (6, 2) and sorted(rows[:, 0].tolist()) == list(range(6))


def test_workers_read_a_shuffled_dataset_from_disk(tmp_path):
    Dataset.from_dict({"x": range(100)}).save_to_disk(tmp_path / "ds")
    ds = load_from_disk(tmp_path / "ds").shuffle(seed=0)
    loader = DataLoader(ds, batch_size=50, num_workers=1, multiprocessing_context="fork")
    assert torch.cat([batch["x"] for batch in loader]).tolist() == ds["x"].tolist()
