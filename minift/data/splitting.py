"""One table split in two: the same rows as scikit-learn and `datasets` choose for the same seed."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minift.data.features import ClassLabel
from minift.data.selecting import select
from minift.data.table import AnyTable, Table
from minift.errors import ConfigError, DataError
from minift.rng import random_generator


def train_test_split(
    table: AnyTable,
    test_size: float | int | None = None,
    train_size: float | int | None = None,
    shuffle: bool = True,
    stratify_by_column: str | None = None,
    seed: int | None = None,
    generator: np.random.Generator | None = None,
) -> tuple[AnyTable, AnyTable]:
    """Return two tables without a row in common: one for training, one for testing.

    Args:
        table: what to split.
        test_size: a share of the rows (float) or a number of rows (int); a quarter by default.
        train_size: the same for the other part; all other rows by default.
        shuffle: take rows at random; otherwise the first ones are for training.
        stratify_by_column: a ClassLabel column, whose classes both parts have in like shares.
        seed: of the random order.
        generator: gives the random order instead.
    """
    n = len(table)
    n_train, n_test = split_sizes(n, test_size, train_size)
    if stratify_by_column is not None:
        if not shuffle:
            raise ConfigError("stratify_by_column needs shuffle=True")
        rng = random_generator(seed, generator)
        train, test = stratified_indices(table, stratify_by_column, n_train, n_test, rng)
    elif shuffle:
        order = random_generator(seed, generator).permutation(n)
        test, train = order[:n_test], order[n_test : n_test + n_train]
    else:
        train, test = np.arange(n_train), np.arange(n_train, n_train + n_test)
    return select(table, train), select(table, test)


def split_sizes(n: int, test_size: Any, train_size: Any) -> tuple[int, int]:
    """Return the numbers of rows for training (shares rounded down) and testing (rounded up)."""
    if test_size is None and train_size is None:
        test_size = 0.25

    def num_rows(size: float | int, rounded: Callable[[float], int]) -> int:
        return rounded(size * n) if isinstance(size, float) else int(size)

    if test_size is None:
        n_test = n - num_rows(train_size, math.floor)
    else:
        n_test = num_rows(test_size, math.ceil)
    n_train = n - n_test if train_size is None else num_rows(train_size, math.floor)
    if n_train + n_test > n or n_train < 1 or n_test < 1:
        got = f"{n_train} rows for training and {n_test} for test, of {n}"
        raise ConfigError("test_size and train_size leave a part empty, or are too much", got=got)
    return n_train, n_test


def stratified_indices(
    table: Table, column: str, n_train: int, n_test: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return row indices for training and testing, each class in like shares.

    The algorithm is that of scikit-learn's `StratifiedShuffleSplit` (Pedregosa et al. 2011).
    """
    labels = table.arrow_column(column)
    if not isinstance(table.features[column], ClassLabel):
        problem, do = "must be a ClassLabel column", f"dataset.class_encode_column({column!r})"
        raise ConfigError(f"stratify_by_column {problem}", got=table.features[column], do=do)
    if labels.null_count:
        raise DataError(f"the column {column!r} has missing labels", do="filter them out first")
    classes, counts = np.unique(labels.to_numpy(), return_counts=True)
    if counts.min() < 2 or min(n_train, n_test) < len(classes):
        got = f"{n_train} and {n_test} rows, {counts.min()} row(s) of the rarest class"
        expected = f"at least {len(classes)} rows in each part and 2 rows of each class"
        raise ConfigError("each part needs a row of each class", got=got, expected=expected)
    train_counts = share_out(counts, n_train, rng)
    test_counts = share_out(counts - train_counts, n_test, rng)
    train, test = [], []
    for class_, count, a, b in zip(classes, counts, train_counts, test_counts, strict=True):
        of_class = np.flatnonzero(labels.to_numpy() == class_)[rng.permutation(count)]
        train.append(of_class[:a])
        test.append(of_class[a : a + b])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))


def share_out(counts: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return how many of n rows each class gets, in proportion to its count.

    Shares are rounded down. The rows that are left over go to the classes with the largest
    remainders; among equal remainders, chance decides.
    """
    exact = n * counts / counts.sum()
    shares = np.floor(exact)
    left_over = int(n - shares.sum())
    for remainder in np.unique(exact - np.floor(exact))[::-1]:
        if left_over:
            equal = np.flatnonzero(exact - np.floor(exact) == remainder)
            chosen = rng.choice(equal, size=min(len(equal), left_over), replace=False)
            shares[chosen] += 1
            left_over -= len(chosen)
    return shares.astype(np.int64)
