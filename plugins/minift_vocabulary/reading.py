"""Read vocabulary files and settings; the errors of a file and of a setting."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minift.errors import ModelError


def bad_file(what: str, got: object, expected: object) -> ModelError:
    """Return the error of a vocabulary file that is not as its model has it."""
    return ModelError(what, got=got, expected=expected, do="copy all files again, from one model")


def bad_setting(what: str, got: object, expected: object) -> ModelError:
    """Return the error of an entry of tokenizer_config.json or of an older file beside it."""
    do = "correct it in tokenizer_config.json or in the file beside it that has it"
    return ModelError(what, got=f"{got!r:.60}", expected=expected, do=do)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file. Only a newline ends one: other separators may be tokens."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_file(f"{path} is not text in UTF-8", error, "the file as it was saved") from None
    return [line.rstrip() for line in text.removesuffix("\n").split("\n")]


def flag(settings: Mapping[str, Any], name: str, default: bool | None) -> Any:
    """Return a setting that is true or false; null is allowed only where it is the default."""
    value = settings.get(name, default)
    if value is not default and not isinstance(value, bool):
        what = f"{name} of the tokenizer is neither true nor false"
        raise bad_setting(what, value, "true or false")
    return value
