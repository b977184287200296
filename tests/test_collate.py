"""Rows to a batch: the same tensors from whatever rows come as."""

import numpy as np
import pytest
import torch
from tiny import make_model, make_rows

from minift import (
    AutoTokenizer,
    ClassLabel,
    DataCollatorWithPadding,
    Dataset,
    Features,
    Value,
)
from minift.data.lazy import RowBatch
from minift.errors import ConfigError, DataError

FIELDS = ["input_ids", "token_type_ids", "attention_mask"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(make_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def collate(tokenizer):
    return DataCollatorWithPadding(tokenizer)


def tokenized(tokenizer, n=40, **more):
    """Rows of unequal lengths, as a dataset without text columns."""
    rows = make_rows(n)
    encoded = tokenizer(rows["sentence1"], rows["sentence2"])
    return Dataset.from_dict({**encoded, "label": rows["label"], **more})


def assert_same(got, want):
    assert list(got) == list(want) or set(got) == set(want)
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype and torch.equal(got[name], tensor), name


# ------------------------------------------------------------------------------------- the collator


ROWS = np.array([3, 17, 5, 5, 30])


def as_row_batch(data):
    return data.__getitems__(ROWS)


def as_list_of_dicts(data):
    return [data[int(i)] for i in ROWS]


def as_dict_of_lists(data):
    return data[ROWS]


def as_torch_rows(data):
    return as_list_of_dicts(data.with_format("torch"))


def as_torch_batch(data):
    return data.with_format("torch").__getitems__(ROWS)


def as_numpy_rows(data):
    return as_list_of_dicts(data.with_format("numpy"))


def as_numpy_columns(data):
    return data.with_format("numpy")[ROWS]


def as_arrow_batch(data):
    return data.with_format("arrow").__getitems__(ROWS)


def through_a_transform(data):
    data = data.rename_column("input_ids", "ids")
    data.set_transform(lambda batch: {"input_ids": batch.pop("ids"), **batch})
    return data.__getitems__(ROWS)


def from_chunks_and_an_order(data):
    """The same rows out of a table in pieces, behind a shuffle."""
    from minift import concatenate_datasets

    pieces = [data.select(range(i, i + 10)) for i in range(0, 40, 10)]
    order = np.random.default_rng(1).permutation(40)
    shuffled = concatenate_datasets(pieces).select(order)
    return shuffled.__getitems__([int(np.flatnonzero(order == i)[0]) for i in ROWS])


@pytest.mark.parametrize(
    "form",
    [
        as_list_of_dicts,
        as_dict_of_lists,
        as_torch_rows,
        as_torch_batch,
        as_numpy_rows,
        as_numpy_columns,
        as_arrow_batch,
        through_a_transform,
        from_chunks_and_an_order,
    ],
)
@pytest.mark.parametrize("labels", ["classes", "floats", "several"])
def test_one_batch_from_every_form(tokenizer, collate, form, labels):
    data = tokenized(tokenizer)
    made = {
        "floats": [0.25 * i for i in range(40)],
        "several": [[float(i % 2), 1.0, 0.0] for i in range(40)],
    }
    if labels != "classes":
        data = data.remove_columns("label").add_column("label", made[labels])
    assert isinstance(as_row_batch(data), RowBatch)
    assert_same(collate(form(data)), collate(as_row_batch(data)))


def test_a_batch_in_full(tokenizer, collate):
    """Written out once, since the other tests compare one form with another."""
    data = Dataset.from_dict({**tokenizer(["w1", "w2 w3 w4"]), "label": [1, 0]})
    batch = collate(data.__getitems__([1, 0]))
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[2, 7, 8, 9, 3], [2, 6, 3, 0, 0]],
        "token_type_ids": [[0] * 5, [0] * 5],
        "attention_mask": [[1] * 5, [1, 1, 1, 0, 0]],
        "labels": [0, 1],
    }
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


@pytest.mark.parametrize("name", ["label", "labels", "label_ids"])
def test_the_labels_have_one_name(collate, name):
    rows = [{"input_ids": [2, 3], name: 1}, {"input_ids": [2], name: 0}]
    assert collate(rows)["labels"].tolist() == [1, 0]
    assert collate({"input_ids": [[2, 3], [2]], name: [1, 0]})["labels"].tolist() == [1, 0]


def test_two_label_columns_are_an_error(collate):
    with pytest.raises(DataError, match="which column holds the labels"):
        collate({"input_ids": [[2]], "label": [0], "labels": [1]})


def test_float_labels_stay_numbers(collate):
    batch = collate([{"input_ids": [2], "label": 0.5}, {"input_ids": [2], "label": 2.0}])
    assert batch["labels"].dtype == torch.float32 and batch["labels"].tolist() == [0.5, 2.0]
    several = collate([{"input_ids": [2], "label": [0.0, 1.0]}])
    assert several["labels"].dtype == torch.float32 and several["labels"].shape == (1, 2)


def test_class_labels_are_numbers(tokenizer, collate):
    features = Features({"label": ClassLabel(names=["no", "yes"])})
    data = Dataset.from_dict({"label": [1, 0]}, features).add_column("input_ids", [[2], [2, 3]])
    assert collate(data.__getitems__([0, 1]))["labels"].tolist() == [1, 0]


def test_boolean_labels_are_classes(collate):
    assert collate([{"input_ids": [2], "label": True}])["labels"].tolist() == [1]


def test_padding_on_the_left(tokenizer):
    left = AutoTokenizer.from_pretrained(tokenizer.folder)
    left.padding_side = "left"
    data = tokenized(left)
    got = DataCollatorWithPadding(left)(as_row_batch(data))
    assert_same(got, DataCollatorWithPadding(left)(as_list_of_dicts(data)))
    lengths = data.lengths("input_ids")[ROWS]
    for row, mask, n in zip(ROWS, got["attention_mask"], lengths, strict=True):
        assert mask.tolist() == [0] * (len(mask) - n) + [1] * int(n)
        ids = got["input_ids"][list(ROWS).index(row)]
        assert ids[len(mask) - int(n) :].tolist() == data[int(row)]["input_ids"]


@pytest.mark.parametrize(
    ("options", "width"),
    [
        ({"pad_to_multiple_of": 8}, 8),
        ({"pad_to_multiple_of": 1}, 5),
        ({"padding": "longest"}, 5),
        ({"padding": "max_length", "max_length": 12}, 12),
        ({"padding": "max_length"}, 32),
        ({"padding": "max_length", "max_length": 12, "pad_to_multiple_of": 8}, 16),
        ({"max_length": 12}, 5),
    ],
)
def test_widths(tokenizer, options, width):
    batch = DataCollatorWithPadding(tokenizer, **options)(tokenizer(["w1", "w1 w2 w3"]))
    assert all(batch[name].shape == (2, width) for name in FIELDS)


def test_rows_without_a_mask_get_one(collate):
    batch = collate([{"input_ids": [2, 3, 3]}, {"input_ids": [2]}])
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_mask_with_holes_is_kept(collate):
    batch = collate([{"input_ids": [2, 3, 3], "attention_mask": [1, 0, 1]}, {"input_ids": [2],
                     "attention_mask": [1]}])  # fmt: skip
    assert batch["attention_mask"].tolist() == [[1, 0, 1], [1, 0, 0]]


def test_arrays(tokenizer):
    batch = DataCollatorWithPadding(tokenizer, return_tensors="np")(tokenizer(["w1"]))
    assert isinstance(batch["input_ids"], np.ndarray)


def test_a_batch_owns_its_memory(tokenizer, collate):
    """Writing to it must not write to the dataset, which may be a read-only file."""
    data = tokenized(tokenizer)
    batch = collate(as_row_batch(data))
    before = data[3]["input_ids"]
    for tensor in batch.values():
        tensor.zero_()
    assert data[3]["input_ids"] == before


@pytest.mark.parametrize("form", [as_row_batch, as_list_of_dicts, as_dict_of_lists])
def test_a_column_of_text_is_named(tokenizer, collate, form):
    data = tokenized(tokenizer, sentence=["some text"] * 40)
    with pytest.raises(DataError, match="'sentence'") as caught:
        collate(form(data))
    assert "some text" in str(caught.value)
    assert "remove_columns('sentence')" in str(caught.value)


def test_shown_columns_only(tokenizer, collate):
    """What a format hides stays away, unless all columns are asked for."""
    data = tokenized(tokenizer, sentence=["some text"] * 40)
    data.set_format("torch", columns=["input_ids", "label"])
    assert set(collate(as_row_batch(data))) == {"input_ids", "attention_mask", "labels"}
    data = data.remove_columns("sentence")
    data.set_format("torch", columns=["input_ids"], output_all_columns=True)
    assert_same(collate(as_row_batch(data)), collate(as_list_of_dicts(data)))
    assert "labels" in collate(as_row_batch(data))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([{"input_ids": [2], "label": 1}, {"input_ids": [2]}], "row 1 of the batch has other"),
        ([{"input_ids": [2]}, {"input_ids": [2], "label": 1}], "row 1 of the batch has other"),
        ([{"input_ids": [2]}, {"input_ids": None}], "something else than lists"),
        ([{"input_ids": [2], "label": None}], "'labels'"),
        ([{"input_ids": [2], "spans": [1, 2]}, {"input_ids": [2], "spans": [1]}], "'spans'"),
        ([{"input_ids": [2, 3], "attention_mask": [1]}], "'attention_mask' are not as long"),
        ([{"input_ids": [2], "token_type_ids": [0, 0]}], "'token_type_ids' are not as long"),
    ],
)
def test_rows_that_make_no_batch(collate, features, message):
    """Each would otherwise lose a label, hide a token, or fail far away."""
    with pytest.raises(DataError, match=message):
        collate(features)


def test_no_row_is_cut(tokenizer):
    short = DataCollatorWithPadding(tokenizer, padding="max_length", max_length=4)
    with pytest.raises(DataError, match="longer than the length to pad to"):
        short(tokenizer(["w1 w2 w3"]))
    with pytest.raises(DataError, match="different lengths"):
        DataCollatorWithPadding(tokenizer, padding=False)(tokenizer(["w1", "w1 w2"]))
    with pytest.raises(ConfigError, match="unknown padding"):
        DataCollatorWithPadding(tokenizer, padding="max_len")(tokenizer(["w1"]))


def test_a_regression_column_from_disk(tokenizer, collate):
    features = Features({"label": Value("float64")})
    data = Dataset.from_dict({"label": [1, 2]}, features).add_column("input_ids", [[2], [2, 3]])
    assert collate(data.__getitems__([0, 1]))["labels"].dtype == torch.float32


@pytest.mark.parametrize(
    "options",
    [{"return_tensors": "tf"}, {"return_tensors": "pytorch"}, {"padding": "longst"}],
    ids=str,
)
def test_options_are_checked_when_the_collator_is_made(tokenizer, options):
    with pytest.raises(ConfigError, match="unknown"):
        DataCollatorWithPadding(tokenizer, **options)


@pytest.mark.parametrize("tensors", ["pt", "np"])
@pytest.mark.parametrize("padding", [False, "max_length"])
def test_tensors_made_by_a_map_of_single_rows(tokenizer, tensors, padding):
    """Each row holds a list of one list then; the error says where that comes from."""
    rows = Dataset.from_dict({"text": ["w1", "w1 w2"]})
    options = {"padding": padding, "return_tensors": tensors, "max_length": 8, "truncation": True}
    rows = rows.map(lambda row: tokenizer(row["text"], **options)).select_columns(["input_ids"])
    with pytest.raises(DataError, match="something else than lists of numbers") as caught:
        DataCollatorWithPadding(tokenizer)(rows.__getitems__([0, 1]))
    assert "return_tensors out" in str(caught.value)
