"""Files as people have them: packed, in other encodings, by columns, with half an emoji, large."""

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import os
import re
import subprocess
import sys
import weakref
import zipfile

import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from minift_files import csv_reader, json_reader, parsing, text_reader, unpacking
from minift_files.cells import kinds_of, read_cells, type_of
from minift_files.options import Options

from minift import ClassLabel, Dataset, Features, Value, load_dataset, load_from_disk
from minift.data.features import Json
from minift.errors import ArgumentError, ConfigError, DataError, MissingFileError

ROWS = b"text,label\nalpha,0\nbeta,1\n"
READ = {"text": ["alpha", "beta"], "label": [0, 1]}


@pytest.fixture
def put(tmp_path):
    """Write a file and return its path as text."""

    def put(name: str, content: str | bytes) -> str:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return str(tmp_path / name)

    return put


def load(kind, path, **options):
    return load_dataset(kind, data_files=path, split="train", **options)


def error(call, kind=DataError) -> str:
    """The message of an error, which says at most once what was expected."""
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value).count("expected") <= 1
    return str(caught.value)


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    return pa.compress(content, "zstd", asbytes=True)


PACKED = {
    "gzip": gzip.compress,
    "two gzips": lambda raw: gzip.compress(raw[:15]) + gzip.compress(raw[15:]),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
    "zip": lambda raw: zipped(**{"__MACOSX/._a.csv": b"x", ".hidden": b"", "data/a.csv": raw}),
    "gzip in a zip": lambda raw: zipped(**{"a.csv.gz": gzip.compress(raw)}),
}


# --- packed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zip", "a.csv.xz", "a.dat"])
@pytest.mark.parametrize("how", PACKED)
def test_a_packed_file_is_read_whatever_its_name(put, how, name):
    """Its first bytes say what it is: some sites hand out zip archives that are called .csv."""
    assert load("csv", put(name, PACKED[how](ROWS)))[:] == READ


def test_a_name_with_gz_makes_no_gzip_file(put):
    assert load("csv", put("a.csv.gz", ROWS))[:] == READ


@pytest.mark.parametrize("kind", ["json", "text", "tsv"])
@pytest.mark.parametrize("how", PACKED)
def test_every_format_of_text_is_unpacked(put, how, kind):
    content = {"json": b'{"a": "x"}\n', "text": b"x\n", "tsv": b"a\tb\nx\t1\n"}[kind]
    assert next(iter(load(kind, put("a", PACKED[how](content)))[0].values())) == "x"


def test_a_folder_of_packed_files_is_read(put, tmp_path):
    put("train.csv.zip", zipped(**{"train.csv": ROWS}))
    put("test.csv.zst", zstd(ROWS))
    raw = load_dataset(str(tmp_path))
    assert raw["train"][:] == raw["test"][:] == READ


@pytest.mark.parametrize("how", [how for how in PACKED if " " not in how])
def test_a_packed_file_that_was_cut_off_is_an_error(put, how):
    rows = b"text,label\n" + b"".join(b"%d,1\n" % (i * i) for i in range(20_000))
    raw = PACKED[how](rows)
    for broken in (raw[:-4], raw[: len(raw) // 2]):
        text = error(lambda b=broken: load("csv", put("a.csv", b)))
        assert "a.csv is not a complete" in text and "do this" in text


def test_an_archive_of_several_files_names_them_and_the_remedy_works(put, tmp_path):
    path = put("kaggle.csv", zipped(**{"train.csv": ROWS, "test.csv": ROWS}))
    text = error(lambda: load("csv", path))
    assert "kaggle.csv is a zip archive" in text and "2 files: train.csv, test.csv" in text
    assert "unpack it" in text
    zipfile.ZipFile(path).extractall(tmp_path / "unpacked")
    assert load("csv", str(tmp_path / "unpacked" / "train.csv"))[:] == READ


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"7z\xbc\xaf\x27\x1c rest", "7z"),
        (b"Rar!\x1a\x07\x01", "rar"),
        (b"a" * 257 + b"ustar", "tar"),
    ],
)
def test_archives_that_are_not_read_are_named(put, raw, kind):
    for content in (raw, gzip.compress(raw)):
        text = error(lambda c=content: load("csv", put("a.csv", c)))
        assert f"a.csv is a {kind} archive" in text and "unpack it" in text


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_packed_parquet_or_arrow_file_is_to_be_unpacked(put, kind):
    text = error(lambda: load(kind, put(f"a.{kind}", gzip.compress(b"x"))))
    assert "is packed (gzip)" in text and "unpack it" in text


# --- encodings -----------------------------------------------------------------------------------

CAFE = "text,label\ncaf\xe9 \u20ac,0\n"


@pytest.mark.parametrize(
    "encoding", ["cp1252", "utf-16", "utf-16-le", "utf-8", "utf-8-sig", "utf-32"]
)
def test_an_encoding_can_be_named(put, encoding):
    path = put("x.csv", CAFE.encode(encoding))
    assert load("csv", path, encoding=encoding)[:] == {"text": ["caf\xe9 \u20ac"], "label": [0]}
    path = put("x.json", '{"a": "\xe9"}\n'.encode(encoding))
    assert load("json", path, encoding=encoding)["a"] == ["\xe9"]
    assert load("text", put("x.txt", "\xe9\n".encode(encoding)), encoding=encoding)["text"] == [
        "\xe9"
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("packed", [lambda raw: raw, gzip.compress])
def test_a_mark_at_the_beginning_says_the_encoding(put, encoding, packed):
    """Spreadsheets write "Unicode text" as UTF-16 with its mark."""
    assert load("csv", put("x.csv", packed(CAFE.encode(encoding))))["text"] == ["caf\xe9 \u20ac"]
    big = b"\xfe\xff" + CAFE.encode("utf-16-be")
    assert load("csv", put("x.csv", packed(big)))["text"] == ["caf\xe9 \u20ac"]


@pytest.mark.parametrize("kind", ["csv", "json", "text"])
def test_text_in_another_encoding_names_the_line_and_the_remedy_works(put, kind):
    content = {
        "csv": "text\na\ncaf\xe9\n",
        "text": "a\nb\ncaf\xe9\n",
        "json": '\n\n{"text": "caf\xe9"}',
    }
    path = put("x", content[kind].encode("latin-1"))
    text = error(lambda: load(kind, path))
    assert "x:3: not UTF-8 text" in text and "byte 0xe9" in text
    named = re.search(r'encoding="(\w+)"', text)[1]
    assert load(kind, path, encoding=named)["text"][-1] == "caf\xe9"


def test_the_line_of_a_bad_byte_in_a_large_file(put):
    raw = b"text\n" + b"some words\n" * 300_000 + b"caf\xe9\n"
    assert "x.csv:300002: not UTF-8" in error(lambda: load("csv", put("x.csv", raw)))


def test_utf_16_without_a_mark_is_named(put):
    path = put("x.csv", CAFE.encode("utf-16-le"))
    text = error(lambda: load("csv", path))
    assert "is not text in UTF-8" in text and 'encoding="utf-16-le"' in text
    assert load("csv", path, encoding="utf-16-le")["label"] == [0]


@pytest.mark.parametrize("encoding", ["latin-99", "rot13", 5])
def test_an_encoding_that_there_is_not(put, encoding):
    text = error(lambda: load("csv", put("x.csv", ROWS), encoding=encoding), ConfigError)
    assert "no such encoding" in text and "cp1252" in text


# --- headers and delimiters ----------------------------------------------------------------------


def test_the_index_of_pandas_is_a_column_like_any_other(put, tmp_path):
    frame = pandas.DataFrame({"text": ["a", "b"], "label": [1, 0]})
    frame.to_csv(tmp_path / "x.csv")
    ds = load("csv", str(tmp_path / "x.csv"))
    assert ds.column_names == ["Unnamed: 0", "text", "label"] and ds["Unnamed: 0"] == [0, 1]
    assert ds.column_names == list(pandas.read_csv(tmp_path / "x.csv").columns)
    assert ds.remove_columns("Unnamed: 0").rename_column("label", "labels").column_names == [
        "text",
        "labels",
    ]
    sheet = "v1,v2,,,\nham,see you,,,\n"
    ds = load("csv", put("y.csv", sheet)).rename_columns({"v1": "label"})
    assert ds.column_names == ["label", "v2", "Unnamed: 2", "Unnamed: 3", "Unnamed: 4"]


def test_other_columns_can_be_chosen_beside_one_without_a_name(put, tmp_path):
    pq.write_table(pa.table({"": [0], "a": [1], "b": [2]}), tmp_path / "x.parquet")
    for ds in (
        Dataset.from_dict({"": [0], "a": [1], "b": [2]}),
        load("json", put("x.jsonl", '{"": 0, "a": 1, "b": 2}\n')),
        load("parquet", str(tmp_path / "x.parquet")),
    ):
        assert ds.rename_column("a", "c").column_names == ["", "c", "b"]
        assert ds.remove_columns("a").column_names == ["", "b"]
        assert ds.select_columns(["b", ""]).column_names == ["b", ""]
        assert ds.rename_column("", "id").column_names == ["id", "a", "b"]
        assert ds.cast_column("b", Value("float32"))[0] == {"": 0, "a": 1, "b": 2.0}
        with pytest.raises(DataError, match="would lose its name"):
            ds.rename_column("a", "")


@pytest.mark.parametrize("sep", [";", "\t", "|"])
def test_another_delimiter_is_hinted_at_and_the_remedy_works(put, sep):
    path = put("x.csv", f"text{sep}label\na{sep}1\n")
    with pytest.warns(UserWarning, match="the only column is") as caught:
        assert len(load("csv", path).column_names) == 1
    named = (
        re.search(r"pass sep='(.+)'", str(caught[0].message))[1].encode().decode("unicode_escape")
    )
    assert load("csv", path, sep=named)[:] == {"text": ["a"], "label": [1]}
    path = put("x.csv", f"text{sep}score\na{sep}1,5\n")
    with pytest.warns(UserWarning):
        text = error(lambda: load("csv", path))
    assert "x.csv:2: a row has 2 cells" in text and f"pass sep={sep!r}" in text


@pytest.mark.parametrize("sep", ["||", "\n", '"', None, 5])
def test_a_delimiter_is_one_character(put, sep):
    text = error(lambda: load("csv", put("x.csv", "a||b\n1||2\n"), sep=sep), ConfigError)
    assert "no such delimiter" in text and "one character" in text


def test_a_header_longer_than_any_cell_may_be(put):
    """A file without a header, whose first text is long: Python's own reader stops at 131,072."""
    path = put("x.csv", "x" * 200_000 + ",1\nbad film,0\n")
    assert len(load("csv", path)) == 1
    assert load("csv", path, column_names=["text", "label"])["label"] == [1, 0]


def test_a_quote_in_the_header_that_is_never_closed(put):
    text = error(lambda: load("csv", put("x.csv", '"a,b\n1,2\n3,4\n')))
    assert "the header does not end" in text and "quotes=False" in text


@pytest.mark.parametrize("names", [["a", "a"], [1, 2]])
def test_column_names_that_name_no_columns(put, names):
    assert "column_names=" in error(
        lambda: load("csv", put("x.csv", ROWS), column_names=names), ConfigError
    )


@pytest.mark.parametrize("sep", [" ", ":", "a", "\x1e", "\u00a7"])
def test_any_character_can_be_the_delimiter(put, sep):
    path = put("x.csv", f"t{sep}n\nx{sep}1\ny{sep}2\n")
    if sep.isascii():
        assert load("csv", path, sep=sep)[:] == {"t": ["x", "y"], "n": [1, 2]}
    else:  # which Arrow's parser does not take
        assert "no such delimiter" in error(lambda: load("csv", path, sep=sep), ConfigError)


# --- types come from the whole file --------------------------------------------------------------


@pytest.fixture
def small_blocks(monkeypatch):
    """Files of some kilobytes have many blocks."""
    for module in (unpacking, csv_reader, json_reader):
        monkeypatch.setattr(module, "BLOCK", 1000)
    monkeypatch.setattr(unpacking.text_blocks, "__defaults__", (None, 1000))
    monkeypatch.setattr(parsing, "CACHED_BYTES", 0)


@pytest.mark.parametrize(
    ("late", "values", "dtype"),
    [
        ("x", lambda i: f"{i:03d}", "string"),  # zeros and all
        ("0.5", float, "float64"),
        ("", int, "int64"),
        ("9" * 19, lambda i: f"{i:03d}", "string"),
        ("9007199254740993", int, "int64"),
        ("true", lambda i: f"{i:03d}", "string"),
        ("nan", float, "float64"),
        (" 7 ", int, "int64"),
        ("0x1F", lambda i: f"{i:03d}", "string"),
    ],
)
@pytest.mark.parametrize("size", [10, 5000])
def test_the_last_cell_of_a_csv_file_decides_as_the_first(
    put, small_blocks, late, values, dtype, size
):
    cells = [f"{i:03d}" for i in range(size)]
    ds = load("csv", put("x.csv", "n,t\n" + "".join(f"{c},words\n" for c in [*cells, late])))
    assert ds.features == {"n": Value(dtype), "t": Value("string")} and len(ds) == size + 1
    assert ds["n"][:-1] == [values(i) for i in range(size)]


def test_a_number_that_a_float_would_round_makes_text_of_a_far_fraction(put, small_blocks):
    cells = ["9007199254740993", *["1"] * 5000, "0.5"]
    ds = load("csv", put("x.csv", "n,t\n" + "".join(f"{c},words\n" for c in cells)))
    assert ds["n"][:] == cells


@pytest.mark.parametrize(
    ("early", "late", "feature"),
    [
        (1, 0.5, Value("float64")),
        (None, "x", Value("string")),
        ([1], ["x"], Json()),
        ([], [1], None),
        ({"a": 1}, {"b": 1}, Json()),
        ({"a": 1}, {"a": None}, None),
        ("x", ["y"], Json()),
        ([1], [0.5], None),
    ],
)
def test_the_last_row_of_a_json_file_decides_as_the_first(put, small_blocks, early, late, feature):
    values = [early] * 500 + [late]
    path = put("x.jsonl", "".join(json.dumps({"k": v, "t": "words"}) + "\n" for v in values))
    ds = load("json", path)
    assert ds["k"] == values and len(ds) == 501
    if feature is not None:
        assert ds.features["k"] == feature


def test_a_key_that_comes_late_is_a_column(put, small_blocks):
    rows = [{"a": i, "t": "words"} for i in range(500)] + [{"b": "new"}]
    ds = load("json", put("x.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert ds.column_names == ["a", "t", "b"] and ds["b"] == [None] * 500 + ["new"]


@pytest.mark.parametrize(
    ("early", "late"), [(1, "x"), ("x", 1), (True, 1), (1, 2**64), (2**53 + 1, 0.5)]
)
def test_types_that_mix_name_file_column_and_row(put, small_blocks, early, late):
    lines = [json.dumps({"k": v, "t": "words"}) + "\n" for v in [early] * 500 + [late] * 3]
    text = error(lambda: load("json", put("x.jsonl", "".join(lines))))
    assert "x.jsonl" in text and "'k'" in text
    assert f"row {0 if early == 2**53 + 1 else 500}: " in text


def test_features_that_do_not_fit_name_file_column_and_row(put, small_blocks):
    path = put("x.csv", "n,t\n" + "1,words\n" * 500 + "2,maybe\n")
    features = Features({"n": Value("int64"), "t": ClassLabel(names=["words"])})
    text = error(lambda: load("csv", path, features=features))
    assert "x.csv: column 't'" in text and "row 500: 'maybe'" in text
    features = Features({"n": Value("int8"), "t": Value("string")})
    path = put("x.csv", "n,t\n" + "1,words\n" * 500 + "200,maybe\n")
    text = error(lambda: load("csv", path, features=features))
    assert "x.csv: column 'n'" in text and "row 500: 200" in text


def test_rows_longer_than_several_blocks(put, small_blocks):
    cells = ["x\n" * n for n in (1, 600, 3, 5000, 2, 1, 40_000)]
    content = "a,b\n" + "".join(f'{i},"{cell}"\n' for i, cell in enumerate(cells))
    assert load("csv", put("x.csv", content))["b"] == cells
    rows = [{"t": cell} for cell in cells]
    assert load("json", put("x.jsonl", "\n".join(map(json.dumps, rows)))).to_list() == rows
    assert load("json", put("x.json", json.dumps(rows))).to_list() == rows
    assert load("json", put("x.json", json.dumps(rows, indent=1))).to_list() == rows
    pretty = "\n".join(json.dumps(row, indent=2) for row in rows)
    assert load("json", put("x.json", pretty)).to_list() == rows


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_blocks_end_anywhere(put, small_blocks, newline):
    texts = [f"caf\xe9 \U0001f600 {i}" for i in range(300)]
    for encoding in ("utf-8", "utf-16"):
        lines = newline.join(texts) + newline
        assert load("text", put("x.txt", lines.encode(encoding)))["text"] == texts
        table = newline.join(["t,n", *(f'"{text}",{i}' for i, text in enumerate(texts))])
        assert load("csv", put("x.csv", table.encode(encoding)))["t"] == texts
        rows = newline.join(json.dumps({"t": text}, ensure_ascii=False) for text in texts)
        if newline != "\r":
            assert load("json", put("x.jsonl", rows.encode(encoding)))["t"] == texts
        paragraphs = (newline * 2).join(texts)
        path = put("x.txt", paragraphs.encode(encoding))
        assert load("text", path, sample_by="paragraph")["text"] == texts


CELL = st.sampled_from(
    ["", "1", "2", "-3", "+4", " 5", "007", "0x1F", "1.5", "2.0", ".5", "1e3", "nan"]
)
CELL |= st.sampled_from(
    ["inf", "-inf", "x", "True", "false", "9007199254740993", "9" * 19, "1_0", "nan(1)"]
)


@given(st.lists(CELL, max_size=6), st.lists(CELL, max_size=6))
@settings(max_examples=300, deadline=None)
def test_the_quick_reading_of_cells_is_the_careful_one(first, second):
    """Whatever the order in which blocks come, the types are those of all cells together."""
    columns = [pa.chunked_array([pa.array(cells, pa.string())]) for cells in (first, second)]
    kinds: set[str] = set()
    for column in columns:
        kinds |= read_cells(column, kinds)[1]
    whole = pa.chunked_array([pa.array(first + second, pa.string())])
    assert type_of(kinds) == type_of(kinds_of(whole))


JSON_VALUE = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False)
JSON_VALUE |= st.text(st.characters(codec="utf-8"), max_size=5) | st.lists(
    st.integers(-9, 9), max_size=2
)


@given(st.lists(st.fixed_dictionaries({}, optional={"a": JSON_VALUE, "b": JSON_VALUE}), min_size=1))
@settings(max_examples=200, deadline=None)
def test_arrow_s_reading_of_lines_is_python_s(rows):
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    columns = json_reader.Columns("x.jsonl", Features())
    try:
        arrays = columns.note(piece := json_reader.Piece(0, rows))
    except DataError:
        return
    if (table := columns.quick(lines)) is not None:
        assert table.schema == columns.schema
        assert table.to_pylist() == columns.table(piece, arrays).to_pylist()


def whole(tables):
    """What a reader yields in the end, as its schema and its rows."""
    *_, last = (list(same) for _, same in itertools.groupby(tables, lambda table: table.schema))
    table = pa.concat_tables(last)
    return table.schema, table.to_pylist()


def read_in_blocks(read, path, block):
    with pytest.MonkeyPatch.context() as patch:
        for module in (unpacking, csv_reader, json_reader):
            patch.setattr(module, "BLOCK", block)
        patch.setattr(unpacking.text_blocks, "__defaults__", (None, block))
        try:
            return whole(read(path, Options()))
        except DataError as error:
            return str(error)


CELLS = st.sampled_from(
    ["1", "2", "", "0.5", "x", "a,b", 'q"u', "new\nline", "\r\n", "\U0001f600", "007"]
)
TABLES = st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(*[CELLS] * n), max_size=30))


@given(TABLES, st.sampled_from(["\n", "\r\n"]), st.integers(16, 200))
@settings(max_examples=150, deadline=None)
def test_csv_is_the_same_wherever_blocks_end(tmp_path_factory, rows, newline, block):
    """Arrow takes a block that begins behind a carriage return and has no row for the last one."""
    text = io.StringIO(newline="")
    width = len(rows[0]) if rows else 1
    csv.writer(text, lineterminator=newline).writerows([[f"c{i}" for i in range(width)], *rows])
    path = tmp_path_factory.getbasetemp() / "blocks.csv"
    path.write_bytes(text.getvalue().encode())
    assert read_in_blocks(csv_reader.read_csv, path, block) == read_in_blocks(
        csv_reader.read_csv, path, 1 << 20
    )


MIXED = st.sampled_from(
    [1, 2, None, 0.5, "x", True, [1], ["a"], [], {"a": 1}, {"b": 2}, {"a": None}]
)
OBJECTS = st.lists(st.fixed_dictionaries({"a": MIXED}, optional={"b": MIXED}), min_size=1)


@given(OBJECTS, st.sampled_from([None, 1, "array"]), st.integers(16, 200))
@settings(max_examples=150, deadline=None)
def test_json_is_the_same_wherever_blocks_end(tmp_path_factory, rows, form, block):
    lines = "\n".join(json.dumps(row, indent=form if form == 1 else None) for row in rows)
    path = tmp_path_factory.getbasetemp() / "blocks.jsonl"
    path.write_text(json.dumps(rows) if form == "array" else lines)
    small, large = (read_in_blocks(json_reader.read_json, path, n) for n in (block, 1 << 22))
    assert small == large or (isinstance(small, str) and isinstance(large, str))


def test_true_is_no_number(put):
    for rows in ("[0.5, true]", "[true, 0.5]", "[1, true]"):
        values = json.loads(rows)
        text = error(
            lambda v=values: load("json", put("x.json", json.dumps([{"a": x} for x in v])))
        )
        assert "row 1: " in text and "'a'" in text


@pytest.mark.parametrize("line", ["null", " null", '{"a": 1} null', '{"a": 1} {"a": 2}', "", "[1]"])
def test_lines_that_are_no_object_are_not_left_to_arrow(line):
    """It takes a null for an object; where the first line is one, it ends the process."""
    columns = json_reader.Columns("x.jsonl", Features())
    columns.note(json_reader.Piece(0, [{"a": 1}]))
    assert columns.quick(f'{line}\n{{"a": 1}}\n'.encode()) is None
    assert columns.quick(f'{{"a": 1}}\n{line}\n'.encode()) is None
    assert columns.quick(b'{"a": 1}\n{"a": 2}\n').num_rows == 2


# --- the shapes of JSON files --------------------------------------------------------------------

TWO = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(json.dumps(row, indent=1) for row in TWO),
        "".join(map(json.dumps, TWO)),
        f"[{json.dumps(TWO[0])}\n,\n{json.dumps(TWO[1])}]\n\n",
    ],
)
def test_objects_one_after_the_other(put, content):
    assert load("json", put("x.json", content)).to_list() == TWO


@pytest.mark.parametrize(
    "content",
    [
        TWO,
        {"text": ["a", "b"], "label": [0, 1]},
        {"text": {"0": "a", "1": "b"}, "label": {"0": 0, "1": 1}},
    ],
)
def test_a_field_may_hold_rows_or_columns(put, content):
    path = put("x.json", json.dumps({"version": 1, "data": content}))
    assert load("json", path, field="data").to_list() == TWO
    path = put("x.json", json.dumps({"version": 1, "data": content}, indent=2))
    assert load("json", path, field="data").to_list() == TWO


@pytest.mark.parametrize(
    "content",
    ['[{"a": 1}]]', '[{"a": 1}] 2', '[{"a": 1}, ]', "[,]", "[{} {}]", "[[]", "{"],
)
def test_broken_json_names_line_and_column(put, content):
    assert re.search(
        r"x\.json:\d+:\d+: not JSON", error(lambda: load("json", put("x.json", content)))
    )


def test_rows_under_a_key_are_not_one_row_and_the_remedy_works(put):
    path = put("x.json", json.dumps({"version": 1, "data": TWO}))
    text = error(lambda: load("json", path))
    field = re.search(r"field='(\w+)'", text)[1]
    assert load("json", path, field=field).to_list() == TWO


@pytest.mark.parametrize("orient", ["columns", "index", "split", "list"])
def test_columns_are_not_one_row_and_the_remedy_works(put, orient):
    frame = pandas.DataFrame(TWO)
    content = json.dumps(frame.to_dict("list"))
    content = content if orient == "list" else frame.to_json(orient=orient)
    text = error(lambda: load("json", put("x.json", content)))
    assert "one object, whose keys look like columns" in text
    remedy = re.search(r"do this: +(.*?); if it is one row", text)[1]
    names = {"Dataset": Dataset, "pandas": pandas, "json": json}
    assert eval(remedy, names).to_list() == TWO


@pytest.mark.parametrize("row", [{"messages": [{"role": "u"}]}, {"ids": [1, 2], "mask": [1, 1]}])
def test_one_row_of_lists_is_a_row_where_the_file_says_so(put, row):
    assert load("json", put("x.jsonl", json.dumps(row))).to_list() == [row]
    assert load("json", put("x.json", json.dumps([row]))).to_list() == [row]
    assert "call the file .jsonl" in error(lambda: load("json", put("x.json", json.dumps(row))))


def test_half_an_emoji_names_file_column_and_row_and_the_remedy_works(put):
    """Texts that were cut at so many UTF-16 units."""
    path = put("x.jsonl", '{"text": "ok"}\n{"text": "cut \\ud83d"}\n')
    text = error(lambda: load("json", path))
    assert "x.jsonl" in text and "'text'" in text and "row 1" in text and "surrogates" in text
    text = error(lambda: Dataset.from_dict({"text": ["a", "b", "\ud83d"]}))
    assert "'text'" in text and "row 2" in text
    whole = [t.encode("utf-8", "ignore").decode() for t in ("a", "cut \ud83d")]
    assert Dataset.from_dict({"text": whole})["text"] == ["a", "cut "]
    rows = '[{"a": {"b": "\\ud83d", "c": 1}}, {"a": {"c": 2}}]'
    assert "row 0" in error(lambda: load("json", put("x.json", rows)))


def test_nan_among_texts_is_a_missing_text(put):
    assert load("json", put("x.jsonl", '{"t": "a"}\n{"t": NaN}\n'))["t"] == ["a", None]
    for missing in (np.nan, pandas.NA, None, float("nan")):
        assert Dataset.from_dict({"t": ["a", missing]})["t"] == ["a", None]
        assert Dataset.from_list([{"t": "a"}, {"t": missing}])["t"] == ["a", None]
    first, second = Dataset.from_dict({"x": [1.5, np.nan]})["x"]
    assert first == 1.5 and second != second, "NaN among numbers stays"
    text = error(lambda: Dataset.from_dict({"t": ["a", np.nan, 5]}))
    assert "row 2: 5" in text and "'t'" in text


def test_values_that_are_nested_too_deeply_are_named(put):
    assert "x.json:1: lists or objects are nested too deeply" in error(
        lambda: load("json", put("x.json", '{"a": ' + "[" * 100_000))
    )


def test_a_message_is_said_once(put):
    for content in ('{"a": 1}\n{"a": "x"}\n', '{"a": "x"}\n{"a": 1}\n'):
        text = error(lambda c=content: load("json", put("x.json", c)))
        assert text.count("mix types") == text.count("got:") == text.count("do this:") == 1


def test_a_type_that_is_not_read_names_the_column_and_the_remedy_works(tmp_path):
    maps = pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))
    pq.write_table(pa.table({"m": maps, "t": ["x"]}), tmp_path / "x.parquet")
    text = error(lambda: load("parquet", str(tmp_path / "x.parquet")))
    assert "x.parquet: the column 'm'" in text and "map<" in text and "columns=" in text
    assert load("parquet", str(tmp_path / "x.parquet"), columns=["t"])["t"] == ["x"]


# --- which files ---------------------------------------------------------------------------------


def test_a_folder_with_brackets_is_no_pattern(tmp_path):
    folder = tmp_path / "run[1]" / "a*b"
    folder.mkdir(parents=True)
    (folder / "train.csv").write_bytes(ROWS)
    for files in ("*.csv", {"train": "tr*.csv"}, ["train.csv"], "t[r]ain.csv"):
        assert load_dataset(str(folder), data_files=files)["train"][:] == READ
    assert load("csv", str(folder / "*.csv"))[:] == READ
    assert load("csv", str(folder.parent / "**" / "*.csv"))[:] == READ
    assert load_dataset(str(folder))["train"][:] == READ
    text = error(lambda: load("csv", str(folder / "trian.csv")), MissingFileError)
    assert "train.csv" in text
    assert "data_dir=" in error(lambda: load("csv", str(folder)), MissingFileError)


def test_data_dir(tmp_path):
    for name in ("a/train.csv", "a/test.csv", "b/train.csv", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"x\n{name}\n")

    def names(raw):
        return {split: ds["x"].tolist() for split, ds in raw.items()}

    both = {"train": ["a/train.csv"], "test": ["a/test.csv"]}
    assert names(load_dataset("csv", data_dir=tmp_path / "a")) == both
    assert names(load_dataset(str(tmp_path), data_dir="a")) == both
    assert names(load_dataset(str(tmp_path), data_dir="b")) == {"train": ["b/train.csv"]}
    assert names(load_dataset("csv", data_dir=str(tmp_path / "a"), data_files="t*n.csv")) == {
        "train": ["a/train.csv"]
    }
    for call in (
        lambda: load_dataset("csv", data_dir=tmp_path / "c"),
        lambda: load_dataset(str(tmp_path), data_dir="c"),
        lambda: load_dataset("json", data_dir=tmp_path / "a"),
    ):
        error(call, MissingFileError)


# --- a file that is written again ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "json", "text", "parquet", "arrow"])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("digested", [0, 1 << 26])
def test_a_file_of_the_same_length_and_time_is_known_by_its_content(
    tmp_path, monkeypatch, kind, large, digested
):
    monkeypatch.setattr(parsing, "CACHED_BYTES", 0 if large else 1 << 20)
    monkeypatch.setattr("minift.data.loading.DIGESTED_BYTES", digested)
    path = tmp_path / f"x.{kind}"

    def write(text):
        table = pa.table({"text": [text]})
        if kind == "parquet":
            pq.write_table(table, path, compression="none")
        elif kind == "arrow":
            with pa.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table)
        else:
            path.write_text(
                {"csv": "text\n%s\n", "json": '{"text": "%s"}\n', "text": "%s\n"}[kind] % text
            )
        os.utime(path, ns=(1, 1))
        return path.stat().st_size

    def mapped():
        return load(kind, str(path)).map(lambda row: {"n": row["text"] * 2})["n"].tolist()

    size = write("old")
    assert mapped() == ["oldold"]
    assert write("new") == size and path.stat().st_mtime_ns == 1
    assert load(kind, str(path))["text"] == ["new"] and mapped() == ["newnew"]


# --- memory that somebody else holds -------------------------------------------------------------


def test_a_dataset_copies_arrays_tensors_and_frames():
    """Else what is written to an array later would be cached as the result for clean data."""
    array, tensor = np.arange(4.0), torch.arange(4)
    matrix, frame = np.ones((2, 2)), pandas.DataFrame({"x": np.arange(4.0), "n": np.arange(4)})
    ds = Dataset.from_dict({"a": array, "t": tensor})
    more = ds.add_column("b", array)
    rows, frames = Dataset.from_dict({"m": matrix}), Dataset.from_pandas(frame)
    listed = Dataset.from_list([{"v": array}, {"v": array}])
    frozen = [str(one[:]) for one in (ds, more, rows, frames, listed)]
    array[:] = tensor[:] = matrix[:] = frame.loc[:, :] = -7
    frame["x"].to_numpy(copy=False)
    assert [str(one[:]) for one in (ds, more, rows, frames, listed)] == frozen


# --- other libraries' types ----------------------------------------------------------------------


def frame_of_polars():
    texts = ["x", "y", "x"]
    return polars.DataFrame(
        {
            "t": ["a", "b", None],
            "cat": polars.Series(texts, dtype=polars.Categorical),
            "enum": polars.Series(texts, dtype=polars.Enum(["x", "y"])),
            "l": [["a"], [], None],
            "n": [[1, 2], [3], []],
            "b": [b"a", b"b", b""],
            "s": [{"k": "v"}] * 3,
            "arr": polars.Series([[1, 2], [3, 4], [5, 6]], dtype=polars.Array(polars.Int8, 2)),
            "u": polars.Series([1, 2, 3], dtype=polars.UInt8),
        }
    )


@pytest.mark.parametrize("write", ["write_ipc", "write_ipc_stream", "write_parquet"])
def test_files_of_polars(tmp_path, write):
    frame = frame_of_polars()
    kind = "parquet" if "parquet" in write else "arrow"
    path = tmp_path / f"x.{kind}"
    getattr(frame, write)(path)
    ds = load(kind, str(path))
    assert {ds.features[name] for name in ("t", "cat", "enum")} == {Value("string")}
    assert ds.to_list() == frame.to_dicts()
    assert ds.select([2, 0]).shuffle(seed=0).sort("u")["cat"] == ["x", "x"]
    ds.filter([True, False, True]).save_to_disk(tmp_path / "saved")
    assert load_from_disk(str(tmp_path / "saved")).to_list() == ds.select([0, 2]).to_list()
    assert ds.map(lambda row: {"c": row["cat"] + "!"})["c"] == ["x!", "y!", "x!"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None, "b"], pa.string_view()),
        pa.array([b"a", None, b"b"], pa.binary_view()),
        pa.array([[1], [2, 3], None], pa.list_view(pa.int64())),
        pa.array([[1], [2, 3], None], pa.large_list_view(pa.int64())),
        pa.array([["a"], [], None], pa.large_list(pa.string_view())),
        pa.array(["a", "b", None]).dictionary_encode(),
        pa.array([["a"], ["a", "b"], []], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]),
        pa.array([{"x": "a"}, None, {"x": "b"}], pa.struct([("x", pa.large_string())])),
    ],
    ids=lambda column: str(column.type)[:40],
)
def test_views_codes_and_large_types_become_plain_ones(tmp_path, column):
    table = pa.table({"x": column})
    with pa.ipc.new_stream(tmp_path / "x.arrow", table.schema) as writer:
        writer.write_table(table)
    ds = load("arrow", str(tmp_path / "x.arrow"))
    plain = str(ds.features)
    assert not re.search("large|view|dictionary|run_end", plain), plain
    assert ds["x"] == column.to_pylist() and ds.select([2, 0])["x"] == [
        column.to_pylist()[i] for i in (2, 0)
    ]


def test_parquet_of_pandas(tmp_path):
    frame = pandas.DataFrame(
        {"review": ["a", None], "kind": pandas.Categorical(["x", "y"]), "n": [1, 2]}
    )
    frame.to_parquet(tmp_path / "x.parquet")
    ds = load("parquet", str(tmp_path / "x.parquet"))
    assert ds.features == {"review": Value("string"), "kind": Value("string"), "n": Value("int64")}
    assert ds.to_list()[1] == {"review": None, "kind": "y", "n": 2}


def test_from_pandas():
    frame = pandas.DataFrame(
        {
            "text": ["a", None, "c"],
            "mixed": pandas.Series(["a", np.nan, pandas.NA], dtype=object),
            "kind": pandas.Categorical(["x", "y", "x"]),
            "n": np.array([1, 2, 3], np.int8),
            "f": [0.5, np.nan, 2],
            "i": pandas.array([1, None, 3], dtype="Int64"),
            "b": [True, False, True],
            "l": [[1], [], None],
            7: ["s"] * 3,
        }
    )
    ds = Dataset.from_pandas(frame)
    assert ds.column_names == [*map(str, frame.columns)]
    assert ds["text"] == ["a", None, "c"] and ds["mixed"] == ["a", None, None]
    assert ds["kind"] == ["x", "y", "x"] and ds["f"] == [0.5, None, 2.0] and ds["i"] == [1, None, 3]
    assert ds.features["n"] == Value("int8") and ds["l"] == [[1], [], None]
    assert ds.features["text"] == ds.features["kind"] == Value("string")
    some = frame.iloc[[2, 0, 1]]
    assert Dataset.from_pandas(some)["__index_level_0__"] == [2, 0, 1]
    assert Dataset.from_pandas(some, preserve_index=False).column_names == ds.column_names
    features = Features({"text": ClassLabel(names=["c", "a"])})
    assert Dataset.from_pandas(frame[["text"]], features)["text"] == [1, None, 0]
    text = error(lambda: Dataset.from_pandas(pandas.DataFrame({"t": ["a", "b", 5]})))
    assert "'t'" in text and "row 2: 5" in text


def test_from_pandas_takes_a_frame_with_one_name_a_column():
    twice = pandas.DataFrame([[1, 2]], columns=["a", "a"])
    for wrong in ({"a": [1]}, polars.DataFrame({"a": [1]}), twice):
        text = error(lambda w=wrong: Dataset.from_pandas(w), ArgumentError)
        assert "different names" in text and type(wrong).__name__ in text
    index = pandas.MultiIndex.from_tuples([(1, "x"), (2, "y")], names=["i", None])
    rows = Dataset.from_pandas(pandas.DataFrame({"a": [1, 2]}, index=index))
    assert rows[:] == {"a": [1, 2], "i": [1, 2], "__index_level_1__": ["x", "y"]}


@pytest.mark.parametrize(
    "column",
    [
        pandas.Series(["x", None, "y"]),
        pandas.Series(["x", None, "y"], dtype="category", index=[7, 8, 9]),
        pa.array(["x", None, "y"], pa.string_view()),
        pa.array(["x", None, "y"]).dictionary_encode(),
        polars.Series(["x", None, "y"]),
        np.array(["x", None, "y"], object),
    ],
    ids=lambda column: f"{type(column).__module__}",
)
def test_columns_of_other_libraries(column):
    ds = Dataset.from_dict({"t": column, "n": [1, 2, 3]}).add_column("u", column)
    assert ds.select([2, 0])["t"] == ds.select([2, 0])["u"] == ["y", "x"]
    assert ds.features["t"] == Value("string")


def test_names_of_columns_are_text():
    text = error(lambda: Dataset.from_dict({0: ["a"], 1: [0]}), ArgumentError)
    assert "names of columns are text" in text and "'0'" in text


@pytest.mark.parametrize("size", ["0.2", "2", True, [1]])
def test_the_size_of_a_part_is_a_number(size):
    ds = Dataset.from_dict({"x": [1, 2, 3]})
    if size is not True:
        assert "are numbers" in error(lambda: ds.train_test_split(test_size=size), ConfigError)
    assert ds.train_test_split(np.int64(1)).num_rows == {"train": 2, "test": 1}


def test_text_reader_yields_at_least_one_table(put):
    from pathlib import Path

    assert [t.num_rows for t in text_reader.read_text(Path(put("x.txt", "")), Options())] == [0, 0]


def test_arrows_threads_have_given_back_what_they_read(put, monkeypatch):
    """One that still holds an object of Python's when the interpreter ends aborts the process."""
    made = []

    class Blocks(csv_reader.Blocks):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(weakref.ref(self))

    monkeypatch.setattr(csv_reader, "Blocks", Blocks)
    good, bad = put("good.csv", "text,label\na,0\n"), put("bad.csv", "text,label\na,0\nb\n" * 99)
    for _ in range(50):
        assert len(load_dataset("csv", data_files=good, split="train")) == 1
        assert made.pop()() is None
        assert "has 1 cells" in error(lambda: load_dataset("csv", data_files=bad), DataError)
        assert made.pop()() is None


# --- memory, and what is interrupted -------------------------------------------------------------

PEAK = """
import sys
from minift import load_dataset
load_dataset(sys.argv[1], data_files=sys.argv[3], split="train")  # what it imports
status = lambda key: int(next(l for l in open("/proc/self/status") if l.startswith(key)).split()[1])
start = status("VmRSS")
print(len(load_dataset(sys.argv[1], data_files=sys.argv[2], split="train")))
print((status("VmHWM") - start) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "json", "text", "parquet", "csv.gz"])
def test_memory_does_not_grow_with_the_file(put, tmp_path, kind):
    """The file is 480 MB unpacked; the engine's own record batches are 32 MB."""
    text = "some words of a review that goes on and on " * 24
    kind, packed = kind.removesuffix(".gz"), kind.endswith(".gz")
    lines = {
        "csv": ["text,label\n", *(f"{i} {text},{i % 2}\n" for i in range(450_000))],
        "json": [f'{{"text": "{i} {text}", "label": {i % 2}}}\n' for i in range(430_000)],
        "text": [f"{i} {text}\n" for i in range(450_000)],
    }.get(kind, [])
    path, small = str(tmp_path / f"large.{kind}"), str(tmp_path / f"small.{kind}")
    if kind == "parquet":
        rows = pa.table({"text": [f"{i} {text}" for i in range(45_000)]})
        with pq.ParquetWriter(path, rows.schema) as writer:
            for _ in range(10):  # row groups of 47 MB
                writer.write_table(rows)
        pq.write_table(rows.slice(0, 10), small)
    else:
        raw = "".join(lines).encode()
        put(f"large.{kind}", gzip.compress(raw, 1) if packed else raw)
        put(f"small.{kind}", "".join(lines[:10]))
    command = [sys.executable, "-c", PEAK, kind, path, small]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows, peak = map(int, done.stdout.split())
    assert rows >= 430_000 and peak < 320, f"{peak} MB above what loading imports"


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_file_whose_reading_was_interrupted_is_read_whole(put, small_blocks, monkeypatch, kind):
    """A kill leaves at most a hidden folder, which nobody opens: the manifest is written last."""
    rows = [{"text": f"words {i}", "label": i} for i in range(2000)]
    content = pandas.DataFrame(rows).to_csv(index=False)
    path = put(f"x.{kind}", content if kind == "csv" else "\n".join(map(json.dumps, rows)))
    attempts = parsing.attempts

    def interrupted(tables, features, path):
        for schema, whole in attempts(tables, features, path):
            yield schema, cut(whole)

    def cut(whole):
        yield next(iter(whole))
        raise KeyboardInterrupt

    monkeypatch.setattr(parsing, "attempts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(kind, path)
    monkeypatch.setattr(parsing, "attempts", attempts)
    assert load(kind, path).to_list() == rows
    assert load(kind, path).to_list() == rows, "and so from the cache"
