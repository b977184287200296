"""Special tokens, and other tokens added to a tokenizer after its vocabulary was made.

In the files a token is a string, or an object with the options of an AddedToken. For example the
mask of most RoBERTas has lstrip, so that it includes the space before it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from minift.errors import ModelError
from minift.files import read_json
from minift_vocabulary.defaults import BERT, token_text
from minift_vocabulary.reading import flag

REQUIRED = ("unk_token", "cls_token", "sep_token")  # every family here needs these roles


def special_token_names(
    tokenizer_config: Mapping[str, Any], defaults: Mapping[str, str]
) -> dict[str, str]:
    """Return {role: text} of the special tokens; roles that the files lack have the defaults."""
    names = {}
    for role, name in defaults.items():
        token = token_text(tokenizer_config.get(role, name))
        if not token and role not in REQUIRED:
            continue  # null: the tokenizer has no such token
        if not isinstance(token, str):
            raise ModelError(
                f"{role} of the tokenizer is no token",
                got=repr(tokenizer_config[role]),
                expected=f"text such as {name!r}",
                do="correct tokenizer_config.json or special_tokens_map.json",
            )
        names[role] = token
    return names


def add_tokens(
    backend: Any, folder: Path, tokenizer_config: Mapping[str, Any], names: Mapping[str, str]
) -> None:
    """Add special and other tokens, which are found in a text before it is split.

    The options in `added_tokens_decoder` win over those beside the token's role.
    """
    refuse_split_special(tokenizer_config)
    numbered = numbered_tokens(folder, tokenizer_config, names)
    tokens = {token.content: token for _, token in sorted(numbered.items())}
    refuse_special_without_id(names, {**backend.get_vocab(), **tokens})
    for role, name in names.items():
        tokens.setdefault(name, as_added_token(tokenizer_config.get(role, name), special=True))
    for extra in extra_tokens(tokenizer_config):
        token = as_added_token(extra, special=True)
        tokens.setdefault(token.content, token)
    backend.add_tokens(list(tokens.values()))
    refuse_other_ids(backend, numbered)


def add_later_tokens(backend: Any, folder: Path, tokenizer_config: Mapping[str, Any]) -> None:
    """Add the tokens that a tokenizer.json lacks, and files beside it name.

    These are numbered ones, special ones without a role, and those of roles that BERT does not
    have. Only `added_tokens_decoder` changes the options of tokens that are there.
    """
    refuse_split_special(tokenizer_config)
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    texts = {key: token_text(value) for key, value in tokenizer_config.items()}
    names = {k: v for k, v in texts.items() if k.endswith("_token") and isinstance(v, str)}
    numbered = numbered_tokens(folder, tokenizer_config, names)
    tokens = {token.content: token for _, token in sorted(numbered.items())}
    if "added_tokens_decoder" not in tokenizer_config:
        tokens = {text: token for text, token in tokens.items() if text not in known}
    unusual = [tokenizer_config[role] for role in names if role not in BERT]
    for special in [*unusual, *extra_tokens(tokenizer_config)]:
        token = as_added_token(special, special=True)
        if token.content not in known:
            tokens.setdefault(token.content, token)
    backend.add_tokens(list(tokens.values()))
    refuse_other_ids(backend, numbered)


def refuse_split_special(tokenizer_config: Mapping[str, Any]) -> None:
    """Raise an error for a setting that the library forgets when a tokenizer is copied."""
    if flag(tokenizer_config, "split_special_tokens", False):
        raise ModelError(
            "split_special_tokens of the tokenizer is not known here",
            got="true",
            expected="false: a special token in a text stays whole",
            do="remove it from tokenizer_config.json",
        )


def numbered_tokens(
    folder: Path, tokenizer_config: Mapping[str, Any], names: Mapping[str, str]
) -> dict[int, AddedToken]:
    """Return {id: token} from `added_tokens_decoder`, or from the older added_tokens.json."""
    if "added_tokens_decoder" not in tokenizer_config:
        ids = read_json(folder / "added_tokens.json")
        special = set(names.values())
        return {
            as_id(number): as_added_token(token, token in special) for token, number in ids.items()
        }
    tokens = tokenizer_config["added_tokens_decoder"]
    if not isinstance(tokens, Mapping):
        raise ModelError(
            "added_tokens_decoder is no table of tokens",
            got=f"{tokens!r:.60}",
            expected='{"id": {"content": token, ...}, ...}',
            do="correct tokenizer_config.json",
        )
    return {as_id(number): as_added_token(token, special=False) for number, token in tokens.items()}


def extra_tokens(tokenizer_config: Mapping[str, Any]) -> list[Any]:
    """Return the special tokens without a role, which files hold as a list or {name: token}."""
    extra = tokenizer_config.get("extra_special_tokens")
    extra = extra or tokenizer_config.get("additional_special_tokens") or []
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


def as_added_token(token: Any, special: bool) -> AddedToken:
    """Return the library's object for a token that is found in a text before it is split.

    Args:
        token: text, or a JSON object with the text and options of an AddedToken.
        special: whether it is a special token, unless the object says so itself.
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
    """Return an id as an integer; as the key of a JSON object it is text."""
    if isinstance(number, bool) or not str(number).isdecimal():
        raise ModelError(
            "an added token has no id",
            got=repr(number),
            expected="an integer",
            do="correct added_tokens_decoder or added_tokens.json",
        )
    return int(number)


def refuse_special_without_id(names: Mapping[str, str], known: Mapping[str, Any]) -> None:
    """Raise an error for a special token without an id, and so without weights in the model."""
    missing = [name for name in names.values() if name not in known]
    if missing:
        raise ModelError(
            "special tokens are not in the vocabulary",
            got=f"no {', '.join(missing)}",
            expected=", ".join(f"{role} {name}" for role, name in names.items()),
            do="take all files from one model, or name its tokens in tokenizer_config.json",
        )


def refuse_other_ids(backend: Any, numbered: Mapping[int, AddedToken]) -> None:
    """Raise an error if the library gave a token another id, which is that of other weights."""
    for number, token in sorted(numbered.items()):
        token_id = backend.token_to_id(token.content)
        if token_id != number:
            raise ModelError(
                "an added token does not get the id that its file gives",
                got=f"{token.content!r} with {token_id}",
                expected=number,
                do="take all files from one model, and see that no token is missing",
            )
