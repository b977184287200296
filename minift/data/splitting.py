"""One table split in two: the same rows as scikit-learn and `datasets` choose for the same seed."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator

from minift.data.features import ClassLabel
from minift.data.table import Table
from minift.errors import ConfigError, DataError


def split_indices(
    table: Table, test_size: Any, train_size: Any, column: str | None, rng: Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return row indices for training and for testing, without a row in common.

    Args:
        table: what to split.
        test_size, train_size: see `Dataset.train_test_split`.
        column: a ClassLabel column, whose classes both parts have in like shares.
        rng: of the random order; None: the first rows are for training.
    """
    n = len(table)
    n_train, n_test = split_sizes(n, test_size, train_size)
    if rng is None and column is not None:
        raise ConfigError("stratify_by_column needs shuffle=True")
    if rng is None:
        return np.arange(n_train), np.arange(n_train, n_train + n_test)
    if column is not None:
        return stratified_indices(table, column, n_train, n_test, rng)
    order = rng.permutation(n)
    return order[n_test : n_test + n_train], order[:n_test]


def split_sizes(n: int, test_size: Any, train_size: Any) -> tuple[int, int]:
    """Return the numbers of rows for training (shares rounded down) and testing (rounded up)."""
    if test_size is None and train_size is None:
        test_size = 0.25

    def num_rows(size: float | int, rounded: Callable[[float], int]) -> int:
        if not isinstance(size, int | float | np.number):
            raise ConfigError("test_size and train_size are numbers", got=repr(size))
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
    table: Table, column: str, n_train: int, n_test: int, rng: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return row indices for training and testing, each class in like shares.

    The algorithm is that of scikit-learn's `StratifiedShuffleSplit` (Pedregosa et al. 2011).
    """
    labels = table.arrow_column(column)
    if not isinstance(table.features[column], ClassLabel):
        do = f"dataset.class_encode_column({column!r})"
        raise ConfigError("stratify_by_column must be a ClassLabel column", do=do)
    if labels.null_count:
        raise DataError(f"the column {column!r} has missing labels", do="filter them out first")
    classes, counts = np.unique(labels.to_numpy(), return_counts=True)
    if counts.min() < 2 or min(n_train, n_test) < len(classes):
        got = f"{n_train} and {n_test} rows of {len(classes)} classes, one with {counts.min()}"
        raise ConfigError("each part needs a row of each class", got=got)
    train_counts = share_out(counts, n_train, rng)
    test_counts = share_out(counts - train_counts, n_test, rng)
    train, test = [], []
    for class_, count, a, b in zip(classes, counts, train_counts, test_counts, strict=True):
        of_class = np.flatnonzero(labels.to_numpy() == class_)[rng.permutation(count)]
        train.append(of_class[:a])
        test.append(of_class[a : a + b])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))


def share_out(counts: np.ndarray, n: int, rng: Generator) -> np.ndarray:
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
