"""Columns: lazy ones for people, flat ones for the collator, and padding."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minift import Dataset
from minift.data.lazy import Column
from minift.data.ragged import FlatColumn, Runs, is_flat, pad_columns
from minift.errors import DataError


@pytest.fixture
def ds():
    return Dataset.from_dict({"text": list("abcdefg"), "n": range(7)})


# --- Column --------------------------------------------------------------------------------------


def test_a_column_is_a_sequence(ds):
    column = ds["text"]
    assert isinstance(column, Column)
    assert len(column) == 7
    assert column[0] == "a" and column[-1] == "g" and column[np.int64(2)] == "c"
    assert column[:3] == ["a", "b", "c"] and column[5:100] == ["f", "g"]
    assert column[::-3] == ["g", "d", "a"] and column[[2, 0]] == ["c", "a"]
    assert column[:] == column.tolist() == list(column) == list("abcdefg")
    assert "c" in column and "z" not in column
    assert column.index("d") == 3 and column.count("a") == 1
    assert list(reversed(column))[:2] == ["g", "f"]
    assert list(zip(column, ds["n"], strict=True))[1] == ("b", 1)


def test_equality(ds):
    assert ds["text"] == list("abcdefg") == ds["text"]
    assert ds["text"] != list("abcdefh") and ds["text"] != list("abc")
    assert ds["text"] == tuple("abcdefg")
    assert ds["n"] != ds["text"] and ds["text"] != "abcdefg"
    with pytest.raises(TypeError):
        hash(ds["text"])


def test_it_follows_a_selection(ds):
    assert ds.select([6, 0])["text"] == ["g", "a"]
    assert ds.select([6, 0])["text"][1] == "a"
    with pytest.raises(IndexError, match="2 is out of bounds for size 2"):
        ds.select([6, 0])["text"][2]


def test_as_an_array(ds):
    array = np.asarray(ds["n"])
    assert array.dtype == np.int64 and array.tolist() == list(range(7))
    assert np.asarray(ds["n"], dtype=np.float32).dtype == np.float32
    assert np.array(ds["text"]).tolist() == list("abcdefg")


def test_printed_form(ds):
    assert repr(ds["n"]) == "Column([0, 1, 2, 3, 4, ...])"
    assert repr(ds.select(range(5))["n"]) == "Column([0, 1, 2, 3, 4])"
    assert repr(ds.select([])["n"]) == "Column([])"


def test_unique(ds):
    assert Dataset.from_dict({"x": ["b", "a", None, "b"]}).unique("x") == ["b", "a", None]


def test_only_its_own_column_is_read(ds, monkeypatch):
    read = []
    table = Dataset.to_arrow
    monkeypatch.setattr(
        Dataset,
        "to_arrow",
        lambda self, rows=None, columns=None: (read.append(columns), table(self, rows, columns))[1],
    )
    assert ds["n"][3] == 3 and list(ds["n"]) == list(range(7))
    assert read == [["n"]] * 2


def test_a_wrong_key(ds):
    for key in (1.0, None, True, "text"):
        with pytest.raises(TypeError):
            ds["n"][key]


# --- FlatColumn ----------------------------------------------------------------------------------

ROWS = [[1, 2, 3], [], [4], [5, 6], [], [7, 8, 9, 10]]


def flat(column: pa.ChunkedArray) -> FlatColumn:
    return FlatColumn("ids", column)


@pytest.mark.parametrize(
    "type_", [pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.list_(pa.float32())]
)
@pytest.mark.parametrize("cuts", [[], [0], [1], [2, 2, 4], [3, 6], [1, 2, 3, 4, 5]])
def test_rows_across_chunks(type_, cuts):
    ends = [0, *cuts, len(ROWS)]
    chunks = [pa.array(ROWS[a:b], type_) for a, b in itertools.pairwise(ends)]
    column = flat(pa.chunked_array(chunks))
    order = np.array([5, 0, 1, 3, 0, 4, 2])
    assert list(column.take(order)) == [ROWS[i] for i in order]
    assert column.lengths(order).tolist() == [len(ROWS[i]) for i in order]
    assert list(column.take(np.array([], np.int64))) == []


def test_sliced_chunks():
    array = pa.array([[0], *ROWS, [0, 0]], pa.list_(pa.int32()))
    column = flat(pa.chunked_array([array.slice(1, 6)]))
    assert list(column.take(np.arange(6))) == ROWS


def test_no_chunks_at_all():
    column = flat(pa.chunked_array([], type=pa.list_(pa.int32())))
    assert column.lengths(np.arange(0)).tolist() == [] and list(column.take(np.arange(0))) == []


def test_values_are_views():
    array = pa.array(ROWS, pa.list_(pa.int32()))
    (values,) = flat(pa.chunked_array([array])).values
    assert not values.flags.owndata
    assert values.__array_interface__["data"][0] == array.values.buffers()[1].address


def test_a_missing_row_has_no_length():
    column = flat(pa.chunked_array([[[1], None, [2, 3]]]))
    assert column.lengths(np.array([0, 2])).tolist() == [1, 2]
    for read in (column.lengths, column.take):
        with pytest.raises(DataError, match="'ids' has missing rows"):
            read(np.array([0, 1]))


def test_lengths_after_the_missing_rows_were_filtered_out():
    ds = Dataset.from_dict({"ids": [[1], None, [2, 3]]})
    with pytest.raises(DataError, match="fill or filter them first"):
        ds.lengths("ids")
    assert ds.filter(lambda row: row["ids"] is not None).lengths("ids").tolist() == [1, 2]


def test_a_missing_value_in_a_row():
    with pytest.raises(DataError, match="missing value in it"):
        flat(pa.chunked_array([[[1, None]]]))


def test_what_is_flat():
    for type_ in (pa.list_(pa.int8()), pa.large_list(pa.float32()), pa.list_(pa.uint64())):
        assert is_flat(type_)
    for type_ in (pa.int64(), pa.string(), pa.list_(pa.string()), pa.list_(pa.list_(pa.int8()))):
        assert not is_flat(type_)
        with pytest.raises(DataError, match="'ids' holds no lists of numbers"):
            flat(pa.chunked_array([], type=type_))


def test_lengths_follow_the_selection():
    ds = Dataset.from_dict({"ids": ROWS})
    assert ds.lengths("ids").tolist() == [3, 0, 1, 2, 0, 4]
    assert ds.select([5, 0]).lengths("ids").tolist() == [4, 3]
    assert ds.select(range(2, 4)).lengths("ids").tolist() == [1, 2]
    renamed = ds.rename_column("ids", "labels").select([5])
    assert renamed.lengths("labels").tolist() == [4]


# --- padding -------------------------------------------------------------------------------------


def padded(rows, length, fill=0, left=False):
    return pad_columns({"ids": rows}, {"ids": fill}, length, left)["ids"]


def test_padding():
    block = padded([np.array([1, 2, 3]), [], [4]], 4)
    assert block.tolist() == [[1, 2, 3, 0], [0, 0, 0, 0], [4, 0, 0, 0]]
    assert block.dtype == np.int64 and block.flags.owndata
    left = padded([[1, 2, 3], [], [4]], 4, -100, left=True)
    assert left.tolist() == [[-100, 1, 2, 3], [-100] * 4, [-100, -100, -100, 4]]


def test_padding_of_floats_and_of_nothing():
    floats = padded([[0.5], [1.5, 2.5]], 2, 0.25)
    assert floats.tolist() == [[0.5, 0.25], [1.5, 2.5]] and floats.dtype == np.float32
    assert padded([], 3).shape == (0, 3)
    assert padded([[], []], 0).shape == (2, 0) and padded([[], []], 2).tolist() == [[0, 0]] * 2


def test_what_cannot_be_padded():
    for left in (False, True):
        with pytest.raises(DataError, match="2 places are too few for the rows of 'ids'"):
            padded([[1, 2, 3]], 2, left=left)
    with pytest.raises(DataError, match="'ids' holds something else"):
        padded(["text"], 4)
    with pytest.raises(DataError, match="'ids' holds something else"):
        padded([[1], None], 4)
    with pytest.raises(DataError, match="'mask' are not as long as those of 'ids'"):
        pad_columns({"ids": [[1, 2]], "mask": [[1]]}, {"ids": 0, "mask": 0}, 2)


# --- runs: masks and type ids, one number a row ---------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8), st.booleans())
def test_runs_are_their_rows(pairs, left):
    """Encoded, decoded, sliced, padded: always the rows of zeros and then ones."""
    rows = [[0] * zeros + [1] * ones for zeros, ones in pairs]
    runs = Runs(
        np.array([len(row) for row in rows], np.int64), np.array([z for z, _ in pairs], int)
    )
    assert list(runs) == rows == runs[:] and runs.to_arrow().to_pylist() == rows
    array = pa.array(rows, pa.list_(pa.int8()))
    assert Runs.found_in(array)[:] == rows
    encoded = pa.chunked_array([runs.encode()])
    assert Runs.decode(encoded)[:] == rows and Runs.decode(encoded.slice(1))[:] == rows[1:]
    length = max(map(len, rows), default=0) + 1
    block = pad_columns({"m": runs}, {"m": 7}, length, left)["m"]
    assert block.tolist() == padded(rows, length, 7, left).tolist() and block.dtype == np.int64
    picked = np.arange(len(rows))[::-2]
    assert runs.take(picked)[:] == rows[::-2]


@pytest.mark.parametrize(
    "rows", [[[1, 0]], [[0, 1, 0]], [[0, 1], [1, 1, 0]], [[2]], [[-1, 1, 1]], [None], [[None]]]
)
def test_other_rows_are_no_runs(rows):
    assert Runs.found_in(pa.array(rows, pa.list_(pa.int8()))) is None


def test_runs_take_four_bytes_a_row_and_longer_rows_stay_lists():
    assert Runs(np.array([300, 2]), np.array([200, 0])).encode().nbytes == 8
    rows = pa.array([[1] * 2**16], pa.list_(pa.int8()))
    assert Runs.found_in(rows) is None and Runs.found_in(rows.cast(pa.list_(pa.int32()))) is None


def test_lists_of_text_are_named():
    with pytest.raises(DataError, match="'ids' holds something else"):
        padded([["a", "b"]], 4)
