"""Several tables as one: one after the other, or side by side."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from minift.data.features import ClassLabel, Features, arrow_type, holds, join_tables
from minift.data.table import AnyTable
from minift.errors import ColumnError, ConfigError, DataError


def concatenate_datasets(dsets: Sequence[AnyTable], axis: int = 0) -> AnyTable:
    """Return one dataset after the other, or with `axis=1` side by side.

    One after the other, a column that one lacks is None there; side by side, all have the same
    number of rows and no column twice.

    Raises:
        DataError: a column has types that cannot be joined without loss.
    """
    if not dsets:
        raise ConfigError("concatenate_datasets needs at least one dataset")
    if axis not in (0, 1):
        raise ConfigError("axis is 0 (one after the other) or 1 (side by side)", got=axis)
    return side_by_side(dsets) if axis == 1 else one_after_the_other(dsets)


def one_after_the_other(tables: Sequence[AnyTable]) -> AnyTable:
    """Return the rows of all tables, with types as `join_tables` has them."""
    tables = [table for table in tables if len(table)] or tables[:1]
    features = joined_features(tables)
    parts = [table.to_arrow().replace_schema_metadata(None) for table in tables]
    data = join_tables(parts, "the datasets cannot be joined")
    joined = Features.from_arrow_schema(data.schema)
    same = {n: f for n, f in features.items() if arrow_type(f) == data.schema.field(n).type}
    shared = {name: common([getattr(t, name) for t in tables]) for name in ("row_format", "origin")}
    return tables[0].replace(data=data, features=Features(joined | same), indices=None, **shared)


def common(values: Sequence[Any]) -> Any:
    """Return the value that all are equal to, or None if they differ."""
    return values[0] if all(value == values[0] for value in values) else None


def joined_features(tables: Sequence[AnyTable]) -> Features:
    """Return each column's first feature, where one says more than "all values are missing"."""
    features = Features()
    for name, feature in (item for table in tables for item in table.features.items()):
        before = features.get(name, feature)
        if pa.null() in (arrow_type(before), arrow_type(feature)):
            features[name] = feature if arrow_type(before) == pa.null() else before
        elif before != feature and (holds(before, ClassLabel) or holds(feature, ClassLabel)):
            problem = f"the column {name!r} has other classes in another dataset"
            do = "first cast_column both to one ClassLabel, with the names of both"
            raise DataError(problem, got=f"{before!r:.200} and {feature!r:.200}", do=do)
        features.setdefault(name, feature)
    return features


def side_by_side(tables: Sequence[AnyTable]) -> AnyTable:
    """Return the columns of all tables."""
    lengths = [len(table) for table in tables]
    if len(set(lengths)) > 1:
        raise DataError("datasets side by side must have the same number of rows", got=lengths)
    names = [name for table in tables for name in table.column_names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ColumnError("a column is in several datasets", got=twice, do="rename or remove it")
    columns = {name: table.arrow_column(name) for table in tables for name in table.features}
    features = Features({name: f for table in tables for name, f in table.features.items()})
    return type(tables[0])(pa.table(columns), features)
