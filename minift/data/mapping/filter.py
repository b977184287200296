"""`filter_mask`: for each row whether a function keeps it, found and kept like any map's result."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minift.data.features import Features, Value
from minift.data.mapping.cache import map_table
from minift.data.table import Table
from minift.errors import DataError


class FilterFunction:
    """A filter's function as one for `map`: its answers are a column."""

    def __init__(self, function: Callable[..., Any], batched: bool) -> None:
        self.function, self.batched = function, batched
        self.__qualname__ = f"filter({getattr(function, '__qualname__', function)})"

    def __call__(self, *args: Any, **options: Any) -> dict[str, Any]:
        # A copy, so that what the function assigns to a row changes nothing.
        first = dict(args[0]) if isinstance(args[0], dict) else args[0]
        answer = self.function(first, *args[1:], **options)
        if not self.batched:
            return {"keep": bool(answer)}
        batch = next(iter(first.values()), ()) if isinstance(first, dict) else first
        answers = np.asarray(answer if hasattr(answer, "__array__") else list(answer), bool)
        if answers.shape != (len(batch),):
            raise DataError(
                f"filter got {answers.size} answers for {len(batch)} rows",
                expected="one True or False for each row",
            )
        return {"keep": answers}


def filter_mask(
    table: Table, function: Callable[..., Any], *, batched: bool = False, **options: Any
) -> np.ndarray:
    """Return which rows `function` keeps, bool of shape (len(table),).

    Args:
        table: the input.
        function: gets a row or a batch, and returns one boolean, or one for each row.
        batched: as for `map_table`.
        options: any others of `map_table`.
    """
    answers = map_table(
        table,
        FilterFunction(function, batched),
        batched=batched,
        remove_columns=table.column_names,
        features=Features(keep=Value("bool")),
        **options,
    )
    return answers.to_arrow().column("keep").to_numpy()
