"""minift's tokenizer against that of transformers, on random text in many scripts."""

import json
import shutil
import string

import live
import numpy as np
import pytest
import transformers
from live import as_lists, assert_same_encoding
from minift_vocabulary.defaults import BERT
from tokenizers import ByteLevelBPETokenizer

from minift import AutoTokenizer, MiniftError

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
WORDS += ["<mask>", "</s>", "[new]", "Xy"]


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


def wordpiece_files(folder, kind, **said):
    """MiniLM's vocab.txt, config.json and tokenizer_config.json; no tokenizer.json."""
    folder.mkdir(exist_ok=True)
    shutil.copy(live.require_minilm() / "vocab.txt", folder)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    said = {"model_max_length": 64, **said}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


def byte_level_files(folder, special=(), **said):
    """vocab.json and merges.txt trained on a few texts, as a RoBERTa; no tokenizer.json."""
    folder.mkdir(exist_ok=True)
    texts = [
        "the first sentence, and the second one: it's unbelievable!",
        "naïve café 我们 😀 3.14",
    ]
    trained = ByteLevelBPETokenizer()
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *special]
    trained.train_from_iterator(texts * 4, 400, min_frequency=2, special_tokens=names)
    trained.save_model(str(folder))
    (folder / "config.json").write_text('{"model_type": "roberta", "type_vocab_size": 1}')
    said = {"model_max_length": 64, **said}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


def from_files(name, folder):
    """A folder with vocabulary files alone, of the kind that the name says."""
    mask = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False}
    mask["single_word"] = False
    cased = {"do_lower_case": False, "tokenize_chinese_chars": False, "padding_side": "left"}
    if name == "bert":
        return wordpiece_files(folder, "bert")
    if name == "bert_cased_left":
        return wordpiece_files(folder, "bert", truncation_side="left", **cased)
    if name == "bert_accents":
        said = {"tokenizer_class": "BertTokenizerFast", "strip_accents": False}
        return wordpiece_files(folder, "bert", extra_special_tokens=["[unused7]", "[new]"], **said)
    if name == "distilbert":
        return wordpiece_files(folder, "distilbert", tokenizer_class="DistilBertTokenizer")
    if name == "electra":
        return wordpiece_files(folder, "electra", tokenizer_class="ElectraTokenizer")
    if name == "roberta":
        return byte_level_files(folder)
    if name == "roberta_space_left":
        sides = {"padding_side": "left", "truncation_side": "left"}
        return byte_level_files(folder, add_prefix_space=True, trim_offsets=False, **sides)
    if name == "roberta_mask":
        byte_level_files(folder)
        (folder / "special_tokens_map.json").write_text(json.dumps({"mask_token": mask}))
    if name == "roberta_later":
        later = {"4": {**mask, "special": True}, "5": {**mask, "content": "naïve"}}
        byte_level_files(folder, ["naïve"], added_tokens_decoder=later)
    if name == "roberta_old":
        byte_level_files(folder, tokenizer_class="RobertaTokenizerFast")
        size = len(json.loads((folder / "vocab.json").read_text()))
        (folder / "added_tokens.json").write_text(json.dumps({"don't": size, "Xy": size + 1}))
    return folder


FROM_FILES = ["bert", "bert_cased_left", "bert_accents", "distilbert", "electra"]
FROM_FILES += ["roberta", "roberta_space_left", "roberta_mask", "roberta_later", "roberta_old"]


@pytest.fixture(scope="module", params=["minilm", "tiny_cased", *FROM_FILES])
def both(request, tmp_path_factory):
    """(minift's, the peers') tokenizer from one folder."""
    if request.param in FROM_FILES:
        folder = from_files(request.param, tmp_path_factory.mktemp(request.param))
    elif request.param == "minilm":
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


def test_random_texts_one_at_a_time(both):
    """30 texts and pairs of about 15 pieces: each kind of piece and each script many times."""
    ours, theirs = both
    rng = np.random.default_rng(0)
    for _ in range(30):
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
    texts = [random_text(rng) for _ in range(16)]
    pairs = ["", *(random_text(rng) for _ in range(15))]  # an empty second text stays a text
    assert_same_encoding(ours(texts, **arguments), theirs(texts, **arguments), "singles")
    got, want = ours(texts, pairs, **arguments), theirs(texts, pairs, **arguments)
    assert_same_encoding(got, want, "pairs")


def test_back_to_text(both):
    ours, theirs = both
    rng = np.random.default_rng(6)
    for _ in range(30):
        text = random_text(rng)
        ids = theirs(text)["input_ids"]
        assert as_lists(ours.convert_ids_to_tokens(ids)) == theirs.convert_ids_to_tokens(ids)
        assert ours.decode(ids) == theirs.decode(ids)
        got = ours.decode(ids, skip_special_tokens=True)
        assert got == theirs.decode(ids, skip_special_tokens=True)
        assert list(ours.tokenize(text)) == theirs.tokenize(text)
        tokens = theirs.tokenize(text)
        assert list(ours.convert_tokens_to_ids(tokens)) == theirs.convert_tokens_to_ids(tokens)


EDGES = [
    "",
    " ",
    "a",
    "the first sentence. " * 20,
    "ÀÉÎõü naïve",
    "我们a我",
    "😀 👩‍👩‍👧",
    "<s>x<mask> [MASK]",
]


@pytest.mark.parametrize("truncation", ["longest_first", "only_first", "only_second", False])
def test_edges_and_truncation(both, truncation):
    ours, theirs = both
    for text in EDGES:
        assert_same_encoding(ours(text), theirs(text), repr(text))
        for pair in EDGES:  # in lists, where an empty second text is one for the peer too
            for limit in (7, 30):
                options = {"truncation": truncation, "max_length": limit}
                try:
                    got = ours([text], [pair], **options)
                except ValueError:  # one text is too short to cut all from it
                    assert truncation and truncation.startswith("only")
                    with pytest.raises(Exception, match="too short"):
                        theirs([text], [pair], **options)
                else:
                    want = theirs([text], [pair], **options)
                    assert_same_encoding(got, want, repr((text, pair)))


def test_saved_by_one_and_opened_by_the_other(both, tmp_path):
    """With config.json beside it, as a saved model has."""
    ours, theirs = both
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    for name in ("ours", "theirs"):
        if (ours.folder / "config.json").is_file():
            shutil.copy(ours.folder / "config.json", tmp_path / name)
        here = AutoTokenizer.from_pretrained(tmp_path / name)
        there = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        assert here.model_max_length == there.model_max_length == ours.model_max_length
        assert here.model_input_names == list(there.model_input_names), name
        assert (len(here), here.mask_token_id) == (len(there), there.mask_token_id)
        for text in EDGES:
            want = theirs(text, "the <mask> [MASK]")
            assert_same_encoding(here(text, "the <mask> [MASK]"), want, f"minift from {name}")
            assert_same_encoding(there(text, "the <mask> [MASK]"), want, f"peer from {name}")


def random_options(rng, pairs):
    """Any combination of the options that say what is cut, padded and returned."""
    options = {
        "truncation": [True, "longest_first", "only_first", "only_second", False, None][
            rng.integers(6)
        ],
        "padding": [False, True, "longest", "max_length"][rng.integers(4)],
        "max_length": [None, int(rng.integers(6, 40))][rng.integers(2)],
        "add_special_tokens": bool(rng.integers(4)),
        "return_offsets_mapping": bool(rng.integers(2)),
        "return_special_tokens_mask": bool(rng.integers(2)),
        "return_overflowing_tokens": not rng.integers(3),
        "is_split_into_words": not rng.integers(3),
        "return_token_type_ids": [None, True, False][rng.integers(3)],
        "return_attention_mask": [None, True, False][rng.integers(3)],
        "padding_side": [None, "left", "right"][rng.integers(3)],
    }
    if options["truncation"] == "only_second" and not pairs:
        options["truncation"] = "only_first"
    if options["return_overflowing_tokens"]:
        options["stride"] = int(rng.integers(0, 4))
    return options


def result_or_error(call):
    """What a call returns, or the kind of its error; a panic of the library is an error too."""
    try:
        return call()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return error


@pytest.mark.parametrize("side", ["right", "left"])
def test_any_options(both, side):
    """Each option beside each other one: equal columns, words, texts and tokens, or two errors."""
    ours, theirs = both
    rng = np.random.default_rng(7)
    before = ours.truncation_side, theirs.truncation_side
    ours.truncation_side = theirs.truncation_side = side
    spaced = getattr(theirs, "add_prefix_space", False)  # see test_offsets_of_a_first_word
    for _ in range(150):
        number, pairs = int(rng.integers(1, 4)), bool(rng.integers(2))
        options = random_options(rng, pairs)
        texts = [random_text(rng) or "." for _ in range(2 * number)]
        if options["is_split_into_words"]:
            texts = [text.split() or ["."] for text in texts]
        arguments = [texts[:number], texts[number:]] if pairs else [texts[:number]]
        if not rng.integers(4):
            arguments, number = [many[0] for many in arguments], 1
        got = result_or_error(lambda a=arguments, o=options: ours(*a, **o))
        want = result_or_error(lambda a=arguments, o=options: theirs(*a, **o))
        said = f"{arguments} {options}"
        if isinstance(got, MiniftError):
            # Rows longer than the length to pad to, and a padded row beyond max_length, stop here.
            assert isinstance(want, BaseException) or "length to pad to" in str(got), said
            continue
        assert not isinstance(want, BaseException), (said, want)
        if spaced:
            got.pop("offset_mapping", None), want.pop("offset_mapping", None)
        assert_same_encoding(got, want, said)
        rows = len(want.encodings)
        for name in ("tokens", "word_ids", "sequence_ids"):
            for i in range(rows):
                assert getattr(got, name)(i) == getattr(want, name)(i), (name, said)
    ours.truncation_side, theirs.truncation_side = before


# ------------------------------------------------- settings of the files beside a tokenizer.json

TOKEN = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def beside(folder, kind, change=lambda rules: None, files=(), **said):
    """MiniLM's or a small RoBERTa's tokenizer.json, with other files beside it that say more."""
    if kind == "roberta":
        byte_level_files(folder)
        transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
        (folder / "vocab.json").unlink(missing_ok=True)
        (folder / "merges.txt").unlink(missing_ok=True)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
    else:
        wordpiece_files(folder, kind)
        shutil.copy(live.require_minilm() / "tokenizer.json", folder)
        settings = {"model_max_length": 64}
    rules = json.loads((folder / "tokenizer.json").read_text())
    change(rules)
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    settings = {name: value for name, value in {**settings, **said}.items() if value != "absent"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    for name, content in dict(files).items():
        (folder / name).write_text(json.dumps(content))
    return folder


def cased(rules):
    rules["normalizer"]["lowercase"] = False


def spaced(rules):
    rules["pre_tokenizer"]["add_prefix_space"] = True


def without_normalizer(rules):
    rules["normalizer"] = None


ADDED = {"30522": {"content": "zzyx", **TOKEN, "special": False}}
MASK = {"103": {"content": "[MASK]", **TOKEN, "lstrip": True, "special": True}}
SETTINGS = {
    "case": ("bert", {"do_lower_case": False}),
    "accents": ("bert", {"strip_accents": False}),
    "accents alone": ("bert", {"strip_accents": True, "do_lower_case": False}),
    "chinese": ("bert", {"tokenize_chinese_chars": False}),
    "class": ("bert", {"do_lower_case": False, "tokenizer_class": "BertTokenizerFast"}),
    "distilbert": ("distilbert", {
        "do_lower_case": False, "tokenizer_class": "DistilBertTokenizer"}),
    "electra": ("electra", {"strip_accents": False, "tokenizer_class": "ElectraTokenizerFast"}),
    "generic": ("bert", {
        "do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast", **BERT,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}),
    "the class's default": ("bert", {"change": cased}),
    "agreeing": ("bert", {"change": cased, "do_lower_case": False}),
    "no rules": ("bert", {"change": without_normalizer, "do_lower_case": True}),
    "space": ("roberta", {"add_prefix_space": True}),
    "no space": ("roberta", {"add_prefix_space": False, "change": spaced}),
    "the class's space": ("roberta", {"add_prefix_space": "absent", "change": spaced}),
    "decoder": ("bert", {"added_tokens_decoder": ADDED}),
    "decoder's options": ("bert", {"added_tokens_decoder": MASK}),
    "added": ("bert", {"files": {"added_tokens.json": {"zzyx": 30522, "[E]": 30523}}}),
    "extra": ("bert", {"extra_special_tokens": ["[E]", "zzyx"]}),
    "extra by name": ("bert", {"extra_special_tokens": {"e_token": "[E]"}}),
    "additional": ("bert", {"additional_special_tokens": ["[unused3]", "[E]"]}),
    "in the map": ("bert", {"files": {"special_tokens_map.json": {
        "additional_special_tokens": ["[E]"], "pad_token": "[unused3]"}}}),
    "bos": ("bert", {"bos_token": "[E]", "eos_token": "zzyx"}),
    "own role": ("bert", {"e_token": "[E]"}),
    "pad": ("bert", {"pad_token": "[unused3]"}),
    "sides": ("bert", {"padding_side": "left", "truncation_side": "left"}),
    "older limit": ("bert", {"model_max_length": "absent", "max_len": 48}),
}  # fmt: skip
SAID = ["The Capital of FRANCE is Café 我们", "a zzyx b [E]", " x [MASK][unused3] zzyxa", "the a"]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.filterwarnings("ignore:tokenizer.json does not")
def test_settings_beside_a_tokenizer_json(name, tmp_path):
    kind, said = SETTINGS[name]
    folder = beside(tmp_path / "model", kind, **said)
    ours = AutoTokenizer.from_pretrained(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours.save_pretrained(tmp_path / "saved")
    shutil.copy(folder / "config.json", tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    there = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    options = {"padding": True, "truncation": True, "max_length": 12}
    assert ours.model_max_length == theirs.model_max_length
    for role in ("pad", "bos", "eos", "unk", "cls", "sep", "mask"):
        for tokenizer in (ours, again, there):
            assert getattr(tokenizer, f"{role}_token_id") == getattr(theirs, f"{role}_token_id")
    want = theirs(SAID, SAID[::-1], **options)
    texts = theirs.batch_decode(want["input_ids"], skip_special_tokens=True)
    for tokenizer, what in ((ours, "loaded"), (again, "saved"), (there, "the peer, saved")):
        assert_same_encoding(tokenizer(SAID, SAID[::-1], **options), want, what)
        assert len(tokenizer) == len(theirs)
        assert tokenizer.batch_decode(want["input_ids"], skip_special_tokens=True) == texts
    assert again.__fingerprint__() == ours.__fingerprint__()
