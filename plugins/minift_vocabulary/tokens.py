"""Special tokens, and other tokens added to a tokenizer after its vocabulary was made.

In the files a token is a string, or an object with the options of an AddedToken. For example the
mask of most RoBERTas has lstrip, so that it includes the space before it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from minift.files import read_json
from minift_vocabulary.defaults import BERT, token_text
from minift_vocabulary.reading import bad_file, bad_setting, flag

REQUIRED = ("unk_token", "cls_token", "sep_token")  # every family here needs these roles


def special_tokens(
    tokenizer_config: Mapping[str, Any], defaults: Mapping[str, str]
) -> dict[str, AddedToken]:
    """Return the special token of each role; roles that the files lack have the defaults."""
    tokens = {role: tokenizer_config.get(role, name) for role, name in defaults.items()}
    return {
        role: as_added_token(token, special=True, what=role)
        for role, token in tokens.items()
        if token_text(token) or role in REQUIRED  # null: the tokenizer has no such token
    }


def add_tokens(
    backend: Any,
    tokenizer_config: Mapping[str, Any],
    numbered: Mapping[int, AddedToken],
    special: Iterable[AddedToken],
) -> None:
    """Add the tokens that a backend lacks; they are found in a text before it is split.

    Args:
        backend: the library's tokenizer. Only `added_tokens_decoder` changes the options of tokens
            that it has.
        tokenizer_config: may name special tokens without a role.
        numbered: {id: token}, see `numbered_tokens`.
        special: further special tokens.
    """
    if flag(tokenizer_config, "split_special_tokens", False):
        what = "split_special_tokens is not known here: the library forgets it in copies"
        raise bad_setting(what, True, "false: a special token in a text stays whole")
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    changed = numbered.values() if "added_tokens_decoder" in tokenizer_config else ()
    others = [*numbered.values(), *special, *extra_tokens(tokenizer_config)]
    tokens = {token.content: token for token in changed}
    for token in others:
        if token.content not in known:
            tokens.setdefault(token.content, token)
    backend.add_tokens(list(tokens.values()))
    for number, token in numbered.items():
        if backend.token_to_id(token.content) != number:  # the id of other weights
            what = "an added token does not get the id that its file gives"
            got = f"{token.content!r} with {backend.token_to_id(token.content)}"
            raise bad_file(what, got, number)


def add_later_tokens(backend: Any, folder: Path, tokenizer_config: Mapping[str, Any]) -> None:
    """Add the tokens that a tokenizer.json lacks, and files beside it name.

    These are numbered ones, special ones without a role, and those of roles that BERT lacks.
    """
    roles = {
        role: as_added_token(token, special=True, what=role)
        for role, token in tokenizer_config.items()
        if role.endswith("_token") and isinstance(token_text(token), str)
    }
    numbered = numbered_tokens(folder, tokenizer_config, roles.values())
    unusual = [token for role, token in roles.items() if role not in BERT]
    add_tokens(backend, tokenizer_config, numbered, unusual)


def numbered_tokens(
    folder: Path, tokenizer_config: Mapping[str, Any], special: Iterable[AddedToken]
) -> dict[int, AddedToken]:
    """Return {id: token} from `added_tokens_decoder`, or from the older added_tokens.json.

    Of the older file, those that are in `special` are special tokens; the newer one says it itself.
    """
    tokens, texts = tokenizer_config.get("added_tokens_decoder"), set[str]()
    if "added_tokens_decoder" not in tokenizer_config:
        ids = read_json(folder / "added_tokens.json")
        tokens = {str(number): token for token, number in ids.items()}
        texts = {token.content for token in special}
    if not isinstance(tokens, Mapping):
        expected = '{"id": {"content": token, ...}, ...}'
        raise bad_setting("added_tokens_decoder is no table of tokens", tokens, expected)
    if odd := [number for number in tokens if not number.isdecimal()]:
        raise bad_setting("an added token has no id", odd[0], "an integer")
    return {
        int(number): as_added_token(tokens[number], special=token_text(tokens[number]) in texts)
        for number in sorted(tokens, key=int)
    }


def extra_tokens(tokenizer_config: Mapping[str, Any]) -> list[AddedToken]:
    """Return the special tokens without a role, which files hold as a list or {name: token}."""
    extra = tokenizer_config.get("extra_special_tokens")
    extra = extra or tokenizer_config.get("additional_special_tokens") or []
    if not isinstance(extra, Mapping | list):
        raise bad_setting("the extra special tokens are no list", extra, "a list of tokens")
    tokens = extra.values() if isinstance(extra, Mapping) else extra
    return [as_added_token(token, special=True) for token in tokens]


def as_added_token(token: Any, special: bool, what: str = "an added token") -> AddedToken:
    """Return the library's object for a token that is found in a text before it is split.

    Args:
        token: text, or a JSON object with the text and options of an AddedToken.
        special: whether it is a special token, unless the object says so itself.
        what: it is, for messages.
    """
    options = token if isinstance(token, Mapping) else {}
    text = token_text(token)
    if not isinstance(text, str) or not text:
        expected = 'text such as "[CLS]", or {"content": text, ...}'
        raise bad_setting(f"{what} of the tokenizer has no text", token, expected)
    special = flag(options, "special", special)
    return AddedToken(
        text,
        single_word=flag(options, "single_word", False),
        lstrip=flag(options, "lstrip", False),
        rstrip=flag(options, "rstrip", False),
        normalized=flag(options, "normalized", not special),
        special=special,
    )
