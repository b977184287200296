"""`ClassLabel`: classes by number, and their names in all the ways in which data hold them."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minift.errors import ConfigError, DataError, nearest
from minift.files import local_path

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?")


class ClassLabel:
    """Integers 0 <= i < num_classes that have names; -1 and None mean unlabelled.

    A name is known in every spelling: "Pos", " pos"; 1, "1", 1.0, "1.0", True and "true".
    `names_file` is a text file with a name in each line.
    """

    dtype = "int64"

    def __init__(
        self, num_classes: int | None = None, names: Any = None,
        names_file: str | Path | None = None,
    ) -> None:  # fmt: skip
        if names_file is not None:
            lines = local_path(names_file).read_text(encoding="utf-8").split("\n")
            names = [line.strip() for line in lines if line.strip()]
        if names is None and num_classes is None:
            raise ConfigError("ClassLabel needs names= or num_classes=")
        self.names = list(map(str, range(num_classes or 0) if names is None else names))
        if num_classes not in (None, len(self.names)):
            got = f"num_classes={num_classes}, {len(self.names)} names"
            raise ConfigError("ClassLabel: num_classes and names disagree", got=got)
        if len(set(self.names)) != len(self.names):
            raise ConfigError("ClassLabel: a name appears twice", got=self.names)
        numbers = {name: number for number, name in enumerate(self.names)}
        self._numbers = {self.spelling(name): n for name, n in numbers.items()} | numbers

    @staticmethod
    def spelling(value: Any) -> Any:
        """Return what all spellings of a name share: text in lower case, or a number."""
        text = str(value).strip().casefold()
        text = {"false": "0", "true": "1"}.get(text, text)
        return float(text) if NUMBER.fullmatch(text) else text

    @property
    def num_classes(self) -> int:
        return len(self.names)

    def str2int(self, values: Any) -> Any:
        """Return a name's number; for an iterable of names a list of numbers.

        What no name is may be a class number, unless names are numbers but not 0, 1, 2, ...: where
        stars from 1 to 5 are names, 1 is the first class, and 0 is none.
        """
        if not isinstance(values, str) and isinstance(values, Iterable):
            return [self.str2int(value) for value in values]
        if values is None:
            return None
        value = self.spelling(values)
        found = self._numbers.get(str(values), self._numbers.get(value))
        if found is not None:
            return found
        names = any(type(name) is float and name != n for name, n in self._numbers.items())
        if value == -1 or (not names and value in range(self.num_classes)):
            return int(value)
        expected = nearest(str(values), self.names)
        do = "correct it, or name every class in the ClassLabel"
        raise DataError(f"invalid class label {values!r}", expected=expected, do=do)

    def int2str(self, values: Any) -> Any:
        """Return a number's name; for an iterable of numbers a list of names."""
        if not isinstance(values, str) and isinstance(values, Iterable):
            return [self.int2str(value) for value in values]
        if not 0 <= int(values) < self.num_classes:
            expected = f"0..{self.num_classes - 1}"
            raise DataError(f"no class has the number {values}", expected=expected)
        return self.names[int(values)]

    def encode(self, values: Iterable[Any]) -> dict[Any, int | None]:
        """Return {value: class number} for the different values of a column.

        Where names are numbers but not 0, 1, 2, ..., a column of numbers may hold names or class
        numbers: it is taken for what all of them can be.

        Raises:
            DataError: a value is no class, or all can be both.
        """
        numbers = [v for v in values if type(v) in (int, float) and v != -1]
        named = [self._numbers.get(self.spelling(v)) for v in numbers]
        counted = named != numbers and all(v in range(self.num_classes) for v in numbers)
        if counted and None not in named:
            do = "names: cast it to Value('string') first; class numbers: map them to names first"
            raise DataError("its numbers may be names or class numbers", got=numbers[:9], do=do)
        return {v: int(v) if counted and v is not None else self.str2int(v) for v in values}

    def renumber(self, values: Iterable[Any], other: "ClassLabel") -> dict[Any, int | None]:
        """Return {number in another ClassLabel: number here} of the classes with the same names.

        If none has the same name, the classes are renamed, and keep their numbers.

        Raises:
            DataError: a class of the other is none here.
        """
        same = any(self.spelling(name) in self._numbers for name in other.names)
        names = {v: (other if same else self).int2str(v) for v in values if v not in (None, -1)}
        return {v: self.str2int(names[v]) if v in names else v for v in values}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClassLabel) and self.names == other.names

    def __hash__(self) -> int:
        return hash(tuple(self.names))

    def __repr__(self) -> str:
        return f"ClassLabel(names={self.names!r})"
