"""One map: the input, the function, the arguments that shape the result, and the key of these."""

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from minift.data import cache
from minift.data.features import Features
from minift.data.fingerprint.functions import Unhashable
from minift.data.fingerprint.values import fingerprint
from minift.data.table import Table
from minift.errors import ConfigError

MAP_VERSION = 3  # part of every key: change it when the same input gives other bytes


@dataclass(frozen=True)
class MapSpec:
    """One map. Every field is part of its key, and nothing else is."""

    table: Table
    function: Callable[..., Any]
    batched: bool
    batch_size: int
    num_rows: int
    with_indices: bool
    with_rank: bool
    input_columns: tuple[str, ...] | None
    remove_columns: tuple[str, ...]
    fn_kwargs: Mapping[str, Any]
    features: Features | None

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        return getattr(self.function, "__qualname__", type(self.function).__name__)

    def describe(self, rows: range) -> str:
        """Return in words what is done with some rows."""
        return f"mapping rows {rows.start} to {rows.stop - 1} with {self.name}"


def map_key(spec: MapSpec, cache_key: str | None, new_fingerprint: str | None) -> str | None:
    """Return the result's key; None, with a warning, if the function has no digest.

    Args:
        spec: the map.
        cache_key: stands for the function.
        new_fingerprint: is the key.
    """
    if not cache.is_caching_enabled():
        return None
    if new_fingerprint is not None:
        if not re.fullmatch(r'[^<>:/\\|?*".][^<>:/\\|?*"]{0,63}', new_fingerprint):
            expected = '1 to 64 characters without <>:/\\|?*"'
            raise ConfigError("new_fingerprint is no name", got=new_fingerprint, expected=expected)
        return new_fingerprint
    values = {field.name: getattr(spec, field.name) for field in fields(spec)}
    values["table"] = (spec.table.fingerprint, spec.table.row_format)
    values["function"] = spec.function if cache_key is None else cache_key
    values["fn_kwargs"] = dict(sorted(spec.fn_kwargs.items()))
    values["features"] = None if spec.features is None else spec.features.to_dict()
    try:
        return fingerprint("map", MAP_VERSION, values)
    except Unhashable as error:
        text = f"{error}\n  the result of map({spec.name}) is not kept in the cache"
        warnings.warn(text, stacklevel=3)
        return None
