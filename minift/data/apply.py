"""A function on one batch: calling it, and making Arrow columns of what it returned.

A row of the result is `{**input, **returned}`: what the function returns replaces or follows the
input's columns, in order of appearance, and a key that it does not return for some row keeps the
input's value there, or None if there is none. What the function assigns to the dict that it is
given counts as returned, what it pops from it is dropped. A row for which None is returned among
others that are not, or a changed number of rows beside columns that were kept, is an error; a
column changes its type only if its values do.

The same rule joins the rows of a batch, the batches of a shard and the shards of a result: see
`join`.
"""

from collections import UserDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minift.data.dataset import Dataset
from minift.data.features import ClassLabel, Features, arrow_type, as_array, cast_array, same_dicts
from minift.data.formatting import rows_of, to_list
from minift.data.ragged import Ragged, Runs
from minift.data.table import READ_ROWS
from minift.errors import ArgumentError, DataError

# Rows in a shard: a 16th of all, so that workers can share and little is lost when one dies, but
# at least 10 rows, no more than about 64 MiB of input, and no more than 128 files.
SHARDS, MOST_SHARDS, SHARD_BYTES, FEWEST_ROWS = 16, 128, 64 << 20, 10

# Lists of these are 0/1, whatever the batch: one byte each, as `datasets` stores them. Beside
# TOKENS, and of the same lengths, they are stored as `Runs` if that is what they are.
BYTE_LISTS = ("attention_mask", "token_type_ids", "special_tokens_mask")
TOKENS = "input_ids"


@dataclass(frozen=True)
class Plan:
    """One map: the input, the function and the arguments that shape the result.

    All of it is part of the result's fingerprint, and nothing else is.
    """

    dataset: Dataset
    function: Callable[..., Any]
    batched: bool
    batch_size: int
    rows: int
    with_indices: bool
    with_rank: bool
    input_columns: tuple[str, ...] | None
    remove_columns: tuple[str, ...]
    fn_kwargs: Mapping[str, Any]
    features: Features | None

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__name__)

    @property
    def adjacent(self) -> bool:
        """Whether the input's rows are a slice of its table, which the result can refer to."""
        return isinstance(self.dataset.indices, range)

    def shards(self) -> list[range]:
        """Rows in whole batches; a function of the input alone."""
        size = self.dataset.data.nbytes * self.rows // max(self.dataset.data.num_rows, 1)
        count = min(max(SHARDS, size // SHARD_BYTES), MOST_SHARDS)
        whole = self.batch_size if self.batched else 1
        step = -(-max(-(-self.rows // count), FEWEST_ROWS) // whole) * whole
        return [range(i, min(i + step, self.rows)) for i in range(0, self.rows, step)]

    def kept(self, part: "Part") -> list[str]:
        """The input's columns that the function neither returned nor dropped."""
        gone = {*self.remove_columns, *part.popped, *part.names}
        return [name for name in self.dataset.features if name not in gone]


@dataclass(frozen=True)
class Part:
    """What the function made of some rows.

    Attributes:
        rows: of the input.
        table: the returned columns, or None if it returned None; `Runs` are packed.
        popped: columns that it dropped.
        runs: those of the returned columns that are packed.
        file: where the table is written, and what `storage` says of it.
    """

    rows: range
    table: pa.Table | None
    popped: frozenset[str] = frozenset()
    runs: frozenset[str] = frozenset()
    file: dict[str, Any] | None = None

    @property
    def names(self) -> list[str]:
        return [] if self.table is None else self.table.column_names


def apply(plan: Plan, rows: range, rank: int | None) -> Part:
    """The function's result for some rows, in one piece."""
    size = plan.batch_size if plan.batched else READ_ROWS
    parts = []
    for start in range(rows.start, rows.stop, size):
        batch_rows = range(start, min(start + size, rows.stop))
        try:
            parts.append(apply_batch(plan, batch_rows, rank))
        except Exception as error:
            error.add_note(f"while mapping rows {start} to {batch_rows.stop - 1} with {plan.name}")
            raise
    part = join(plan, parts)
    if part.table is None:
        return part
    # Of the columns that are left alone, those that the result cannot refer to are written too.
    said = plan.features or plan.dataset.features
    copied = [
        n for n in plan.kept(part) if not plan.adjacent or said.get(n) != plan.dataset.features[n]
    ]
    return replace(part, table=complete(plan, part, [*part.names, *copied], part.runs))


def apply_batch(plan: Plan, rows: range, rank: int | None) -> Part:
    """One call of a batched function, or a call for each row."""
    batch = plan.dataset.read(rows, plan.input_columns or list(plan.dataset.features))
    answer = (call_batch if plan.batched else call_rows)(plan, batch, rows, rank)
    if answer is None:
        return Part(rows, None)
    results, popped = answer
    returned, runs = pack_runs({n: encode(plan, n, values) for n, values in results.items()})
    table = pa.table(returned)
    part = Part(rows, table, frozenset(popped), frozenset(runs))
    if plan.kept(part) and returned and table.num_rows != len(rows):
        kept = plan.kept(part)
        raise DataError(
            f"map({plan.name}) returned {table.num_rows} rows for {len(rows)}, but the "
            f"columns {', '.join(kept)} keep {len(rows)}",
            do=f"pass remove_columns={kept!r}",
        )
    return part


def call_batch(
    plan: Plan, batch: Any, rows: range, rank: int | None
) -> tuple[dict[str, Any], set[str]] | None:
    """The function on a batch: the columns that it returned, and those that it popped."""
    given = handed_over(batch)
    result = plan.function(*arguments(plan, given, list(rows), rank), **plan.fn_kwargs)
    if result is None:
        return None
    if isinstance(result, pa.Table):
        result = {name: result.column(name) for name in result.column_names}
    if not isinstance(result, Mapping):
        raise wrong_type(plan, result, rows)
    result = result.data if isinstance(result, UserDict) else result  # a tokenizer's, as it is
    columns, popped = effects(batch, given, result)
    lengths = {}
    for name, values in columns.items():
        if isinstance(values, str | bytes | Mapping | set) or not getattr(values, "shape", (1,)):
            values = None
        try:
            lengths[name] = len(values)
        except TypeError:
            raise ArgumentError(
                f"map({plan.name}, batched=True) must return a list for each column",
                got=f"{name!r}: {columns[name]!r:.80}",
            ) from None
    if len(set(lengths.values())) > 1:
        raise DataError(f"map({plan.name}) returned columns of different lengths", got=lengths)
    return columns, popped


def call_rows(
    plan: Plan, batch: Any, rows: range, rank: int | None
) -> tuple[dict[str, Any], set[str]] | None:
    """The function on each row of a batch; the answers as columns."""
    results: list[Any] = []
    popped: list[set[str]] = []
    for position, row in zip(rows, rows_of(batch, len(rows)), strict=True):
        given = handed_over(row)
        result = plan.function(*arguments(plan, given, position, rank), **plan.fn_kwargs)
        if result is not None and not isinstance(result, Mapping):
            raise wrong_type(plan, result, position)
        changed = (result, set()) if result is None else effects(row, given, result)
        results.append(changed[0])
        popped.append(changed[1])
    if all(result is None for result in results):
        return None
    if None in results:
        raise some_none(plan, rows[results.index(None)])
    dropped = set.intersection(*popped)
    names = dict.fromkeys(name for result in results for name in result)
    names |= dict.fromkeys(sorted(set.union(*popped) - dropped))
    columns = {}
    for name in names:
        if all(name in result for result in results):
            columns[name] = [result[name] for result in results]
            continue
        kept = [None] * len(rows)
        if name in plan.dataset.features and name not in plan.remove_columns:
            kept = to_list(plan.dataset.to_arrow(rows, [name]).column(name))
        columns[name] = [
            result.get(name, None if name in gone else old)
            for result, gone, old in zip(results, popped, kept, strict=True)
        ]
    return columns, dropped


def effects(before: Any, given: Any, result: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """What the function returned and what it assigned to its argument; what it popped from it."""
    if not (isinstance(before, dict) and isinstance(given, dict)):
        return dict(result), set()
    put = {n: v for n, v in given.items() if n not in before or changed(v, before[n])}
    return {**put, **result}, set(before) - set(given) - set(result)


def handed_over(batch: Any) -> Any:
    """What the function is given, so that it can be seen what it did to it."""
    if not isinstance(batch, dict):
        return batch
    return {n: v[:] if type(v) is list else v for n, v in batch.items()}


def changed(value: Any, before: Any) -> bool:
    """Whether it is another object, or a list that was given other items."""
    if type(value) is not list or type(before) is not list:
        return value is not before
    return len(value) != len(before) or any(a is not b for a, b in zip(value, before, strict=True))


def arguments(plan: Plan, batch: Any, position: Any, rank: int | None) -> list[Any]:
    given = [batch] if plan.input_columns is None else [batch[n] for n in plan.input_columns]
    return [*given, *[position] * plan.with_indices, *[rank] * plan.with_rank]


def wrong_type(plan: Plan, result: Any, where: Any) -> ArgumentError:
    return ArgumentError(
        f"map({plan.name}) must return a dict", got=f"{type(result).__name__} for row(s) {where}"
    )


def some_none(plan: Plan, row: int) -> DataError:
    return DataError(
        f"map({plan.name}) returned None for row {row} and a dict for others",
        expected="a dict for every row, or None for every row",
        do="return {} where nothing is to be added, or use filter to drop rows",
    )


def encode(plan: Plan, name: str, values: Any) -> Any:
    """Returned values as Arrow: as `features` says, or else as the column was before."""
    before, said = plan.dataset.features.get(name), plan.features
    if isinstance(values, Runs) and before is None and said is None:
        return values  # perhaps it can stay so
    values = values.to_arrow() if isinstance(values, Ragged) else values
    if said is not None:
        return as_array(name, values, said.get(name))
    array = as_array(name, values)
    if before is None:
        return narrow(name, array)
    if isinstance(before, ClassLabel) and pa.types.is_integer(array.type):
        return cast_array(name, array, before)  # a number that no class has is an error
    return keep_type(array, before)


def pack_runs(columns: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Masks and type ids by one number a row, where that and the tokens' lengths say it all."""
    tokens, packed = columns.get(TOKENS), set()
    flat = isinstance(tokens, pa.ListArray) and not tokens.null_count
    lengths: Any = np.diff(tokens.offsets.to_numpy()) if flat else None  # type: ignore[union-attr]
    for name, column in columns.items():
        runs = column if isinstance(column, Runs) else None
        if name in BYTE_LISTS and flat and getattr(column, "type", None) == pa.list_(pa.int8()):
            runs = Runs.found_in(column) if isinstance(column, pa.ListArray) else None
        if runs is not None and np.array_equal(runs.lengths, lengths):
            columns[name] = runs.pack()
            packed.add(name)
        elif isinstance(column, Runs):
            columns[name] = column.to_arrow()
    return columns, packed


def keep_type(array: Any, before: Any) -> Any:
    """Numbers stay as wide as the column's were, if they fit; anything else is what it is now."""
    if not same_kind(array.type, arrow_type(before)):
        return array
    try:
        return array.cast(arrow_type(before))
    except pa.ArrowException:  # a value needs more bits
        return array


def same_kind(new: pa.DataType, old: pa.DataType) -> bool:
    """Whether two types differ in width only; an unknown type (all None, or []) is of any kind."""
    lists = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)
    if isinstance(new, lists) and isinstance(old, lists):
        return same_kind(new.value_type, old.value_type)
    if isinstance(new, pa.StructType) and isinstance(old, pa.StructType):
        names = [field.name for field in new]
        return set(names) == {field.name for field in old} and all(
            same_kind(new.field(n).type, old.field(n).type) for n in names
        )
    kinds = [pa.types.is_integer, pa.types.is_floating, pa.types.is_timestamp]
    kinds += [lambda t: pa.types.is_string(t) or pa.types.is_large_string(t)]
    return new == old or pa.types.is_null(new) or any(kind(new) and kind(old) for kind in kinds)


def narrow(name: str, array: Any) -> Any:
    """Lists of integers in 32 bits where their values fit; single integers stay int64."""
    if not (pa.types.is_list(array.type) and array.type.value_type == pa.int64()):
        return array
    try:
        return array.cast(pa.list_(pa.int8() if name in BYTE_LISTS else pa.int32()))
    except pa.ArrowInvalid:
        return array


# ---------------------------------------------------------------------------- many parts to one


def join(plan: Plan, parts: Sequence[Part]) -> Part:
    """Parts that follow each other as one: null yields to any type, narrow to wide, int to float.

    Raises:
        DataError: parts disagree in a way that would lose or invent values.
    """
    rows = range(parts[0].rows.start, parts[-1].rows.stop)
    asked = [part for part in parts if part.table is not None]
    if not asked:
        return Part(rows, None)
    if len(asked) < len(parts):
        raise some_none(plan, next(part.rows.start for part in parts if part.table is None))
    popped = frozenset.intersection(*(part.popped for part in parts))
    names = dict.fromkeys(name for part in parts for name in part.names)
    names |= dict.fromkeys(sorted(frozenset.union(*(part.popped for part in parts)) - popped))
    runs = frozenset.intersection(*(part.runs for part in parts))
    tables = same_dicts([complete(plan, part, names, runs) for part in parts])
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(
            f"map({plan.name}) returns different types for one column: {error}"
        ) from None
    return Part(rows, table, popped - set(names), runs)


def complete(plan: Plan, part: Part, names: Iterable[str], runs: frozenset[str]) -> pa.Table:
    """The part with these columns: what it lacks is the input's, or None; `runs` stay packed."""
    assert part.table is not None
    given = [n for n in plan.dataset.features if n not in (*plan.remove_columns, *part.popped)]
    count = part.table.num_rows if part.names else len(part.rows)
    columns = {}
    for name in names:
        if name in part.runs and name not in runs:
            columns[name] = unpacked(part.table, name)
        elif name in part.names:
            columns[name] = part.table.column(name)
        elif name in given:
            columns[name] = plan.dataset.to_arrow(part.rows, [name]).column(name)
            if plan.features is not None and name in plan.features:
                columns[name] = cast_array(name, columns[name], plan.features[name])
        else:
            columns[name] = pa.nulls(count)
    return pa.table(columns)


def unpacked(table: pa.Table, name: str) -> pa.Array:
    """A packed column as the lists that it stands for."""
    lengths = np.asarray(pc.list_value_length(table.column(TOKENS)))
    return Runs.unpack(table.column(name), lengths).to_arrow()
