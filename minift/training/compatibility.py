"""Names from elsewhere, of arguments and of a Trainer: other spellings, and absent ones with why.

The only file of the core that may name a backend: `no_cuda` is an older name of `use_cpu`.
"""

import ast
import os
import re
from collections.abc import Collection, Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from minift.errors import ArgumentError, nearest

# {older or other spelling: today's name}
ALIASES: dict[str, str] = {
    "evaluation_strategy": "eval_strategy",
    "no_cuda": "use_cpu",
    "warmup_ratio": "warmup_steps",  # a value below 1 is a share of all steps
    "group_by_length": "train_sampling_strategy",  # as it was before there were three of them
}

# What switches an argument of transformers off that minift does not have: it asks for what minift
# does anyway, and is accepted, like those that name it. Which arguments these are, and why, is a
# table of the page FROM_HUGGING_FACE.md.
PAGE = Path(__file__).parents[1] / "FROM_HUGGING_FACE.md"
OFF_VALUES: tuple[Any, ...] = (None, False, "none", "", [], ["none"])


@cache
def page_table(header: str) -> dict[str, list[str]]:
    """Return {name: the other cells of its row} of a table of that page, found by its header."""
    table = PAGE.read_text(encoding="utf-8").partition(f"\n{header}\n")[2].partition("\n\n")[0]
    rows = [line[2:-2].split(" | ") for line in table.splitlines()[1:]]
    return {name: cells for names, *cells in rows for name in re.findall(r"`(\w+)`", names)}


def absent_arguments() -> dict[str, list[str]]:
    """Return {argument that minift does not have: [why, values that name what minift does]}."""
    return page_table("| argument | minift | accepted |")


def is_left_out(name: str, value: Any) -> bool:
    """Return whether an argument changes nothing, as scripts that spell defaults out pass it."""
    if name in ALIASES or name not in absent_arguments():
        return name in ALIASES and value is None
    accepted = re.findall(r"`([^`]+)`", absent_arguments()[name][1])
    return to_plain(value) in (*OFF_VALUES, *map(ast.literal_eval, accepted))


def current_setting(name: str, value: Any) -> tuple[str, Any]:
    """Return today's name of an argument, and its value under that name as one of Python's own."""
    value = to_plain(value)
    if name == "group_by_length" and isinstance(value, bool):
        value = "group_by_length" if value else "random"
    if name == "warmup_ratio" and not (isinstance(value, int | float) and value < 1):
        raise ArgumentError(f"{name} must be a number from 0 to below 1, got {value!r}")
    return ALIASES.get(name, name), value


def to_plain(value: Any) -> Any:
    """Return a value in Python's own types, as JSON has them, also inside of dicts and lists.

    Numbers and arrays of numpy's and torch's become Python's, keys and paths text, and a member of
    an Enum is its value.
    """
    if isinstance(value, Mapping):
        return {str(to_plain(name)): to_plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    value = value.value if isinstance(value, Enum) else value
    return value.tolist() if hasattr(value, "tolist") else value


def unknown_argument(name: str, names: Collection[str]) -> ArgumentError:
    """Return the error about a name that minift does not have: why, or which is the nearest."""
    what, expected = f"TrainingArguments has no argument {name!r}", nearest(name, names)
    why = absent_arguments().get(name)
    do = "leave it out" if why else "see TrainingArguments for all names"
    return ArgumentError(what, got=why and why[0], expected=expected, do=do)


# ------------------------------------- what a subclass may define, and what may be assigned to it
#
# Everything else that transformers' Trainer has is refused by its name: code that is never called,
# or a value that is never read, would train something else than its author believes.


def absent_names() -> dict[str, str]:
    """Return {name of transformers' Trainer: what to use instead}, from the page for readers."""
    return {name: cells[0] for name, cells in page_table("| refused | use |").items()}


def check_methods(cls: type, base: type, attributes: tuple[str, ...]) -> None:
    """Refuse a subclass of Trainer with a method that would never be called.

    Args:
        cls: the subclass.
        base: Trainer.
        attributes: what a Trainer sets on itself, over a method of the same name.

    Raises:
        ArgumentError: it has one; the message says what to use instead.
    """
    for owner in cls.__mro__[: cls.__mro__.index(base)]:
        for name in vars(owner):
            do = f"pass {name}= to it" if name in attributes else absent_names().get(name)
            if do is not None:
                raise ArgumentError(f"{owner.__name__}.{name} would never be called", do=do)


def override_of(trainer: Any, base: type, name: str) -> Any:
    """Return a method that a subclass defines, or that was assigned; None if it is Trainer's."""
    method = getattr(trainer, name)
    return None if getattr(method, "__func__", None) is getattr(base, name) else method


def check_attribute(trainer: Any, base: type, name: str) -> None:
    """Refuse to set an attribute that nothing would read. A subclass may have others of its own.

    Raises:
        ArgumentError: transformers' Trainer has it and minift's has not; or it is misspelt.
    """
    if hasattr(trainer, name) or (type(trainer) is not base and name not in absent_names()):
        return
    known = [one for one in dir(trainer) if not one.startswith("_")]
    what = f"a Trainer has no attribute {name!r} to set"
    raise ArgumentError(what, expected=nearest(name, known), do=absent_names().get(name))
