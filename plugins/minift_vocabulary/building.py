"""Choose how to build a tokenizer from a folder's vocabulary files, and build it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from minift.errors import MissingFileError
from minift_vocabulary.byte_level import byte_level
from minift_vocabulary.defaults import BERT, ROBERTA, tokenizer_family
from minift_vocabulary.reading import bad_file, flag
from minift_vocabulary.tokens import add_tokens, numbered_tokens, special_tokens
from minift_vocabulary.wordpiece import wordpiece

# The files that the tokenizer class of each family reads.
FILES = {
    "bert": ["vocab.txt"],
    "distilbert": ["vocab.txt"],
    "electra": ["vocab.txt"],
    "roberta": ["vocab.json", "merges.txt"],
}


def build(
    folder: Path, tokenizer_config: Mapping[str, Any], config: Mapping[str, Any]
) -> Tokenizer | None:
    """Return the tokenizer that a folder's vocabulary files describe, None if it has no such file.

    Args:
        folder: has vocab.txt, or vocab.json and merges.txt.
        tokenizer_config: the settings in the tokenizer's files.
        config: the contents of config.json.

    Raises:
        MissingFileError: the family is not known here, or some of its files are missing.
        ModelError: a file is damaged, two do not fit each other, or a setting is of a wrong type.
    """
    family = tokenizer_family(tokenizer_config, config)
    if not has_files(folder, family):
        return None
    special = special_tokens(tokenizer_config, ROBERTA if family == "roberta" else BERT)
    numbered = numbered_tokens(folder, tokenizer_config, special.values())
    if family == "roberta":
        backend: Any = byte_level(folder, tokenizer_config)
    else:
        backend = wordpiece(folder, tokenizer_config, special["unk_token"].content)
    known = {*backend.get_vocab(), *(token.content for token in numbered.values())}
    names = {role: token.content for role, token in special.items()}
    if missing := [name for name in names.values() if name not in known]:
        # Without an id, it would have no weights in the model.
        got = f"no {', '.join(missing)}"
        raise bad_file("special tokens are not in the vocabulary", got, names)
    add_tokens(backend, tokenizer_config, numbered, special.values())
    set_template(backend, family, tokenizer_config, special)
    return backend


def has_files(folder: Path, family: str) -> bool:
    """Return True if a folder has the family's vocabulary, False if it has no vocabulary at all.

    The name of a file does not tell the family: BertJapaneseTokenizer splits with a vocab.txt of
    its own kind.

    Raises:
        MissingFileError: it has another vocabulary, or one of a family that is not known.
    """
    names = {"vocab.txt", "vocab.json", "merges.txt"}
    present = sorted(p.name for p in folder.glob("*") if p.name in names or p.suffix == ".model")
    missing = [name for name in FILES.get(family, ["tokenizer.json"]) if name not in present]
    if present and missing:
        raise MissingFileError(
            f"{folder} lacks {' and '.join(missing)}, and what it has makes no tokenizer here",
            got=f"{', '.join(present)} of a tokenizer of {family or 'no known family'!r}",
            expected="tokenizer.json; or vocab.txt of bert, distilbert or electra; or vocab.json "
            "and merges.txt of roberta (as tokenizer_class in tokenizer_config.json or model_type "
            "in config.json says)",
            do="copy all files of the model; or open and save it once with transformers, which "
            "makes a tokenizer.json, also of a SentencePiece model",
        )
    return bool(present)


def set_template(
    backend: Any,
    family: str,
    tokenizer_config: Mapping[str, Any],
    special: Mapping[str, AddedToken],
) -> None:
    """Set which special tokens are added around a text or pair.

    RoBERTa: <s> text </s></s> text </s>. The others: [CLS] text [SEP] text [SEP], where the second
    text and the [SEP] after it have type id 1.
    """
    texts = [special[role].content for role in ("sep_token", "cls_token")]
    sep, cls = [(text, backend.token_to_id(text)) for text in texts]
    if family == "roberta":
        backend.post_processor = processors.RobertaProcessing(
            sep,
            cls,
            trim_offsets=flag(tokenizer_config, "trim_offsets", True),
            add_prefix_space=flag(tokenizer_config, "add_prefix_space", False),
        )
    else:
        backend.post_processor = processors.BertProcessing(sep, cls)
