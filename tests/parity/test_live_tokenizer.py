"""minift's tokenizer against that of transformers, on random text in many scripts."""

import string

import live
import numpy as np
import pytest
import transformers
from live import as_lists, assert_same_encoding

from minift import AutoTokenizer

# Ranges from which random characters come: what people write, and what breaks tokenizers.
SCRIPTS = [
    (0x20, 0x7F),  # ASCII
    (0x20, 0x7F),
    (0x00, 0x20),  # control characters
    (0xA0, 0x250),  # Latin with accents, signs
    (0x300, 0x330),  # combining marks
    (0x370, 0x500),  # Greek, Cyrillic
    (0x590, 0x700),  # Hebrew, Arabic
    (0x900, 0x980),  # Devanagari
    (0x2000, 0x2070),  # spaces, dashes, zero-width and direction marks
    (0x3040, 0x3100),  # kana
    (0x4E00, 0x4F00),  # CJK
    (0xAC00, 0xAD00),  # Hangul
    (0xFE00, 0xFE10),  # variation selectors
    (0x1F600, 0x1F650),  # emoji
]
WORDS = ["the", "unbelievable", "[SEP]", "[MASK]", "don't", "3.14", "U.S.A.", "naïve", "x" * 120]


def random_text(rng: np.random.Generator) -> str:
    """0 to 30 pieces: English words, special tokens, letters, and runs of one script."""
    pieces = []
    for _ in range(rng.integers(0, 31)):
        kind = rng.integers(0, 4)
        if kind == 0:
            pieces.append(str(rng.choice(WORDS)))
        elif kind == 1:
            letters = rng.choice(list(string.ascii_letters), rng.integers(1, 12))
            pieces.append("".join(letters))
        else:
            low, high = SCRIPTS[rng.integers(len(SCRIPTS))]
            pieces.append("".join(chr(c) for c in rng.integers(low, high, rng.integers(1, 9))))
    return str(rng.choice(["", " "])).join(pieces)


def tiny_vocabulary(folder):
    """A cased BERT tokenizer with a vocabulary of single characters and a few words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    marks = [*string.ascii_letters, *string.digits, *string.punctuation, "é", "我"]
    words = ["the", "The", "un", "##believ", "##able", *(f"##{c}" for c in string.ascii_letters)]
    vocabulary = {word: index for index, word in enumerate([*special, *marks, *words])}
    tokenizer = transformers.BertTokenizer(vocab=vocabulary, do_lower_case=False)
    tokenizer.model_max_length = 40
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["minilm", "tiny_cased"])
def both(request, tmp_path_factory):
    """(minift's, the peers') tokenizer from one folder."""
    if request.param == "minilm":
        folder = live.require_minilm()
    else:
        folder = tiny_vocabulary(tmp_path_factory.mktemp("tiny_cased"))
    return AutoTokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)


def test_attributes(both):
    ours, theirs = both
    for name in ("model_max_length", "padding_side", "truncation_side", "vocab_size"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert list(ours.model_input_names) == list(theirs.model_input_names)
    assert len(ours) == len(theirs)
    for name in ("pad", "unk", "cls", "sep", "mask"):
        assert getattr(ours, f"{name}_token") == getattr(theirs, f"{name}_token")
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id")


@pytest.mark.parametrize("seed", range(3))
def test_random_texts_one_at_a_time(both, seed):
    ours, theirs = both
    rng = np.random.default_rng(seed)
    for _ in range(100):
        text, pair = random_text(rng), random_text(rng) or "."
        limit = {"truncation": True, "max_length": int(rng.integers(5, 40))}
        for arguments in ({}, limit):
            assert_same_encoding(ours(text, **arguments), theirs(text, **arguments), repr(text))
            got, want = ours(text, pair, **arguments), theirs(text, pair, **arguments)
            assert_same_encoding(got, want, repr((text, pair, arguments)))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"padding": True},
        {"padding": "longest", "truncation": True},
        {"padding": "max_length", "truncation": True, "max_length": 24},
        {"padding": True, "truncation": True, "max_length": 16, "pad_to_multiple_of": 8},
        {"padding": True, "truncation": True, "return_tensors": "pt"},
        {"padding": True, "truncation": True, "return_tensors": "np"},
        {"truncation": "longest_first", "max_length": 9},
    ],
    ids=lambda arguments: "-".join(map(str, arguments.values())) or "defaults",
)
def test_batches(both, arguments):
    ours, theirs = both
    rng = np.random.default_rng(5)
    texts = [random_text(rng) for _ in range(40)]
    pairs = ["", *(random_text(rng) for _ in range(39))]  # an empty second text stays a text
    assert_same_encoding(ours(texts, **arguments), theirs(texts, **arguments), "singles")
    got, want = ours(texts, pairs, **arguments), theirs(texts, pairs, **arguments)
    assert_same_encoding(got, want, "pairs")


def test_back_to_text(both):
    ours, theirs = both
    rng = np.random.default_rng(6)
    for _ in range(100):
        text = random_text(rng)
        ids = theirs(text)["input_ids"]
        assert as_lists(ours.convert_ids_to_tokens(ids)) == theirs.convert_ids_to_tokens(ids)
        assert ours.decode(ids) == theirs.decode(ids)
        got = ours.decode(ids, skip_special_tokens=True)
        assert got == theirs.decode(ids, skip_special_tokens=True)
        assert list(ours.tokenize(text)) == theirs.tokenize(text)
        tokens = theirs.tokenize(text)
        assert list(ours.convert_tokens_to_ids(tokens)) == theirs.convert_tokens_to_ids(tokens)
