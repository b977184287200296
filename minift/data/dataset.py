"""`Dataset`: an immutable Arrow table, an order of its rows, a choice of its columns.

Nothing here changes a table. Selecting, shuffling and sorting compose row numbers; dropping and
renaming columns are views. So every operation is cheap, and what a dataset is can be digested from
four things (where the table came from, columns, features, rows), whatever steps led to it.
"""

import json
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minift.data.column import Column, FlatColumn
from minift.data.features import ClassLabel, Features, arrow_type
from minift.data.fingerprint import fingerprint, table_digest
from minift.data.formats import Format, format_batch
from minift.errors import ColumnError, ConfigError, DataError, nearest

if TYPE_CHECKING:
    from minift.data.dataset_dict import DatasetDict

READ_ROWS = 1000  # rows read at once by plain iteration


class Dataset:
    """Rows with named, typed columns.

    Args:
        table: the data; never changed.
        features: what the columns hold, by default what the table's schema says.
        rows: which rows of the table, in which order; all of them by default.
        source: a digest of what the table holds, where it is known without reading it.
        source_names: {column: what `source` calls it}, when columns were renamed.
    """

    def __init__(
        self,
        table: pa.Table,
        features: Features | None = None,
        rows: "range | np.ndarray | None" = None,
        source: str | None = None,
        source_names: Mapping[str, str] | None = None,
        form: Format | None = None,
    ) -> None:
        features = features or Features.from_arrow_schema(table.schema)
        self._table = table.replace_schema_metadata(features.arrow_schema.metadata)
        self.features = features
        self._rows = range(table.num_rows) if rows is None else rows
        self._source = source
        self._source_names = dict(source_names or {name: name for name in features})
        self._format = form or Format()
        self._flat: dict[str, FlatColumn] = {}

    def _with(self, **changes: Any) -> "Dataset":
        """A dataset that differs in what is given. A new table loses the old one's source."""
        new_table = "table" in changes
        said = {
            "table": self._table,
            "features": self.features,
            "rows": self._rows,
            "source": None if new_table else self._source,
            "source_names": None if new_table else self._source_names,
            "form": self._format,
        }
        dataset = Dataset(**{**said, **changes})
        if not new_table:
            dataset._flat = self._flat
        return dataset

    # -- making one -------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], features: Features | None = None) -> "Dataset":
        """From {column: values}, all of one length."""
        lengths = {name: len(values) for name, values in mapping.items()}
        if len(set(lengths.values())) > 1:
            raise DataError("the columns have different lengths", got=lengths)
        arrays = {}
        for name, values in mapping.items():
            values = values.tolist() if hasattr(values, "tolist") else list(values)
            feature = features.get(name) if features else None
            if isinstance(feature, ClassLabel):
                values = feature.str2int(values)
            try:
                arrays[name] = pa.array(values, arrow_type(feature) if feature else None)
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
                raise DataError(f"column {name!r} mixes types or does not fit: {error}") from None
        return cls(pa.table(arrays), features)

    @classmethod
    def from_list(
        cls, rows: Sequence[Mapping[str, Any]], features: Features | None = None
    ) -> "Dataset":
        """From a list of dicts; a key that a row lacks is None there."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        return cls.from_dict({name: [row.get(name) for row in rows] for name in names}, features)

    # -- what it is -------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    @property
    def num_columns(self) -> int:
        return len(self.features)

    @property
    def shape(self) -> tuple[int, int]:
        return self.num_rows, self.num_columns

    @property
    def column_names(self) -> list[str]:
        return list(self.features)

    @property
    def fingerprint(self) -> str:
        """A digest of rows, columns and features; equal for equal content from the same source."""
        if self._source is None:
            self._source = table_digest(self._table.replace_schema_metadata(None)).hex()
        columns = [(name, self._source_names[name]) for name in self.features]
        features = json.dumps(self.features.to_dict())
        rows = self._rows if isinstance(self._rows, np.ndarray) else str(self._rows)
        return fingerprint("dataset", self._source, columns, features, rows)

    def __repr__(self) -> str:
        return f"Dataset({{\n    features: {self.column_names},\n    num_rows: {self.num_rows}\n}})"

    # -- reading rows -----------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        """A row as a dict, several rows as a dict of lists, or a column by its name."""
        return self.column(key) if isinstance(key, str) else self.read(key)

    def column(self, name: str) -> Column:
        self.check_columns([name])
        return Column(self, name)

    def read(self, key: Any, columns: Sequence[str] | None = None) -> Any:
        """The rows that a key names, in the dataset's format.

        Args:
            key: an integer, a slice, a range, or a sequence of integers; negative ones count
                from the end.
            columns: read only these.
        """
        wanted = resolve_key(key, len(self))
        single = isinstance(wanted, int)
        rows = range(wanted, wanted + 1) if isinstance(wanted, int) else wanted
        batch = format_batch(self.table(rows, columns), self._format)
        if not single or isinstance(batch, pa.Table):
            return batch
        return {name: values[0] for name, values in batch.items()}

    def table(
        self, rows: "range | np.ndarray | None" = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Rows as an Arrow table, without copying where they are adjacent in the data."""
        table = self._table if columns is None else self._table.select(list(columns))
        picked = self._rows if rows is None else compose(self._rows, rows)
        if isinstance(picked, range) and picked.step == 1:
            return table.slice(picked.start, len(picked))
        return table.take(pa.array(np.asarray(picked, dtype=np.int64)))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.batches_of(None):
            if isinstance(batch, pa.Table):
                yield from (batch.slice(i, 1) for i in range(batch.num_rows))
                continue
            for i in range(len(next(iter(batch.values()), ()))):
                yield {name: values[i] for name, values in batch.items()}

    def batches_of(self, columns: Sequence[str] | None, size: int = READ_ROWS) -> Iterator[Any]:
        for start in range(0, len(self), size):
            yield self.read(range(start, min(start + size, len(self))), columns)

    def iter(self, batch_size: int, drop_last_batch: bool = False) -> Iterator[Any]:
        """Batches in order, each a dict of lists (or as the format says)."""
        size = len(self) - len(self) % batch_size if drop_last_batch else len(self)
        for start in range(0, size, batch_size):
            yield self.read(range(start, min(start + batch_size, size)))

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> "RowBatch":
        """Called by torch's DataLoader with the indices of a whole batch."""
        return RowBatch(self, np.asarray(indices, dtype=np.int64))

    def flat(self, name: str) -> FlatColumn:
        """A token column as views of memory; rows are rows of the table."""
        if name not in self._flat:
            self.check_columns([name])
            self._flat[name] = FlatColumn(name, self._table.column(name))
        return self._flat[name]

    def lengths(self, name: str) -> np.ndarray:
        """The number of values in each row of a list column, shape (rows,)."""
        return self.flat(name).lengths[np.asarray(self._rows)]

    # -- choosing rows ----------------------------------------------------------------------------

    def select(self, indices: Iterable[int]) -> "Dataset":
        """These rows in this order; adjacent ones stay a slice."""
        if not isinstance(indices, range | np.ndarray):
            indices = np.fromiter(indices, dtype=np.int64)
        wanted = resolve_key(indices, len(self))
        return self._with(rows=compose(self._rows, wanted))

    def shuffle(
        self, seed: int | None = None, generator: np.random.Generator | None = None
    ) -> "Dataset":
        """A random order: `numpy.random.default_rng(seed).permutation(n)`, as `datasets` does."""
        generator = generator or np.random.default_rng(seed)
        return self.select(generator.permutation(len(self)))

    def filter(
        self,
        function: Any,
        batched: bool = False,
        batch_size: int = READ_ROWS,
        input_columns: str | Sequence[str] | None = None,
        fn_kwargs: Mapping[str, Any] | None = None,
    ) -> "Dataset":
        """The rows for which `function` answers True, or which a boolean array marks."""
        if not callable(function):
            mask = np.asarray(function, dtype=bool)
            if mask.shape != (len(self),):
                raise DataError("the mask does not fit", got=mask.shape, expected=(len(self),))
            return self.select(np.flatnonzero(mask))
        columns = [input_columns] if isinstance(input_columns, str) else input_columns
        keep: list[bool] = []
        for batch in self.batches_of(columns, batch_size):
            options = dict(fn_kwargs or {})
            if batched:
                arguments = [batch] if columns is None else [batch[name] for name in columns]
                keep += [bool(answer) for answer in function(*arguments, **options)]
                continue
            for i in range(len(next(iter(batch.values()), ()))):
                row = {name: values[i] for name, values in batch.items()}
                keep.append(
                    bool(function(*([row] if columns is None else row.values()), **options))
                )
        return self.filter(np.array(keep, dtype=bool))

    def sort(self, column_names: str | Sequence[str], reverse: bool = False) -> "Dataset":
        """Rows in the order of the columns' values; missing values last; equal rows keep theirs."""
        names = [column_names] if isinstance(column_names, str) else list(column_names)
        self.check_columns(names)
        keys = [(name, "descending" if reverse else "ascending") for name in names]
        return self.select(pc.sort_indices(self.table(columns=names), sort_keys=keys).to_numpy())

    def train_test_split(
        self, test_size: float | int = 0.25, seed: int | None = None, shuffle: bool = True
    ) -> "DatasetDict":
        """Two disjoint datasets; the same rows as the peer's for the same seed."""
        from minift.data.dataset_dict import DatasetDict

        n = len(self)
        n_test = int(np.ceil(test_size * n)) if isinstance(test_size, float) else test_size
        n_train = int(np.floor((1 - test_size) * n)) if isinstance(test_size, float) else n - n_test
        if not (0 < n_test < n and n_train > 0):
            raise ConfigError("test_size leaves a split empty", got=test_size, expected=f"0 to {n}")
        if not shuffle:
            return DatasetDict(
                train=self.select(range(n_train)),
                test=self.select(range(n_train, n_train + n_test)),
            )
        order = np.random.default_rng(seed).permutation(n)
        train, test = order[n_test : n_test + n_train], order[:n_test]
        return DatasetDict(train=self.select(train), test=self.select(test))

    # -- choosing and changing columns ------------------------------------------------------------

    def check_columns(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.features:
                raise ColumnError(
                    f"the column {name!r} is not in the dataset",
                    got=f"columns {', '.join(self.column_names)}",
                    expected=nearest(name, self.column_names),
                )

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
        form = self._format
        if form.columns is not None:
            kept = tuple(new_names[name] for name in form.columns if name in new_names)
            form = Format(form.kind, kept, form.output_all_columns, form.options, form.transform)
        return self._with(
            table=self._table.select(list(new_names)).rename_columns(new),
            features=Features({n: self.features[old] for old, n in new_names.items()}),
            source=self._source,
            source_names={n: self._source_names[old] for old, n in new_names.items()}
            if self._source
            else None,
            form=form,
        )

    def add_column(self, name: str, column: Any, feature: Any = None) -> "Dataset":
        """One more column at the end, of as many values as there are rows."""
        if name in self.features:
            raise ColumnError(f"the column {name!r} is there already", do="remove or rename it")
        added = Dataset.from_dict({name: column}, Features({name: feature}) if feature else None)
        if len(added) != len(self):
            raise DataError(f"column {name!r} does not fit", got=len(added), expected=len(self))
        table = self.table().append_column(name, added._table.column(name))
        features = Features({**self.features, **added.features})
        return self._with(table=table, features=features, rows=None)

    def cast_column(self, column: str, feature: Any) -> "Dataset":
        """The column as another feature; strings become numbers of a ClassLabel by their names."""
        self.check_columns([column])
        values = self._table.column(column)
        if isinstance(feature, ClassLabel):
            known = pc.unique(values).to_pylist()
            numbers = {value: feature.str2int(value) for value in known}
            cast = pa.array([numbers[value] for value in values.to_pylist()], pa.int64())
        else:
            cast = values.cast(arrow_type(feature))
        position = self.column_names.index(column)
        return self._with(
            table=self._table.set_column(position, column, cast),
            features=Features({**self.features, column: feature}),
        )

    def class_encode_column(self, column: str) -> "Dataset":
        """Make a ClassLabel of a column; its names are the sorted values, as strings."""
        names = sorted(str(value) for value in self.unique(column) if value is not None)
        texts = [None if value is None else str(value) for value in Column(self._plain(), column)]
        position = self.column_names.index(column)
        table = self.table().set_column(position, column, pa.array(texts, pa.string()))
        dataset = self._with(table=table, features=None, rows=None)
        dataset.features = Features({**self.features, column: dataset.features[column]})
        return dataset.cast_column(column, ClassLabel(names=names))

    def unique(self, column: str) -> list[Any]:
        """The different values, in order of first appearance."""
        self.check_columns([column])
        return pc.unique(self.table(columns=[column]).column(column)).to_pylist()

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
        self._format = Format(type, shown, output_all_columns, options)

    def with_format(
        self, type: str | None = None, columns: Sequence[str] | None = None, **options: Any
    ) -> "Dataset":
        """A dataset with that format; this one keeps its own."""
        dataset = self._with()
        dataset.set_format(type, columns, **options)
        return dataset

    def reset_format(self) -> None:
        self._format = Format()

    def set_transform(self, transform: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Show rows through a function of a batch, called at each reading."""
        self._format = Format("transform", transform=transform)

    def _plain(self) -> "Dataset":
        return self._with(form=Format())

    # -- mapping and saving (in files of their own) -----------------------------------------------

    def map(self, function: Callable[..., Any] | None = None, **options: Any) -> "Dataset":
        """Apply a function to every row or batch; see `minift.data.mapping.map_dataset`."""
        from minift.data.mapping import map_dataset

        return map_dataset(self, function, **options)

    def save_to_disk(self, dataset_path: Any) -> None:
        """Write a folder that `load_from_disk` opens, here and in `datasets`."""
        from minift.data.dataset_dict import save_dataset

        save_dataset(self, dataset_path)

    def to_dict(self) -> dict[str, list[Any]]:
        return self._plain().read(slice(None))

    def to_list(self) -> list[dict[str, Any]]:
        return list(self._plain())


class RowBatch(Sequence[dict[str, Any]]):
    """Some rows of a dataset, not read yet.

    A collator of ours pads token columns straight from the memory map; any other collator sees
    what it expects, a list of dicts.
    """

    def __init__(self, dataset: Dataset, indices: np.ndarray) -> None:
        self.dataset = dataset
        self.table_rows = np.asarray(compose(dataset._rows, resolve_key(indices, len(dataset))))
        self.indices = indices
        self._read: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: Any) -> Any:
        if self._read is None:
            self._read = [self.dataset[int(i)] for i in self.indices]
        return self._read[key]


def resolve_key(key: Any, n: int) -> "int | range | np.ndarray":
    """Row numbers 0 <= i < n from anything that indexes a list or an array.

    Raises:
        IndexError: out of bounds. TypeError: not a kind of index (a bool or float is not).
    """
    if isinstance(key, slice):
        return range(*key.indices(n))
    if isinstance(key, bool | np.bool_) or key is None:
        raise TypeError(f"wrong key {key!r} of type {type(key).__name__} for a dataset of {n} rows")
    if isinstance(key, range) and key.step == 1:
        if len(key) and not 0 <= key.start < key.stop <= n:
            raise IndexError(f"Index {key.stop - 1} out of range for dataset of size {n}.")
        return key
    if not isinstance(key, Iterable):
        try:
            index = operator.index(key)
        except TypeError:
            raise TypeError(f"wrong key {key!r} of type {type(key).__name__}") from None
        if not -n <= index < n:
            raise IndexError(f"Invalid key: {index} is out of bounds for size {n}")
        return index % n
    indices = np.asarray(key if isinstance(key, np.ndarray) else list(key))
    if indices.size == 0:
        return range(0)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"row numbers must be integers, not {indices.dtype}")
    bad = indices[(indices < -n) | (indices >= n)]
    if bad.size:
        raise IndexError(f"Index {bad[0]} out of range for dataset of size {n}.")
    return np.where(indices < 0, indices + n, indices).astype(np.int64)


def compose(rows: "range | np.ndarray", wanted: "int | range | np.ndarray") -> "range | np.ndarray":
    """`rows[wanted]`; adjacent rows become a range, so that they can be sliced."""
    if isinstance(wanted, int):
        return compose(rows, range(wanted, wanted + 1))
    if isinstance(wanted, range):
        return (
            rows[wanted.start : wanted.stop]
            if wanted.step == 1
            else compose(rows, np.asarray(wanted))
        )
    if isinstance(rows, range):
        picked = wanted + rows.start if rows.step == 1 else np.asarray(rows)[wanted]
    else:
        picked = rows[wanted]
    if len(picked) and np.all(np.diff(picked) == 1):
        return range(int(picked[0]), int(picked[-1]) + 1)
    return picked


def concatenate_datasets(dsets: Sequence[Dataset]) -> Dataset:
    """One dataset after the other; a column that one lacks is None there.

    Raises:
        DataError: a column has types that cannot be joined without loss.
    """
    if not dsets:
        raise ConfigError("concatenate_datasets needs at least one dataset")
    features = Features()
    for dataset in dsets:
        for name, feature in dataset.features.items():
            if name not in features or arrow_type(features[name]) == pa.null():
                features[name] = feature
    tables = [dataset.table().replace_schema_metadata(None) for dataset in dsets]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"the datasets cannot be joined: {error}") from None
    joined = Features.from_arrow_schema(table.schema)
    same = {n: f for n, f in features.items() if arrow_type(f) == table.schema.field(n).type}
    return Dataset(table, Features({**joined, **same}))
