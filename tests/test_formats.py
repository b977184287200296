"""The same rows as Python objects, numpy arrays, torch tensors, Arrow tables."""

import numpy as np
import pandas
import polars
import pyarrow as pa
import pytest
import torch

from minift import ClassLabel, Dataset, Features, List, Value, load_dataset
from minift.data.features import Json
from minift.data.formatting import Format, to_list
from minift.errors import ColumnError, ConfigError, DataError

DATA = {
    "i": [1, 2, 3],
    "f": [0.5, 1.5, 2.5],
    "b": [True, False, True],
    "s": ["a", "b", "c"],
    "same": [[1, 2], [3, 4], [5, 6]],
    "ragged": [[1], [2, 3], []],
}


@pytest.fixture
def ds():
    return Dataset.from_dict(DATA)


def equal(found, expected) -> bool:
    """Equal in type, dtype and values, through lists and arrays of objects."""
    if isinstance(expected, torch.Tensor):
        return (
            isinstance(found, torch.Tensor)
            and torch.equal(found, expected)
            and (found.dtype == expected.dtype)
        )
    if isinstance(expected, list) or getattr(expected, "dtype", "") == np.dtype(object):
        return (
            type(found) is type(expected)
            and len(found) == len(expected)
            and all(equal(a, b) for a, b in zip(found, expected, strict=True))
        )
    if isinstance(expected, np.ndarray):
        return (
            isinstance(found, np.ndarray)
            and found.dtype == expected.dtype
            and np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f")
        )
    return type(found) is type(expected) and found == expected


def objects(*rows):
    array = np.empty(len(rows), dtype=object)
    for i, row in enumerate(rows):
        array[i] = row
    return array


# --- python --------------------------------------------------------------------------------------


def test_python(ds):
    assert ds[:] == DATA
    assert ds[1] == {name: values[1] for name, values in DATA.items()}
    assert {name: type(value) for name, value in ds[0].items()} == {
        **{"i": int, "f": float, "b": bool, "s": str, "same": list, "ragged": list},
    }
    assert ds.with_format("python")[:] == DATA


@pytest.mark.parametrize(
    "values",
    [
        [[1, 2], [], [3]],
        [[1.5], [2.5, 3.5]],
        [[1], None, [2]],
        [[1, None], [2]],
        [[[1]], [[2, 3], []]],
        [["a"], []],
    ],
)
def test_lists_by_the_fast_path_and_the_slow(values):
    array = pa.array([*values, *values])
    assert to_list(pa.chunked_array([array])) == [*values, *values]
    inner = array.slice(1, len(array) - 1)
    assert to_list(pa.chunked_array([inner, array.slice(0, 0), array])) == inner.to_pylist() + (
        array.to_pylist()
    )


# --- numpy ---------------------------------------------------------------------------------------


def test_numpy(ds):
    expected = {
        "i": np.array([1, 2, 3]),
        "f": np.array([0.5, 1.5, 2.5]),
        "b": np.array([True, False, True]),
        "s": objects("a", "b", "c"),
        "same": np.array([[1, 2], [3, 4], [5, 6]]),
        "ragged": objects(np.array([1]), np.array([2, 3]), np.array([], np.int64)),
    }
    batch = ds.with_format("numpy")[:]
    assert list(batch) == list(expected)
    for name in expected:
        assert equal(batch[name], expected[name]), name
    row = ds.with_format("numpy")[1]
    assert row["i"] == 2 and row["i"].dtype == np.int64 and row["s"] == "b"
    assert equal(row["ragged"], np.array([2, 3]))


@pytest.mark.parametrize("name", ["int8", "int32", "uint16", "float16", "float32", "float64"])
def test_numpy_keeps_widths(name):
    ds = Dataset.from_dict(
        {"x": [1, 2], "l": [[1], [2]]}, Features(x=Value(name), l=List(Value(name)))
    )
    batch = ds.with_format("numpy")[:]
    assert batch["x"].dtype == batch["l"].dtype == np.dtype(name)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None], np.array([1, np.nan])),
        ([2**24 + 1, None], np.array([2.0**24 + 1, np.nan])),  # F7: float32 would round it
        ([1.5, None], np.array([1.5, np.nan])),
        ([True, None], objects(True, None)),
        (["a", None], objects("a", None)),
        ([[1, None], [2, 3]], np.array([[1, np.nan], [2, 3]])),
        ([[1, 2], None], objects(np.array([1, 2]), None)),
        ([None, None], objects(None, None)),
        ([[[1], [2]], [[3], [4]]], np.array([[[1], [2]], [[3], [4]]])),
        (
            [[[1], [2, 3]], [[4], [5]]],
            objects(objects(np.array([1]), np.array([2, 3])), np.array([[4], [5]])),
        ),
        ([[[1], [2, 3]], [[4], [5, 6]]], None),
        ([["a", "b"], ["c", "d"]], objects(["a", "b"], ["c", "d"])),
        ([{"x": 1}, None], objects({"x": 1}, None)),
        ([[], []], objects([], [])),
    ],
    ids=str,
)
def test_numpy_corners(values, expected):
    found = Dataset.from_dict({"x": values}).with_format("numpy")[:]["x"]
    if expected is None:  # rows of one length, ragged inside: still one object a row
        inner = [objects(*map(np.array, row)) for row in values]
        expected = objects(*inner)
    assert equal(found, expected), found


def test_lists_of_unknown_type_are_not_invented():
    assert Dataset.from_dict({"x": [[], []]}).with_format("numpy")[0] == {"x": []}


# --- torch ---------------------------------------------------------------------------------------


def test_torch(ds):
    expected = {
        "i": torch.tensor([1, 2, 3]),
        "f": torch.tensor([0.5, 1.5, 2.5]),
        "b": torch.tensor([True, False, True]),
        "s": ["a", "b", "c"],
        "same": torch.tensor([[1, 2], [3, 4], [5, 6]]),
        "ragged": [torch.tensor([1]), torch.tensor([2, 3]), torch.tensor([], dtype=torch.int64)],
    }
    batch = ds.with_format("torch")[:]
    for name in expected:
        assert equal(batch[name], expected[name]), name
    row = ds.with_format("torch")[1]
    assert equal(row["i"], torch.tensor(2)) and row["i"].shape == ()
    assert equal(row["ragged"], torch.tensor([2, 3])) and row["s"] == "b"


@pytest.mark.parametrize("name", ["int8", "int32", "uint8", "uint32", "uint64"])
def test_torch_widens_integers(name):
    ds = Dataset.from_dict({"x": [1, 2]}, Features(x=Value(name))).with_format("torch")
    assert ds[:]["x"].dtype == torch.int64


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_torch_floats_are_float32(name):
    ds = Dataset.from_dict({"x": [1.5]}, Features(x=Value(name))).with_format("torch")
    assert ds[:]["x"].dtype == torch.float32


def test_torch_options(ds):
    half = ds.with_format("torch", columns=["f"], dtype=torch.float16)
    assert half[:]["f"].dtype == torch.float16
    assert ds.with_format("torch", device="meta")[:]["i"].device.type == "meta"


@pytest.mark.parametrize("values", [[1, None], [True, None], [[1, None]], [[1, 2], [None, 3]]])
def test_torch_refuses_what_it_would_turn_into_floats(values):
    """F7: ids would become float32, and large ones other ids."""
    ds = Dataset.from_dict({"x": values}).with_format("torch")
    with pytest.raises(DataError, match=r"'x' of type .* has missing values"):
        ds[:]


def test_torch_corners():
    ds = Dataset.from_dict(
        {"f": [1.5, None], "s": ["a", None], "l": [[1], None], "d": [{"x": 1}, {"x": 2}]}
    )
    batch = ds.with_format("torch")[:]
    assert batch["f"][0] == 1.5 and batch["f"][1].isnan()
    assert batch["s"] == ["a", None]
    assert equal(batch["l"], [torch.tensor([1]), None])
    assert batch["d"] == [{"x": 1}, {"x": 2}]


def test_torch_refuses_a_number_that_would_wrap():
    ds = Dataset.from_dict({"x": np.array([2**64 - 1], np.uint64)}).with_format("torch")
    with pytest.raises(DataError, match="too large"):
        ds[0]


def test_tensors_may_be_written_to(tmp_path):
    """A view of the mapped file would end the process."""
    Dataset.from_dict(DATA).save_to_disk(tmp_path / "saved")
    from minift import load_from_disk

    ds = load_from_disk(tmp_path / "saved")
    for kind in ("torch", "numpy"):
        batch = ds.with_format(kind)[:]
        for name in ("i", "f", "same"):
            batch[name][0] = 7
        batch["ragged"][1][0] = 7
    assert ds[:] == DATA


@pytest.mark.parametrize("kind", ["numpy", "torch", None, "arrow"])
def test_no_rows(ds, kind):
    batch = ds.select([]).with_format(kind)[:]
    if kind == "arrow":
        assert batch.num_rows == 0 and batch.column_names == list(DATA)
        return
    assert list(batch) == list(DATA)
    assert all(len(values) == 0 for values in batch.values())


# --- arrow and transforms ------------------------------------------------------------------------


def test_arrow(ds):
    arrow = ds.with_format("arrow")
    assert arrow[:].to_pydict() == DATA
    assert arrow[1].to_pylist() == [{name: values[1] for name, values in DATA.items()}]
    assert [table.num_rows for table in arrow] == [1, 1, 1]
    assert arrow["i"][:].to_pylist() == [1, 2, 3]


def test_transform_gets_batches(ds):
    seen = []

    def double(batch):
        seen.append(len(batch["i"]))
        return {"twice": [2 * i for i in batch["i"]]}

    ds.set_transform(double)
    assert ds[0] == {"twice": 2} and ds[:2] == {"twice": [2, 4]}
    assert [row["twice"] for row in ds] == [2, 4, 6]
    assert seen == [1, 2, 3]
    ds.reset_format()
    assert ds[0]["i"] == 1


def test_a_column_under_a_transform_may_need_another(ds):
    ds.set_transform(
        lambda batch: {"i": [f"{i}{s}" for i, s in zip(batch["i"], batch["s"], strict=True)]}
    )
    assert ds["i"][:] == ["1a", "2b", "3c"] and ds["i"][1] == "2b" and list(ds["i"])[2] == "3c"


# --- pandas --------------------------------------------------------------------------------------


def test_pandas_is_optional(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs pandas") as caught:
        Format("pandas")
    assert "pip install pandas" in str(caught.value)


def test_pandas(ds):
    frames = ds.with_format("pandas")
    batch = frames[1:]
    assert isinstance(batch, pandas.DataFrame) and list(batch.columns) == list(DATA)
    assert batch["i"].tolist() == [2, 3] and batch["i"].dtype == np.int64
    assert batch["s"].tolist() == ["b", "c"] and batch["ragged"][0].tolist() == [2, 3]
    row = frames[2]
    assert row.shape == (1, 6) and row["i"][0] == 3 and list(row.index) == [0]
    rows = list(frames)
    assert [row["i"][0] for row in rows] == [1, 2, 3]
    assert frames["f"][:].tolist() == [0.5, 1.5, 2.5]
    assert frames.select([])[:].shape == (0, 6)
    some = ds.with_format("pandas", columns=["i"])
    assert list(some[:].columns) == ["i"] and some["s"][:].tolist() == ["a", "b", "c"]


def test_pandas_corners():
    data = {"n": [2**53 + 1, None], "j": [{"a": 1}, [2]], "i": [1, 2]}
    features = Features(n=Value("int64"), j=Json(), i=Value("int8"))
    batch = Dataset.from_dict(data, features).with_format("pandas")[:]
    assert batch["n"].tolist() == [2**53 + 1, None] and batch["j"].tolist() == data["j"]
    assert batch["i"].dtype == np.int8
    table = pa.table({"i": [1, 5, 7]}).to_pandas().set_index("i")  # a file that pandas wrote
    ds = Dataset(pa.Table.from_pandas(table)).with_format("pandas")
    assert list(ds[:].columns) == ["i"]


def test_a_hidden_column_of_an_arrow_dataset(ds):
    ds.set_format("arrow", columns=["i"])
    assert ds[:].column_names == ["i"] and ds["s"][:].to_pylist() == ["a", "b", "c"]


# --- JSON ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, "numpy", "torch"])
def test_json_is_shown_as_objects(kind):
    values = [{"a": [1]}, None, "5"]
    lists = [[{"a": 1}, {"b": 1}], [], None]
    features = Features(j=Json(), l=List(Json()))
    ds = Dataset.from_dict({"j": values, "l": lists}, features).with_format(kind)
    assert list(ds[:]["j"]) == values and list(ds[:]["l"]) == lists
    assert ds[0] == {"j": {"a": [1]}, "l": [{"a": 1}, {"b": 1}]} and ds[2]["j"] == "5"
    ds.set_transform(lambda batch: batch)
    assert ds[0]["j"] == {"a": [1]}


# --- choosing ------------------------------------------------------------------------------------


def test_set_format_is_in_place_and_with_format_is_not(ds):
    view = ds.with_format("numpy")
    assert isinstance(ds[:]["i"], list) and isinstance(view[:]["i"], np.ndarray)
    assert ds.set_format("numpy") is None
    assert isinstance(ds[:]["i"], np.ndarray)
    ds.reset_format()
    assert isinstance(ds[:]["i"], list) and isinstance(view[:]["i"], np.ndarray)


def test_columns(ds):
    ds.set_format(type="torch", columns=["s", "i"])
    assert list(ds[0]) == ["i", "s"] and list(ds[:]) == ["i", "s"]
    assert ds.column_names == list(DATA), "the others are still there"
    ds.set_format("torch", columns=["i"], output_all_columns=True)
    assert equal(ds[1]["i"], torch.tensor(2)) and ds[1]["ragged"] == [2, 3]
    assert sorted(ds[0]) == sorted(DATA)
    ds.set_format(None, columns=["i"])
    assert ds[0] == {"i": 1}


def test_a_column_that_is_not_shown_can_be_asked_for(ds):
    ds.set_format("torch", columns=["i"])
    assert ds["s"][:] == ["a", "b", "c"] and ds["s"][0] == "a"
    assert equal(ds["i"][:], torch.tensor([1, 2, 3]))


def test_unknown_names(ds):
    with pytest.raises(ConfigError, match="no format is called 'jax'"):
        ds.set_format("jax")
    with pytest.raises(ColumnError, match="'j' is not in the dataset"):
        ds.set_format("torch", columns=["i", "j"])


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: ds.select([2, 1]),
        lambda ds: ds.shuffle(seed=0),
        lambda ds: ds.filter(lambda row: True),
        lambda ds: ds.sort("i"),
        lambda ds: ds.remove_columns("s"),
        lambda ds: ds.rename_column("s", "t"),
        lambda ds: ds.add_column("new", [0, 0, 0]),
        lambda ds: ds.cast_column("i", Value("int8")),
        lambda ds: ds.train_test_split(1)["train"],
        lambda ds: ds.map(lambda row: {"y": 1}),
    ],
)
def test_the_format_is_handed_on(ds, change):
    ds.set_format("numpy", columns=["i", "f"])
    batch = change(ds)[:]
    assert isinstance(batch["i"], np.ndarray) and "ragged" not in batch


def test_renamed_and_removed_columns_of_a_format(ds):
    ds.set_format("numpy", columns=["i", "f"])
    assert list(ds.rename_column("i", "j")[:]) == ["j", "f"]
    assert list(ds.remove_columns("f")[:]) == ["i"]


# --- to other libraries and files -----------------------------------------------------------------


@pytest.fixture
def mixed():
    return Dataset.from_dict(
        {
            "i": [3, None, 2**60 + 1],
            "t": ["a,b", None, 'q"'],
            "l": [[1], [], None],
            "c": [0, 1, -1],
        },
        Features(
            i=Value("int64"),
            t=Value("string"),
            l=List(Value("int32")),
            c=ClassLabel(names=["no", "yes"]),
        ),
    )


def test_to_pandas_and_polars(mixed):
    shuffled = mixed.select([2, 0, 1])
    frame = shuffled.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and list(frame.columns) == ["i", "t", "l", "c"]
    assert frame["i"].tolist() == [2**60 + 1, 3, None], "whole numbers stay exact beside None"
    assert frame["t"].tolist()[:2] == ['q"', "a,b"] and frame["c"].tolist() == [-1, 0, 1]
    frame = shuffled.to_polars()
    assert isinstance(frame, polars.DataFrame)
    assert frame["i"].to_list() == [2**60 + 1, 3, None] and frame["l"].to_list() == [None, [1], []]


def test_to_files_and_back(mixed, tmp_path):
    chosen = mixed.select([2, 0])
    chosen.to_parquet(tmp_path / "x.parquet")
    again = load_dataset(str(tmp_path / "x.parquet"), split="train")
    assert again[:] == chosen[:] and again.features == chosen.features
    chosen.to_json(tmp_path / "x.jsonl")
    assert load_dataset(str(tmp_path / "x.jsonl"), split="train")[:] == chosen[:]
    chosen.to_json(tmp_path / "y.json", lines=False)
    assert load_dataset(str(tmp_path / "y.json"), split="train")[:] == chosen[:]
    flat = chosen.remove_columns("l")
    flat.to_csv(tmp_path / "x.csv")
    assert load_dataset(str(tmp_path / "x.csv"), split="train")[:] == flat[:]
    flat.to_csv(tmp_path / "x.tsv", sep="\t")
    assert load_dataset(str(tmp_path / "x.tsv"), split="train")[:] == flat[:]
    with pytest.raises(DataError, match="csv has no place for lists"):
        chosen.to_csv(tmp_path / "y.csv")
