"""`Dataset` and `DatasetDict`: the familiar method names, most of them one line.

The work is done by functions from table to table, in the files imported below. `select =
selecting.select` makes such a function a method; its arguments are described where it is defined.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import numpy as np
import pyarrow as pa

from minift.data import columns, selecting
from minift.data.features import Features, as_array, check_names
from minift.data.file_formats import format_named
from minift.data.formatting import Format, rows_of, to_frame
from minift.data.indices import split_range
from minift.data.lazy import Column, RowBatch
from minift.data.mapping.cache import filter_mask, map_table
from minift.data.splitting import split_indices
from minift.data.table import READ_ROWS, Table
from minift.errors import ArgumentError, DataError
from minift.files import local_path
from minift.rng import random_generator

P = ParamSpec("P")
AnyDataset = TypeVar("AnyDataset", bound="Dataset")


def on_a_copy(
    method: Callable[Concatenate[AnyDataset, P], None],
) -> Callable[Concatenate[AnyDataset, P], AnyDataset]:
    """Turn a method that changes the dataset into one that returns a changed copy."""

    @functools.wraps(method)
    def call(dataset: AnyDataset, /, *args: P.args, **kwargs: P.kwargs) -> AnyDataset:
        changed = dataset.replace()
        method(changed, *args, **kwargs)
        return changed

    return call


class Dataset(Table):
    """Rows with named, typed columns: a `Table` with the method names of `datasets.Dataset`."""

    # -- making one -------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], features: Features | None = None) -> Self:
        """Make a dataset of {column: values}, all of one length; arrays and tensors are copied."""
        if bad := [name for name in mapping if not isinstance(name, str)]:
            raise ArgumentError("names of columns are text", got=bad[0], do=f"{str(bad[0])!r}")
        lengths = {name: len(values) for name, values in mapping.items()}
        if len(set(lengths.values())) > 1:
            raise DataError("the columns have different lengths", got=lengths)
        if features is not None:
            check_names(features, mapping)
        types = features or dict.fromkeys(mapping)
        arrays = [as_array(name, mapping[name], types[name]) for name in types]
        return cls(pa.table(arrays, names=list(types)), features)

    @classmethod
    def from_list(
        cls, mapping: Sequence[Mapping[str, Any]], features: Features | None = None
    ) -> Self:
        """Make a dataset of a list of dicts; a key that a row lacks is None there."""
        names = list(dict.fromkeys(name for row in mapping for name in row) or features or ())
        return cls.from_dict({name: [row.get(name) for row in mapping] for name in names}, features)

    @classmethod
    def from_pandas(
        cls, df: Any, features: Features | None = None, preserve_index: bool | None = None
    ) -> Self:
        """Make a dataset of a copy of a DataFrame; NaN is a missing value.

        An index becomes a column, unless it only counts the rows; `preserve_index` decides else.
        """
        if not hasattr(df, "iloc") or not df.columns.is_unique:
            what = "from_pandas takes a DataFrame of pandas whose columns have different names"
            raise ArgumentError(what, got=type(df).__name__)
        if preserve_index or (preserve_index is None and type(df.index).__name__ != "RangeIndex"):
            names = [str(n or f"__index_level_{i}__") for i, n in enumerate(df.index.names)]
            df = df.assign(**{n: df.index.get_level_values(i) for i, n in enumerate(names)})
        return cls.from_dict({str(name): df[name] for name in df}, features)

    @classmethod
    def from_generator(
        cls, generator: Callable[..., Any], features: Features | None = None,
        gen_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:  # fmt: skip
        """Make a dataset of the dicts that `generator(**gen_kwargs)` yields."""
        return cls.from_list(list(generator(**(gen_kwargs or {}))), features)

    # -- describing it ----------------------------------------------------------------------------

    @property
    def num_rows(self) -> int:
        return len(self)

    @property
    def num_columns(self) -> int:
        return len(self.features)

    @property
    def shape(self) -> tuple[int, int]:
        return self.num_rows, self.num_columns

    _fingerprint = Table.fingerprint  # its name in `datasets`

    def __repr__(self) -> str:
        return f"Dataset({{\n    features: {self.column_names},\n    num_rows: {self.num_rows}\n}})"

    # -- reading rows -----------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        """Return a row as a dict, several rows as a dict of lists, or a column by its name."""
        return Column(self, key) if isinstance(key, str) else self.read(key)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> RowBatch:
        """Return a batch to torch's DataLoader, which calls this with all of its indices."""
        return RowBatch(self, np.asarray(indices, dtype=np.int64))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for indices in split_range(range(len(self)), READ_ROWS):
            yield from rows_of(self.read(indices), len(indices))

    def iter(self, batch_size: int, drop_last_batch: bool = False) -> Iterator[Any]:
        """Return batches in order, each a dict of lists (or as the format says)."""
        left_out = len(self) % batch_size if drop_last_batch else 0
        return self.take(len(self) - left_out).read_batches(None, batch_size)

    def unique(self, column: str) -> list[Any]:
        """Return the different values of a column, in order of first appearance."""
        return self.arrow_column(column).unique().to_pylist()

    # -- choosing rows ----------------------------------------------------------------------------

    select = selecting.select
    shuffle = selecting.shuffle
    sort = selecting.sort
    take = selecting.take
    skip = selecting.skip
    shard = selecting.shard

    def filter(self, function: Any, **options: Any) -> Self:
        """Return the rows for which a function answers True, or which a boolean array marks.

        Args:
            function: gets a row, or with `batched` a dict of lists and returns as many booleans.
            options: those of `map`, which calls the function and caches its answers: `batched`,
                `batch_size`, `with_indices`, `input_columns`, `fn_kwargs`, `num_proc`, ...
        """
        if callable(function):
            function = filter_mask(self, function, **options)
        return selecting.select_where(self, function)

    def train_test_split(
        self, test_size: float | int | None = None, train_size: float | int | None = None,
        shuffle: bool = True, stratify_by_column: str | None = None, seed: int | None = None,
        generator: np.random.Generator | None = None,
    ) -> "DatasetDict":  # fmt: skip
        """Return `DatasetDict(train=..., test=...)`, without a row in common.

        Args:
            test_size: a share of the rows (float) or a number of rows (int); a quarter by default.
            train_size: the same for the other part; all other rows by default.
            shuffle: take rows at random; otherwise the first ones are for training.
            stratify_by_column: a ClassLabel column, whose classes both parts have in like shares.
            seed: of the random order.
            generator: gives the random order instead.
        """
        rng = random_generator(seed, generator) if shuffle else None
        rows = split_indices(self, test_size, train_size, stratify_by_column, rng)
        return DatasetDict(train=self.select(rows[0]), test=self.select(rows[1]))

    # -- choosing and changing columns ------------------------------------------------------------

    select_columns = columns.select_columns
    remove_columns = columns.remove_columns
    rename_column = columns.rename_column
    rename_columns = columns.rename_columns
    add_column = columns.add_column
    cast_column = columns.cast_column
    cast = columns.cast
    class_encode_column = columns.class_encode_column
    flatten_indices = columns.flatten_indices

    map = map_table

    # -- formats ----------------------------------------------------------------------------------

    @property
    def format(self) -> dict[str, Any]:
        """The format, as `set_format` takes it."""
        shown = self.row_format.columns
        return {
            "type": self.row_format.type,
            "format_kwargs": self.row_format.options,
            "columns": self.column_names if shown is None else list(shown),
            "output_all_columns": self.row_format.output_all_columns,
        }

    def set_format(
        self, type: str | None = None, columns: Sequence[str] | None = None,
        output_all_columns: bool = False, **format_kwargs: Any,
    ) -> None:  # fmt: skip
        """Show rows as "torch", "numpy", "pandas", "arrow" or (None) as Python objects from now on.

        Args:
            type: the format.
            columns: show only these.
            output_all_columns: show the others too, as Python objects.
            format_kwargs: for "torch": `dtype`, `device`; for "numpy": `dtype`.
        """
        shown = None if columns is None else tuple(self.check_columns(columns))
        format_kwargs |= format_kwargs.pop("format_kwargs", {})  # as the property `format` has them
        self.row_format = Format(type, shown, output_all_columns, format_kwargs)

    def set_transform(
        self, transform: Callable[[dict[str, Any]], dict[str, Any]] | None,
        columns: Sequence[str] | None = None, output_all_columns: bool = False,
    ) -> None:  # fmt: skip
        """Show rows through a function of a batch, called at each reading."""
        self.set_format(None, columns, output_all_columns)
        if transform is not None:
            self.row_format = replace(self.row_format, type="transform", transform=transform)

    def reset_format(self) -> None:
        """Show rows as Python objects, with all columns."""
        self.row_format = Format()

    with_format = on_a_copy(set_format)
    with_transform = on_a_copy(set_transform)

    # -- writing ----------------------------------------------------------------------------------

    def save_to_disk(
        self, dataset_path: str | Path, max_shard_size: int | str | None = None,
        num_shards: int | None = None, overwrite: bool = False,
    ) -> None:  # fmt: skip
        """Write a folder that `load_from_disk` opens, here and in `datasets`.

        Args:
            dataset_path: the folder, which must not be there yet, or be empty.
            max_shard_size: the largest size of a file, in bytes or as "500MB".
            num_shards: the number of files, instead of their size.
            overwrite: replace the dataset that is saved there.
        """
        write = format_named("disk").write
        write(self, local_path(dataset_path), max_shard_size, num_shards, overwrite)

    def to_dict(self) -> dict[str, list[Any]]:
        """Return {column: list of Python objects}."""
        return self.with_format(None).read(slice(None))

    def to_list(self) -> list[dict[str, Any]]:
        """Return a dict of Python objects for each row."""
        return list(self.with_format(None))

    def to_pandas(self) -> Any:
        """Return a DataFrame, where pandas is installed."""
        return to_frame(self.to_arrow())

    def to_polars(self) -> Any:
        """Return a polars DataFrame, where polars is installed."""
        import polars

        return polars.from_arrow(self.to_arrow())

    def to_csv(self, path: str | Path, sep: str = ",", header: bool = True) -> None:
        """Write a csv file, with a line of column names unless `header` is False."""
        format_named("csv").write(self, local_path(path), sep, header)

    def to_json(self, path: str | Path, lines: bool = True) -> None:
        """Write one JSON object per line, or with `lines=False` one array of them."""
        format_named("json").write(self, local_path(path), lines)

    def to_parquet(self, path: str | Path) -> None:
        """Write a parquet file that records the features."""
        format_named("parquet").write(self, local_path(path))


Method = Callable[Concatenate["DatasetDict", P], Any]


def for_each(method: Callable[Concatenate[Dataset, P], Any]) -> Method[P]:
    """Return a method of `DatasetDict` that calls a method of `Dataset` on each split.

    It returns a `DatasetDict` of datasets, {split: result} of other results, or None if all are
    None.
    """

    @functools.wraps(method)
    def call(splits: "DatasetDict", /, *args: P.args, **kwargs: P.kwargs) -> Any:
        results = {name: method(dataset, *args, **kwargs) for name, dataset in splits.items()}
        if all(isinstance(result, Dataset) for result in results.values()):
            return DatasetDict(results)
        return None if all(result is None for result in results.values()) else results

    return call


def of_each(name: str) -> Any:
    """Return a property of `DatasetDict`: {split: value of this property of the `Dataset`}."""
    return property(lambda splits: {key: getattr(ds, name) for key, ds in splits.items()})


class DatasetDict(dict[str, Dataset]):
    """{"train": Dataset, "validation": Dataset, ...}, with methods that act on every split."""

    def __getitem__(self, key: str) -> Dataset:
        if isinstance(key, str) and key in self:  # a slice has no hash
            return super().__getitem__(key)
        do = f"Please first select a split. Available splits: {sorted(self)}"
        raise KeyError(f"Invalid key: {key!r}. {do}")

    def __repr__(self) -> str:
        splits = "\n".join(f"{name}: {dataset!r}" for name, dataset in self.items())
        indented = splits.replace("\n", "\n    ")
        return f"DatasetDict({{\n    {indented}\n}})"

    num_rows = of_each("num_rows")
    num_columns = of_each("num_columns")
    column_names = of_each("column_names")
    shape = of_each("shape")
    filter = for_each(Dataset.filter)
    sort = for_each(Dataset.sort)
    select_columns = for_each(Dataset.select_columns)
    remove_columns = for_each(Dataset.remove_columns)
    rename_column = for_each(Dataset.rename_column)
    rename_columns = for_each(Dataset.rename_columns)
    cast = for_each(Dataset.cast)
    cast_column = for_each(Dataset.cast_column)
    flatten_indices = for_each(Dataset.flatten_indices)
    with_format = for_each(Dataset.with_format)
    with_transform = for_each(Dataset.with_transform)
    set_format = for_each(Dataset.set_format)
    set_transform = for_each(Dataset.set_transform)
    reset_format = for_each(Dataset.reset_format)
    unique = for_each(Dataset.unique)

    def map(self, function: Any = None, *args: Any, with_split: bool = False, **more: Any) -> Any:
        """Map each split; `with_split` passes the split's name as the function's last argument."""
        named = {name: functools.partial(call_with, function, name) for name in self}
        calls = named if with_split else dict.fromkeys(self, function)
        return DatasetDict({name: ds.map(calls[name], *args, **more) for name, ds in self.items()})

    def class_encode_column(self, column: str, include_nulls: bool = False) -> "DatasetDict":
        """Make a column a ClassLabel with one numbering, of the values in all splits."""
        encoded = columns.encode_classes(list(self.values()), column, include_nulls)
        return DatasetDict(zip(self, encoded, strict=True))

    def shuffle(
        self, seed: int | None = None, seeds: Mapping[str, int | None] | None = None,
        generator: np.random.Generator | None = None,
    ) -> "DatasetDict":  # fmt: skip
        """Return each split in a random order; one seed for all, or `seeds` by split."""
        seeds = seeds or dict.fromkeys(self, seed)
        return DatasetDict({k: ds.shuffle(seeds[k], generator) for k, ds in self.items()})

    def save_to_disk(
        self, dataset_dict_path: str | Path, max_shard_size: int | str | None = None,
        num_shards: Mapping[str, int] | None = None, overwrite: bool = False,
    ) -> None:  # fmt: skip
        """Write one folder per split; as `Dataset.save_to_disk`, with `num_shards` by split."""
        write = format_named("disk").write
        write(self, local_path(dataset_dict_path), max_shard_size, num_shards, overwrite)


def call_with(function: Any, split: str, *args: Any, **options: Any) -> Any:
    """Call a mapped function with the name of the split as its last argument."""
    return function(*args, split, **options)
