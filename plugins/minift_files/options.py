"""What `load_dataset` may be told about files, checked before any file is opened."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from minift.data.features import Features
from minift.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """How to read files; None means "as the format usually is"."""

    encoding: str | None = None
    delimiter: str = ""
    quotes: bool | None = None
    column_names: Sequence[str] | None = None
    na_values: Literal[None, "pandas"] = None
    on_bad_lines: Literal["error", "skip"] = "error"
    field: str | None = None
    keep_linebreaks: bool = False
    sample_by: Literal["line", "paragraph", "document"] = "line"
    columns: Sequence[str] | None = None
    filters: Any = None
    features: Features | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, known = getattr(self, field.name), get_args(field.type)
            if get_origin(field.type) is Literal and value not in known:
                raise ConfigError(f"no such {field.name}", got=repr(value), expected=known)
        delimiter: Any = self.delimiter
        one = isinstance(delimiter, str) and len(delimiter.encode()) <= 1
        if not one or delimiter in ('"', "\n", "\r"):
            expected = "one character of ASCII, not a quote or a line's end"
            do = 'put another between the columns, for example a tab, and pass sep="\\t"'
            raise ConfigError("no such delimiter", got=repr(delimiter), expected=expected, do=do)
        names = list(self.column_names or ())
        if len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
            expected = "different names, one for each column, as text"
            raise ConfigError("column_names= does not name columns", got=names, expected=expected)
        try:
            "".encode(self.encoding or "utf-8")
        except (LookupError, TypeError):
            expected = '"utf-8", "utf-16", "latin-1", "cp1252" or another that Python knows'
            raise ConfigError(
                "no such encoding", got=repr(self.encoding), expected=expected
            ) from None
