"""What the files of a tokenizer leave out: the usual values of its family."""

from collections.abc import Mapping
from typing import Any

# The roles of special tokens, and where those without a role are listed.
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
EXTRA = ("extra_special_tokens", "additional_special_tokens")

# The usual special tokens by role in two families; BERT has no bos and eos.
BERT = dict(zip(ROLES[2:], ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"), strict=True))
ROBERTA = dict(zip(ROLES, ("<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"), strict=True))
# Prefixes of class names (PreTrainedTokenizerFast) that say nothing about the family.
GENERIC = ("", "pretrained", "tokenizersbackend")
WITHOUT_TYPE_IDS = {"distilbert", "roberta", "modernbert"}


def token_text(token: Any) -> Any:
    """Return the text of a special token, which files hold bare or as {"content": text}."""
    return token.get("content") if isinstance(token, Mapping) else token


def tokenizer_family(tokenizer_config: Mapping[str, Any], model_config: Mapping[str, Any]) -> str:
    """Return "bert" for a BertTokenizer, or the model's type if the class is a generic one.

    The class decides, because a Japanese BERT has a vocab.txt too, but a BertJapaneseTokenizer
    splits with it in another way.
    """
    family = class_prefix(tokenizer_config, model_config)
    return str(model_config.get("model_type", "")) if family in GENERIC else family


def class_prefix(tokenizer_config: Mapping[str, Any], model_config: Mapping[str, Any]) -> str:
    """Return "bert" for a BertTokenizerFast; "" where no file names a class."""
    name = tokenizer_config.get("tokenizer_class") or model_config.get("tokenizer_class") or ""
    return str(name).removesuffix("Fast").removesuffix("Tokenizer").lower()


def find_special_tokens(tokenizer_config: Mapping[str, Any], backend: Any) -> dict[str, str | None]:
    """Return the special token of each of ROLES, None if the vocabulary lacks it.

    Where the files do not name a token, it is the one that the backend puts around an empty text,
    or else has the usual text of RoBERTa or BERT.
    """
    empty = backend.encode("").tokens
    around = {"cls_token": empty[0], "sep_token": empty[-1]} if len(empty) > 1 else {}
    usual = (ROBERTA, BERT) if ROBERTA["cls_token"] in empty else (BERT, ROBERTA)
    vocabulary = backend.get_vocab()
    tokens = {}
    for role in ROLES:
        candidates = [names.get(role) for names in (around, *usual)]
        if role in tokenizer_config:
            candidates = [token_text(tokenizer_config[role])]
        tokens[role] = next((token for token in candidates if token in vocabulary), None)
    return tokens


def model_max_length(tokenizer_config: Mapping[str, Any], model_config: Mapping[str, Any]) -> int:
    """Return the tokenizer's own limit, or the model's number of positions if that is smaller."""
    # RoBERTa's positions begin at pad_token_id + 1.
    roberta = model_config.get("model_type") == "roberta"
    unused = model_config.get("pad_token_id", 1) + 1 if roberta else 0
    positions = int(model_config.get("max_position_embeddings", 512)) - unused
    limit = tokenizer_config.get("model_max_length", tokenizer_config.get("max_len"))  # older
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
