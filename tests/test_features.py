"""Features: what a column holds, as Arrow and as JSON, and class names to numbers."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from minift import ClassLabel, Dataset, Features, List, Value, load_from_disk
from minift.data.features import (
    METADATA_KEY,
    Json,
    arrow_type,
    as_array,
    cast_array,
    from_arrow,
    from_json,
    to_json,
)
from minift.errors import ConfigError, DataError

LABELS = ClassLabel(names=["not_equivalent", "equivalent"])
ALL = Features(
    {
        "text": Value("string"),
        "label": LABELS,
        "ids": List(Value("int32")),
        "pair": List(Value("float32"), length=2),
        "answers": {"text": List(Value("string")), "start": Value("int64")},
        "chat": List({"role": LABELS, "content": Value("large_string")}),
        "deep": List(List(Value("int8"))),
        "seen": Value("timestamp[us, tz=UTC]"),
        "any": Json(),
        "tools": List(Json()),
        "call": {"name": Value("string"), "arguments": Json()},
    }
)


# --- round trips ---------------------------------------------------------------------------------


def test_schema_round_trip_keeps_names_and_order():
    back = Features.from_arrow_schema(ALL.arrow_schema)
    assert back == ALL
    assert list(back) == list(ALL)
    assert back["label"].names == LABELS.names


def test_json_round_trip():
    text = json.dumps(ALL.to_dict())
    assert Features.from_dict(json.loads(text)) == ALL


def test_metadata_is_what_datasets_writes():
    schema = Features({"label": LABELS, "x": List(Value("int64"))}).arrow_schema
    said = json.loads(schema.metadata[METADATA_KEY])
    assert said == {
        "info": {
            "features": {
                "label": {"names": ["not_equivalent", "equivalent"], "_type": "ClassLabel"},
                "x": {"feature": {"dtype": "int64", "_type": "Value"}, "_type": "List"},
            }
        }
    }


def test_class_names_are_dropped_where_the_column_is_no_longer_one_of_integers():
    text = pa.schema(
        [("label", pa.string())], metadata=Features({"label": LABELS}).arrow_schema.metadata
    )
    assert Features.from_arrow_schema(text) == {"label": Value("string")}


def test_metadata_of_other_columns_is_ignored():
    other = Features({"gone": LABELS}).arrow_schema.metadata
    assert Features.from_arrow_schema(pa.schema([("x", pa.int8())], metadata=other)) == {
        "x": Value("int8")
    }


def test_metadata_without_features():
    schema = pa.schema([("x", pa.int8())], metadata={METADATA_KEY: b'{"info": null}'})
    assert Features.from_arrow_schema(schema) == {"x": Value("int8")}


@pytest.mark.parametrize(
    ("said", "feature"),
    [
        ([{"dtype": "int32", "_type": "Value"}], List(Value("int32"))),
        (
            {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "Sequence"},
            List(Value("int32")),
        ),
        (
            {"feature": {"a": {"dtype": "string", "_type": "Value"}}, "_type": "Sequence"},
            {"a": List(Value("string"))},
        ),
        (
            {
                "feature": {"a": {"dtype": "string", "_type": "Value"}},
                "length": 3,
                "_type": "Sequence",
            },
            {"a": List(Value("string"), length=3)},
        ),
        (
            {"feature": {"dtype": "int8", "_type": "Value"}, "length": 2, "_type": "List"},
            List(Value("int8"), length=2),
        ),
        ({"num_classes": 2, "_type": "ClassLabel"}, ClassLabel(names=["0", "1"])),
        ({"dtype": "float", "id": None, "_type": "Value"}, Value("float32")),
        ({"_type": "Json"}, Json()),
        ({"decode": False, "_type": "Json"}, Json()),
        ({"feature": {"_type": "Json"}, "_type": "List"}, List(Json())),
        (
            {"languages": ["fr", "en"], "_type": "Translation"},
            {"en": Value("string"), "fr": Value("string")},
        ),
        # A struct may have a field that is called _type.
        ({"_type": {"dtype": "string", "_type": "Value"}}, {"_type": Value("string")}),
    ],
)
def test_every_json_form_of_the_past(said, feature):
    assert from_json(said) == feature
    assert from_json(to_json(feature)) == feature


def test_a_kind_that_is_not_supported_is_read_as_what_stores_it():
    said = {"info": {"features": {"picture": {"_type": "Image"}, "label": to_json(LABELS)}}}
    schema = pa.schema(
        [("picture", pa.struct([("bytes", pa.binary())])), ("label", pa.int64())],
        metadata={METADATA_KEY: json.dumps(said).encode()},
    )
    with pytest.warns(UserWarning, match="'picture' is read as struct.*Image"):
        found = Features.from_arrow_schema(schema)
    assert found == {"picture": {"bytes": Value("binary")}, "label": LABELS}
    with pytest.raises(DataError, match="Image"):
        Features.from_dict(said["info"]["features"])


@pytest.mark.parametrize(
    "type_",
    [
        *(pa.bool_(), pa.null(), pa.string(), pa.large_string(), pa.binary(), pa.binary(16)),
        *(pa.int8(), pa.int64(), pa.uint8(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64(), pa.decimal128(10, 2)),
        *(pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("us", "UTC")),
        *(pa.timestamp("ns", "Europe/Berlin"), pa.time32("ms"), pa.time64("us"), pa.duration("s")),
    ],
    ids=str,
)
def test_arrow_types_round_trip(type_):
    feature = from_arrow(type_)
    assert arrow_type(feature) == type_
    assert from_json(json.loads(json.dumps(to_json(feature)))) == feature


def test_json_is_what_datasets_writes():
    schema = Features({"j": Json(), "l": List(Json())}).arrow_schema
    assert schema.field("j").type == pa.json_() and schema.field("l").type == pa.list_(pa.json_())
    assert json.loads(schema.metadata[METADATA_KEY])["info"]["features"] == {
        "j": {"_type": "Json"},
        "l": {"feature": {"_type": "Json"}, "_type": "List"},
    }
    assert from_arrow(pa.list_(pa.json_())) == List(Json())


def test_a_translation_fits_the_column_that_datasets_stores():
    said = {"info": {"features": {"t": {"languages": ["fr", "en"], "_type": "Translation"}}}}
    type_ = pa.struct([("en", pa.string()), ("fr", pa.string())])
    schema = pa.schema([("t", type_)], metadata={METADATA_KEY: json.dumps(said).encode()})
    found = Features.from_arrow_schema(schema)
    assert found == {"t": {"en": Value("string"), "fr": Value("string")}}
    assert found.arrow_schema.field("t").type == type_


def test_dictionary_columns_are_what_they_encode():
    assert from_arrow(pa.dictionary(pa.int8(), pa.string())) == Value("string")


@pytest.mark.parametrize(
    "name", ["strng", "int", "", "table[x]", "timestamp", "timestamp[x]", "list_"]
)
def test_unknown_type_is_an_error_at_once(name):
    with pytest.raises(ConfigError) as caught:
        Value(name)
    assert f"no column type is called {name!r}" in str(caught.value)
    assert "int64" in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_not_a_feature():
    with pytest.raises(ConfigError, match="not a feature: 'int64'"):
        arrow_type("int64")


def test_printed_forms():
    assert repr(LABELS) == "ClassLabel(names=['not_equivalent', 'equivalent'])"
    assert repr(Value("double")) == "Value('float64')"
    assert repr(List(Value("int8"))) == "List(Value('int8'))"
    assert repr(List(Value("int8"), length=2)) == "List(Value('int8'), length=2)"


# --- class names ---------------------------------------------------------------------------------


def test_names_keep_their_order():
    assert ClassLabel(names=["b", "a"]).str2int("b") == 0
    assert ClassLabel(names=iter("xyz")).names == ["x", "y", "z"]
    assert ClassLabel(3).names == ["0", "1", "2"]
    assert ClassLabel(num_classes=2, names=["n", "p"]).num_classes == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "names= or num_classes="),
        ({"names": ["a", "a"]}, "twice"),
        ({"num_classes": 3, "names": ["a", "b"]}, "disagree"),
    ],
)
def test_bad_class_labels(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ClassLabel(**arguments)


def test_names_from_a_file(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text(" neg \n\npos\u2028x\r\n", encoding="utf-8")
    assert ClassLabel(names_file=path).names == ["neg", "pos\u2028x"]
    assert ClassLabel(num_classes=2, names_file=str(path)).num_classes == 2
    with pytest.raises(ConfigError, match="disagree"):
        ClassLabel(num_classes=3, names_file=path)


def test_str2int():
    label = ClassLabel(names=["neg", "pos"])
    assert label.str2int("pos") == 1
    assert label.str2int(" pos ") == 1
    assert label.str2int("1") == 1
    assert label.str2int("-1") == -1
    assert label.str2int(["pos", "neg", None]) == [1, 0, None]
    assert label.str2int(np.array([1, 0])) == [1, 0]
    assert label.str2int(np.int64(1)) == 1
    assert label.str2int(1.0) == 1


def test_str2int_takes_a_name_before_a_number():
    """Stars from 1 to 3: "1" is the first class, not the second."""
    stars = ClassLabel(names=["1", "2", "3"])
    assert stars.str2int(["1", "3"]) == [0, 2]
    assert ClassLabel(names=[" a", "a"]).str2int(" a") == 0


@pytest.mark.parametrize(
    "value", ["zz", "2", "-2", "0.5", "1e0x", "nan", "", 2, -2, 1.5, float("nan"), float("inf")]
)
def test_str2int_refuses(value):
    with pytest.raises(DataError, match="invalid class label"):
        ClassLabel(names=["neg", "pos"]).str2int(value)


def test_int2str():
    label = ClassLabel(names=["neg", "pos"])
    assert label.int2str(1) == "pos"
    assert label.int2str([0, 1]) == ["neg", "pos"]
    assert label.int2str(np.array([1])) == ["pos"]
    for number in (-1, 2):
        with pytest.raises(DataError, match=f"no class has the number {number}"):
            label.int2str(number)


def test_equality_is_that_of_the_names():
    assert ClassLabel(names=["a", "b"]) == ClassLabel(2, names=["a", "b"])
    assert ClassLabel(names=["a", "b"]) != ClassLabel(names=["b", "a"])
    assert hash(ClassLabel(names=["a"])) == hash(ClassLabel(names=["a"]))


# --- values to Arrow -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ([1, None], pa.int64()),
        ([1, 2.5], pa.float64()),
        (np.array([1, 2], np.int16), pa.int16()),
        (np.array([0.5], np.float32), pa.float32()),
        ([np.float32(0.5), None], pa.float32()),
        (torch.tensor([1.5, 2.5]), pa.float32()),
        ([torch.tensor(3), torch.tensor(4)], pa.int64()),
        (np.ones((2, 3), np.int8), pa.list_(pa.int8())),
        (torch.ones(2, 1, 3), pa.list_(pa.list_(pa.float32()))),
        ([np.array([1], np.int32), None], pa.list_(pa.int32())),
        (np.array(["a", "b"]), pa.string()),
        (pa.array([1], pa.uint8()), pa.uint8()),
        (pa.chunked_array([[1], [2]]), pa.int64()),
    ],
    ids=lambda value: str(value).replace("\n", ""),
)
def test_as_array_keeps_widths(values, type_):
    array = as_array("x", values)
    assert array.type == type_
    plain = values.tolist() if hasattr(values, "tolist") else values
    plain = plain.to_pylist() if hasattr(plain, "to_pylist") else plain
    plain = [v.tolist() if hasattr(v, "tolist") else v for v in plain]
    assert array.to_pylist() == [v.as_py() if hasattr(v, "as_py") else v for v in plain]


@pytest.mark.parametrize("values", [[1, "a"], ["a", 1], [True, 1], [2**63], [[1], ["a"]], 5])
def test_mixed_values_name_the_column(values):
    with pytest.raises(DataError, match=r"column 'x' (mix types or do not fit|are no list)"):
        as_array("x", values)


def test_an_integer_that_a_float_would_round_is_no_float():
    with pytest.raises(DataError, match="9007199254740993"):
        as_array("x", [2**53 + 1, 0.5])


@pytest.mark.parametrize(
    ("values", "feature"),
    [
        ([2.5], Value("int64")),  # pyarrow alone would make it 2
        ([[1, 2.5]], List(Value("int32"))),
        ([300], Value("int8")),
        (["a"], Value("int64")),
        ([2**53 + 1], Value("float64")),
        ([[1, 2, 3]], List(Value("int64"), length=2)),
        (["maybe"], LABELS),
        ([2], LABELS),
        ([-2], LABELS),
        ([0.5], LABELS),
    ],
)
def test_what_does_not_fit_a_feature_is_an_error(values, feature):
    with pytest.raises(DataError, match="column 'x' cannot become"):
        as_array("x", values, feature)


@pytest.mark.parametrize(
    ("values", "feature", "result"),
    [
        ([1, 0, -1, None], LABELS, [1, 0, -1, None]),
        (["equivalent", None, "0"], LABELS, [1, None, 0]),
        ([], LABELS, []),
        ([None], LABELS, [None]),
        ([1.0], LABELS, [1]),
        ([1, 2], Value("string"), ["1", "2"]),
        (["1", "2"], Value("int8"), [1, 2]),
        ([[1], []], List(Value("int8")), [[1], []]),
        ([{"b": 1}, {"a": "x"}], {"a": Value("string"), "b": Value("int8")}, None),
    ],
)
def test_what_fits_a_feature(values, feature, result):
    array = as_array("x", values, feature)
    assert array.type == arrow_type(feature)
    if result is not None:
        assert array.to_pylist() == result


def test_cast_array_takes_chunks():
    column = pa.chunked_array([["equivalent"], ["not_equivalent", None]])
    assert cast_array("x", column, LABELS).to_pylist() == [1, 0, None]
    assert cast_array("x", pa.chunked_array([[1], [2]]), Value("int8")).type == pa.int8()


# --- JSON ----------------------------------------------------------------------------------------

ANYTHING = [
    *({"a": 1}, {"b": [1, "x", None]}, {}, [], None, "text", "5", "null", '{"a": 1}'),
    *(5, 2**70, 0.1, True, "\u00e9\u2028", {"a": {"b": {"c": None}}}, [[], [{}]]),
]


@pytest.mark.parametrize(
    ("values", "feature"),
    [
        (ANYTHING, Json()),
        ([ANYTHING, [], None], List(Json())),
        ([{"x": value, "n": 1} for value in ANYTHING], {"x": Json(), "n": Value("int64")}),
        ([[[{"a": 1}], [{"b": 1}]]], List(List(Json()))),
        ([], Json()),
        ([{"x": None}], {"x": Json()}),
    ],
    ids=str,
)
def test_json_round_trips(tmp_path, values, feature):
    ds = Dataset.from_dict(
        {"k": values, "i": [*range(len(values))]}, Features(k=feature, i=Value("int64"))
    )
    assert ds.features["k"] == feature
    ds.save_to_disk(tmp_path / "saved")
    pq.write_table(ds.to_arrow(), tmp_path / "x.parquet")
    read = Dataset(pq.read_table(tmp_path / "x.parquet"))
    for found in (ds, load_from_disk(tmp_path / "saved"), read):
        assert found.features["k"] == feature
        same = [v == w and type(v) is type(w) for v, w in zip(found["k"], values, strict=True)]
        assert all(same)
        assert found.fingerprint
    order = ds.shuffle(seed=0)
    assert order["k"] == [values[i] for i in order["i"]]


@pytest.mark.parametrize(
    ("values", "feature"),
    [
        ([{"a": 1}, {"b": 1}], Json()),
        ([{"a": np.int8(1)}, {"b": np.array([1])}], Json()),
        (({"a": 1}, {}), Json()),
        ([[{"a": 1}, {"a": 1, "b": 2}]], Json()),
        ([{"a": 1}, {"a": 2}, None], {"a": Value("int64")}),
        ([[{"a": 1}], []], List({"a": Value("int64")})),
    ],
    ids=str,
)
def test_dicts_whose_keys_vary_are_json_by_default(values, feature):
    ds = Dataset.from_dict({"k": values})
    assert ds.features["k"] == feature
    assert ds["k"] == json.loads(json.dumps(list(values), default=lambda v: v.tolist()))


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"x", "\ud800"], ids=repr)
def test_what_json_cannot_hold_is_an_error(value):
    with pytest.raises(DataError, match="column 'x'"):
        as_array("x", [{"a": value}], Json())


@pytest.mark.parametrize(
    ("column", "feature", "result"),
    [
        (pa.array(['{"a": 1}', None, "5"]), Json(), [{"a": 1}, None, 5]),
        (pa.array([{"a": 1, "b": None}]), Json(), [{"a": 1, "b": None}]),
        (pa.array([[{"a": 1}], None]), Json(), [[{"a": 1}], None]),
        (pa.array([[{"a": 1}], None]), List(Json()), [[{"a": 1}], None]),
        (pa.array(["[1]"]).cast(pa.json_()), List(Json()), [[1]]),
        (pa.array([1, None]), Json(), [1, None]),
        (pa.array([["5"]]), List(Json()), [["5"]]),
        (pa.nulls(2), Json(), [None, None]),
        (pa.nulls(2), List(Json()), [None, None]),
        (pa.array([{"a": "x"}]), {"a": Json()}, [{"a": "x"}]),
    ],
    ids=str,
)
def test_casts_to_json(column, feature, result):
    for values in (column, pa.chunked_array([column])):
        ds = Dataset(pa.table({"k": values})).cast_column("k", feature)
        assert ds.features == {"k": feature} and ds["k"] == result


def test_text_that_is_no_json_is_not_cast():
    with pytest.raises(DataError, match="column 'x' cannot become Json"):
        cast_array("x", pa.array(["{}"] * 9 + ["hello"]), Json())


def test_json_text_is_there_for_who_asks():
    ds = Dataset.from_dict({"k": [{"a": 1}]}, Features(k=Json()))
    assert json.loads(ds.cast_column("k", Value("string"))["k"][0]) == {"a": 1}
