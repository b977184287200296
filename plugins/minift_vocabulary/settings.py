"""Settings of the files beside a tokenizer.json, which mean what they mean to transformers 5.

The tokenizer classes of BERT, DistilBERT, ELECTRA and RoBERTa follow tokenizer_config.json and,
where it is silent, their own defaults, whatever tokenizer.json says. The generic class
(PreTrainedTokenizerFast, TokenizersBackend) follows tokenizer.json alone. Of other classes it is
not known here what their settings do, so one that contradicts tokenizer.json is refused.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from minift.errors import ModelError
from minift_vocabulary.building import FILES, set_template
from minift_vocabulary.byte_level import byte_level_splitter
from minift_vocabulary.defaults import GENERIC, ROBERTA, class_prefix, tokenizer_family
from minift_vocabulary.tokens import add_later_tokens, special_tokens
from minift_vocabulary.wordpiece import bert_normalizer


class Part(NamedTuple):
    """A part of a tokenizer that settings change.

    Attributes:
        name: of the backend's attribute.
        type: what tokenizer.json calls it, for the families here.
        rules: {setting: its name in tokenizer.json}.
        make: returns the part that the settings describe.
    """

    name: str
    type: str
    rules: dict[str, str]
    make: Callable[[Mapping[str, Any]], Any]


NORMALIZER = Part(
    "normalizer",
    "BertNormalizer",
    {
        "do_lower_case": "lowercase",
        "strip_accents": "strip_accents",
        "tokenize_chinese_chars": "handle_chinese_chars",
    },
    bert_normalizer,
)
SPLITTER = Part(
    "pre_tokenizer", "ByteLevel", {"add_prefix_space": "add_prefix_space"}, byte_level_splitter
)


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
        splits = follow(backend, SPLITTER, tokenizer_config)
        if splits and state(backend.post_processor).get("type") == "RobertaProcessing":
            roles = special_tokens(tokenizer_config, ROBERTA)
            set_template(backend, family, tokenizer_config, roles)
    elif family in FILES:
        follow(backend, NORMALIZER, tokenizer_config)
    elif named:
        refuse_contradiction(backend, tokenizer_config, named)
    add_later_tokens(backend, folder, tokenizer_config)


def follow(backend: Any, part: Part, tokenizer_config: Mapping[str, Any]) -> bool:
    """Set a part, unless it is one of another type of which nothing is said."""
    old, said = state(getattr(backend, part.name)), part.rules.keys() & tokenizer_config
    if not said and old.get("type") != part.type:
        return False
    setattr(backend, part.name, part.make(tokenizer_config))
    new = state(getattr(backend, part.name))
    for name, rule in part.rules.items():
        if name not in said and old.get(rule) not in (new[rule], None):
            what = f"tokenizer.json does not have {name} = {new[rule]}, the default of its class"
            do = f"which is taken, as by transformers: write {name} into tokenizer_config.json"
            warnings.warn(f"{what}, {do}", stacklevel=2)
    return True


def refuse_contradiction(backend: Any, tokenizer_config: Mapping[str, Any], named: str) -> None:
    for part in (NORMALIZER, SPLITTER):
        rules = state(getattr(backend, part.name))
        for name in part.rules.keys() & tokenizer_config:
            got, expected = tokenizer_config[name], rules.get(part.rules[name], ...)
            if expected not in (got, ...):
                what = f"{name} of tokenizer_config.json contradicts tokenizer.json, and what a "
                what += f"tokenizer of the class {named!r} makes of it is not known here"
                do = "open and save it once with transformers, or correct one of the two files"
                raise ModelError(what, got=got, expected=expected, do=do)


def state(part: Any) -> dict[str, Any]:
    """Return what tokenizer.json says of a normalizer, pre-tokenizer or post-processor."""
    return json.loads(part.__getstate__()) if part is not None else {}
