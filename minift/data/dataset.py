"""`Dataset`: an immutable Arrow table, an order of its rows, a choice of its columns.

Nothing here changes a table. Selecting, shuffling and sorting compose row numbers; dropping and
renaming columns are views. So every operation is cheap, and what a dataset is can be digested from
three things (what its columns hold, features, rows), whatever steps led to it.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minift.data.batch import RowBatch
from minift.data.column import Column
from minift.data.features import ClassLabel, Features, Value, as_array, cast_array, check_names
from minift.data.formatting import Format, rows_of, to_frame
from minift.data.indices import compose, resolve_key
from minift.data.table import READ_ROWS, Table
from minift.errors import ColumnError, ConfigError, DataError
from minift.rng import random_order

if TYPE_CHECKING:
    from minift.data.dataset_dict import DatasetDict


class Dataset(Table):
    """A table with the familiar method names."""

    # -- making one -------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], features: Features | None = None) -> "Dataset":
        """From {column: values}, all of one length."""
        lengths = {name: len(values) for name, values in mapping.items()}
        if len(set(lengths.values())) > 1:
            raise DataError("the columns have different lengths", got=lengths)
        if features is not None:
            check_names(features, mapping)
        names = list(features or mapping)
        given = features or Features()
        arrays = [as_array(name, mapping[name], given.get(name)) for name in names]
        return cls(pa.table(arrays, names=names), features)

    @classmethod
    def from_list(
        cls, rows: Sequence[Mapping[str, Any]], features: Features | None = None
    ) -> "Dataset":
        """From a list of dicts; a key that a row lacks is None there."""
        names = list(dict.fromkeys(name for row in rows for name in row) or features or ())
        return cls.from_dict({name: [row.get(name) for row in rows] for name in names}, features)

    @classmethod
    def from_generator(
        cls, generator: Callable[..., Any], features: Features | None = None, gen_kwargs: Any = None
    ) -> "Dataset":
        """From the dicts that `generator(**gen_kwargs)` yields."""
        return cls.from_list(list(generator(**(gen_kwargs or {}))), features)

    # -- what it is -------------------------------------------------------------------------------

    @property
    def num_rows(self) -> int:
        return len(self.indices)

    @property
    def num_columns(self) -> int:
        return len(self.features)

    @property
    def shape(self) -> tuple[int, int]:
        return self.num_rows, self.num_columns

    _fingerprint = Table.fingerprint  # the peer's name

    def __repr__(self) -> str:
        return f"Dataset({{\n    features: {self.column_names},\n    num_rows: {self.num_rows}\n}})"

    # -- reading rows -----------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        """A row as a dict, several rows as a dict of lists, or a column by its name."""
        return self.column(key) if isinstance(key, str) else self.read(key)

    def column(self, name: str) -> Column:
        self.check_columns([name])
        return Column(self, name)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self), READ_ROWS):
            rows = range(start, min(start + READ_ROWS, len(self)))
            yield from rows_of(self.read(rows), len(rows))

    def iter(self, batch_size: int, drop_last_batch: bool = False) -> Iterator[Any]:
        """Batches in order, each a dict of lists (or as the format says)."""
        left_out = len(self) % batch_size if drop_last_batch else 0
        return self.take(len(self) - left_out).read_batches(None, batch_size)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> "RowBatch":
        """Called by torch's DataLoader with the indices of a whole batch."""
        return RowBatch(self, np.asarray(indices, dtype=np.int64))

    # -- choosing rows ----------------------------------------------------------------------------

    def select(self, indices: Iterable[int]) -> "Dataset":
        """These rows in this order; adjacent ones stay a slice."""
        return self.replace(indices=compose(self.indices, resolve_key(indices, len(self))))

    def shuffle(
        self, seed: int | None = None, generator: np.random.Generator | None = None
    ) -> "Dataset":
        """A random order: `numpy.random.default_rng(seed).permutation(n)`, as `datasets` does."""
        return self.select(random_order(len(self), seed, generator))

    def take(self, n: int) -> "Dataset":
        """The first n rows, or all if there are fewer."""
        if n < 0:
            raise ConfigError("a number of rows is not negative", got=n)
        return self.select(range(min(n, len(self))))

    def skip(self, n: int) -> "Dataset":
        """The rows after the first n."""
        return self.select(range(len(self.take(n)), len(self)))

    def shard(self, num_shards: int, index: int, contiguous: bool = True) -> "Dataset":
        """One of `num_shards` parts: adjacent rows, or every `num_shards`-th row."""
        if not 0 <= index < num_shards:
            raise ConfigError("index must be in [0, num_shards-1]", got=f"{index} of {num_shards}")
        if not contiguous:
            return self.select(range(index, len(self), num_shards))
        size, more = divmod(len(self), num_shards)  # the first ones get one more
        start = index * size + min(index, more)
        return self.select(range(start, start + size + (index < more)))

    def filter(self, function: Any, **options: Any) -> "Dataset":
        """The rows for which `function` answers True, or which a boolean array marks.

        The answers are found, and kept, like the result of `map`, whose options it takes:
        `batched`, `batch_size`, `with_indices`, `input_columns`, `fn_kwargs`, `num_proc`...
        """
        if callable(function):
            from minift.data.mapping import answers_of

            return self.filter(answers_of(self, function, **options))
        mask = np.asarray(function)
        if (mask.size and mask.dtype != bool) or mask.shape != (len(self),):
            raise DataError(
                "the mask does not fit",
                got=f"{mask.dtype} of shape {mask.shape}",
                expected=f"bool of shape ({len(self)},)",
            )
        return self.select(np.flatnonzero(mask))

    def sort(
        self,
        column_names: str | Sequence[str],
        reverse: bool | Sequence[bool] = False,
        null_placement: str = "at_end",
    ) -> "Dataset":
        """Rows in the order of the columns' values; equal rows keep theirs."""
        names = [column_names] if isinstance(column_names, str) else list(column_names)
        self.check_columns(names)
        down = [reverse] * len(names) if isinstance(reverse, bool) else list(reverse)
        if len(down) != len(names):
            raise ConfigError("sort needs one reverse= for each column", got=down, expected=names)
        keys = [(n, "descending" if d else "ascending") for n, d in zip(names, down, strict=True)]
        placed = {} if null_placement == "at_end" else {"null_placement": null_placement}
        order = pc.sort_indices(self.to_arrow(columns=names), sort_keys=keys, **placed)
        return self.select(order.to_numpy())

    def train_test_split(self, *args: Any, **options: Any) -> "DatasetDict":
        """Two disjoint datasets, see `minift.data.combining.train_test_split`."""
        from minift.data.combining import train_test_split

        return train_test_split(self, *args, **options)

    # -- choosing and changing columns ------------------------------------------------------------

    def select_columns(self, column_names: str | Sequence[str]) -> "Dataset":
        names = [column_names] if isinstance(column_names, str) else list(column_names)
        self.check_columns(names)
        return self._renamed({name: name for name in names})

    def remove_columns(self, column_names: str | Sequence[str]) -> "Dataset":
        names = [column_names] if isinstance(column_names, str) else list(column_names)
        self.check_columns(names)
        return self._renamed({name: name for name in self.features if name not in names})

    def rename_column(self, original_column_name: str, new_column_name: str) -> "Dataset":
        return self.rename_columns({original_column_name: new_column_name})

    def rename_columns(self, column_mapping: Mapping[str, str]) -> "Dataset":
        self.check_columns(column_mapping)
        return self._renamed({name: column_mapping.get(name, name) for name in self.features})

    def _renamed(self, new_names: Mapping[str, str]) -> "Dataset":
        """Keep the columns that are keys, under the names that are values."""
        new = list(new_names.values())
        if len(set(new)) < len(new) or "" in new:
            raise ColumnError("two columns would have one name, or one would have none", got=new)
        form = self.row_format
        if form.columns is not None:
            kept = tuple(new_names[name] for name in form.columns if name in new_names)
            form = replace(form, columns=kept)
        known = {new: self.digests[n] for n, new in new_names.items() if n in self.digests}
        return self.replace(
            data=self.data.select(list(new_names)).rename_columns(new),
            features=Features({n: self.features[old] for old, n in new_names.items()}),
            digests=known,
            row_format=form,
            derived={new: self.derived[n] for n, new in new_names.items() if n in self.derived},
        )

    def add_column(self, name: str, column: Any, feature: Any = None) -> "Dataset":
        """One more column at the end, of as many values as there are rows."""
        if name in self.features:
            raise ColumnError(f"the column {name!r} is there already", do="remove or rename it")
        added = Dataset.from_dict({name: column}, Features({name: feature}) if feature else None)
        if len(added) != len(self):
            raise DataError(f"column {name!r} does not fit", got=len(added), expected=len(self))
        dataset = self.flatten_indices()
        table = dataset.data.append_column(name, added.data.column(name))
        features = Features({**self.features, **added.features})
        same: dict[str, Any] = {"digests": dict(dataset.digests), "derived": dataset.derived}
        if self.row_format.columns is not None:
            same["row_format"] = replace(self.row_format, columns=(*self.row_format.columns, name))
        return dataset.replace(data=table, features=features, **same)

    def cast_column(self, column: str, feature: Any) -> "Dataset":
        """The column as another feature; strings become numbers of a ClassLabel by their names."""
        self.check_columns([column])
        values = self.to_arrow(columns=[column]).column(column)
        return self.flatten_indices()._replaced(
            column, cast_array(column, values, feature), feature
        )

    def cast(self, features: Features) -> "Dataset":
        """All columns as other features, which name the same columns in any order."""
        check_names(features, self.features)
        dataset = self
        for name, feature in features.items():
            if feature != self.features[name]:
                dataset = dataset.cast_column(name, feature)
        return dataset.select_columns(list(features))

    def flatten_indices(self) -> "Dataset":
        """The same rows in a table that holds no others, in their order."""
        if isinstance(self.indices, range) and len(self.indices) == self.data.num_rows:
            return self
        rows = self.indices
        if isinstance(rows, range):  # a slice
            derived = {n: c.slice(rows.start, len(rows)) for n, c in self.derived.items()}
            table = self.data.slice(rows.start, len(rows))
            return self.replace(data=table, indices=None, derived=derived)
        return self.replace(data=self.to_arrow(), indices=None)

    def class_encode_column(self, column: str, include_nulls: bool = False) -> "Dataset":
        """Make a ClassLabel of a column; its names are the sorted values, as strings.

        Args:
            include_nulls: make a class "None" of missing values, which stay missing otherwise.
        """
        self.check_columns([column])
        if not isinstance(self.features[column], Value):
            got = self.features[column]
            raise DataError(f"{column!r} holds neither text nor numbers to encode", got=got)
        values = self.to_arrow(columns=[column]).column(column).to_pylist()
        texts = [None if v is None and not include_nulls else str(v) for v in values]
        names = sorted({text for text in texts if text is not None})
        feature = ClassLabel(names=names)
        array = cast_array(column, pa.array(texts, pa.string()), feature)
        return self.flatten_indices()._replaced(column, array, feature)

    def _replaced(self, column: str, values: Any, feature: Any) -> "Dataset":
        """The same rows with another column in the place of one."""
        table = self.data.set_column(self.column_names.index(column), column, values)
        known = {name: digest for name, digest in self.digests.items() if name != column}
        features = Features({**self.features, column: feature})
        derived = {name: tokens for name, tokens in self.derived.items() if name != column}
        return self.replace(data=table, features=features, digests=known, derived=derived)

    def unique(self, column: str) -> list[Any]:
        """The different values, in order of first appearance."""
        self.check_columns([column])
        return pc.unique(self.to_arrow(columns=[column]).column(column)).to_pylist()

    # -- formats ----------------------------------------------------------------------------------

    def set_format(
        self,
        type: str | None = None,
        columns: Sequence[str] | None = None,
        output_all_columns: bool = False,
        **options: Any,
    ) -> None:
        """Show rows as "torch", "numpy", "arrow" or (None) as Python objects, from now on."""
        self.check_columns(columns or ())
        shown = None if columns is None else tuple(columns)
        options |= options.pop("format_kwargs", {})  # as the property `format` has them
        self.row_format = Format(type, shown, output_all_columns, options)

    def with_format(
        self, type: str | None = None, columns: Sequence[str] | None = None, **options: Any
    ) -> "Dataset":
        """A dataset with that format; this one keeps its own."""
        dataset = self.replace()
        dataset.set_format(type, columns, **options)
        return dataset

    def reset_format(self) -> None:
        self.row_format = Format()

    @property
    def format(self) -> dict[str, Any]:
        """The format, as `set_format` takes it."""
        form = self.row_format
        shown = self.column_names if form.columns is None else list(form.columns)
        said = {"type": form.kind, "format_kwargs": form.options, "columns": shown}
        return {**said, "output_all_columns": form.output_all_columns}

    @contextlib.contextmanager
    def formatted_as(self, *args: Any, **options: Any) -> Iterator[None]:
        """Another format inside a `with` block."""
        before = self.row_format
        try:
            self.set_format(*args, **options)
            yield
        finally:
            self.row_format = before

    def set_transform(
        self,
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None,
        columns: Sequence[str] | None = None,
        output_all_columns: bool = False,
    ) -> None:
        """Show rows through a function of a batch, called at each reading."""
        self.set_format(None, columns, output_all_columns)
        if transform is not None:
            self.row_format = replace(self.row_format, kind="transform", transform=transform)

    def with_transform(self, *args: Any, **options: Any) -> "Dataset":
        dataset = self.replace()
        dataset.set_transform(*args, **options)
        return dataset

    def _plain(self) -> "Dataset":
        return self.replace(row_format=Format())

    # -- mapping and saving (in files of their own) -----------------------------------------------

    def map(self, function: Callable[..., Any] | None = None, *args: Any, **options: Any) -> Any:
        """Apply a function to every row or batch; see `minift.data.mapping.map_dataset`."""
        from minift.data.mapping import map_dataset

        return map_dataset(self, function, *args, **options)

    def save_to_disk(self, dataset_path: Any, **options: Any) -> None:
        """Write a folder that `load_from_disk` opens, here and in `datasets`.

        Args:
            dataset_path: the folder, which must not be there yet, or be empty.
            options: `max_shard_size` of a file, in bytes or as "500MB"; or `num_shards`, the number
                of files; `overwrite` (False): replace the dataset that is saved there.
        """
        self._write("disk", dataset_path, options)

    def to_dict(self) -> dict[str, list[Any]]:
        return self._plain().read(slice(None))

    def to_list(self) -> list[dict[str, Any]]:
        return list(self._plain())

    def to_pandas(self) -> Any:
        """A DataFrame, where pandas is installed."""
        return to_frame(self.to_arrow())

    def to_polars(self) -> Any:
        """A polars DataFrame, where polars is installed."""
        import polars

        return polars.from_arrow(self.to_arrow())

    def to_csv(self, path: str | Path, **options: Any) -> None:
        """A csv file; `sep` and `header` (True) may be given."""
        self._write("csv", path, options)

    def to_json(self, path: str | Path, **options: Any) -> None:
        """JSON lines, or with `lines=False` one array."""
        self._write("json", path, options)

    def to_parquet(self, path: str | Path, **options: Any) -> None:
        """A parquet file that knows the features."""
        self._write("parquet", path, options)

    def _write(self, kind: str, path: str | Path, options: Mapping[str, Any]) -> None:
        from minift.data.loading import format_named

        format_named(kind).write(self, Path(path), **options)
