"""Datasets made of others: one after the other, side by side, and split in two."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from minift.data.dataset import Dataset
from minift.data.features import ClassLabel, Features, arrow_type, same_dicts
from minift.errors import ColumnError, ConfigError, DataError
from minift.rng import random_generator, random_order

if TYPE_CHECKING:
    from minift.data.dataset_dict import DatasetDict


def concatenate_datasets(dsets: Sequence[Dataset], axis: int = 0) -> Dataset:
    """One dataset after the other, or with `axis=1` side by side.

    One after the other, a column that one lacks is None there; side by side, all have the same
    number of rows and no column twice.

    Raises:
        DataError: a column has types that cannot be joined without loss.
    """
    if not dsets:
        raise ConfigError("concatenate_datasets needs at least one dataset")
    if axis not in (0, 1):
        raise ConfigError("axis is 0 (one after the other) or 1 (side by side)", got=axis)
    if axis == 1:
        return side_by_side(dsets)
    dsets = [dataset for dataset in dsets if len(dataset)] or dsets[:1]
    form = (
        dsets[0].row_format if all(ds.row_format == dsets[0].row_format for ds in dsets) else None
    )
    features = Features()
    for name, feature in (item for dataset in dsets for item in dataset.features.items()):
        before = features.get(name, feature)
        if pa.null() in (arrow_type(before), arrow_type(feature)):
            features[name] = feature if arrow_type(before) == pa.null() else before
        elif before != feature and ClassLabel in (type(before), type(feature)):
            raise DataError(
                f"the column {name!r} has other classes in another dataset",
                got=f"{before!r:.200} and {feature!r:.200}",
                do="make them the same with cast_column",
            )
        features.setdefault(name, feature)
    tables = same_dicts([dataset.to_arrow().replace_schema_metadata(None) for dataset in dsets])
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"the datasets cannot be joined: {error}") from None
    joined = Features.from_arrow_schema(table.schema)
    same = {n: f for n, f in features.items() if arrow_type(f) == table.schema.field(n).type}
    return Dataset(table, Features({**joined, **same}), row_format=form)


def side_by_side(dsets: Sequence[Dataset]) -> Dataset:
    """The columns of all datasets."""
    lengths = [len(dataset) for dataset in dsets]
    if len(set(lengths)) > 1:
        raise DataError("datasets side by side must have the same number of rows", got=lengths)
    names = [name for dataset in dsets for name in dataset.column_names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ColumnError("a column is in several datasets", got=twice, do="rename or remove it")
    columns = {name: ds.to_arrow().column(name) for ds in dsets for name in ds.column_names}
    features = Features({name: f for ds in dsets for name, f in ds.features.items()})
    return Dataset(pa.table(columns), features)


def train_test_split(
    dataset: Dataset,
    test_size: float | int | None = None,
    train_size: float | int | None = None,
    shuffle: bool = True,
    stratify_by_column: str | None = None,
    seed: int | None = None,
    generator: np.random.Generator | None = None,
) -> "DatasetDict":
    """Two disjoint datasets; the same rows as the peer's for the same seed.

    Args:
        dataset: what to split.
        test_size: a share of the rows (float) or a number of rows (int); a quarter by default.
        train_size: the same for the other part; all the rest by default.
        shuffle: take rows at random; otherwise the first ones are for training.
        stratify_by_column: a ClassLabel column, whose classes both parts have in like shares.
        seed: of the random order.
        generator: gives the random order instead.
    """
    from minift.data.dataset_dict import DatasetDict

    n = len(dataset)
    n_train, n_test = split_sizes(n, test_size, train_size)
    if stratify_by_column is not None:
        if not shuffle:
            raise ConfigError("stratify_by_column needs shuffle=True")
        train, test = stratified(dataset, stratify_by_column, n_train, n_test, seed, generator)
    elif shuffle:
        order = random_order(n, seed, generator)
        test, train = order[:n_test], order[n_test : n_test + n_train]
    else:
        train, test = np.arange(n_train), np.arange(n_train, n_train + n_test)
    return DatasetDict(train=dataset.select(train), test=dataset.select(test))


def split_sizes(n: int, test_size: Any, train_size: Any) -> tuple[int, int]:
    """Rows for training and for test: shares are rounded up for test, down for training."""
    if test_size is None and train_size is None:
        test_size = 0.25

    def rows(size: Any, rounded: Any) -> int:
        return int(rounded(size * n)) if isinstance(size, float) else int(size)

    n_test = n - rows(train_size, np.floor) if test_size is None else rows(test_size, np.ceil)
    n_train = n - n_test if train_size is None else rows(train_size, np.floor)
    if n_train + n_test > n or n_train < 1 or n_test < 1:
        got = f"{n_train} rows for training and {n_test} for test, of {n}"
        raise ConfigError("test_size and train_size leave a part empty, or are too much", got=got)
    return n_train, n_test


def stratified(
    dataset: Dataset, column: str, n_train: int, n_test: int, seed: Any, generator: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training and test, each class in like shares (Pedregosa et al. 2011)."""
    dataset.check_columns([column])
    if not isinstance(dataset.features[column], ClassLabel):
        raise ConfigError(
            "stratify_by_column must be a ClassLabel column",
            got=dataset.features[column],
            do=f"dataset.class_encode_column({column!r})",
        )
    labels = dataset.to_arrow(columns=[column]).column(column)
    if labels.null_count:
        raise DataError(f"the column {column!r} has missing labels", do="filter them out first")
    classes, counts = np.unique(labels.to_numpy(), return_counts=True)
    if counts.min() < 2 or min(n_train, n_test) < len(classes):
        raise ConfigError(
            "each part needs a row of each class",
            got=f"{n_train} and {n_test} rows, {counts.min()} row(s) of the rarest class",
            expected=f"at least {len(classes)} rows in each part and 2 rows of each class",
        )
    rng = random_generator(seed, generator)
    for_train = shares(counts, n_train, rng)
    for_test = shares(counts - for_train, n_test, rng)
    train, test = [], []
    for class_, count, a, b in zip(classes, counts, for_train, for_test, strict=True):
        rows = np.flatnonzero(labels.to_numpy() == class_)[rng.permutation(count)]
        train.append(rows[:a])
        test.append(rows[a : a + b])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))


def shares(counts: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n rows divided among classes by their counts; what rounding leaves goes to the largest
    remainders, and among equal ones to chance."""
    exact = n * counts / counts.sum()
    whole = np.floor(exact)
    left = int(n - whole.sum())
    for remainder in np.unique(exact - np.floor(exact))[::-1]:
        if left:
            equal = np.flatnonzero(exact - np.floor(exact) == remainder)
            chosen = rng.choice(equal, size=min(len(equal), left), replace=False)
            whole[chosen] += 1
            left -= len(chosen)
    return whole.astype(np.int64)
