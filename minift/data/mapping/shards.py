"""Shards: the input's rows in pieces, each computed by one process and written to a file.

<key>.work/data-00000.arrow     the columns of one shard; its metadata say which rows it is of
"""

import contextlib
import functools
import importlib
import json
import types
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from minift import rng
from minift.data import storage
from minift.data.features import cast_array, join_tables
from minift.data.fingerprint.values import objects_in
from minift.data.indices import split_range
from minift.data.mapping.call import MappedRows, MapSpec, map_batch, names_of_all, none_for_some
from minift.data.pool import Pool
from minift.data.ragged import RUNS, decode_runs
from minift.data.table import READ_ROWS
from minift.subprocesses import UnsendableError

# A shard is a 16th of all rows, so that workers can share and little is lost when one dies, but
# at least 10 rows, no more than about 64 MiB of input, and no more than 128 files.
METADATA_KEY = b"minift"
GENERATORS = {"numpy.random._generator.Generator", "numpy.random.mtrand.RandomState"}
GENERATORS |= {"random.Random", "torch._C.Generator"}
SHARDS, MOST_SHARDS, SHARD_BYTES, FEWEST_ROWS = 16, 128, 64 << 20, 10


def cut(spec: MapSpec) -> list[range]:
    """Return the rows of each shard, in whole batches; it depends on the input alone."""
    data = spec.table.data
    size = data.nbytes * len(spec.rows) // max(data.num_rows, 1)
    count = min(max(SHARDS, size // SHARD_BYTES), MOST_SHARDS)
    batch = spec.batch_size if spec.batched else 1
    step = -(-max(-(-len(spec.rows) // count), FEWEST_ROWS) // batch) * batch
    return list(split_range(spec.rows, step))


@dataclass(frozen=True)
class Shards:
    """The shards of one map, as far as they have been computed.

    Attributes:
        folder: where they are until they are a result.
        ranges: the rows of each.
        stream: name of the random streams that the function draws from.
    """

    spec: MapSpec
    folder: Path
    ranges: list[range]
    stream: str

    def compute(self, i: int, rank: int | None) -> None:
        """Compute one shard and write it; one for which the function returned None is not kept."""
        spec, shard = self.spec, self.ranges[i]
        size = spec.batch_size if spec.batched else READ_ROWS
        pieces = []
        with rng.borrowed_generators(self.generators) as start_stream:
            for rows in split_range(shard, size):
                start_stream(0, f"map {self.stream}", rows.start)
                try:
                    pieces.append(map_batch(spec, rows, rank))
                except Exception as error:
                    error.add_note(f"while {spec.describe(rows)}")
                    raise
        mapped = merge(spec, pieces)
        if mapped.columns is not None:
            names = [*mapped.names, *columns_to_copy(spec, mapped)]
            self.write(i, replace(mapped, columns=complete(spec, mapped, names)))

    @functools.cached_property
    def generators(self) -> list[Any]:
        """The generators that the function refers to, of which each process has its own copies."""
        found = objects_in((self.spec.function, self.spec.fn_kwargs))
        functions = [one for one in found if isinstance(one, types.FunctionType)]
        if any("torch" in function.__code__.co_names for function in functions):
            importlib.import_module("torch")  # which the function will do, too late to seed it
        kinds = [f"{type(one).__module__}.{type(one).__name__}" for one in found]
        return [one for one, kind in zip(found, kinds, strict=True) if kind in GENERATORS]

    def path(self, i: int) -> Path:
        return self.folder / f"data-{i:05d}.arrow"

    def write(self, i: int, mapped: MappedRows) -> None:
        """Write the columns of a shard."""
        rows, popped = [mapped.rows.start, mapped.rows.stop], sorted(mapped.popped)
        metadata = {METADATA_KEY: json.dumps({"rows": rows, "popped": popped})}
        columns = mapped.columns.replace_schema_metadata(metadata)
        storage.write_stream(self.path(i), [columns], columns.schema)

    def read(self, i: int) -> MappedRows | None:
        """Open a shard; None if it is not complete, or not of these rows."""
        rows = self.ranges[i]
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            columns = storage.read_stream(self.path(i))
            record = json.loads(columns.schema.metadata[METADATA_KEY])
            if record["rows"] == [rows.start, rows.stop]:
                return MappedRows(rows, columns, set(record["popped"]))
        return None


def columns_to_copy(spec: MapSpec, mapped: MappedRows) -> list[str]:
    """Return the untouched columns that the result cannot refer to in the input's data.

    That takes adjacent rows, and a feature that stays.
    """
    adjacent, before = isinstance(spec.table.indices, range), spec.table.features
    after = spec.features or before
    return [n for n in mapped.untouched(spec) if not adjacent or after.get(n) != before[n]]


def compute_missing(shards: Shards, num_proc: int | None) -> None:
    """Compute shards that are not there, in this process or in workers, in no certain order."""
    spec = shards.spec
    missing = [i for i in range(len(shards.ranges)) if shards.read(i) is None]
    workers = min(num_proc or 1, len(missing))
    if workers > 1:
        try:
            pool = Pool(shards.compute, missing, lambda i: spec.describe(shards.ranges[i]))
        except UnsendableError as error:
            warnings.warn(f"map({spec.name}) runs in this process alone: {error}")
        else:
            pool.run(workers, needs_rank=spec.with_rank)
            return
    for i in missing:
        shards.compute(i, 0 if num_proc else None)


# ---------------------------------------------------- batches as one shard, shards as one result


def merge(spec: MapSpec, pieces: Sequence[MappedRows]) -> MappedRows:
    """Join pieces that follow each other, with types as `join_tables` has them.

    A column that some of them lack is the input's there, or None.

    Raises:
        DataError: the pieces disagree in a way that would lose or invent values.
    """
    rows = range(pieces[0].rows.start, pieces[-1].rows.stop)
    without = [piece for piece in pieces if piece.columns is None]
    if len(without) == len(pieces):
        return MappedRows(rows, None)
    if without:
        raise none_for_some(spec, without[0].rows.start)
    names, dropped = names_of_all([(piece.names, piece.popped) for piece in pieces])
    tables = [complete(spec, piece, names) for piece in pieces]
    lists = [n for n in names if any(table.schema.field(n).type != RUNS for table in tables)]
    tables = [decode_runs(table, lists) for table in tables]
    columns = join_tables(tables, f"map({spec.name}) returns different types for one column")
    return MappedRows(rows, columns, dropped)


def complete(spec: MapSpec, piece: MappedRows, names: Iterable[str]) -> pa.Table:
    """Return a piece with these columns, those that it lacks taken from the input or null."""
    columns = {}
    for name in names:
        if name in piece.names:
            columns[name] = piece.columns.column(name)
        elif name in piece.untouched(spec):
            columns[name] = spec.table.arrow_column(name, piece.rows)
            if spec.features is not None and name in spec.features:
                stored, feature = spec.table.features[name], spec.features[name]
                columns[name] = cast_array(name, columns[name], feature, stored=stored)
        else:
            columns[name] = pa.nulls(piece.num_results)
    return pa.table(columns)
