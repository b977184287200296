"""The files of a tokenizer's folder, and what they leave out.

tokenizer.json holds the vocabulary and the rules of the `tokenizers` library. All other settings
are in tokenizer_config.json, in the older special_tokens_map.json, in the model's config.json, or
in no file: then those usual for the model's family are used.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minift.errors import MissingFileError, ModelError
from minift.files import read_json
from minift.plugins import default_manager

# The special tokens by role, and their usual texts in two families.
ROLES = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
BERT = dict(zip(ROLES, ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"), strict=True))
ROBERTA = dict(zip(ROLES, ("<unk>", "</s>", "<pad>", "<s>", "<mask>"), strict=True))
# Prefixes of class names (PreTrainedTokenizerFast) that say nothing about the family.
GENERIC = ("", "pretrained", "tokenizersbackend")
WITHOUT_TYPE_IDS = {"distilbert", "roberta", "modernbert"}


def read(folder: Path) -> dict[str, Any]:
    """Return tokenizer_config.json, with the older special_tokens_map.json where it is needed."""
    config = read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:  # newer files are complete
        config.update(read_json(folder / "special_tokens_map.json"))
    if code := config.pop("auto_map", None):
        warnings.warn(f"{folder}: auto_map {code} is ignored; the built-in tokenizer is used")
    return config


def read_tokenizer_json(
    folder: Path, tokenizer_config: dict[str, Any], model_config: dict[str, Any]
) -> bytes:
    """Return tokenizer.json, or the one that a plugin builds from other files."""
    path = folder / "tokenizer.json"
    if path.is_file():
        return path.read_bytes()
    build = default_manager().hook.minift_build_tokenizer
    backend = build(folder=folder, tokenizer_config=tokenizer_config, config=model_config)
    if backend is None:
        raise MissingFileError(
            f"{folder} has no tokenizer",
            got=", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "an empty folder",
            expected="tokenizer.json; or, for the plugin minift_vocabulary, vocab.txt of a BERT, "
            "DistilBERT or ELECTRA, or vocab.json and merges.txt of a RoBERTa",
            do="copy these files too, and see `minift plugins` for what can read them",
        )
    return backend.to_str().encode()


def parse_tokenizer_json(serialized: bytes, folder: Path) -> Any:
    """Return the `tokenizers.Tokenizer` that tokenizer.json describes."""
    from tokenizers import Tokenizer as Backend

    try:
        return Backend.from_buffer(serialized)
    except Exception as error:  # the library raises bare Exception
        what = f"the tokenizer.json of {folder} cannot be read"
        do = "copy the file from the model again"
        raise ModelError(what, got=error, expected="the file as saved", do=do) from None


def token_text(token: Any) -> Any:
    """Return the text of a special token, which files hold bare or as {"content": text}."""
    return token.get("content") if isinstance(token, Mapping) else token


def tokenizer_family(tokenizer_config: Mapping[str, Any], model_config: Mapping[str, Any]) -> str:
    """Return "bert" for a BertTokenizer, or the model's type if the class is a generic one.

    The class decides, because a Japanese BERT has a vocab.txt too, but a BertJapaneseTokenizer
    splits with it in another way.
    """
    name = tokenizer_config.get("tokenizer_class") or model_config.get("tokenizer_class") or ""
    family = str(name).removesuffix("Fast").removesuffix("Tokenizer").lower()
    return str(model_config.get("model_type", "")) if family in GENERIC else family


def find_special_tokens(tokenizer_config: Mapping[str, Any], backend: Any) -> list[str | None]:
    """Return the special token of each of ROLES, None if the vocabulary lacks it.

    Where the files do not name a token, it is the one that the backend puts around an empty text,
    or else has the usual text of RoBERTa or BERT.
    """
    empty = backend.encode("").tokens
    around = {"cls_token": empty[0], "sep_token": empty[-1]} if len(empty) > 1 else {}
    usual = (ROBERTA, BERT) if ROBERTA["cls_token"] in empty else (BERT, ROBERTA)
    vocabulary = backend.get_vocab()
    tokens: list[str | None] = []
    for role in ROLES:
        candidates = [names.get(role) for names in (around, *usual)]
        if role in tokenizer_config:
            candidates = [token_text(tokenizer_config[role])]
        tokens.append(next((token for token in candidates if token in vocabulary), None))
    return tokens


def mark_special(backend: Any, tokens: Sequence[str | None]) -> None:
    """Keep these tokens whole in a text, and leave them out with `skip_special_tokens`."""
    marked = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens([token for token in tokens if token and token not in marked])


def model_max_length(tokenizer_config: Mapping[str, Any], model_config: Mapping[str, Any]) -> int:
    """Return the tokenizer's own limit, or the model's number of positions if that is smaller."""
    # RoBERTa's positions begin at pad_token_id + 1.
    roberta = model_config.get("model_type") == "roberta"
    unused = model_config.get("pad_token_id", 1) + 1 if roberta else 0
    positions = int(model_config.get("max_position_embeddings", 512)) - unused
    limit = tokenizer_config.get("model_max_length")
    if not isinstance(limit, int | float) or limit > 10**9:  # 10**30 stands for "no limit"
        return positions
    return int(min(limit, positions) if "max_position_embeddings" in model_config else limit)


def model_input_names(
    tokenizer_config: Mapping[str, Any], model_config: Mapping[str, Any]
) -> list[str]:
    """Return the model's inputs: `token_type_ids` only if it tells a pair's two texts apart.

    RoBERTa may have two type embeddings, but was trained with one.
    """
    if "model_input_names" in tokenizer_config:
        return list(tokenizer_config["model_input_names"])
    families = {tokenizer_family(tokenizer_config, model_config), model_config.get("model_type")}
    types = model_config.get("type_vocab_size", 2 if families & {"bert", "electra"} else 0)
    if types < 2 or families & WITHOUT_TYPE_IDS:
        return ["input_ids", "attention_mask"]
    return ["input_ids", "token_type_ids", "attention_mask"]
