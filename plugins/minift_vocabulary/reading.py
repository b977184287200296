"""Read the lines of a vocabulary file, and settings that are true or false."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minift.errors import ModelError


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file. Only a newline ends one: other separators may be tokens."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{path} is not text in UTF-8",
            got=error,
            expected="the file as it was saved",
            do="copy it from the model again",
        ) from None
    return [line.rstrip() for line in text.removesuffix("\n").split("\n")]


def flag(settings: Mapping[str, Any], name: str, default: bool | None) -> Any:
    """Return a setting that is true or false; null is allowed only where it is the default."""
    value = settings.get(name, default)
    if value is not default and not isinstance(value, bool):
        raise ModelError(
            f"{name} of the tokenizer is neither true nor false",
            got=repr(value),
            expected="true or false",
            do="correct tokenizer_config.json",
        )
    return value
