"""minift's DataCollatorWithPadding against that of transformers, on the same lists of rows."""

import live
import pytest
import torch
import transformers
from live import assert_same_encoding

from minift import AutoTokenizer, DataCollatorWithPadding

TEXTS = ["one", "two words", "", "a sentence that is somewhat longer than the others", "last one"]
PAIRS = ["first", "", "third second third", "x", "and here the second text is the longer one"]


@pytest.fixture(scope="module")
def both():
    """(minift's, the peers') tokenizer of all-MiniLM-L6-v2."""
    folder = live.require_minilm()
    return AutoTokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)


def rows_of(tokenizer, labels=None, name="label", pairs=True):
    """Unpadded rows as `dataset[i]` gives them: plain dicts of lists, without text columns."""
    encoded = tokenizer(TEXTS, PAIRS) if pairs else tokenizer(TEXTS)
    rows = [
        {key: encoded[key][i] for key in ("input_ids", "token_type_ids", "attention_mask")}
        for i in range(len(TEXTS))
    ]
    for row, label in zip(rows, labels or [], strict=False):
        row[name] = label
    return rows


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"padding": "longest"},
        {"padding": "max_length", "max_length": 40},
        {"pad_to_multiple_of": 8},
        {"pad_to_multiple_of": 64},
    ],
    ids=lambda arguments: "-".join(map(str, arguments.values())) or "defaults",
)
@pytest.mark.parametrize("pairs", [True, False], ids=["pairs", "singles"])
def test_padding(both, arguments, pairs):
    ours, theirs = both
    rows = rows_of(theirs, [0, 1, 1, 0, 1], pairs=pairs)
    want = transformers.DataCollatorWithPadding(theirs, **arguments)(rows)
    got = DataCollatorWithPadding(ours, **arguments)(rows)
    assert_same_encoding(got, want, str(arguments))


@pytest.mark.parametrize("name", ["label", "labels", "label_ids"])
@pytest.mark.parametrize("labels", [[0, 1, 2, 1, 0], [0.5, 1.0, 2.25, -1.0, 0.0]])
def test_labels(both, name, labels):
    """Whatever the column is called, the model gets `labels`: int64 classes, float32 targets."""
    ours, theirs = both
    if name == "labels" and isinstance(labels[0], float):
        labels = [float(x) for x in labels]
    rows = rows_of(theirs, labels, name)
    want = transformers.DataCollatorWithPadding(theirs)(rows)
    got = DataCollatorWithPadding(tokenizer=ours)(rows)
    assert_same_encoding(got, want, name)
    assert got["labels"].dtype == (torch.int64 if isinstance(labels[0], int) else torch.float32)


def test_rows_of_tensors(both):
    """`dataset.with_format("torch")` gives tensors instead of lists."""
    ours, theirs = both
    rows = [
        {key: torch.tensor(value) for key, value in row.items()}
        for row in rows_of(theirs, [0, 1, 1, 0, 1])
    ]
    want = transformers.DataCollatorWithPadding(theirs)(rows)
    assert_same_encoding(DataCollatorWithPadding(ours)(rows), want, "tensors")


def test_a_dict_of_lists(both):
    """The course collates `{key: column}` of a few rows rather than a list of rows."""
    ours, theirs = both
    rows = rows_of(theirs, [0, 1, 1, 0, 1])
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    want = transformers.DataCollatorWithPadding(theirs)(columns)
    assert_same_encoding(DataCollatorWithPadding(ours)(columns), want, "columns")


def test_missing_type_ids(both):
    """A dataset may lack a column that the model can do without: it is not invented."""
    ours, theirs = both
    rows = rows_of(theirs, pairs=False)
    for row in rows:
        del row["token_type_ids"]
    want = transformers.DataCollatorWithPadding(theirs)(rows)
    assert_same_encoding(DataCollatorWithPadding(ours)(rows), want, "no token_type_ids")
