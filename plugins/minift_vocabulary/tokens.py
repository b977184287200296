"""Special tokens, and tokens that were given to a tokenizer after its vocabulary was made.

A token is a string, or an object that says too whether it takes the spaces beside it, as the mask
of most RoBERTas does with the one before.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from minift.errors import ModelError
from minift.files import read_json
from minift.tokenizer_config import token_text
from minift_vocabulary.reading import flag

FRAMING = ("unk_token", "cls_token", "sep_token")  # no tokenizer here works without them


def special_names(said: Mapping[str, Any], usual: Mapping[str, str]) -> dict[str, str]:
    """{role: token}, by what the files say or else the family's usual names."""
    names = {}
    for role, name in usual.items():
        token = token_text(said.get(role, name))
        if not token and role not in FRAMING:
            continue  # said to have none
        if not isinstance(token, str):
            raise ModelError(
                f"{role} of the tokenizer is no token",
                got=repr(said[role]),
                expected=f"text such as {name!r}",
                do="correct tokenizer_config.json or special_tokens_map.json",
            )
        names[role] = token
    return names


def add_tokens(
    backend: Any, folder: Path, said: Mapping[str, Any], names: Mapping[str, str]
) -> None:
    """Have special tokens found in a text before it is cut, and add those that came later.

    A token that came later keeps what is said of it there, whatever its role says.
    """
    later = later_tokens(folder, said, names)
    tokens = {token.content: token for _, token in sorted(later.items())}
    refuse_lost(names, {**backend.get_vocab(), **tokens})
    for role, name in names.items():
        tokens.setdefault(name, added(said.get(role, name), special=True))
    for extra in extra_tokens(said):
        token = added(extra, special=True)
        tokens.setdefault(token.content, token)
    backend.add_tokens(list(tokens.values()))
    refuse_moved(backend, later)


def later_tokens(
    folder: Path, said: Mapping[str, Any], names: Mapping[str, str]
) -> dict[int, AddedToken]:
    """{id: token} from `added_tokens_decoder`, or the older added_tokens.json."""
    if "added_tokens_decoder" not in said:
        ids = read_json(folder / "added_tokens.json")
        special = set(names.values())
        return {as_id(number): added(token, token in special) for token, number in ids.items()}
    tokens = said["added_tokens_decoder"]
    if not isinstance(tokens, Mapping):
        raise ModelError(
            "added_tokens_decoder is no table of tokens",
            got=f"{tokens!r:.60}",
            expected='{"id": {"content": token, ...}, ...}',
            do="correct tokenizer_config.json",
        )
    return {as_id(number): added(token, special=False) for number, token in tokens.items()}


def extra_tokens(said: Mapping[str, Any]) -> list[Any]:
    """Special tokens without a role of their own: a list, or {name: token}."""
    extra = said.get("extra_special_tokens") or said.get("additional_special_tokens") or []
    if isinstance(extra, Mapping):
        return list(extra.values())
    if isinstance(extra, list):
        return extra
    raise ModelError(
        "the extra special tokens are no list",
        got=f"{extra!r:.60}",
        expected="a list of tokens",
        do="correct extra_special_tokens or additional_special_tokens",
    )


def added(token: Any, special: bool) -> AddedToken:
    """What the library calls a token that is found in a text before that is cut.

    Args:
        token: text, or an object that may say the options of an AddedToken.
        special: unless the object says it.
    """
    options = token if isinstance(token, Mapping) else {}
    text = token_text(token)
    if not isinstance(text, str) or not text:
        raise ModelError(
            "one of the tokenizer's added or special tokens has no text",
            got=repr(token),
            expected='text, or {"content": text, ...}',
            do="correct tokenizer_config.json or the files beside it",
        )
    special = flag(options, "special", special)
    return AddedToken(
        text,
        single_word=flag(options, "single_word", False),
        lstrip=flag(options, "lstrip", False),
        rstrip=flag(options, "rstrip", False),
        normalized=flag(options, "normalized", not special),
        special=special,
    )


def as_id(number: Any) -> int:
    """An id, which is text where it is the key of a JSON object."""
    if isinstance(number, bool) or not str(number).isdecimal():
        raise ModelError(
            "an added token has no id",
            got=repr(number),
            expected="an integer",
            do="correct added_tokens_decoder or added_tokens.json",
        )
    return int(number)


def refuse_lost(names: Mapping[str, str], known: Mapping[str, Any]) -> None:
    """A special token without a place in the vocabulary has no weights in the model."""
    lost = [name for name in names.values() if name not in known]
    if lost:
        raise ModelError(
            "special tokens are not in the vocabulary",
            got=f"no {', '.join(lost)}",
            expected=", ".join(f"{role} {name}" for role, name in names.items()),
            do="take all files from one model, or name its tokens in tokenizer_config.json",
        )


def refuse_moved(backend: Any, later: Mapping[int, AddedToken]) -> None:
    """The library numbers new tokens itself; another id would mean another token's weights."""
    for number, token in sorted(later.items()):
        found = backend.token_to_id(token.content)
        if found != number:
            raise ModelError(
                "an added token does not get the id that it is said to have",
                got=f"{token.content!r} with {found}",
                expected=number,
                do="take all files from one model, and see that no token is missing",
            )
