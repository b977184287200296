"""What a column holds: `Value`, `ClassLabel`, `List`, `Json`, and dicts of these.

Features say more than Arrow types (the names of classes), so they travel in the Arrow schema's
metadata under the key `huggingface`, in the JSON form that `datasets` writes: files written here
open there with their class names, and the other way round.
"""

import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minift.errors import ConfigError, DataError, MiniftError, nearest

METADATA_KEY = b"huggingface"

JSON = pa.json_()  # text to Arrow, with a name that says what it is

# Names that `datasets` uses and pyarrow spells otherwise.
ALIASES = {"float": "float32", "double": "float64"}
SPELLINGS = {
    "halffloat": "float16",
    "float": "float32",
    "double": "float64",
    "date32[day]": "date32",
    "date64[ms]": "date64",
}


@dataclass(frozen=True, repr=False)
class Value:
    """A scalar column, by the name of its Arrow type: "string", "int64", "float32", "bool"..."""

    dtype: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", ALIASES.get(self.dtype, self.dtype))
        value_type(self.dtype)  # an unknown name is an error here, not at the first row

    def __repr__(self) -> str:
        return f"Value({self.dtype!r})"


@dataclass(frozen=True, repr=False)
class List:
    """A column of lists of one kind; `length` is -1 unless every list has that many items."""

    feature: Any
    length: int = -1

    def __repr__(self) -> str:
        length = "" if self.length < 0 else f", length={self.length}"
        return f"List({self.feature!r}{length})"


@dataclass(frozen=True)
class Json:
    """Any Python objects that JSON can hold, stored as its text: dicts keep exactly their keys.

    In a struct every dict would have the keys of all, filled with None. Python values are encoded
    as they are, so a str stays one; a text column that is cast is taken for the text of JSON.
    """


class ClassLabel:
    """Integers 0 <= i < num_classes that have names; -1 and None mean unlabelled.

    `names_file` is a text file with a name in each line.
    """

    dtype = "int64"

    def __init__(
        self,
        num_classes: int | None = None,
        names: Any = None,
        names_file: str | Path | None = None,
    ) -> None:
        if names_file is not None:
            lines = Path(names_file).read_text(encoding="utf-8").split("\n")
            names = [line.strip() for line in lines if line.strip()]
        if names is None and num_classes is None:
            raise ConfigError("ClassLabel needs names= or num_classes=")
        self.names = list(map(str, range(num_classes or 0) if names is None else names))
        if num_classes not in (None, len(self.names)):
            got = f"num_classes={num_classes}, {len(self.names)} names"
            raise ConfigError("ClassLabel: num_classes and names disagree", got=got)
        if len(set(self.names)) != len(self.names):
            raise ConfigError("ClassLabel: a name appears twice", got=self.names)
        self._numbers = {name: number for number, name in enumerate(self.names)}

    @property
    def num_classes(self) -> int:
        return len(self.names)

    def str2int(self, values: Any) -> Any:
        """A name to its number; an iterable of names to a list of numbers."""
        if not isinstance(values, str) and isinstance(values, Iterable):
            return [self._number(value) for value in values]
        return self._number(values)

    def _number(self, value: Any) -> int | None:
        if value is None:
            return None
        if isinstance(value, str):
            for text in (value, value.strip()):
                if text in self._numbers:
                    return self._numbers[text]
        try:
            number = int(value)
            whole = isinstance(value, str) or number == value  # 1.5 is no class
        except (TypeError, ValueError, OverflowError):
            number, whole = -2, False
        if not whole or not -1 <= number < self.num_classes:
            raise DataError(
                f"invalid class label {value!r}", expected=nearest(str(value), self.names)
            )
        return number

    def int2str(self, values: Any) -> Any:
        """A number to its name; an iterable of numbers to a list of names."""
        if not isinstance(values, str) and isinstance(values, Iterable):
            return [self.int2str(value) for value in values]
        if not 0 <= int(values) < self.num_classes:
            raise DataError(
                f"no class has the number {values}", expected=f"0..{self.num_classes - 1}"
            )
        return self.names[int(values)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClassLabel) and self.names == other.names

    def __hash__(self) -> int:
        return hash(tuple(self.names))

    def __repr__(self) -> str:
        return f"ClassLabel(names={self.names!r})"


class Features(dict[str, Any]):
    """{column name: feature}, in column order."""

    @property
    def arrow_schema(self) -> pa.Schema:
        """The Arrow schema, with these features in its metadata."""
        fields = [pa.field(name, arrow_type(feature)) for name, feature in self.items()]
        text = json.dumps({"info": {"features": self.to_dict()}})
        return pa.schema(fields, metadata={METADATA_KEY: text.encode()})

    @classmethod
    def from_arrow_schema(cls, schema: pa.Schema) -> "Features":
        """What the schema says; class names from its metadata where they fit the column's type."""
        said: dict[str, Any] = {}
        if METADATA_KEY in (schema.metadata or {}):
            info = json.loads(schema.metadata[METADATA_KEY]).get("info") or {}
            said = info.get("features") or {}
        features = cls()
        for field in schema:
            try:
                feature = from_json(said[field.name]) if field.name in said else None
            except MiniftError as error:  # an image, say: its bytes can still ride along
                warnings.warn(f"column {field.name!r} is read as {field.type}: {error.what}")
                feature = None
            fits = feature is not None and arrow_type(feature) == field.type
            features[field.name] = feature if fits else from_arrow(field.type)
        return features

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, as in dataset_info.json."""
        return {name: to_json(feature) for name, feature in self.items()}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> "Features":
        return cls({name: from_json(feature) for name, feature in said.items()})


def check_names(features: Features, columns: Iterable[str], where: str = "") -> None:
    """An error unless the features are those of the columns, in whatever order."""
    if set(features) != set(columns):
        raise DataError(
            f"{where}the features do not name the columns",
            got=sorted(features),
            expected=sorted(columns),
        )


def value_type(name: str) -> pa.DataType:
    """The Arrow type that a `Value` names, for example "timestamp[us]" or "int8"."""
    bare, *inside = re.split(r"[\[\](),\s]+", name.strip("])"))
    arguments = [int(a) if a.isdigit() else a.removeprefix("tz=") for a in inside]
    try:
        if bare in ("timestamp", "duration", "time32", "time64", "decimal128", "decimal256"):
            return getattr(pa, bare)(*arguments)
        if bare == "fixed_size_binary":
            return pa.binary(*arguments)
        return pa.type_for_alias(name)
    except (TypeError, ValueError):
        known = "string, bool, int8 ... uint64, float32, float64, binary, date32, timestamp[s] ..."
        raise ConfigError(f"no column type is called {name!r}", expected=known) from None


def arrow_type(feature: Any) -> pa.DataType:
    """The Arrow type that stores a feature."""
    match feature:
        case Value():
            return value_type(feature.dtype)
        case ClassLabel():
            return pa.int64()
        case Json():
            return JSON
        case List():
            return pa.list_(arrow_type(feature.feature), feature.length)
        case dict():
            return pa.struct([pa.field(name, arrow_type(f)) for name, f in feature.items()])
    raise ConfigError(f"not a feature: {feature!r}", expected="Value, ClassLabel, List, Json, dict")


def from_arrow(type_: pa.DataType) -> Any:
    """The feature of a bare Arrow type."""
    if type_ == JSON:
        return Json()
    if pa.types.is_dictionary(type_):
        return from_arrow(type_.value_type)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return List(from_arrow(type_.value_type))
    if pa.types.is_fixed_size_list(type_):
        return List(from_arrow(type_.value_type), type_.list_size)
    if pa.types.is_struct(type_):
        return {
            type_.field(i).name: from_arrow(type_.field(i).type) for i in range(type_.num_fields)
        }
    return Value(SPELLINGS.get(str(type_), str(type_)))


def to_json(feature: Any) -> Any:
    """A feature in the JSON form that `datasets` writes."""
    match feature:
        case Value():
            return {"dtype": feature.dtype, "_type": "Value"}
        case ClassLabel():
            return {"names": feature.names, "_type": "ClassLabel"}
        case Json():
            return {"_type": "Json"}
        case List():
            said = {"feature": to_json(feature.feature), "_type": "List"}
            return said if feature.length < 0 else {**said, "length": feature.length}
    return {name: to_json(f) for name, f in feature.items()}


def from_json(said: Any) -> Any:
    """A feature from any JSON form that `datasets` has written over the years."""
    if isinstance(said, list):
        return List(from_json(said[0]))
    kind = said.get("_type")
    if kind == "Value":
        return Value(said["dtype"])
    if kind == "ClassLabel":
        return ClassLabel(names=said.get("names"), num_classes=said.get("num_classes"))
    if kind == "Json":  # read as objects, also where `datasets` was told not to decode it
        return Json()
    if kind == "Translation":  # in the order in which `datasets` stores it
        return {language: Value("string") for language in sorted(said["languages"])}
    if kind in ("List", "LargeList", "Sequence"):
        inner = from_json(said["feature"])
        if kind == "Sequence" and isinstance(inner, dict):  # the old form: a dict of lists
            length = said.get("length", -1)
            return {name: List(feature, length) for name, feature in inner.items()}
        return List(inner, said.get("length", -1))
    if isinstance(kind, str):
        raise DataError(f"columns of type {kind} are not supported", got=said)
    return {name: from_json(feature) for name, feature in said.items()}


def as_array(name: str, values: Any, feature: Any = None) -> Any:
    """Values as an Arrow column: a list, a numpy array, a torch tensor, a list of these, or Arrow.

    Args:
        name: of the column, for messages.
        values: one for each row.
        feature: what the column shall hold; inferred by default. Dicts are a struct if all have
            the same keys, else Json.

    Raises:
        DataError: the values mix types, or do not fit the feature.
    """
    try:
        if isinstance(values, pa.Array | pa.ChunkedArray):
            return values if feature is None else cast_array(name, values, feature)
        values = plain_values(values)
        if encodes_inside(feature):
            texts = [at_json(value, feature, to_text) for value in values]
            return pa.array(texts).cast(arrow_type(feature))
        array = pa.array(values)
        if feature is None and "struct<" in str(array.type) and keys_vary(values, array.type):
            return as_array(name, values, Json())
    except (pa.ArrowException, OverflowError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"the values of column {name!r} mix types or do not fit: {error}") from None
    return array if feature is None else cast_array(name, array, feature)


def to_text(value: Any) -> str:
    """JSON; numbers may be in arrays or tensors. What has no JSON (NaN, a date) is an error."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=lambda x: x.tolist())


def at_json(value: Any, feature: Any, change: Callable[[Any], Any]) -> Any:
    """The value with a change, to JSON text or from it, where the feature is Json.

    Names of classes become their numbers.
    """
    if value is None:
        return None
    match feature:
        case Json():
            return change(value)
        case ClassLabel():
            return feature.str2int(value)
        case List() if not isinstance(value, str):
            return [at_json(item, feature.feature, change) for item in value]
        case dict() if isinstance(value, dict):
            return {name: at_json(v, feature.get(name), change) for name, v in value.items()}
    return value


def encodes_inside(feature: Any) -> bool:
    """Whether Arrow's own cast does not know how values become this feature."""
    return "Json(" in repr(feature) or "ClassLabel(" in repr(feature).removeprefix("ClassLabel(")


def objects(column: Any) -> list[Any]:
    """An Arrow column as Python objects, JSON text as what it says."""
    feature, values = from_arrow(column.type), column.to_pylist()
    if "Json(" not in repr(feature):
        return values
    return [at_json(value, feature, json.loads) for value in values]


def keys_vary(values: Iterable[Any], type_: pa.DataType) -> bool:
    """Whether a struct would fill a dict: the type has the keys of all, and some dict has fewer."""
    values = [value for value in values if value is not None]
    if pa.types.is_list(type_):
        return keys_vary([item for value in values for item in value], type_.value_type)
    return pa.types.is_struct(type_) and (
        any(len(value) < type_.num_fields for value in values)
        or any(keys_vary([value[field.name] for value in values], field.type) for field in type_)
    )


def same_dicts(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Tables that shall be joined: dicts that have other keys in another one become Json.

    A struct of all keys would fill them with None.
    """
    joined = list(tables)
    for name in {name for table in tables for name in table.column_names}:
        types = {str(t.schema.field(name).type) for t in tables if name in t.column_names}
        if len(types) > 1 and all("struct<" in t or t in (str(JSON), "null") for t in types):
            for i, table in enumerate(joined):
                if name in table.column_names:
                    column = cast_array(name, table.column(name), Json())
                    joined[i] = table.set_column(table.column_names.index(name), name, column)
    return joined


def plain_values(values: Any) -> Any:
    """One array, or a list of what pyarrow converts: scalars, lists, arrays of one dimension."""
    values = untorched(values)
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return values
    rows = []
    for value in map(untorched, values):
        if isinstance(value, np.ndarray) and value.ndim != 1:
            value = nested(value) if value.ndim else value[()]
        rows.append(value)
    return rows


def untorched(value: Any) -> Any:
    """A tensor as an array; bfloat16, which numpy lacks, as float32."""
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    return (tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy()


def nested(array: np.ndarray) -> Any:
    """Lists of arrays of one dimension, which keep their type."""
    return [nested(part) for part in array] if array.ndim > 1 else array


def cast_array(name: str, column: Any, feature: Any) -> Any:
    """An Arrow column as a feature, without loss; class names become numbers.

    Raises:
        DataError: a value does not fit.
    """
    try:
        if isinstance(feature, ClassLabel):
            known = {value: feature.str2int(value) for value in pc.unique(column).to_pylist()}
            if not pa.types.is_integer(column.type):
                return pa.array([known[value] for value in column.to_pylist()], pa.int64())
        if encodes_inside(feature) and column.type != arrow_type(feature):
            if pa.types.is_string(column.type):  # of a csv file, say: it is the text of JSON
                column = column.cast(JSON)
            return as_array(name, objects(column), feature)
        return column.cast(arrow_type(feature))
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"column {name!r} cannot become {feature!r:.200}: {error}") from None
