"""`Dataset.map`: apply a function to rows or batches once, and find the result again afterwards.

The result's fingerprint is made from the input's, the function's (by value, with all it reads) and
the arguments that matter. If the cache holds a complete result of that name it is memory-mapped;
otherwise one process computes it while others wait at a lock, and commits it in one rename. A
function that cannot be digested is still applied; its result stays in memory, with a warning.

A row of the result is `{**input, **returned}`: what the function returns replaces or follows the
input's columns, in order of appearance, and a key that it does not return for some row keeps the
input's value there, or None if there is none. What the function assigns to the dict that it is
given counts as returned, what it pops from it is dropped. A row for which None is returned among
others that are not, or a changed number of rows beside columns that were kept, is an error; a
column changes its type only if its values do.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from minift.data import cache, storage
from minift.data.dataset import READ_ROWS, Dataset
from minift.data.features import Features, arrow_type, as_array, cast_array
from minift.data.fingerprint import Unhashable, fingerprint
from minift.data.formats import rows_of, to_list
from minift.errors import ArgumentError, ConfigError, DataError

MAP_VERSION = 1  # part of every fingerprint: change it when the same input gives other bytes

# Lists of these are 0/1, whatever the batch: one byte each, as `datasets` stores them.
BYTE_LISTS = ("attention_mask", "token_type_ids", "special_tokens_mask")


@dataclass(frozen=True)
class Plan:
    """One map: the input, the function and the arguments that shape the result."""

    dataset: Dataset
    function: Callable[..., Any]
    batched: bool
    batch_size: int
    with_indices: bool
    input_columns: tuple[str, ...] | None
    remove_columns: tuple[str, ...]
    fn_kwargs: Mapping[str, Any]
    features: Features | None

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__name__)


def map_dataset(
    dataset: Dataset,
    function: Callable[..., Any] | None = None,
    *,
    batched: bool = False,
    batch_size: int | None = 1000,
    with_indices: bool = False,
    input_columns: str | Sequence[str] | None = None,
    remove_columns: str | Sequence[str] | None = None,
    fn_kwargs: Mapping[str, Any] | None = None,
    features: Features | None = None,
    load_from_cache_file: bool = True,
    cache_key: str | None = None,
    desc: str | None = None,
) -> Dataset:
    """The dataset with what `function` returns merged into its rows.

    Args:
        dataset: the input.
        function: gets a row (a dict), or with `batched` a dict of lists, and returns a dict of
            values or of equally long lists; None for every row means "called for its effect".
        batched: pass `batch_size` rows at a time; the number of rows may then change.
        batch_size: None or 0 passes all rows at once.
        with_indices: also pass the position of the row, or the list of positions.
        input_columns: pass only these columns, as positional arguments.
        remove_columns: drop these from the input before merging.
        fn_kwargs: further keyword arguments, part of the fingerprint.
        features: the result's features, instead of inferring them.
        load_from_cache_file: False computes again and keeps the result in memory.
        cache_key: stands for the function in the fingerprint; for functions that cannot be
            digested.
        desc: accepted for familiarity; it names nothing here.

    Raises:
        DataError: the function's result would lose or mix up rows, or mixes types in a column.
    """
    if function is None:
        return dataset
    names = [[c] if isinstance(c, str) else list(c or ()) for c in (input_columns, remove_columns)]
    dataset.check_columns(names[0] + names[1])
    plan = Plan(
        dataset,
        function,
        batched,
        (batch_size or max(len(dataset), 1)) if batched else READ_ROWS,
        with_indices,
        tuple(names[0]) if input_columns is not None else None,
        tuple(names[1]),
        fn_kwargs or {},
        features,
    )
    key = result_key(plan, cache_key) if load_from_cache_file else None
    if key is None:
        table = compute(plan)
        return dataset if table is None else finished(plan, table, None)
    folder = cache.entry_path("map", key)
    with contextlib.suppress(DataError):
        return open_result(plan, folder, key)
    with cache.lock(key):
        try:
            return open_result(plan, folder, key)
        except DataError as error:
            if (folder / storage.MANIFEST).exists():
                warnings.warn(
                    f"a cached result is damaged and computed again: {error}", stacklevel=3
                )
                (folder / storage.MANIFEST).unlink()
        return commit(plan, folder, key)


def result_key(plan: Plan, cache_key: str | None) -> str | None:
    """The result's fingerprint, or None (with a warning) if the function has none."""
    parts = (
        *("map", MAP_VERSION, plan.dataset.fingerprint, plan.batched),
        plan.batch_size if plan.batched else None,
        (plan.with_indices, plan.input_columns, plan.remove_columns),
        None if plan.features is None else plan.features.to_dict(),
        sorted(plan.fn_kwargs.items()),
        plan.dataset._format,
    )
    try:
        return fingerprint(parts, cache_key if cache_key is not None else plan.function)
    except Unhashable as error:
        warnings.warn(
            f"{error}\n  the result of map({plan.name}) is kept in memory only", stacklevel=4
        )
        return None


def open_result(plan: Plan, folder: Path, key: str) -> Dataset:
    """The cached result; a DataError if there is none, or a damaged one."""
    return finished(plan, storage.open_folder(folder)[0], key)


def commit(plan: Plan, folder: Path, key: str) -> Dataset:
    """Compute, write, and open what was written."""
    table = compute(plan)
    if table is None:
        return plan.dataset
    storage.write(folder, [table], table.schema, {"function": plan.name})
    return open_result(plan, folder, key)


def compute(plan: Plan) -> pa.Table | None:
    """The whole result, or None if the function returned nothing for any row."""
    tables = list(apply(plan))
    if tables and all(table is None for table in tables):
        return None
    return unify(plan, tables)


def finished(plan: Plan, table: pa.Table, key: str | None) -> Dataset:
    """The result with the input's format, extended to the new columns."""
    form, result = plan.dataset._format, Dataset(table, source=key)
    if form.columns is not None:
        hidden = [name for name in plan.dataset.features if name not in form.columns]
        form = replace(form, columns=tuple(n for n in result.features if n not in hidden))
    return result._with(form=form)


# ------------------------------------------------------------------------------ one batch at a time


def apply(plan: Plan) -> Iterator[pa.Table | None]:
    """Each batch's result, or None where the function returned nothing."""
    for start in range(0, len(plan.dataset), plan.batch_size):
        rows = range(start, min(start + plan.batch_size, len(plan.dataset)))
        batch = plan.dataset.read(rows, plan.input_columns)
        try:
            answer = (call_batch if plan.batched else call_rows)(plan, batch, rows)
            table = None if answer is None else merge(plan, *answer, rows)
        except Exception as error:
            error.add_note(f"while mapping rows {rows.start} to {rows.stop - 1} with {plan.name}")
            raise
        yield table


def call_batch(plan: Plan, batch: Any, rows: range) -> tuple[dict[str, Any], set[str]] | None:
    """The function on a batch: the columns that it returned, and those that it popped."""
    given = dict(batch) if isinstance(batch, dict) else batch
    result = plan.function(*arguments(plan, given, list(rows)), **plan.fn_kwargs)
    if result is None:
        return None
    if isinstance(result, pa.Table):
        result = {name: result.column(name) for name in result.column_names}
    if not isinstance(result, Mapping):
        raise wrong_type(plan, result, rows)
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


def call_rows(plan: Plan, batch: Any, rows: range) -> tuple[dict[str, Any], set[str]] | None:
    """The function on each row of a batch; the answers as columns."""
    results: list[Any] = []
    popped: list[set[str]] = []
    for position, row in zip(rows, rows_of(batch, len(rows)), strict=True):
        given = dict(row) if isinstance(row, dict) else row
        result = plan.function(*arguments(plan, given, position), **plan.fn_kwargs)
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
            kept = to_list(plan.dataset.table(rows, [name]).column(name))
        columns[name] = [
            result.get(name, None if name in gone else old)
            for result, gone, old in zip(results, popped, kept, strict=True)
        ]
    return columns, dropped


def effects(before: Any, given: Any, result: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """What the function returned and what it assigned to its argument; what it popped from it."""
    if not (isinstance(before, dict) and isinstance(given, dict)):
        return dict(result), set()
    put = {n: v for n, v in given.items() if n not in before or v is not before[n]}
    return {**put, **result}, set(before) - set(given) - set(result)


def arguments(plan: Plan, batch: Any, position: Any) -> list[Any]:
    given = [batch] if plan.input_columns is None else [batch[n] for n in plan.input_columns]
    return [*given, position] if plan.with_indices else given


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


def merge(plan: Plan, results: Mapping[str, Any], popped: set[str], rows: range) -> pa.Table:
    """The input's remaining columns with the returned ones in place of or behind them."""
    gone = {*plan.remove_columns, *popped}
    kept = [name for name in plan.dataset.features if name not in gone]
    untouched = [name for name in kept if name not in results]
    table = plan.dataset.table(rows, untouched)
    count = len(next(iter(results.values()))) if results else len(rows)
    if untouched and count != len(rows):
        raise DataError(
            f"map({plan.name}) returned {count} rows for {len(rows)}, but the columns "
            f"{', '.join(untouched)} keep {len(rows)}",
            do=f"pass remove_columns={untouched!r}",
        )
    names = [*kept, *(name for name in results if name not in kept)]
    columns = [
        encode(plan, name, results[name]) if name in results else table.column(name)
        for name in names
    ]
    return pa.table(columns, names=names)


def encode(plan: Plan, name: str, values: Any) -> Any:
    """Returned values as Arrow: as `features` says, or else as the column was before."""
    if plan.features is not None:
        return as_array(name, values, plan.features.get(name))
    array, before = as_array(name, values), plan.dataset.features.get(name)
    return narrow(name, array) if before is None else keep_type(array, before)


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


def unify(plan: Plan, tables: list[pa.Table | None]) -> pa.Table:
    """One table of all batches: null yields to any type, narrow to wide, int to float.

    Raises:
        DataError: batches disagree in a way that would lose or invent values.
    """
    before = plan.dataset.features
    if not tables:  # no rows: the function was never asked, so only what was said is known
        kept = Features({n: f for n, f in before.items() if n not in plan.remove_columns})
        tables = [(plan.features or kept).arrow_schema.empty_table()]
    joined = [table for table in tables if table is not None]
    if len(joined) < len(tables):
        raise some_none(plan, [table is None for table in tables].index(True) * plan.batch_size)
    joined = [table.replace_schema_metadata(None) for table in joined]
    try:
        table = pa.concat_tables(joined, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(
            f"map({plan.name}) returns different types for one column: {error}"
        ) from None
    features = plan.features
    if features is None:
        features = Features.from_arrow_schema(table.schema)
        for field in table.schema:
            if field.name in before and arrow_type(before[field.name]) == field.type:
                features[field.name] = before[field.name]
    if set(features) != set(table.column_names):
        raise ConfigError(
            "features= does not name the result's columns",
            got=sorted(features),
            expected=sorted(table.column_names),
        )
    columns = [cast_array(name, table.column(name), feature) for name, feature in features.items()]
    return pa.table(columns, schema=features.arrow_schema)
