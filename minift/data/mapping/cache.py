"""`map_table`: find a map's result or compute it, commit it, and open it. `filter_mask` uses it."""

import functools
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from minift.data import cache, storage
from minift.data.columns import flatten_indices, remove_columns, select_columns
from minift.data.features import Features, Value, arrow_type, check_names
from minift.data.mapping.call import MappedRows, MapSpec, map_key
from minift.data.mapping.shards import Shards, compute_missing, cut, merge
from minift.data.ragged import BYTES, RUNS
from minift.data.selecting import select
from minift.data.table import AnyTable, Table
from minift.errors import ConfigError, DataError
from minift.files import damaged, explained, local_path, put_in_place


def map_table(
    table: AnyTable, function: Callable[..., Any] | None = None,
    with_indices: bool = False, with_rank: bool = False,
    input_columns: str | Sequence[str] | None = None,
    batched: bool = False, batch_size: int | None = 1000, drop_last_batch: bool = False,
    remove_columns: str | Sequence[str] | None = None,
    keep_in_memory: bool = False, load_from_cache_file: bool | None = None,
    cache_file_name: str | Path | None = None, writer_batch_size: int | None = None,
    features: Features | None = None, fn_kwargs: Mapping[str, Any] | None = None,
    num_proc: int | None = None, desc: str | None = None,
    new_fingerprint: str | None = None, cache_key: str | None = None,
) -> AnyTable:  # fmt: skip
    """Return the table with what `function` returns merged into its rows.

    Random numbers that the function draws, from the global generators of Python, numpy and torch or
    from generators that it refers to, are those of a stream of its own for each batch (for each
    thousand rows, if it gets them one by one). The stream follows from the map's fingerprint and
    the row, so the result is the same for any `num_proc` and after a kill, and whatever was seeded
    before; let the function read a number, for example by `fn_kwargs`, to get other ones. The
    generators themselves are afterwards as they were.

    Args:
        table: the input.
        function: gets a row (a dict), or with `batched` a dict of lists, and returns a dict of
            values or of equally long lists; None for every row means "called for its effect".
        with_indices: also pass the position of the row, or the list of positions.
        with_rank: also pass the number of the worker process, None without `num_proc`.
        input_columns: pass only these columns, as positional arguments.
        batched: pass `batch_size` rows at a time; the number of rows may then change.
        batch_size: None or 0 passes all rows at once.
        drop_last_batch: leave out the rows at the end that do not fill a batch.
        remove_columns: drop these from the input before merging.
        keep_in_memory: leave no file behind.
        load_from_cache_file: False computes again and replaces what the cache holds.
        cache_file_name: a folder for the result instead of one in the cache.
        writer_batch_size: accepted for familiarity; results are written by size.
        features: the result's features, instead of inferring them.
        fn_kwargs: further keyword arguments, part of the fingerprint.
        num_proc: share the work among so many processes; the result is the same.
        desc: accepted for familiarity; nothing is printed.
        new_fingerprint: stands for the whole fingerprint of the result.
        cache_key: stands for the function in the fingerprint; for functions that cannot be
            digested.

    Raises:
        DataError: the function's result would lose or mix up rows, or mixes types in a column.
    """
    if function is None:
        return table
    inputs, removed = table.check_columns(input_columns), table.check_columns(remove_columns)
    if (num_proc or 0) < 0:
        raise ConfigError("num_proc must be positive", got=num_proc)
    size = (batch_size if batch_size and batch_size > 0 else max(len(table), 1)) if batched else 1
    spec = MapSpec(
        table=table, function=function, batched=batched, batch_size=size,
        rows=range(len(table) - len(table) % size if drop_last_batch else len(table)),
        with_indices=with_indices, with_rank=with_rank,
        input_columns=None if input_columns is None else tuple(inputs),
        remove_columns=tuple(removed), fn_kwargs=fn_kwargs or {}, features=features,
    )  # fmt: skip
    key = map_key(spec, cache_key, new_fingerprint)
    if key is None or keep_in_memory:  # the maps stay open when their files are gone
        with tempfile.TemporaryDirectory(prefix="minift-", ignore_cleanup_errors=True) as scratch:
            return compute(spec, Path(scratch) / "result", {"key": key}, num_proc)
    folder = local_path(cache_file_name) if cache_file_name else cache.entry_path("map", key)
    meta = {"key": key, "function": spec.name}
    if load_from_cache_file is not False:
        find = functools.partial(open_result, spec, folder, key)
        make = functools.partial(compute, spec, folder, meta, num_proc)
        return cache.open_or_compute(folder, key, find, make)
    with cache.lock(key):
        # It may differ from the result that it replaces, and others were made from that one.
        return compute(spec, folder, meta | {"run": uuid.uuid4().hex}, num_proc)


def compute(spec: MapSpec, folder: Path, meta: dict[str, Any], num_proc: int | None) -> Any:
    """Compute the shards that are not there yet, make them a result, and open it."""
    if not spec.rows:  # the function is not called: only what the arguments tell is known
        features = spec.features or remove_columns(spec.table, spec.remove_columns).features
        empty = features.arrow_schema.empty_table()
        return spec.table.replace(data=empty, features=features, indices=None)
    stream = meta["key"] or f"{spec.name} {spec.table.fingerprint}"
    shards = Shards(spec, folder.with_name(f"{meta['key']}.work"), cut(spec), stream)
    if "run" in meta:
        shutil.rmtree(shards.folder, ignore_errors=True)
    try:
        compute_missing(shards, num_proc)
    except BaseException as error:
        done = sum(shards.read(i) is not None for i in range(len(shards.ranges)))
        if not done:
            shutil.rmtree(shards.folder, ignore_errors=True)
        elif "function" in meta:  # a result in memory keeps nothing
            error.add_note(f"{done} of {len(shards.ranges)} shards are kept; the same map goes on")
        raise
    pieces = [shards.read(i) or MappedRows(rows, None) for i, rows in enumerate(shards.ranges)]
    merged = merge(spec, pieces)
    if not merged.names:  # every column of the result is one of the input
        shutil.rmtree(shards.folder, ignore_errors=True)
        if merged.columns is None:
            return spec.table
        names = list(result_features(spec, merged))
        return select_columns(select(spec.table, spec.rows), names)
    commit(shards, pieces, merged, folder, meta)
    return open_result(spec, folder, meta["key"])


def commit(
    shards: Shards, pieces: list[MappedRows], merged: MappedRows, folder: Path, meta: dict[str, Any]
) -> None:
    """Give all shards the columns and types of the merged ones, and make them the result."""
    features, start = result_features(shards.spec, merged), 0
    types = {name: arrow_type(features[name]) for name in features if name in merged.names}
    types |= {field.name: RUNS for field in merged.columns.schema if field.type == RUNS}
    schema = pa.schema(list(types.items()))
    for i, piece in enumerate(pieces):
        if not piece.columns.schema.equals(schema):
            columns = merged.columns.slice(start, piece.num_results)
            shards.write(i, replace(piece, columns=columns.select(schema.names).cast(schema)))
        start += piece.num_results
    meta |= {"features": features.to_dict(), "rows": start}
    with explained(folder, shards.spec.table.data.nbytes):
        put_in_place(shards.folder, folder, meta, replace="run" in meta)
    shutil.rmtree(shards.folder, ignore_errors=True)


def result_features(spec: MapSpec, merged: MappedRows) -> Features:
    """Return the result's columns in their order: the input's that stayed, and then the new ones.

    Raises:
        DataError: `features` names other columns.
    """
    before, names = spec.table.features, [*merged.untouched(spec), *merged.names]
    names = [name for name in dict.fromkeys([*before, *names]) if name in names]
    if spec.features is not None:
        check_names(spec.features, names, f"map({spec.name}): ")
        return spec.features
    schema = merged.columns.schema
    schema = pa.schema([(f.name, BYTES if f.type == RUNS else f.type) for f in schema])
    features = before | Features.from_arrow_schema(schema)
    same = {n: f for n, f in before.items() if arrow_type(f) == arrow_type(features[n])}
    return Features({name: (features | same)[name] for name in names})


def open_result(spec: MapSpec, folder: Path, key: str | None) -> Table:
    """Open the result in a folder.

    Raises:
        DataError: there is none, or a damaged one.
    """
    data, meta = storage.open_folder(folder)
    if meta.get("key") != key:
        raise ConfigError(f"{folder} holds the result of another map", do="choose another folder")
    try:
        return result_of(spec, data, meta)
    except (pa.ArrowException, KeyError, TypeError, AttributeError):
        raise damaged(folder, "its columns are not those that its manifest describes") from None


def result_of(spec: MapSpec, data: pa.Table, meta: dict[str, Any]) -> Table:
    """Return the written columns beside the untouched ones of the input, in its format."""
    features, key = Features.from_dict(meta["features"]), meta["key"]
    row_format = spec.table.row_format
    digest = key and key + meta.get("run", "")
    digests = {name: f"{digest} {name}" for name in features if digest}
    columns = {name: data.column(name) for name in data.column_names}
    untouched = [name for name in features if name not in columns]
    if untouched:
        base = flatten_indices(select_columns(select(spec.table, spec.rows), untouched))
        columns |= dict(zip(untouched, base.data.columns, strict=True))
        digests |= base.digests
    if row_format.columns is not None:
        hidden = set(spec.table.features) - set(row_format.columns)
        row_format = replace(row_format, columns=tuple(n for n in features if n not in hidden))
    table = pa.table({name: columns[name] for name in features})
    changes = {"features": features, "digests": digests, "row_format": row_format}
    return spec.table.replace(data=table, indices=None, **changes)


# ----------------------------------------------------------------------------------------- filter


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
            problem = f"filter got {answers.size} answers for {len(batch)} rows"
            raise DataError(problem, expected="one True or False for each row")
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
    keep = FilterFunction(function, batched)
    columns: Any = {"remove_columns": table.column_names, "features": Features(keep=Value("bool"))}
    answers = map_table(table, keep, batched=batched, **columns, **options)
    return answers.to_arrow().column("keep").to_numpy()
