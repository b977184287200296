"""Errors as part of the product: what was got, what was expected, what to do.

Every error that a user can cause is a `MiniftError`. The command line prints it without a
traceback and exits with code 2; `--debug` shows the traceback. Each subclass is also the built-in
exception that a Python programmer would expect (`ColumnError` is a `KeyError` and a `ValueError`),
so that code written against the Hugging Face libraries keeps catching what it caught.
"""

import bisect
import difflib
from collections.abc import Callable, Iterable
from typing import Any


class MiniftError(Exception):
    """A problem, what was got, what was expected and what to do, one line each.

    Args:
        what: the problem, in one sentence.
        got: the value that caused it.
        expected: a value that would have been right.
        do: what to type or change.
    """

    def __init__(
        self, what: str, *, got: object = None, expected: object = None, do: str | None = None
    ) -> None:
        self.what, self.got, self.expected, self.do = what, got, expected, do
        super().__init__(what)

    def __str__(self) -> str:  # KeyError would print the repr of the message
        details = {"got:": self.got, "expected:": self.expected, "do this:": self.do}
        lines = [f"  {name:<10}{text}" for name, text in details.items() if text is not None]
        return "\n".join([self.what, *lines])


class DataError(MiniftError, ValueError):
    """A file, a row or a value is not what it should be."""


class MissingFileError(MiniftError, FileNotFoundError):
    """A file, folder or data set does not exist."""


class WriteError(MiniftError, OSError):
    """A file or folder cannot be written; what was there before is."""


class ColumnError(DataError, KeyError):
    """A column is not in the dataset."""


class ArgumentError(MiniftError, TypeError):
    """An argument does not exist or has the wrong type."""


class ConfigError(MiniftError, ValueError):
    """Arguments that do not fit each other, the data or the model."""


class ModelError(MiniftError, ValueError):
    """A model folder, its configuration or its weights cannot be used."""


class PluginError(MiniftError):
    """A plugin, a hook or a name that plugins provide."""


class DeviceError(MiniftError, RuntimeError):
    """A device is not available, or a process that trains along was lost."""


class TrainingError(MiniftError, RuntimeError):
    """Training cannot go on, for example because the loss is not finite."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name nearest to a mistyped one, or the list of all if none is near."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"{close[0]!r} (the nearest of {len(known)})"
    return ", ".join(map(repr, known)) or "nothing: there are none"


# What Python and Arrow raise for a value that does not fit; Arrow's errors are among these.
MISFITS = (TypeError, ValueError, OverflowError, AttributeError, NotImplementedError)


def convert_rows(what: str, values: Any, convert: Callable[[Any], Any], start: int = 0) -> Any:
    """Return `convert(values)`; its error names the first row, counted from `start`, that fails."""

    def fails(row: int) -> bool:
        try:
            convert(values[: row + 1])
        except MISFITS:
            return True
        return False

    try:
        return convert(values)
    except MISFITS as error:
        row = bisect.bisect_left(range(len(values) - 1), True, key=fails)
        value = getattr(values[row], "as_py", lambda: values[row])() if len(values) else None
        got = f"row {start + row}: {value!r:.60} ({type(value).__name__})"
        half = "row.encode('utf-8', 'ignore').decode() leaves out half characters"
        do = half if isinstance(error, UnicodeEncodeError) else "change or leave out this row"
        do = getattr(error, "do", None) or do
        reason, expected = getattr(error, "what", error), getattr(error, "expected", None)
        raise DataError(f"{what}: {reason}", got=got, expected=expected, do=do) from None
