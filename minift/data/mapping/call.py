"""One call of `map`: its key, its function called on a batch, the result as Arrow columns.

A row of the result is `{**input, **returned}`: what the function returns replaces or follows the
input's columns, in order of appearance. If it returns a key for some rows only, the others keep the
input's value, or get None if the input has no such column. Keys that the function assigns to its
argument count as returned, and keys that it pops from it are dropped. It is an error to return None
for some rows and a dict for others, or another number of rows while columns of the input are kept.
A column keeps its type if the new values fit into it.
"""

import re
import warnings
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from minift.data.features import LISTS, ClassLabel, Features, arrow_type, as_array, cast_array
from minift.data.fingerprint.functions import Unhashable
from minift.data.fingerprint.values import fingerprint
from minift.data.formatting import rows_of, to_list
from minift.data.ragged import BYTES, Ragged, Runs
from minift.data.table import Table
from minift.errors import ArgumentError, ConfigError, DataError

# Columns of lists of 0 and 1, of a byte each, as in `datasets`.
BYTE_LISTS = ("attention_mask", "token_type_ids", "special_tokens_mask")

MAP_VERSION = 6  # part of every key: change it when the same input gives other bytes

Returned = tuple[dict[str, Any], Set[str]]  # columns, or values of one row; names that were popped


@dataclass(frozen=True)
class MapSpec:
    """The arguments of one call of `map`. The key is computed from all of them and nothing else."""

    table: Table
    function: Callable[..., Any]
    batched: bool
    batch_size: int
    rows: range
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
    """Return the result's key in the cache, or None if the result cannot be cached.

    That is so, with a warning, if the function has no digest.

    Args:
        spec: the arguments of `map`.
        cache_key: if given, stands for the function in the key.
        new_fingerprint: if given, is the key.
    """
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


@dataclass(frozen=True)
class MappedRows:
    """The result of the function for some rows.

    Attributes:
        rows: numbers of the input's rows.
        columns: what the function returned, as an Arrow table; None if None for all rows.
        popped: names of the columns that it dropped.
    """

    rows: range
    columns: Any
    popped: Set[str] = frozenset()

    @property
    def names(self) -> list[str]:
        return [] if self.columns is None else self.columns.column_names

    @property
    def num_results(self) -> int:
        """How many rows they become."""
        return self.columns.num_rows if self.columns is not None and self.names else len(self.rows)

    def untouched(self, spec: MapSpec) -> list[str]:
        """Return the input's columns that the function neither returned nor dropped."""
        gone = {*spec.remove_columns, *self.popped, *self.names}
        return [name for name in spec.table.features if name not in gone]


def map_batch(spec: MapSpec, rows: range, rank: int | None) -> MappedRows:
    """Call the function: once if it is batched, else once for each row."""
    batch = spec.table.read(rows, spec.input_columns or spec.table.column_names)
    returned = (call_with_batch if spec.batched else call_with_rows)(spec, batch, rows, rank)
    if returned is None:
        return MappedRows(rows, None)
    arrays = {name: to_arrow(spec, name, values) for name, values in returned[0].items()}
    runs = {name: Runs.found_in(array) for name, array in arrays.items()}
    arrays |= {name: found.encode() for name, found in runs.items() if found}
    mapped = MappedRows(rows, pa.table(arrays), returned[1])
    untouched = mapped.untouched(spec)
    if untouched and mapped.num_results != len(rows):
        what = f"map({spec.name}) returned {mapped.num_results} rows for {len(rows)}"
        what += f", but the columns {', '.join(untouched)} keep {len(rows)}"
        raise DataError(what, do=f"pass remove_columns={untouched!r}")
    return mapped


def call_with_batch(spec: MapSpec, batch: Any, rows: range, rank: int | None) -> Returned | None:
    """Call the function with a batch; it returns columns of equal length."""
    argument = copy_of(batch)
    result = spec.function(*arguments(spec, argument, list(rows), rank), **spec.fn_kwargs)
    if result is None:
        return None
    if isinstance(result, pa.Table):
        result = {name: result.column(name) for name in result.column_names}
    if not isinstance(result, Mapping):
        raise not_a_dict(spec, result, rows)
    result = result.data if isinstance(result, UserDict) else result  # as arrays
    columns, popped = with_effects(batch, argument, result)
    lengths = {}
    for name, values in columns.items():
        is_scalar = isinstance(values, str | bytes | Mapping | set)
        if is_scalar or not getattr(values, "shape", (1,)) or not hasattr(values, "__len__"):
            problem = f"map({spec.name}, batched=True) must return a list for each column"
            raise ArgumentError(problem, got=f"{name!r}: {values!r:.80}")
        lengths[name] = len(values)
    if len(set(lengths.values())) > 1:
        raise DataError(f"map({spec.name}) returned columns of different lengths", got=lengths)
    return columns, popped


def call_with_rows(spec: MapSpec, batch: Any, rows: range, rank: int | None) -> Returned | None:
    """Call the function with each row of a batch; its dicts become columns."""
    results: list[Any] = []
    for position, row in zip(rows, rows_of(batch, len(rows)), strict=True):
        argument = copy_of(row)
        result = spec.function(*arguments(spec, argument, position, rank), **spec.fn_kwargs)
        if result is not None and not isinstance(result, Mapping):
            raise not_a_dict(spec, result, position)
        results.append(None if result is None else with_effects(row, argument, result))
    if all(result is None for result in results):
        return None
    if None in results:
        raise none_for_some(spec, rows[results.index(None)])
    names, dropped = names_of_all(results)
    columns = {}
    for name in names:
        before = [None] * len(rows)
        known = name in spec.table.features and name not in spec.remove_columns
        if known and any(name not in values for values, _ in results):
            before = to_list(spec.table.arrow_column(name, rows))
        columns[name] = [
            values.get(name, None if name in popped else old)
            for (values, popped), old in zip(results, before, strict=True)
        ]
    return columns, dropped


def names_of_all(results: Sequence[tuple[Iterable[str], Set[str]]]) -> tuple[list[str], Set[str]]:
    """Return the names of columns that the results of several rows or batches have together.

    Args:
        results: for each the columns that it has, and those that it dropped.

    Returns:
        All that are not dropped by all of them; and those that are.
    """
    popped = [set(names) for _, names in results]
    dropped = set.intersection(*popped)
    names = [name for names, _ in results for name in names]
    return list(dict.fromkeys([*names, *sorted(set.union(*popped) - dropped)])), dropped


def arguments(spec: MapSpec, argument: Any, position: Any, rank: int | None) -> list[Any]:
    """Return the function's positional arguments."""
    names = spec.input_columns
    first = [argument] if names is None else [argument[name] for name in names]
    return [*first, *[position] * spec.with_indices, *[rank] * spec.with_rank]


def copy_of(argument: Any) -> Any:
    """Return a copy for the function, so that what it does to its argument can be seen."""
    if not isinstance(argument, dict):
        return argument
    return {name: v[:] if type(v) is list else v for name, v in argument.items()}


def with_effects(before: Any, after: Any, result: Mapping[str, Any]) -> Returned:
    """Return the result with what the function assigned to its argument, and what it popped."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return dict(result), set()
    assigned = {n: v for n, v in after.items() if n not in before or differs(v, before[n])}
    return {**assigned, **result}, set(before) - set(after) - set(result)


def differs(value: Any, before: Any) -> bool:
    """Return whether a value is another object, or a list that got other items."""
    if type(value) is not list or type(before) is not list:
        return value is not before
    return len(value) != len(before) or any(a is not b for a, b in zip(value, before, strict=True))


def not_a_dict(spec: MapSpec, result: Any, rows: Any) -> ArgumentError:
    got = f"{type(result).__name__} for row(s) {rows}"
    return ArgumentError(f"map({spec.name}) must return a dict", got=got)


def none_for_some(spec: MapSpec, row: int) -> DataError:
    problem = f"map({spec.name}) returned None for row {row} and a dict for others"
    do = "return {} where nothing is to be added, or use filter to drop rows"
    return DataError(problem, expected="a dict for every row, or None for every row", do=do)


# ------------------------------------------------------------------------------ results as columns


def to_arrow(spec: MapSpec, name: str, values: Any) -> Any:
    """Return values as an Arrow array, typed by `features` or else, if it fits, as in the input."""
    features: Mapping[str, Any] = spec.features or {}
    before = spec.table.features.get(name)
    values = values.to_arrow() if isinstance(values, Ragged) else values
    array = as_array(name, values, features.get(name))
    if spec.features is not None:
        return array
    if before is None:
        if array.type != pa.list_(pa.int64()):  # single integers stay int64
            return array
        return cast_if_lossless(array, BYTES if name in BYTE_LISTS else pa.list_(pa.int32()))
    if isinstance(before, ClassLabel) and pa.types.is_integer(array.type):
        return cast_array(name, array, before, stored=before)  # each must be a class
    return cast_if_lossless(array, arrow_type(before))


def cast_if_lossless(array: Any, type_: pa.DataType) -> Any:
    """Cast an array to a type of the same family if every value fits; else return it unchanged."""
    try:
        return array.cast(type_) if same_family(array.type, type_) else array
    except pa.ArrowException:  # a value needs more bits
        return array


def same_family(new: pa.DataType, old: pa.DataType) -> bool:
    """Return whether two types differ in width only; the type of None and [] fits any other."""
    if isinstance(new, LISTS) and isinstance(old, LISTS):
        return same_family(new.value_type, old.value_type)
    if isinstance(new, pa.StructType) and isinstance(old, pa.StructType):
        names = [field.name for field in new]
        return set(names) == {field.name for field in old} and all(
            same_family(new.field(n).type, old.field(n).type) for n in names
        )
    families = [pa.types.is_integer, pa.types.is_floating, pa.types.is_timestamp]
    families += [lambda t: pa.types.is_string(t) or pa.types.is_large_string(t)]
    return new == old or pa.types.is_null(new) or any(f(new) and f(old) for f in families)
