"""Choose how to build a tokenizer from a folder's vocabulary files, and build it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from minift.errors import MissingFileError
from minift_vocabulary.byte_level import byte_level
from minift_vocabulary.defaults import BERT, ROBERTA, tokenizer_family
from minift_vocabulary.reading import flag
from minift_vocabulary.tokens import add_tokens, special_token_names
from minift_vocabulary.wordpiece import wordpiece

# The files that the tokenizer class of each family reads.
FILES = {
    "bert": ["vocab.txt"],
    "distilbert": ["vocab.txt"],
    "electra": ["vocab.txt"],
    "roberta": ["vocab.json", "merges.txt"],
}
VOCABULARY_FILES = ("vocab.txt", "vocab.json", "merges.txt")
CONVERT = "open and save it once with transformers, which makes a tokenizer.json"


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
    present = [name for name in VOCABULARY_FILES if (folder / name).is_file()]
    if not present:
        refuse_sentencepiece(folder)
        return None
    family = tokenizer_family(tokenizer_config, config)
    refuse_unknown_family(folder, family, present)
    refuse_missing_files(folder, family, present)
    names = special_token_names(tokenizer_config, ROBERTA if family == "roberta" else BERT)
    if family == "roberta":
        backend = byte_level(folder, tokenizer_config)
    else:
        backend = wordpiece(folder, tokenizer_config, names["unk_token"])
    add_tokens(backend, folder, tokenizer_config, names)
    set_template(backend, family, tokenizer_config, names)
    return backend


def set_template(
    backend: Any, family: str, tokenizer_config: Mapping[str, Any], names: Mapping[str, str]
) -> None:
    """Set which special tokens are added around a text or pair.

    RoBERTa: <s> text </s></s> text </s>. The others: [CLS] text [SEP] text [SEP], where the second
    text and the [SEP] after it have type id 1.
    """
    cls = (names["cls_token"], backend.token_to_id(names["cls_token"]))
    sep = (names["sep_token"], backend.token_to_id(names["sep_token"]))
    if family == "roberta":
        backend.post_processor = processors.RobertaProcessing(
            sep,
            cls,
            trim_offsets=flag(tokenizer_config, "trim_offsets", True),
            add_prefix_space=flag(tokenizer_config, "add_prefix_space", False),
        )
    else:
        backend.post_processor = processors.BertProcessing(sep, cls)


def refuse_sentencepiece(folder: Path) -> None:
    """Raise an error if the only tokenizer is a SentencePiece .model, which needs that library."""
    models = sorted(path.name for path in folder.glob("*.model"))
    if models:
        raise MissingFileError(
            f"{folder} has a SentencePiece model alone, which is not read here",
            got=", ".join(models),
            expected="tokenizer.json beside it",
            do=CONVERT,
        )


def refuse_unknown_family(folder: Path, family: str, present: list[str]) -> None:
    """Raise an error unless the family is known.

    The name of a file is not enough: BertJapaneseTokenizer splits with a vocab.txt of its own kind.
    """
    if not family:
        raise MissingFileError(
            f"nothing in {folder} says whose vocabulary it has",
            got=", ".join(present),
            expected="tokenizer_class in tokenizer_config.json, or model_type in config.json",
            do="copy these files from the model too",
        )
    if family not in FILES:
        raise MissingFileError(
            f"{folder} has the vocabulary of a tokenizer that is not known here",
            got=f"{', '.join(present)} of {family!r}",
            expected=f"tokenizer.json, or a vocabulary of one of {', '.join(FILES)}",
            do=CONVERT,
        )


def refuse_missing_files(folder: Path, family: str, present: list[str]) -> None:
    missing = [name for name in FILES[family] if name not in present]
    if missing:
        raise MissingFileError(
            f"{folder} lacks {' and '.join(missing)}, which a tokenizer of {family!r} is made of",
            got=", ".join(present),
            expected=f"{' and '.join(FILES[family])}, or tokenizer.json",
            do=f"copy {' and '.join(missing)} from the model, or correct what says {family!r}",
        )
