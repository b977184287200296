"""Settings of the files beside a tokenizer.json, which mean what they mean to transformers 5.

The tokenizer classes of BERT, DistilBERT, ELECTRA and RoBERTa follow tokenizer_config.json and,
where it is silent, their own defaults, whatever tokenizer.json says. The generic class
(PreTrainedTokenizerFast, TokenizersBackend) follows tokenizer.json alone. Of other classes it is
not known here what their settings do, so one that contradicts tokenizer.json is refused.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minift.errors import ModelError
from minift_vocabulary.building import FILES, set_template
from minift_vocabulary.byte_level import byte_level_splitter
from minift_vocabulary.defaults import GENERIC, ROBERTA, class_prefix, tokenizer_family
from minift_vocabulary.tokens import add_later_tokens, special_token_names
from minift_vocabulary.wordpiece import bert_normalizer

# {setting: its name in tokenizer.json}, of a BertNormalizer and of a ByteLevel pre-tokenizer
NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
SPLITTER = {"add_prefix_space": "add_prefix_space"}


def configure(
    backend: Any, folder: Path, tokenizer_config: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Change a backend as the settings beside its tokenizer.json say.

    Raises:
        ModelError: a setting cannot be followed.
    """
    named = class_prefix(tokenizer_config, config)
    family = tokenizer_family(tokenizer_config, config)
    if named and named in GENERIC:
        pass
    elif family == "roberta":
        follow_byte_level(backend, tokenizer_config)
    elif family in FILES:
        follow_wordpiece(backend, tokenizer_config)
    elif named:
        refuse_contradiction(backend.normalizer, NORMALIZER, tokenizer_config, named)
        refuse_contradiction(backend.pre_tokenizer, SPLITTER, tokenizer_config, named)
    add_later_tokens(backend, folder, tokenizer_config)


def follow_wordpiece(backend: Any, tokenizer_config: Mapping[str, Any]) -> None:
    """Set the normalizer of a BERT, unless it is one of another kind of which nothing is said."""
    said = NORMALIZER.keys() & tokenizer_config
    if said or state(backend.normalizer).get("type") == "BertNormalizer":
        normalizer = bert_normalizer(tokenizer_config)
        warn_of_defaults(backend.normalizer, normalizer, NORMALIZER, said)
        backend.normalizer = normalizer


def follow_byte_level(backend: Any, tokenizer_config: Mapping[str, Any]) -> None:
    """Set how a RoBERTa splits and where its tokens begin, in the same way."""
    said = SPLITTER.keys() & tokenizer_config
    if said or state(backend.pre_tokenizer).get("type") == "ByteLevel":
        splitter = byte_level_splitter(tokenizer_config)
        warn_of_defaults(backend.pre_tokenizer, splitter, SPLITTER, said)
        backend.pre_tokenizer = splitter
        if state(backend.post_processor).get("type") == "RobertaProcessing":
            names = special_token_names(tokenizer_config, ROBERTA)
            set_template(backend, "roberta", tokenizer_config, names)


def warn_of_defaults(old: Any, new: Any, settings: Mapping[str, str], said: Any) -> None:
    """Say which rules of tokenizer.json are not followed although no file contradicts them."""
    pairs = {n: (state(old).get(key), state(new)[key]) for n, key in settings.items()}
    changed = {n: value for n, (was, value) in pairs.items() if was not in (value, None)}
    for name in sorted(changed.keys() - said):
        what = f"tokenizer.json does not have {name} = {changed[name]}, the default of its class"
        warnings.warn(f"{what}, which is taken, as by transformers: write {name} into "
                      "tokenizer_config.json", stacklevel=2)  # fmt: skip


def refuse_contradiction(
    part: Any, settings: Mapping[str, str], tokenizer_config: Mapping[str, Any], named: str
) -> None:
    rules = state(part)
    for name, key in settings.items():
        if name in tokenizer_config and key in rules and tokenizer_config[name] != rules[key]:
            raise ModelError(
                f"{name} of tokenizer_config.json contradicts tokenizer.json, and what a tokenizer "
                f"of the class {named!r} makes of it is not known here",
                got=tokenizer_config[name],
                expected=rules[key],
                do="open and save the tokenizer once with transformers, or correct one of the two",
            )


def state(part: Any) -> dict[str, Any]:
    """Return what tokenizer.json says of a normalizer, pre-tokenizer or post-processor."""
    return json.loads(part.__getstate__()) if part is not None else {}
