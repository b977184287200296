"""`Dataset`: an immutable Arrow table, an order of its rows, a choice of its columns.

Nothing here changes a table. Selecting, shuffling and sorting compose row numbers; dropping and
renaming columns are views. So every operation is cheap, and what a dataset is can be digested from
three things (what its columns hold, features, rows), whatever steps led to it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minift.data.column import Column, FlatColumn
from minift.data.features import ClassLabel, Features, Value, arrow_type, as_array, cast_array
from minift.data.fingerprint import column_digest, fingerprint
from minift.data.formats import Format, format_batch, rows_of
from minift.data.rows import Rows, as_rows, compose, random_order, resolve_key
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
        digests: {column: digest of what it holds}, as far as known; found out when asked for.
    """

    def __init__(
        self,
        table: pa.Table,
        features: Features | None = None,
        rows: Rows | None = None,
        source: str | None = None,
        digests: dict[str, str] | None = None,
        form: Format | None = None,
    ) -> None:
        features = features or Features.from_arrow_schema(table.schema)
        if list(features) != table.column_names:
            raise DataError(
                "the features do not name the columns",
                got=list(features),
                expected=table.column_names,
            )
        self._table = table.replace_schema_metadata(features.arrow_schema.metadata)
        self.features = features
        self._rows = range(table.num_rows) if rows is None else rows
        if digests is None:
            digests = {name: f"{source} {name}" for name in features} if source else {}
        self._digests = digests
        self._format = form or Format()
        self._flat: dict[str, FlatColumn] = {}

    def _with(self, **changes: Any) -> "Dataset":
        """A dataset that differs in what is given."""
        said = {"table": self._table, "features": self.features, "rows": self._rows}
        if "table" not in changes:
            said["digests"] = self._digests
        dataset = Dataset(**{**said, "form": self._format, **changes})
        if "table" not in changes:
            dataset._flat = self._flat
        return dataset

    # -- making one -------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], features: Features | None = None) -> "Dataset":
        """From {column: values}, all of one length."""
        lengths = {name: len(values) for name, values in mapping.items()}
        if len(set(lengths.values())) > 1:
            raise DataError("the columns have different lengths", got=lengths)
        if features is not None and set(features) != set(mapping):
            raise DataError(
                "the features do not name the columns", got=list(features), expected=list(mapping)
            )
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
        for name in self.features:
            if name not in self._digests:
                self._digests[name] = column_digest(self._table.column(name)).hex()
        columns = [(name, self._digests[name]) for name in self.features]
        features = json.dumps(self.features.to_dict())
        rows = self._rows if isinstance(self._rows, np.ndarray) else str(self._rows)
        return fingerprint("dataset", columns, features, rows)

    def __fingerprint__(self) -> str:
        """Of a dataset that a mapped function reads."""
        return fingerprint(self.fingerprint, self._format)

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
            columns: read these, also where the format does not show them.
        """
        wanted = resolve_key(key, len(self))
        rows = range(wanted, wanted + 1) if isinstance(wanted, int) else wanted
        form = self._format
        if form.kind == "transform":  # it may need any column
            columns = None
        elif columns is not None:
            form = replace(form, output_all_columns=True)
        batch = format_batch(self.table(rows, columns), form)
        return next(rows_of(batch, 1)) if isinstance(wanted, int) else batch

    def table(self, rows: Rows | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows as an Arrow table, without copying where they are adjacent in the data."""
        table = self._table if columns is None else self._table.select(list(columns))
        picked = self._rows if rows is None else compose(self._rows, rows)
        if isinstance(picked, range) and picked.step == 1:
            return table.slice(picked.start, len(picked))
        return table.take(pa.array(as_rows(picked)))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self), READ_ROWS):
            rows = range(start, min(start + READ_ROWS, len(self)))
            yield from rows_of(self.read(rows), len(rows))

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
        return self.flat(name).lengths(as_rows(self._rows))

    # -- choosing rows ----------------------------------------------------------------------------

    def select(self, indices: Iterable[int]) -> "Dataset":
        """These rows in this order; adjacent ones stay a slice."""
        return self._with(rows=compose(self._rows, resolve_key(indices, len(self))))

    def shuffle(
        self, seed: int | None = None, generator: np.random.Generator | None = None
    ) -> "Dataset":
        """A random order: `numpy.random.default_rng(seed).permutation(n)`, as `datasets` does."""
        return self.select(random_order(len(self), seed, generator))

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
            mask = np.asarray(function)
            if (mask.size and mask.dtype != bool) or mask.shape != (len(self),):
                raise DataError(
                    "the mask does not fit",
                    got=f"{mask.dtype} of shape {mask.shape}",
                    expected=f"bool of shape ({len(self)},)",
                )
            return self.select(np.flatnonzero(mask))
        columns = [input_columns] if isinstance(input_columns, str) else input_columns
        self.check_columns(columns or ())
        keep = np.zeros(len(self), dtype=bool)
        for start in range(0, len(self), batch_size):
            rows = range(start, min(start + batch_size, len(self)))
            batch, options = self.read(rows, columns), dict(fn_kwargs or {})
            answers = [
                function(*([given] if columns is None else [given[n] for n in columns]), **options)
                for given in ([batch] if batched else rows_of(batch, len(rows)))
            ]
            answer = answers[0] if batched else answers
            answer = np.asarray(answer if hasattr(answer, "__array__") else list(answer), bool)
            if answer.shape != (len(rows),):
                raise DataError(
                    f"filter got {answer.size} answers for {len(rows)} rows",
                    expected="one True or False for each row",
                )
            keep[start : rows.stop] = answer
        return self.filter(keep)

    def sort(
        self, column_names: str | Sequence[str], reverse: bool | Sequence[bool] = False
    ) -> "Dataset":
        """Rows in the order of the columns' values; missing values last; equal rows keep theirs."""
        names = [column_names] if isinstance(column_names, str) else list(column_names)
        self.check_columns(names)
        down = [reverse] * len(names) if isinstance(reverse, bool) else list(reverse)
        if len(down) != len(names):
            raise ConfigError("sort needs one reverse= for each column", got=down, expected=names)
        orders = ["descending" if reverse else "ascending" for reverse in down]
        keys = list(zip(names, orders, strict=True))
        return self.select(pc.sort_indices(self.table(columns=names), sort_keys=keys).to_numpy())

    def train_test_split(
        self, test_size: float | int = 0.25, seed: int | None = None, shuffle: bool = True
    ) -> "DatasetDict":
        """Two disjoint datasets; the same rows as the peer's for the same seed."""
        from minift.data.dataset_dict import DatasetDict

        n = len(self)
        n_test = int(np.ceil(test_size * n)) if isinstance(test_size, float) else int(test_size)
        if not 0 < n_test < n:
            raise ConfigError("test_size leaves a split empty", got=test_size, expected=f"0 to {n}")
        if shuffle:
            order = random_order(n, seed)
            test, train = order[:n_test], order[n_test:]
        else:
            train, test = np.split(np.arange(n), [n - n_test])
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
            form = replace(form, columns=kept)
        known = {new: self._digests[n] for n, new in new_names.items() if n in self._digests}
        return self._with(
            table=self._table.select(list(new_names)).rename_columns(new),
            features=Features({n: self.features[old] for old, n in new_names.items()}),
            digests=known,
            form=form,
        )

    def add_column(self, name: str, column: Any, feature: Any = None) -> "Dataset":
        """One more column at the end, of as many values as there are rows."""
        if name in self.features:
            raise ColumnError(f"the column {name!r} is there already", do="remove or rename it")
        added = Dataset.from_dict({name: column}, Features({name: feature}) if feature else None)
        if len(added) != len(self):
            raise DataError(f"column {name!r} does not fit", got=len(added), expected=len(self))
        dataset = self._compact()
        table = dataset._table.append_column(name, added._table.column(name))
        features = Features({**self.features, **added.features})
        return dataset._with(table=table, features=features, digests=dict(dataset._digests))

    def cast_column(self, column: str, feature: Any) -> "Dataset":
        """The column as another feature; strings become numbers of a ClassLabel by their names."""
        self.check_columns([column])
        values = self.table(columns=[column]).column(column)
        return self._compact()._replaced(column, cast_array(column, values, feature), feature)

    def class_encode_column(self, column: str) -> "Dataset":
        """Make a ClassLabel of a column; its names are the sorted values, as strings."""
        self.check_columns([column])
        if not isinstance(self.features[column], Value):
            raise DataError(
                f"the column {column!r} cannot be encoded",
                got=self.features[column],
                expected="text or numbers",
            )
        values = self.table(columns=[column]).column(column).to_pylist()
        texts = [None if value is None else str(value) for value in values]
        names = sorted({text for text in texts if text is not None})
        feature = ClassLabel(names=names)
        array = cast_array(column, pa.array(texts, pa.string()), feature)
        return self._compact()._replaced(column, array, feature)

    def _compact(self) -> "Dataset":
        """The same rows in a table that has no others."""
        if isinstance(self._rows, range) and len(self._rows) == self._table.num_rows:
            return self
        return self._with(table=self.table(), rows=None)

    def _replaced(self, column: str, values: Any, feature: Any) -> "Dataset":
        """The same rows with another column in the place of one."""
        table = self._table.set_column(self.column_names.index(column), column, values)
        known = {name: digest for name, digest in self._digests.items() if name != column}
        features = Features({**self.features, column: feature})
        return self._with(table=table, features=features, digests=known)

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
        self.table_rows = as_rows(compose(dataset._rows, resolve_key(indices, len(dataset))))
        self.indices = indices
        self._read: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: Any) -> Any:
        if self._read is None:
            self._read = list(rows_of(self.dataset.read(self.indices), len(self)))
        return self._read[key]


def concatenate_datasets(dsets: Sequence[Dataset]) -> Dataset:
    """One dataset after the other; a column that one lacks is None there.

    Raises:
        DataError: a column has types that cannot be joined without loss.
    """
    if not dsets:
        raise ConfigError("concatenate_datasets needs at least one dataset")
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
    tables = [dataset.table().replace_schema_metadata(None) for dataset in dsets]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"the datasets cannot be joined: {error}") from None
    joined = Features.from_arrow_schema(table.schema)
    same = {n: f for n, f in features.items() if arrow_type(f) == table.schema.field(n).type}
    return Dataset(table, Features({**joined, **same}))
