"""`Dataset.map`: apply a function to rows or batches once, and find the result again afterwards.

The result's fingerprint is made from the input's, the function's (by value, with all it reads) and
the arguments that matter. If the cache holds a complete result of that name it is memory-mapped;
otherwise one process computes it while others wait at a lock, and commits it in one rename. A
function that cannot be digested is still applied; its result stays in memory, with a warning.

Nothing is lost on the way: columns that the function returns replace or follow the input's, in
order of appearance; a returned key that is missing in a later row is None there; a row for which
None is returned among others that are not, or a changed number of rows beside columns that were
kept, is an error; a column changes its type only if its values do.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from minift.data import cache, storage
from minift.data.dataset import READ_ROWS, Dataset
from minift.data.features import ClassLabel, Features, Value, arrow_type
from minift.data.fingerprint import Unhashable, fingerprint
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
    found = open_result(plan, folder, key)
    if found is not None:
        return found
    with cache.lock(key):
        found = open_result(plan, folder, key)
        return found if found is not None else commit(plan, folder, key)


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


def open_result(plan: Plan, folder: Path, key: str) -> Dataset | None:
    """The cached result; a damaged one is reported and computed again."""
    if not (folder / storage.MANIFEST).is_file():
        return None
    try:
        return finished(plan, storage.open_folder(folder)[0], key)
    except DataError as error:
        warnings.warn(f"a cached result is damaged and computed again: {error}", stacklevel=4)
        (folder / storage.MANIFEST).unlink(missing_ok=True)
        return None


def commit(plan: Plan, folder: Path, key: str) -> Dataset:
    """Compute, write, and open what was written."""
    table = compute(plan)
    if table is None:
        return plan.dataset
    storage.write(folder, [table], table.schema, {"function": plan.name})
    return finished(plan, storage.open_folder(folder)[0], key)


def compute(plan: Plan) -> pa.Table | None:
    """The whole result, or None if the function returned nothing for any row."""
    tables = list(apply(plan))
    if tables and all(table is None for table in tables):
        return None
    schema, joined = unify(plan, tables)
    return pa.concat_tables(table.cast(schema) for table in joined)


def finished(plan: Plan, table: pa.Table, key: str | None) -> Dataset:
    """The result with the input's format, extended to the new columns."""
    form = plan.dataset._format
    result = Dataset(table, source=key)
    if form.columns is not None:
        hidden = [name for name in plan.dataset.features if name not in form.columns]
        shown = [name for name in result.features if name not in hidden]
        return result.with_format(form.kind, shown, **form.options)
    return result._with(form=form)


# ------------------------------------------------------------------------------ one batch at a time


def apply(plan: Plan) -> Iterator[pa.Table | None]:
    """Each batch's result, or None where the function returned nothing."""
    dataset, columns = plan.dataset, plan.input_columns
    for start in range(0, len(dataset), plan.batch_size):
        rows = range(start, min(start + plan.batch_size, len(dataset)))
        batch = dataset.read(rows, columns)
        try:
            results = call(plan, batch, rows)
        except Exception as error:
            error.add_note(f"while mapping rows {rows.start} to {rows.stop - 1} with {plan.name}")
            raise
        yield None if results is None else merge(plan, results, rows)


def call(plan: Plan, batch: Any, rows: range) -> Mapping[str, Any] | None:
    """The function on one batch, or on each of its rows; the results as a dict of columns."""
    if plan.batched:
        result = plan.function(*arguments(plan, batch, list(rows)), **plan.fn_kwargs)
        return None if result is None else checked(plan, result, rows)
    results: list[Any] = []
    for i, row in enumerate(rows):
        one = {name: values[i] for name, values in batch.items()}
        result = plan.function(*arguments(plan, one, row), **plan.fn_kwargs)
        if result is not None and not isinstance(result, Mapping):
            raise wrong_type(plan, result, row)
        results.append(result)
    if all(result is None for result in results):
        return None
    if any(result is None for result in results):
        none = rows[[result is None for result in results].index(True)]
        raise DataError(
            f"map({plan.name}) returned None for row {none} and a dict for others",
            expected="a dict for every row, or None for every row",
            do="return {} where nothing is to be added, or use filter to drop rows",
        )
    names = list(dict.fromkeys(name for result in results for name in result))
    return {name: [result.get(name) for result in results] for name in names}


def arguments(plan: Plan, batch: Any, position: Any) -> list[Any]:
    given = [batch] if plan.input_columns is None else [batch[n] for n in plan.input_columns]
    return [*given, position] if plan.with_indices else given


def checked(plan: Plan, result: Any, rows: range) -> Mapping[str, Any]:
    """A batch's result must be a dict of equally long sequences."""
    if isinstance(result, pa.Table):
        result = {name: result.column(name) for name in result.column_names}
    if not isinstance(result, Mapping):
        raise wrong_type(plan, result, rows)
    for name, values in result.items():
        if isinstance(values, str) or not hasattr(values, "__len__"):
            raise ArgumentError(
                f"map({plan.name}, batched=True) must return a list for each column",
                got=f"{name!r}: {values!r:.80}",
            )
    lengths = {name: len(values) for name, values in result.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"map({plan.name}) returned columns of different lengths", got=lengths)
    return result


def wrong_type(plan: Plan, result: Any, where: Any) -> ArgumentError:
    return ArgumentError(
        f"map({plan.name}) must return a dict", got=f"{type(result).__name__} for row(s) {where}"
    )


def merge(plan: Plan, results: Mapping[str, Any], rows: range) -> pa.Table:
    """The input's remaining columns with the returned ones in place of or behind them."""
    dataset = plan.dataset
    kept = [name for name in dataset.features if name not in plan.remove_columns]
    if plan.features is not None and set(plan.features) != {*kept, *results}:
        raise ConfigError(
            "features= does not name the result's columns",
            got=sorted(plan.features),
            expected=sorted({*kept, *results}),
        )
    untouched = [name for name in kept if name not in results]
    table = dataset.table(rows, untouched).replace_schema_metadata(None)
    count = len(next(iter(results.values()))) if results else len(rows)
    if untouched and count != len(rows):
        raise DataError(
            f"map({plan.name}) returned {count} rows for {len(rows)}, but the columns "
            f"{', '.join(untouched)} keep {len(rows)}",
            do=f"pass remove_columns={untouched!r}",
        )
    columns = {}
    for name in [*kept, *(n for n in results if n not in kept)]:
        if name in results:
            declared = (plan.features or dataset.features).get(name)
            columns[name] = encode(name, results[name], declared, plan.features is not None)
        else:
            columns[name] = table.column(name)
    return pa.table(columns)


def encode(name: str, values: Any, declared: Any, must: bool) -> pa.Array:
    """Returned values as Arrow.

    `declared` is the column's feature so far, kept if the new values are of its kind; with `must`
    it is what the user asked for, and values that do not fit are an error.
    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if hasattr(values, "numpy"):  # a torch tensor
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ndarray) and values.ndim > 1:
        values = list(values)
    elif not isinstance(values, np.ndarray):
        values = [v.tolist() if hasattr(v, "tolist") else v for v in values]
    try:
        if must:
            if isinstance(declared, ClassLabel):
                values = declared.str2int(values)
            return pa.array(values, arrow_type(declared))
        array = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError) as error:
        raise DataError(f"the values of column {name!r} mix types or do not fit: {error}") from None
    if declared is not None:
        return keep_type(array, declared)
    return narrow(name, array)


def keep_type(array: pa.Array, declared: Any) -> pa.Array:
    """Integers stay of the declared width, floats too; anything else is what it is now."""
    is_integer, is_float = pa.types.is_integer, pa.types.is_floating
    if isinstance(declared, Value | ClassLabel):
        wanted = arrow_type(declared)
        alike = is_integer(array.type) and is_integer(wanted)
        alike |= is_float(array.type) and is_float(wanted)
        if alike or pa.types.is_null(array.type):
            try:
                return array.cast(wanted)
            except pa.ArrowInvalid:  # a value needs more bits
                return array
    return array


def narrow(name: str, array: pa.Array) -> pa.Array:
    """Lists of integers in as many bytes as their values need; single integers stay int64."""
    if not (pa.types.is_list(array.type) and array.type.value_type == pa.int64()):
        return array
    for width in (pa.int8(),) if name in BYTE_LISTS else (pa.int32(),):
        try:
            return array.cast(pa.list_(width))
        except pa.ArrowInvalid:
            continue
    return array


def unify(plan: Plan, tables: list[pa.Table | None]) -> tuple[pa.Schema, list[pa.Table]]:
    """One schema for all batches: null yields to any type, narrow to wide, int to float.

    Raises:
        DataError: batches disagree in a way that would lose or invent values.
    """
    if not tables:  # an empty input: its columns without the removed ones
        kept = [n for n in plan.dataset.features if n not in plan.remove_columns]
        tables = [plan.dataset.table(columns=kept).replace_schema_metadata(None)]
    joined = [table for table in tables if table is not None]
    if len(joined) < len(tables):
        raise DataError(f"map({plan.name}) returned None for some batches and a dict for others")
    try:
        schema = pa.unify_schemas([t.schema for t in joined], promote_options="permissive")
        joined = [fill(table, schema).cast(schema) for table in joined]
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"map({plan.name}) returns different types for one column: {error}"
        ) from None
    features = plan.features or Features(
        {
            name: plan.dataset.features[name]
            if name in plan.dataset.features
            and arrow_type(plan.dataset.features[name]) == schema.field(name).type
            else feature
            for name, feature in Features.from_arrow_schema(schema).items()
        }
    )
    return features.arrow_schema, joined


def fill(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Columns that a batch lacks, as missing values, in the schema's order."""
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field.name, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names)
