"""`DatasetDict`: splits by name. What is done to it is done to each."""

import functools
from pathlib import Path
from typing import Any

from minift.data.dataset import Dataset


def for_each(name: str) -> Any:
    """A method of `Dataset` for all splits."""
    method = getattr(Dataset, name)

    @functools.wraps(method)
    def do(self: "DatasetDict", *args: Any, **options: Any) -> Any:
        found = {key: method(ds, *args, **options) for key, ds in self.items()}
        if all(isinstance(one, Dataset) for one in found.values()):
            return DatasetDict(found)
        return None if set(map(type, found.values())) == {type(None)} else found

    return do


def of_each(name: str) -> Any:
    """A property of `Dataset`, by split."""
    return property(lambda self: {key: getattr(ds, name) for key, ds in self.items()})


def call_with(function: Any, split: str, *args: Any, **options: Any) -> Any:
    return function(*args, split, **options)


class DatasetDict(dict[str, Dataset]):
    """{"train": Dataset, "validation": Dataset, ...}"""

    def __getitem__(self, key: str) -> Dataset:
        if isinstance(key, str) and key in self:  # a slice has no hash
            return super().__getitem__(key)
        raise KeyError(
            f"Invalid key: {key!r}. Please first select a split. Available splits: {sorted(self)}"
        )

    num_rows = of_each("num_rows")
    num_columns = of_each("num_columns")
    column_names = of_each("column_names")
    shape = of_each("shape")
    filter = for_each("filter")
    sort = for_each("sort")
    select_columns = for_each("select_columns")
    remove_columns = for_each("remove_columns")
    rename_column = for_each("rename_column")
    rename_columns = for_each("rename_columns")
    cast = for_each("cast")
    cast_column = for_each("cast_column")
    class_encode_column = for_each("class_encode_column")
    flatten_indices = for_each("flatten_indices")
    with_format = for_each("with_format")
    with_transform = for_each("with_transform")
    set_format = for_each("set_format")
    set_transform = for_each("set_transform")
    reset_format = for_each("reset_format")
    unique = for_each("unique")

    def map(self, function: Any = None, *args: Any, with_split: bool = False, **more: Any) -> Any:
        """`Dataset.map` for each; `with_split` passes the split's name as a last argument."""
        named = {name: functools.partial(call_with, function, name) for name in self}
        calls = named if with_split else dict.fromkeys(self, function)
        return DatasetDict({name: ds.map(calls[name], *args, **more) for name, ds in self.items()})

    def shuffle(self, seed: Any = None, seeds: Any = None, **options: Any) -> "DatasetDict":
        """Each in a random order; one seed for all, or `seeds` by split."""
        seeds = seeds or dict.fromkeys(self, seed)
        return DatasetDict({k: ds.shuffle(seeds[k], **options) for k, ds in self.items()})

    def save_to_disk(self, dataset_dict_path: Any, *args: Any, **options: Any) -> None:
        """One folder a split; as `Dataset.save_to_disk`, with `num_shards` by split."""
        from minift.data.loading import format_named

        format_named("disk").write(self, Path(dataset_dict_path), *args, **options)

    def __repr__(self) -> str:
        splits = "\n".join(f"{name}: {dataset!r}" for name, dataset in self.items())
        indented = splits.replace("\n", "\n    ")
        return f"DatasetDict({{\n    {indented}\n}})"
