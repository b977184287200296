"""Settings as the rows of a table: the fields of a dataclass, checked by their types and ranges.

`TrainingArguments` and the configurations of models are such tables.
"""

from collections.abc import Callable
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin

from minift.errors import ArgumentError, ConfigError


class Range(NamedTuple):
    """The values of its type that a setting may have: in words, and as a test."""

    expected: str
    fits: Callable[[Any], bool] = lambda value: True


def choice(*words: str) -> Range:
    return Range(f"{', '.join(words[:-1])} or {words[-1]}", words.__contains__)


AT_LEAST_1 = Range("a whole number, at least 1", lambda n: n >= 1)
NOT_NEGATIVE = Range("a finite number, 0 or more", lambda n: n >= 0)
# Bools come first, since Python takes True for an int.
TYPES = {bool: "True or False", int: "a whole number", float: "a finite number", str: "text"}
TYPES |= {dict: "a dict", list: "a list"}


def is_finite(n: Any) -> bool:
    return isinstance(n, int | float) and abs(n) < 1e20


def types_of(annotation: Any) -> list[type]:
    """Return the types in an annotation, for example [int, NoneType] of `int | None`."""
    members = get_args(annotation) if isinstance(annotation, UnionType) else [annotation]
    return [get_origin(one) or one for one in members]


def checked(name: str, value: Any, types: list[type], values: Range | None = None) -> Any:
    """Return a value for a setting; a whole number is an int, also where it was 8.0.

    Args:
        name: of the setting, as the user calls it.
        value: the user's.
        types: see `types_of`.
        values: which values of these types; None: all, but numbers are finite.

    Raises:
        ArgumentError: it is of another type. Text is no number and no switch: "false" is true.
        ConfigError: it is out of range.
    """
    values = values or Range(TYPES[types[0]])
    expected = values.expected + (", or None" if types[-1] is type(None) else "")
    what = f"{name} must be {expected}, got {value!r:.60}"
    if int in types and isinstance(value, float) and value.is_integer():
        value = int(value)
    its_type = next((t for t in TYPES if isinstance(value, t)), type(value))
    if its_type not in types and not (its_type is int and float in types):
        raise ArgumentError(what)
    number = its_type in (int, float)
    if value is not None and not ((is_finite(value) or not number) and values.fits(value)):
        raise ConfigError(what)
    return value
