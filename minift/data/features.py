"""Types of columns: `Value`, `ClassLabel`, `List`, `Json`, and dicts of these.

Features say more than Arrow types (the names of classes), so they travel in the Arrow schema's
metadata under the key `huggingface`, in the JSON form that `datasets` writes: files that
either library writes open in the other with their class names.
"""

import functools
import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minift.data.class_label import ClassLabel
from minift.errors import MISFITS, ConfigError, DataError, MiniftError, convert_rows

METADATA_KEY = b"huggingface"

JSON = pa.json_()  # text to Arrow, with a name that says what it is

LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)

# Types that pyarrow prints otherwise than `datasets` names them.
NAMES = {
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
        object.__setattr__(self, "dtype", NAMES.get(self.dtype, self.dtype))
        value_type(self.dtype)  # an unknown name is an error here, not at the first row

    def __repr__(self) -> str:
        return f"Value({self.dtype!r})"


@dataclass(frozen=True, repr=False)
class List:
    """A column of lists of one feature; `length` is -1 unless every list has that many items."""

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


class Features(dict[str, Any]):
    """{column name: feature}, in column order."""

    @property
    def arrow_schema(self) -> pa.Schema:
        """Return the Arrow schema, with these features in its metadata."""
        fields = [pa.field(name, arrow_type(feature)) for name, feature in self.items()]
        text = json.dumps({"info": {"features": self.to_dict()}})
        return pa.schema(fields, metadata={METADATA_KEY: text.encode()})

    @classmethod
    def from_arrow_schema(cls, schema: pa.Schema) -> "Features":
        """Return a schema's features: those in its metadata where they fit the column's type."""
        metadata = json.loads((schema.metadata or {}).get(METADATA_KEY, "{}"))
        specs = (metadata.get("info") or {}).get("features") or {}
        features = cls()
        for field in schema:
            try:
                feature = from_json(specs[field.name]) if field.name in specs else None
            except MiniftError as error:  # an image, say: its bytes can still ride along
                warnings.warn(f"column {field.name!r} is read as {field.type}: {error.what}")
                feature = None
            fits = feature is not None and arrow_type(feature) == field.type
            fits |= isinstance(feature, ClassLabel) and pa.types.is_integer(field.type)
            features[field.name] = feature if fits else from_arrow(field.type)
        return features

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, as in dataset_info.json."""
        return {name: to_json(feature) for name, feature in self.items()}

    @classmethod
    def from_dict(cls, specs: Mapping[str, Any]) -> "Features":
        """Return the features that `to_dict` wrote, here or in `datasets`."""
        return cls({name: from_json(spec) for name, spec in specs.items()})


def check_names(features: Features, columns: Iterable[str], where: str = "") -> None:
    """Raise a DataError unless the features name exactly these columns, in any order."""
    if set(features) != set(columns):
        got, expected = sorted(features), sorted(columns)
        raise DataError(f"{where}the features do not name the columns", got=got, expected=expected)


@functools.cache
def value_type(name: str) -> pa.DataType:
    """Return the Arrow type that a `Value` names, for example "timestamp[us]" or "int8"."""
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
    """Return the Arrow type that stores a feature."""
    match feature:
        case Value() | ClassLabel():
            return value_type(feature.dtype)
        case Json():
            return JSON
        case List():
            return pa.list_(arrow_type(feature.feature), feature.length)
        case dict():
            return pa.struct([pa.field(name, arrow_type(f)) for name, f in feature.items()])
    raise ConfigError(f"not a feature: {feature!r}", expected="Value, ClassLabel, List, Json, dict")


def from_arrow(type_: pa.DataType) -> Any:
    """Return the feature of an Arrow type without metadata."""
    if type_ == JSON:
        return Json()
    if pa.types.is_dictionary(type_):
        return from_arrow(type_.value_type)
    if isinstance(type_, LISTS):
        return List(from_arrow(type_.value_type), getattr(type_, "list_size", -1))
    if pa.types.is_struct(type_):
        return {field.name: from_arrow(field.type) for field in type_}
    return Value(str(type_).removesuffix("_view"))


def to_json(feature: Any) -> Any:
    """Return a feature in the JSON form that `datasets` writes."""
    match feature:
        case Value():
            return {"dtype": feature.dtype, "_type": "Value"}
        case ClassLabel():
            return {"names": feature.names, "_type": "ClassLabel"}
        case Json():
            return {"_type": "Json"}
        case List():
            length = {} if feature.length < 0 else {"length": feature.length}
            return {"feature": to_json(feature.feature), "_type": "List", **length}
    return {name: to_json(f) for name, f in feature.items()}


def from_json(spec: Any) -> Any:
    """Return a feature from any JSON form that `datasets` has written over the years."""
    if isinstance(spec, list):
        return List(from_json(spec[0]))
    match spec.get("_type"):
        case "Value":
            return Value(spec["dtype"])
        case "ClassLabel":
            return ClassLabel(names=spec.get("names"), num_classes=spec.get("num_classes"))
        case "Json":  # read as objects, also where `datasets` was told not to decode it
            return Json()
        case "Translation":  # in the order in which `datasets` stores it
            return {language: Value("string") for language in sorted(spec["languages"])}
        case "List" | "LargeList" | "Sequence" as name:
            inner, length = from_json(spec["feature"]), spec.get("length", -1)
            if name == "Sequence" and isinstance(inner, dict):  # the old form: a dict of lists
                return {name: List(feature, length) for name, feature in inner.items()}
            return List(inner, length)
        case str() as name:
            raise DataError(f"columns of type {name} are not supported", got=spec)
    return {name: from_json(inner) for name, inner in spec.items()}


# ------------------------------------------------------------------------------- values to columns


def holds(feature: Any, kind: Any) -> bool:
    """Return True if a feature, or any feature inside it, is of a class (or one of several)."""
    if isinstance(feature, kind):
        return True
    inside = feature.values() if isinstance(feature, dict) else [getattr(feature, "feature", None)]
    return any(holds(part, kind) for part in inside if part is not None)


def as_array(name: str, values: Any, feature: Any = None) -> Any:
    """Return values as an Arrow column.

    Args:
        name: of the column, for messages.
        values: one for each row: a list, a numpy array, a torch tensor, a list of these, or Arrow.
        feature: what the column shall hold; inferred by default. Dicts are a struct if all have
            the same keys, else Json.

    Raises:
        DataError: the values mix types, or do not fit the feature.
    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return cast_array(name, values, from_arrow(values.type) if feature is None else feature)

    def convert(some: Any) -> pa.Array:
        if needs_encoding(feature):
            texts = [change_json(value, feature, to_text) for value in some]
            return pa.array(texts).cast(arrow_type(feature))
        try:
            array = pa.array(some)
        except MISFITS:  # NaN among texts: pandas' way to say that one is missing
            array = pa.array(some, from_pandas=True)
        vary = feature is None and keys_vary(some, from_arrow(array.type))
        return as_array(name, some, Json()) if vary else array

    what = f"the values of column {name!r} mix types or do not fit"
    if not isinstance(values, Iterable):
        raise DataError(f"{what}: they are no list", got=f"{values!r:.60}")
    array = convert_rows(what, plain_values(values), convert)
    return array if feature is None else cast_array(name, array, feature)


def cast_array(
    name: str, column: Any, feature: Any, start: int = 0, where: str = "", stored: Any = None
) -> Any:
    """Return an Arrow column as a feature, without loss; class names become numbers.

    Args:
        name: of the column, for messages.
        column: the values.
        feature: what they become.
        start: the number of the first row, for messages.
        where: what messages begin with.
        stored: what the values are, if that is known: a ClassLabel's numbers stand for its names.

    Raises:
        DataError: a value does not fit; names the row, counted from `start`.
    """

    def convert(part: Any) -> Any:
        if isinstance(feature, ClassLabel):
            values, classes = pc.unique(part).to_pylist(), isinstance(stored, ClassLabel)
            numbers = feature.renumber(values, stored) if classes else feature.encode(values)
            if any(number != value for value, number in numbers.items()):
                return pa.array([numbers[value] for value in part.to_pylist()], pa.int64())
        elif stored != feature and holds(stored, ClassLabel) and holds(feature, ClassLabel):
            raise DataError("its class numbers would stand for other names", got=stored)
        if needs_encoding(feature) and part.type != arrow_type(feature):
            if pa.types.is_string(part.type):  # of a csv file, say: it is the text of JSON
                part = part.cast(JSON)
            return as_array(name, to_objects(part), feature)
        return part.cast(arrow_type(feature))

    what = f"{where}column {name!r} cannot become {feature!r:.200}"
    return convert_rows(what, column, convert, start)


def needs_encoding(feature: Any) -> bool:
    """Return True if Arrow's own cast does not know how values become this feature."""
    return holds(feature, Json) or (holds(feature, ClassLabel) and type(feature) is not ClassLabel)


def to_objects(column: Any) -> list[Any]:
    """Return an Arrow column as Python objects, JSON text as what it says."""
    feature, values = from_arrow(column.type), column.to_pylist()
    if not holds(feature, Json):
        return values
    return [change_json(value, feature, json.loads) for value in values]


def change_json(value: Any, feature: Any, change: Callable[[Any], Any]) -> Any:
    """Return the value with a change, to JSON text or from it, where the feature is Json.

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
            return [change_json(item, feature.feature, change) for item in value]
        case dict() if isinstance(value, dict):
            return {name: change_json(v, feature.get(name), change) for name, v in value.items()}
    return value


def to_text(value: Any) -> str:
    """Return JSON; numbers may be in arrays or tensors. A value without JSON (NaN) is an error."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=lambda x: x.tolist())


def keys_vary(values: Iterable[Any], feature: Any) -> bool:
    """Return True if a struct, which has the keys of all dicts, would fill one that has fewer."""
    if not holds(feature, dict):
        return False
    values = [value for value in values if value is not None]
    if isinstance(feature, List):
        return keys_vary([item for value in values for item in value], feature.feature)
    return any(len(value) < len(feature) for value in values) or any(
        keys_vary([value[name] for value in values], inner) for name, inner in feature.items()
    )


def join_tables(tables: Sequence[pa.Table], problem: str) -> pa.Table:
    """Return the rows of all tables: null yields to any type, narrow to wide, int to float.

    Dicts whose keys differ between tables become Json: a struct of all keys would fill them with
    None.

    Raises:
        DataError: the `problem` in words, as types cannot be joined without loss.
    """
    joined = list(tables)
    for name in {name for table in tables for name in table.column_names}:
        types = {t.schema.field(name).type for t in tables if name in t.column_names}
        if len(types) > 1 and all(
            t in (JSON, pa.null()) or holds(from_arrow(t), dict) for t in types
        ):
            for i, table in enumerate(joined):
                if name in table.column_names:
                    column = cast_array(name, table.column(name), Json())
                    joined[i] = table.set_column(table.column_names.index(name), name, column)
    try:
        return pa.concat_tables(joined, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"{problem}: {error}") from None


def plain_values(values: Any) -> Any:
    """Return one array, or a list of what pyarrow converts: scalars, lists, 1-D arrays."""
    values = tensor_to_numpy(values)
    if hasattr(values, "iloc"):  # a Series of pandas; texts and categories are objects to Arrow
        values = values if values.dtype.kind in "iufbMm" else values.astype(object)
        return values.reset_index(drop=True).copy()
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return values.copy()  # Arrow would share the memory, and show what is written to it later
    return [nested(tensor_to_numpy(value)) for value in values]


def nested(value: Any) -> Any:
    """Return an array as lists of 1-D arrays, which keep their type; anything else as it is."""
    if not isinstance(value, np.ndarray) or value.ndim == 1:
        return value
    return [nested(part) for part in value] if value.ndim else value[()]


def tensor_to_numpy(value: Any) -> Any:
    """Return a tensor as an array, bfloat16 (which numpy lacks) as float32; else the value."""
    if not hasattr(value, "detach"):
        return value
    import torch

    tensor = value.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
