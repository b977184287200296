"""Tokenizers from vocab.txt, or vocab.json and merges.txt; the ids are worked out by hand."""

import json
import subprocess
import sys
import warnings

import pytest
from minift_vocabulary.byte_level import UNUSED_BYTES
from tokenizers import Tokenizer, models, pre_tokenizers

from minift import AutoTokenizer, MiniftError, hookimpl, plugins
from minift.errors import MissingFileError, ModelError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # 0 to 4
WORDS += ["the", "un", "##believ", "##able", "##s", "cafe", "Café", ".", "我", "们", "a", "##b"]
# "hello" is built up by five merges: h e l l o -> he l l o -> he ll o -> hell o -> hello
LETTERS = [*"helowrd", "Ġ", "!"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ hello"]
PIECES = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    "<mask>",
    *LETTERS,
    *("".join(m.split()) for m in MERGES),
]
# 19 and above: the other bytes, each with the character that shows it
PIECES += sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(PIECES))


def bert(folder, words=WORDS, kind="bert", **said):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    if said:
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


def roberta(folder, pieces=PIECES, merges=MERGES, model=None, **said):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model or {"model_type": "roberta"}))
    (folder / "vocab.json").write_text(json.dumps({p: i for i, p in enumerate(pieces)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    if said:
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


def load(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_wordpiece(tmp_path):
    tokenizer = load(bert(tmp_path))
    assert tokenizer("The unbelievables.") == {
        "input_ids": [2, 5, 6, 7, 8, 9, 12, 3],
        "token_type_ids": [0] * 8,
        "attention_mask": [1] * 8,
    }
    pair = tokenizer("the", "ab the")
    assert pair.input_ids == [2, 5, 3, 15, 16, 5, 3]
    assert pair.token_type_ids == [0, 0, 0, 1, 1, 1, 1]
    assert tokenizer("unbelieved")["input_ids"] == [2, 1, 3]  # a rest unknown: all of it is
    assert tokenizer("café我们", add_special_tokens=False)["input_ids"] == [10, 13, 14]
    assert tokenizer.decode([2, 6, 7, 8, 12, 3], skip_special_tokens=True) == "unbelievable."
    assert (tokenizer.vocab_size, len(tokenizer)) == (17, 17)


@pytest.mark.parametrize(
    ("said", "text", "ids"),
    [
        ({"do_lower_case": False}, "Café The", [11, 1]),
        ({"do_lower_case": False, "strip_accents": True}, "Café the", [1, 5]),
        ({"strip_accents": False}, "Café the", [1, 5]),
        ({"tokenize_chinese_chars": False}, "我们 我", [1, 13]),
    ],
)
def test_the_settings_of_wordpiece(tmp_path, said, text, ids):
    tokenizer = load(bert(tmp_path, **said))
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids


def test_byte_level(tmp_path):
    tokenizer = load(roberta(tmp_path))
    assert tokenizer("hello") == {"input_ids": [0, 17, 2], "attention_mask": [1, 1, 1]}
    assert tokenizer("hello", " hello!")["input_ids"] == [0, 17, 2, 2, 18, 13, 2]
    assert tokenizer("hell he")["input_ids"] == [0, 16, 12, 14, 2]
    assert tokenizer.decode([0, 17, 18, 13, 2]) == "<s>hello hello!</s>"
    assert (tokenizer.cls_token_id, tokenizer.pad_token_id, tokenizer.sep_token_id) == (0, 1, 2)
    assert (tokenizer.unk_token, tokenizer.mask_token_id) == ("<unk>", 4)
    spaced = load(roberta(tmp_path, add_prefix_space=True))
    assert spaced("hello")["input_ids"] == [0, 18, 2]


def test_special_tokens_in_a_text_stay_whole(tmp_path):
    tokenizer = load(bert(tmp_path / "bert"))
    assert tokenizer("the[MASK]the [SEP]", add_special_tokens=False).input_ids == [5, 4, 5, 3]
    folder = roberta(tmp_path / "roberta")
    assert load(folder)("hello <mask>", add_special_tokens=False).input_ids == [17, 12, 4]
    mask = {"content": "<mask>", "lstrip": True}  # takes the space with it
    (folder / "special_tokens_map.json").write_text(json.dumps({"mask_token": mask}))
    assert load(folder)("hello <mask>", add_special_tokens=False).input_ids == [17, 4]


def test_names_and_tokens_that_files_say(tmp_path):
    """Other names of the roles, special tokens beside the roles, tokens that came later."""
    words = ["<p>", "<u>", "<c>", "[SEP]", "[MASK]", "the", "[E]", "x", "##y"]
    folder = bert(tmp_path, words, pad_token="<p>", unk_token={"content": "<u>"})
    said = {"cls_token": "<c>", "additional_special_tokens": ["[E]"]}
    (folder / "special_tokens_map.json").write_text(json.dumps(said))
    (folder / "added_tokens.json").write_text('{"xyx": 9}')
    tokenizer = load(folder)
    assert tokenizer("the [E] XYX and")["input_ids"] == [2, 5, 6, 9, 1, 3]
    assert tokenizer.decode([2, 5, 6, 9], skip_special_tokens=True) == "the xyx"
    assert (len(tokenizer), tokenizer.vocab_size, tokenizer.pad_token) == (10, 9, "<p>")
    tokenizer.save_pretrained(tmp_path / "copy")
    copy = load(tmp_path / "copy")
    assert copy("the [E] XYX and")["input_ids"] == [2, 5, 6, 9, 1, 3]
    assert (copy.pad_token, copy.cls_token) == ("<p>", "<c>")


def test_windows_lines_and_separators(tmp_path):
    folder = bert(tmp_path)
    text = "\r\n".join([*WORDS, "\x85x", "zz"])
    (folder / "vocab.txt").write_bytes(text.encode())
    assert load(folder)("zz", add_special_tokens=False)["input_ids"] == [18]


@pytest.mark.parametrize(
    ("model", "said", "typed"),
    [
        ({"model_type": "bert"}, {}, True),
        ({"model_type": "bert"}, {"tokenizer_class": "TokenizersBackend"}, True),
        ({"model_type": "electra"}, {"tokenizer_class": "ElectraTokenizerFast"}, True),
        ({"model_type": "distilbert"}, {}, False),
        ({"model_type": "distilbert"}, {"tokenizer_class": "BertTokenizer"}, False),
        ({"model_type": "bert", "type_vocab_size": 1}, {}, False),
        ({"model_type": "bert"}, {"model_input_names": ["input_ids", "attention_mask"]}, False),
        (None, {"tokenizer_class": "BertTokenizerFast"}, True),
        (None, {"tokenizer_class": "ElectraTokenizer"}, True),
        (None, {"tokenizer_class": "DistilBertTokenizer"}, False),
    ],
)
def test_who_has_token_types(tmp_path, model, said, typed):
    folder = bert(tmp_path, **said)
    (folder / "config.json").unlink() if model is None else (folder / "config.json").write_text(
        json.dumps(model)
    )
    tokenizer = load(folder)
    assert ("token_type_ids" in tokenizer.model_input_names) == typed
    assert ("token_type_ids" in tokenizer("the")) == typed


@pytest.mark.parametrize(
    "kind", ["RobertaTokenizer", "TokenizersBackend", "PreTrainedTokenizerFast"]
)
@pytest.mark.parametrize("types", [1, 2])
def test_roberta_has_no_types_and_fewer_positions(tmp_path, kind, types):
    model = {"model_type": "roberta", "type_vocab_size": types, "max_position_embeddings": 20}
    tokenizer = load(roberta(tmp_path, model=model, tokenizer_class=kind))
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]
    assert tokenizer.model_max_length == 18
    assert len(tokenizer("hello" * 40, truncation=True)["input_ids"]) == 18


def test_special_tokens_that_only_tokenizer_json_has(tmp_path):
    """RoBERTa's usual names, and names that only the frame of an empty text shows."""
    load(roberta(tmp_path / "a")).save_pretrained(tmp_path / "b")
    for name in ("tokenizer_config.json", "vocab.json", "merges.txt"):
        (tmp_path / "b" / name).unlink()
    tokenizer = load(tmp_path / "b")
    assert (tokenizer.cls_token, tokenizer.sep_token, tokenizer.pad_token_id) == ("<s>", "</s>", 1)
    path = tmp_path / "b" / "tokenizer.json"
    path.write_text(path.read_text().replace('"<s>"', '"<begin>"').replace('"</s>"', '"<end>"'))
    tokenizer = load(tmp_path / "b")
    assert (tokenizer.cls_token, tokenizer.sep_token) == ("<begin>", "<end>")


@pytest.mark.parametrize("make", [bert, roberta])
def test_saved_and_fingerprinted(tmp_path, make):
    tokenizer = load(make(tmp_path / "a"))
    before = tokenizer.__fingerprint__()
    assert load(make(tmp_path / "b")).__fingerprint__() == before
    tokenizer.save_pretrained(tmp_path / "copy")
    copy = load(tmp_path / "copy")
    assert copy.__fingerprint__() == before
    assert copy("hello the", "!") == tokenizer("hello the", "!")
    *most, last, first = WORDS if make is bert else PIECES
    assert load(make(tmp_path / "c", [*most, first, last])).__fingerprint__() != before


def test_auto_map_is_ignored_once(tmp_path):
    folder = bert(tmp_path / "a", auto_map={"AutoTokenizer": ["code.Mine", None]})
    with pytest.warns(UserWarning, match=r"auto_map .*code\.Mine.* built-in") as caught:
        tokenizer = load(folder)
    assert len(caught) == 1 and tokenizer("the")["input_ids"] == [2, 5, 3]
    tokenizer.save_pretrained(tmp_path / "b")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path / "b")


# ------------------------------------------------------------------------------------ what is wrong


def refuse(folder, error, *words):
    """An error of that class that says got, expected and do, and these words."""
    with pytest.raises(error) as caught:
        load(folder)
    text = str(caught.value)
    for word in ("got:", "expected:", "do this:", *words):
        assert word in text, text
    assert isinstance(caught.value, MiniftError)


def test_bad_vocab_txt(tmp_path):
    refuse(bert(tmp_path, [*WORDS, "the"]), ModelError, "twice", "'the'", "lines 6 and 18")
    refuse(bert(tmp_path, WORDS[:1] + WORDS[2:]), ModelError, "[UNK]")
    refuse(bert(tmp_path, WORDS[:4] + WORDS[5:]), ModelError, "[MASK]")
    refuse(bert(tmp_path, []), ModelError, "[CLS]")
    folder = bert(tmp_path)
    (folder / "vocab.txt").write_bytes(b"[PAD]\n\xff\xfe\n")
    refuse(folder, ModelError, "utf-8", "vocab.txt")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"do_lower_case": "yes"}, ["do_lower_case", "'yes'", "true or false"]),
        ({"do_lower_case": None}, ["do_lower_case", "None"]),
        ({"strip_accents": 1}, ["strip_accents"]),
        ({"cls_token": None}, ["cls_token", "None", "[CLS]"]),
        ({"sep_token": 3}, ["sep_token", "3"]),
        ({"additional_special_tokens": [3]}, ["no text", "3"]),
        ({"additional_special_tokens": "[E]"}, ["no list", "[E]"]),
        ({"extra_special_tokens": [{"content": "[E]", "lstrip": "no"}]}, ["lstrip", "'no'"]),
        ({"added_tokens_decoder": [1]}, ["added_tokens_decoder", "[1]"]),
        ({"added_tokens_decoder": {"x": "[E]"}}, ["no id", "'x'"]),
        ({"added_tokens_decoder": {"17": {"special": True}}}, ["no text"]),
        ({"added_tokens_decoder": {"40": {"content": "[E]"}}}, ["'[E]' with 17", "40"]),
        ({"added_tokens_decoder": {"4": {"content": "the"}}}, ["'the' with 5", "4"]),
    ],
    ids=str,
)
def test_settings_of_the_wrong_type(tmp_path, said, words):
    refuse(bert(tmp_path, **said), ModelError, *words)


def test_extra_special_tokens_by_name(tmp_path):
    tokenizer = load(bert(tmp_path, extra_special_tokens={"image_token": "[I]"}))
    assert tokenizer("the[I]the", add_special_tokens=False)["input_ids"] == [5, 17, 5]
    assert load(bert(tmp_path, extra_special_tokens={}))("the")["input_ids"] == [2, 5, 3]


def test_no_text_vanishes_in_byte_level_bpe(tmp_path):
    """Any character at all comes back, and the bytes that need no token are in no text."""
    tokenizer = load(roberta(tmp_path))
    everything = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    used = set(everything.encode())
    assert {chr(byte) for byte in range(256) if byte not in used} == UNUSED_BYTES
    some = everything[::97] + "".join(map(chr, range(0x300)))
    ids = tokenizer(some, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == some


@pytest.mark.parametrize("piece", ["x", "Ġ", "Ċ", "Â"])
def test_a_byte_without_a_token(tmp_path, piece):
    """Its text would be dropped: the library has no unknown token in this rule."""
    pieces = [p for p in PIECES if p != piece]
    merges = [m for m in MERGES if piece not in m]
    refuse(roberta(tmp_path, pieces, merges), ModelError, "vocab.json", "1 of them", piece)


def test_bytes_that_no_text_has_need_no_token(tmp_path):
    tokenizer = load(roberta(tmp_path, [p for p in PIECES if p not in UNUSED_BYTES]))
    assert tokenizer.decode(tokenizer("ÿõÀ", add_special_tokens=False).input_ids) == "ÿõÀ"


@pytest.mark.parametrize(
    "junk",
    ["[]", '["a"]', "{", "{}", '{"a": "b"}', '{"a": 1, "b": 1}', '{"a": true}', '{"a": -1}', "7"],
)
def test_bad_vocab_json(tmp_path, junk):
    folder = roberta(tmp_path)
    (folder / "vocab.json").write_text(junk)
    refuse(folder, ModelError, "vocab.json")


@pytest.mark.parametrize("line", ["h x", "w r", "hello", "", "h e l"])
def test_bad_merges(tmp_path, line):
    refuse(roberta(tmp_path, merges=["h e", line]), ModelError, "line 3", repr(line))


def test_special_tokens_that_vocab_json_lacks(tmp_path):
    refuse(roberta(tmp_path, PIECES[1:]), ModelError, "<s>")


@pytest.mark.parametrize(
    ("missing", "there"), [("vocab.json", "merges.txt"), ("merges.txt", "vocab.json")]
)
def test_one_of_two_files(tmp_path, missing, there):
    folder = roberta(tmp_path)
    (folder / missing).unlink()
    words = (f"lacks {missing}", f"got:      {there}", "vocab.json and merges.txt")
    refuse(folder, MissingFileError, *words)


def test_a_vocab_txt_does_not_make_it_a_bert(tmp_path):
    refuse(bert(tmp_path, kind="roberta"), MissingFileError, "lacks vocab.json and merges.txt")


@pytest.mark.parametrize(
    ("model", "said", "kind"),
    [
        ({"model_type": "bert"}, {"tokenizer_class": "BertJapaneseTokenizer"}, "bertjapanese"),
        ({"model_type": "bert", "tokenizer_class": "BertJapaneseTokenizer"}, {}, "bertjapanese"),
        ({"model_type": "modernbert"}, {}, "modernbert"),
        ({"model_type": "albert"}, {}, "albert"),
    ],
)
def test_families_that_are_not_guessed(tmp_path, model, said, kind):
    folder = bert(tmp_path, **said)
    (folder / "config.json").write_text(json.dumps(model))
    refuse(
        folder, MissingFileError, "lacks tokenizer.json", f"vocab.txt of a tokenizer of {kind!r}"
    )


@pytest.mark.parametrize("said", [{}, {"tokenizer_class": "TokenizersBackend"}])
def test_a_vocabulary_of_nobody(tmp_path, said):
    folder = bert(tmp_path, **said)
    (folder / "config.json").write_text("{}")
    words = ("no known family", "vocab.txt", "tokenizer_class", "model_type")
    refuse(folder, MissingFileError, *words)


@pytest.mark.parametrize("name", ["spiece.model", "tokenizer.model"])
def test_sentencepiece_alone(tmp_path, name):
    folder = bert(tmp_path, kind="albert")
    (folder / "vocab.txt").rename(folder / name)
    refuse(folder, MissingFileError, "SentencePiece", name, "transformers")


def test_no_vocabulary_at_all(tmp_path):
    folder = bert(tmp_path)
    (folder / "vocab.txt").unlink()
    refuse(folder, MissingFileError, "no tokenizer", "config.json", "minift_vocabulary")


# ------------------------------------------------------------ settings beside a tokenizer.json


def beside(folder, kind=bert, files=(), rules=(), **said):
    """A folder with a tokenizer.json, and other settings in the files beside it.

    Args:
        files: {name: content} of files.
        rules: {part: {rule: value}} of tokenizer.json.
        said: entries of tokenizer_config.json.
    """
    load(kind(folder)).save_pretrained(folder)
    path = folder / "tokenizer.json"
    parts = json.loads(path.read_text())
    for part, changes in dict(rules).items():
        parts[part] = {**parts[part], **changes} if changes else None
    path.write_text(json.dumps(parts))
    for name in ("vocab.txt", "vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    for name, content in {**dict(files), "tokenizer_config.json": said}.items():
        (folder / name).write_text(json.dumps(content))
    return folder


CASED = {"normalizer": {"lowercase": False, "strip_accents": False}}
NEW = {"content": "b-the", "lstrip": False, "normalized": False, "rstrip": False,
       "single_word": False, "special": False}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "text", "ids"),
    [
        ({"do_lower_case": False}, "Café The", [11, 1]),
        ({"strip_accents": False}, "Café the", [1, 5]),
        ({"tokenize_chinese_chars": False}, "我们 我", [1, 13]),
        ({"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"}, "The", [5]),
        ({"added_tokens_decoder": {"17": NEW}}, "a b-the the", [15, 17, 5]),
        ({"files": {"added_tokens.json": {"b-the": 17}}}, "a B-The the", [15, 17, 5]),
        ({"extra_special_tokens": ["[E]", "[F]"]}, "a[F]the", [15, 18, 5]),
        ({"additional_special_tokens": ["[E]"]}, "a[E]the", [15, 17, 5]),
        (
            {"files": {"special_tokens_map.json": {"additional_special_tokens": ["[E]"]}}},
            "[E]",
            [17],
        ),
        ({"bos_token": {"content": "[E]"}, "eos_token": "[F]"}, "[E][F]", [17, 18]),
        ({"rules": CASED, "do_lower_case": False}, "Café The", [11, 1]),
        ({"rules": {"normalizer": None}, "do_lower_case": True}, "The", [5]),
        ({"rules": {"normalizer": None}}, "The the", [1, 5]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_settings_win_over_tokenizer_json(tmp_path, said, text, ids):
    """As for a tokenizer that is built from vocab.txt; and once more after saving."""
    tokenizer = load(beside(tmp_path / "model", **said))
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    tokenizer.save_pretrained(tmp_path / "copy")
    copy = load(tmp_path / "copy")
    assert copy(text, add_special_tokens=False)["input_ids"] == ids


@pytest.mark.parametrize("space", [True, False])
def test_a_space_before_the_first_word(tmp_path, space):
    rules = {"pre_tokenizer": {"add_prefix_space": not space}}
    tokenizer = load(beside(tmp_path, roberta, rules=rules, add_prefix_space=space))
    assert tokenizer("hello")["input_ids"] == [0, 18 if space else 17, 2]


def test_the_default_of_a_class_that_contradicts_tokenizer_json_is_said(tmp_path):
    """Files that say nothing of casing are a BERT's, which lowercases: so do the peers."""
    folder = beside(tmp_path / "cased", rules={"normalizer": {"lowercase": False}})
    with pytest.warns(UserWarning, match="do_lower_case = True, the default") as caught:
        tokenizer = load(folder)
    assert len(caught) == 1
    assert tokenizer("THE", add_special_tokens=False)["input_ids"] == [5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(beside(tmp_path / "usual"))


def test_settings_of_a_class_that_is_not_known(tmp_path):
    """MPNetTokenizer splits with a BertNormalizer too, but what it makes of settings is its own."""
    said = {"tokenizer_class": "MPNetTokenizerFast", "do_lower_case": False}
    refuse(beside(tmp_path / "cased", **said), ModelError, "do_lower_case", "'mpnet'", "False")
    said = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}
    refuse(beside(tmp_path / "space", roberta, **said), ModelError, "add_prefix_space", "'gpt2'")
    agreeing = {"tokenizer_class": "MPNetTokenizer", "do_lower_case": True}
    assert load(beside(tmp_path / "lower", **agreeing))("THE", add_special_tokens=False) == {
        "input_ids": [5], "token_type_ids": [0], "attention_mask": [1]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"split_special_tokens": True}, "split_special_tokens"),
        ({"do_lower_case": "false"}, "do_lower_case"),
        ({"added_tokens_decoder": {"99": NEW}}, "does not get the id"),
        ({"added_tokens_decoder": [NEW]}, "added_tokens_decoder"),
        ({"extra_special_tokens": "[E]"}, "extra special tokens"),
    ],
)
def test_settings_that_cannot_be_followed(tmp_path, said, word):
    refuse(beside(tmp_path / "json", **said), ModelError, word)
    refuse(bert(tmp_path / "vocabulary", **said), ModelError, word)


def test_options_of_a_token_in_tokenizer_json(tmp_path):
    """`added_tokens_decoder` wins over them, special_tokens_map.json does not."""
    mask = {**NEW, "content": "[MASK]", "lstrip": True, "special": True}
    loose = load(beside(tmp_path / "map", files={"special_tokens_map.json": {"mask_token": mask}}))
    tight = load(beside(tmp_path / "decoder", added_tokens_decoder={"4": mask}))
    options = {"add_special_tokens": False, "return_offsets_mapping": True}
    assert loose("a [MASK]", **options)["offset_mapping"] == [(0, 1), (2, 8)]
    assert tight("a [MASK]", **options)["offset_mapping"] == [(0, 1), (1, 8)]


def test_the_older_name_of_the_limit(tmp_path):
    assert load(beside(tmp_path, max_len=7)).model_max_length == 7


# --------------------------------------------------------------------------------------- the plugin


def test_without_the_plugin(tmp_path):
    plugins.set_default_manager(plugins.build_manager(["no:vocabulary"]))
    refuse(bert(tmp_path), MissingFileError, "no tokenizer", "vocab.txt", "minift_vocabulary")


def test_another_plugin_goes_first(tmp_path):
    """This one would refuse the family; the hook says what the files are about the tokenizer."""
    heard = []

    class Mine:
        @hookimpl
        def minift_build_tokenizer(self, folder, tokenizer_config, config):
            heard.append((folder, tokenizer_config, config))
            return Tokenizer(models.WordLevel({"[UNK]": 0, "here": 1}, unk_token="[UNK]"))

    plugins.set_default_manager(plugins.build_manager(plugins=[Mine()]))
    folder = bert(tmp_path, kind="mine", do_lower_case=False)
    tokenizer = load(folder)
    assert tokenizer("here")["input_ids"] == [1]
    assert heard == [(folder, {"do_lower_case": False}, {"model_type": "mine"})]
    tokenizer.save_pretrained(tmp_path / "copy")
    assert load(tmp_path / "copy")("here")["input_ids"] == [1] and len(heard) == 1


def test_a_tokenizer_json_is_not_built_again(tmp_path):
    """Nor is any file looked at that only older folders need."""
    load(bert(tmp_path)).save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("the\nthe\n")
    assert load(tmp_path)("the")["input_ids"] == [2, 5, 3]


def test_listing_the_plugin_imports_little():
    check = "import sys; assert not {'tokenizers', 'minift.tokenizer'} & set(sys.modules)"
    command = f"from minift.cli import main; main(['plugins']); {check}"
    subprocess.run([sys.executable, "-c", command], check=True, capture_output=True)
