"""A folder's vocabulary files to the tokenizer that its family makes of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from minift.errors import MissingFileError
from minift.tokenizer_config import BERT, ROBERTA, tokenizer_family
from minift_vocabulary.byte_level import byte_level
from minift_vocabulary.reading import flag
from minift_vocabulary.tokens import add_tokens, special_names
from minift_vocabulary.wordpiece import wordpiece

# The files of each family, which mean here what its tokenizer class does with them.
NEEDED = {
    "bert": ["vocab.txt"],
    "distilbert": ["vocab.txt"],
    "electra": ["vocab.txt"],
    "roberta": ["vocab.json", "merges.txt"],
}
VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt")
SAVE_ONCE = "open and save it once with transformers, which makes a tokenizer.json"


def build(folder: Path, said: Mapping[str, Any], config: Mapping[str, Any]) -> Tokenizer | None:
    """The backend that the vocabulary files of a folder describe, None if it has no such file.

    Args:
        folder: has vocab.txt, or vocab.json and merges.txt.
        said: what the files about the tokenizer say.
        config: what config.json says.

    Raises:
        MissingFileError: the files are of a family that is not known here, or some are missing.
        ModelError: a file is damaged, two do not fit each other, or a setting is of a wrong type.
    """
    there = [name for name in VOCABULARIES if (folder / name).is_file()]
    if not there:
        refuse_sentencepiece(folder)
        return None
    kind = tokenizer_family(said, config)
    refuse_unknown(folder, kind, there)
    refuse_missing(folder, kind, there)
    names = special_names(said, ROBERTA if kind == "roberta" else BERT)
    if kind == "roberta":
        backend = byte_level(folder, said)
    else:
        backend = wordpiece(folder, said, names["unk_token"])
    add_tokens(backend, folder, said, names)
    frame(backend, kind, said, names)
    return backend


def frame(backend: Any, kind: str, said: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Set what is put around and between texts.

    RoBERTa: <s> text </s></s> text </s>. The others: [CLS] text [SEP] text [SEP], where the second
    text and the [SEP] after it are of type 1.
    """
    cls = (names["cls_token"], backend.token_to_id(names["cls_token"]))
    sep = (names["sep_token"], backend.token_to_id(names["sep_token"]))
    if kind == "roberta":
        backend.post_processor = processors.RobertaProcessing(
            sep,
            cls,
            trim_offsets=flag(said, "trim_offsets", True),
            add_prefix_space=flag(said, "add_prefix_space", False),
        )
    else:
        backend.post_processor = processors.BertProcessing(sep, cls)


def refuse_sentencepiece(folder: Path) -> None:
    """SentencePiece's .model files need its library, or a conversion."""
    models = sorted(path.name for path in folder.glob("*.model"))
    if models:
        raise MissingFileError(
            f"{folder} has a SentencePiece model alone, which is not read here",
            got=", ".join(models),
            expected="tokenizer.json beside it",
            do=SAVE_ONCE,
        )


def refuse_unknown(folder: Path, kind: str, there: list[str]) -> None:
    """Files of one name mean different things: BertJapaneseTokenizer cuts with vocab.txt too."""
    if not kind:
        raise MissingFileError(
            f"nothing in {folder} says whose vocabulary it has",
            got=", ".join(there),
            expected="tokenizer_class in tokenizer_config.json, or model_type in config.json",
            do="copy these files from the model too",
        )
    if kind not in NEEDED:
        raise MissingFileError(
            f"{folder} has the vocabulary of a tokenizer that is not known here",
            got=f"{', '.join(there)} of {kind!r}",
            expected=f"tokenizer.json, or a vocabulary of one of {', '.join(NEEDED)}",
            do=SAVE_ONCE,
        )


def refuse_missing(folder: Path, kind: str, there: list[str]) -> None:
    missing = [name for name in NEEDED[kind] if name not in there]
    if missing:
        raise MissingFileError(
            f"{folder} lacks {' and '.join(missing)}, which a tokenizer of {kind!r} is made of",
            got=", ".join(there),
            expected=f"{' and '.join(NEEDED[kind])}, or tokenizer.json",
            do=f"copy {' and '.join(missing)} from the model, or correct what says {kind!r}",
        )
