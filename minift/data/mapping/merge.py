"""The results of batches as one shard, and of shards as one result: same columns, same types."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minift.data.features import cast_array, same_dicts
from minift.data.mapping.call import TOKENS, MappedRows, none_for_some
from minift.data.mapping.spec import MapSpec
from minift.data.ragged import Runs
from minift.errors import DataError


def merge(spec: MapSpec, pieces: Sequence[MappedRows]) -> MappedRows:
    """Join pieces that follow each other: null yields to any type, narrow to wide, int to float.

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
    popped = frozenset.intersection(*(piece.popped for piece in pieces))
    names = dict.fromkeys(name for piece in pieces for name in piece.names)
    names |= dict.fromkeys(sorted(frozenset.union(*(piece.popped for piece in pieces)) - popped))
    packed = frozenset.intersection(*(piece.packed for piece in pieces))
    tables = same_dicts([complete(spec, piece, names, packed) for piece in pieces])
    try:
        columns = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(
            f"map({spec.name}) returns different types for one column: {error}"
        ) from None
    return MappedRows(rows, columns, popped - set(names), packed)


def complete(
    spec: MapSpec, piece: MappedRows, names: Iterable[str], packed: frozenset[str]
) -> pa.Table:
    """Return a piece with these columns, of which only those in `packed` stay packed."""
    assert piece.columns is not None
    columns = {}
    for name in names:
        if name in piece.names:
            columns[name] = piece.columns.column(name)
            if name in piece.packed - packed:
                lengths = np.asarray(pc.list_value_length(piece.columns.column(TOKENS)))
                columns[name] = Runs.unpack(columns[name], lengths).to_arrow()
        elif name in piece.untouched(spec):
            columns[name] = spec.table.to_arrow(piece.rows, [name]).column(name)
            if spec.features is not None and name in spec.features:
                columns[name] = cast_array(name, columns[name], spec.features[name])
        else:
            columns[name] = pa.nulls(piece.num_rows)
    return pa.table(columns)
