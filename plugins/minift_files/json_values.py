"""The values in a JSON file, parsed as its text arrives: one after the other, or in one array."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from minift.errors import DataError

SPACE = re.compile(r"[ \t\r\n]*")
DECODER = json.JSONDecoder()
TOKEN = 24  # no number, word or escape that is cut off has more characters
Quick = Callable[[bytes], pa.Table | None]


class Values:
    """Parses a text that arrives in pieces.

    Attributes:
        array: whether an array holds all values; None before the first.
        closed: whether this array has ended.
        line, column: where the text that is not parsed yet begins, from 0.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.array: bool | None = None
        self.closed = False
        self.line = self.column = 0

    def read(self, blocks: Iterator[bytes], quick: Quick) -> Iterator[list[Any] | pa.Table]:
        """Yield lists of values, or the tables that `quick` makes of whole lines.

        Args:
            blocks: the text in UTF-8.
            quick: makes a table of lines that are one object each, or returns None.
        """
        rest, wait = b"", 0
        for block in blocks:
            rest += block
            if len(rest) < wait:
                continue
            cut = rest.rfind(b"\n") + 1 or len(rest)
            table = quick(rest[:cut]) if self.array is False else None
            if table is None:
                values, left = self.parse(rest[:cut].decode(), False)
                yield values
                # A long value is parsed again from its beginning, but not with each block.
                rest = left.encode() + rest[cut:]
                wait = 0 if values else 2 * len(rest)
            else:
                self.line, self.column = self.line + table.num_rows, 0
                yield table
                rest = rest[cut:]
        yield self.parse(rest.decode(), True)[0]

    def parse(self, text: str, final: bool) -> tuple[list[Any], str]:
        """Return the values of a text, and what is left of it: the beginning of another value."""
        values: list[Any] = []
        start = skip_space(text, 0)
        if self.array is None and start < len(text):
            self.array = text[start] == "["
            start = skip_space(text, start + 1) if self.array else start
            if self.array and text[start : start + 1] == "]":
                self.closed, start = True, skip_space(text, start + 1)
        while start < len(text):
            try:
                if self.closed:
                    raise json.JSONDecodeError("Extra data", text, start)
                value, end = DECODER.raw_decode(text, start)
                end = skip_space(text, end)
                unfinished = self.array or isinstance(value, int | float)
                if end == len(text) and unfinished and not final:  # by a comma, or more digits
                    break
                if self.array:
                    end = self.next_item(text, end)
            except json.JSONDecodeError as error:
                cut_off = error.pos >= len(text) - TOKEN or "Unterminated" in error.msg
                if cut_off and not final:
                    break
                raise self.syntax_error(text, error) from None
            except RecursionError:
                what = f"{self.path}:{self.line + 1}: lists or objects are nested too deeply"
                raise DataError(what, do="leave this value out") from None
            values.append(value)
            start = end
        self.pass_over(text[:start])
        return values, text[start:]

    def next_item(self, text: str, end: int) -> int:
        """Return the place behind the comma, or behind the bracket, that follows an item."""
        mark = text[end : end + 1]
        if mark not in ("]", ","):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, end)
        self.closed, start = mark == "]", skip_space(text, end + 1)
        if text[start : start + 1] == "]" and not self.closed:
            raise json.JSONDecodeError("Expecting value", text, start)
        return start

    def pass_over(self, text: str) -> None:
        """Move the place where the text begins that is not parsed yet."""
        lines = text.count("\n")
        self.line += lines
        self.column = len(text) - text.rfind("\n") - 1 + (0 if lines else self.column)

    def syntax_error(self, text: str, error: json.JSONDecodeError) -> DataError:
        """Return an error that names line and column of the file."""
        column = error.colno + (self.column if error.lineno == 1 else 0)
        return DataError(
            f"{self.path}:{self.line + error.lineno}:{column}: not JSON: {error.msg}",
            got=f"{text.split(chr(10))[error.lineno - 1]!r:.80}",
            expected="objects one after the other, or one array of them",
            do="correct this place of the file",
        )


def skip_space(text: str, start: int) -> int:
    """Return the first place from `start` on that is not blank."""
    match = SPACE.match(text, start)
    return match.end() if match else start
