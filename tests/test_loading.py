"""Files to datasets: every row of every file, or an error that says where."""

import dataclasses
import gzip
import json
import os
import warnings
from pathlib import Path

import minift_files
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from minift_files import parsing
from minift_files.finding import split_of
from minift_files.formats import FORMATS

from minift import ClassLabel, Dataset, DatasetDict, Features, List, Value, load_dataset, plugins
from minift.data import cache, storage
from minift.data.features import Json
from minift.data.file_formats import DatasetFiles
from minift.errors import ArgumentError, ConfigError, DataError, MissingFileError


@pytest.fixture
def write(tmp_path):
    """Write a file and return its path as text."""

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.fixture
def csv(write):
    """A csv file with this content, as a Dataset."""

    def load(content: str | bytes, **options) -> Dataset:
        return load_dataset("csv", data_files=write("x.csv", content), split="train", **options)

    return load


@pytest.fixture
def jsonl(write):
    def load(content: str | bytes, **options) -> Dataset:
        return load_dataset("json", data_files=write("x.jsonl", content), split="train", **options)

    return load


def message(call, kind=DataError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


# --- csv -----------------------------------------------------------------------------------------


def test_as_in_the_course(write):
    train = write("train.csv", "text,label\ngood,1\nbad,0\n")
    test = write("test.csv", "text,label\nfine,1\n")
    raw = load_dataset("csv", data_files={"train": train, "test": test})
    assert isinstance(raw, DatasetDict) and raw.num_rows == {"train": 2, "test": 1}
    assert raw["train"][0] == {"text": "good", "label": 1}
    drugs = write("drugs.tsv", "drug\trating\nA\t9\n")
    assert load_dataset("csv", data_files=drugs, delimiter="\t")["train"][0] == {
        "drug": "A",
        "rating": 9,
    }
    assert load_dataset("csv", data_files=drugs, sep="\t")["train"].column_names == [
        "drug",
        "rating",
    ]
    assert load_dataset("tsv", data_files=drugs, split="train")["rating"] == [9]


def test_quotes_newlines_and_delimiters_in_cells(csv):
    ds = csv('a,b\n1,"x, y"\n2,"two\nlines"\n3,"say ""hi"""\n4,5" disk\n5,""\n6,"a" b\n')
    assert ds["b"] == ["x, y", "two\nlines", 'say "hi"', '5" disk', "", "a b"]
    assert ds["a"] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends(csv, newline, last):
    lines = ["a,b", "1,x", '2,"y"', "3,z"]
    ds = csv(newline.join(lines) + (newline if last else ""))
    assert ds[:] == {"a": [1, 2, 3], "b": ["x", "y", "z"]}


def test_blank_lines_are_no_rows(csv):
    assert csv("\n\na,b\n\n1,2\n\n\n3,4\n\n")[:] == {"a": [1, 3], "b": [2, 4]}


def test_byte_order_mark(csv):
    assert csv("\ufeffa,b\n1,2\n").column_names == ["a", "b"]
    assert csv('\ufeff"a",b\n1,2\n').column_names == ["a", "b"]


def test_header(csv):
    assert csv("a,a,b,a\n1,2,3,4\n")[0] == {"a": 1, "a.1": 2, "b": 3, "a.2": 4}
    assert csv("a,a.1,a\n1,2,3\n")[0] == {"a": 1, "a.1": 2, "a.2": 3}
    assert csv('"a, b","c\nd"\n1,2\n')[0] == {"a, b": 1, "c\nd": 2}
    assert csv("text\nx\n")[0] == {"text": "x"}


def test_header_only(csv):
    ds = csv("a,b\n")
    assert len(ds) == 0 and ds.column_names == ["a", "b"]
    assert len(csv("a,b")) == 0


@pytest.mark.parametrize("content", ["", "\n\n", "  \n", "\ufeff", b""])
def test_empty_file(csv, content):
    assert "x.csv is empty" in message(lambda: csv(content))


def test_no_header(csv):
    ds = csv("1,x\n2,y\n", column_names=["n", "t"])
    assert ds[:] == {"n": [1, 2], "t": ["x", "y"]}


@pytest.mark.parametrize(
    ("cells", "values", "dtype"),
    [
        (["1", "2"], [1, 2], "int64"),
        (["1", ""], [1, None], "int64"),  # not float64 with a NaN
        (["1", " "], [1, None], "int64"),
        (["-1", "+2"], [-1, 2], "int64"),
        ([" 1", "2 "], [1, 2], "int64"),
        (["007", "1"], [7, 1], "int64"),
        (["1", "2.5"], [1.0, 2.5], "float64"),
        (["1.5", ""], [1.5, None], "float64"),
        ([".5", "1."], [0.5, 1.0], "float64"),
        (["1e3", "-1E-3"], [1000.0, -0.001], "float64"),
        (["1", "inf"], [1.0, float("inf")], "float64"),
        (["True", "false"], [True, False], "bool"),
        (["TRUE", ""], [True, None], "bool"),
        (["9223372036854775807", "1"], [2**63 - 1, 1], "int64"),
        # What would not come back as it was written stays text.
        (["9223372036854775808", "1"], None, "string"),
        (["9007199254740993", "0.5"], None, "string"),
        (["1", "x"], None, "string"),
        (["NA", "null"], None, "string"),
        (["NA", ""], None, "string"),
        (["1", "NA"], None, "string"),
        (["nan", "inf"], None, "string"),
        (["None", "nan"], None, "string"),
        (["0x1F", "0x20"], None, "string"),
        (["1_000", "2"], None, "string"),
        (["1,5", "2,5"], None, "string"),
        (["yes", "no"], None, "string"),
        (["2020-01-01", "2020-01-02"], None, "string"),
        (["x", ""], None, "string"),
        (["", ""], None, "string"),
        ([" x ", "y"], None, "string"),
        (["\u0661", "\u0662"], None, "string"),
    ],
)
def test_types_of_cells(csv, cells, values, dtype):
    lines = "".join(f'"{cell}",k\n' for cell in cells)
    ds = csv("x,k\n" + lines)
    assert ds["x"] == (cells if values is None else values)
    assert ds.features["x"] == Value(dtype)


def test_a_column_of_nan_is_a_column_of_numbers_where_there_is_one(csv):
    first, second = csv("x\n1.5\nnan\n")["x"]
    assert first == 1.5 and second != second


@pytest.mark.parametrize(
    ("content", "line", "cells"),
    [
        ("a,b\n1,2\n1,2,3\n", 3, 3),  # F8: `datasets` shifts the columns
        ("a,b\n1,2\n3\n4,5\n", 3, 1),
        ('a,b\n1,"x\ny\nz"\n2,w,v\n', 5, 3),
        ('"a\nb",c\n1,2\n3\n', 4, 1),
        ("a,b\r\n1,2\r\n1,2,3\r\n", 3, 3),
        ("a,b\r1,2\r1,2,3\r", 3, 3),
        ("\n\na,b\n1,2\n\n\n1,2,3\n", 7, 3),
        ('a,b\n1,"x ""y"" z"\n2,"3\n4",5\n', 3, 3),
        ("a,b\n1,2\n   \n", 3, 1),
        ('a,b\n1,2\n3, "x,y"\n', 3, 3),  # a quote behind a space is a plain character
    ],
)
def test_a_row_of_another_length_names_its_line(csv, content, line, cells):
    text = message(lambda: csv(content))
    assert f"x.csv:{line}: a row has {cells} cells, the header 2" in text


def test_a_row_of_another_length_without_a_header(csv):
    assert "x.csv:2: a row has 1 cells" in message(lambda: csv("1,2\n3\n", column_names=["a", "b"]))


def test_a_far_away_row_of_another_length(csv):
    content = "a,b\n" + "1,2\n" * 50_000 + "1\n" + "1,2\n" * 50_000
    assert "x.csv:50002: a row has 1 cells" in message(lambda: csv(content))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('a,b\n1,2\n3,"x\n4,5\n6,7\n', 3),
        ('a,b\n1,"two\nlines"\n3,"x\n4,5', 4),
        ('a,b\n3,"x', 2),
    ],
)
def test_a_quote_that_is_never_closed_swallows_nothing(csv, content, line):
    """pyarrow returns the rest of the file as one cell."""
    text = message(lambda: csv(content))
    assert f"x.csv:{line}: a quote is opened and never closed" in text
    assert "quotes=False" in text


def test_quotes_as_plain_characters(csv):
    content = 'a,b\n1,"x\n2,y"\n3,"z"\n'
    assert csv(content, quotes=False)["b"] == ['"x', 'y"', '"z"']
    assert "a row has" in message(lambda: csv('a,b\n1,"x,y"\n', quotes=False))


def test_large_cells_and_many_blocks(csv):
    cell = "x, y\n" * 1_000_000
    ds = csv(f'a,b\n1,"{cell}"\n2,z\n')
    assert ds["b"] == [cell, "z"]
    many = csv("a,b\n" + "".join(f'{i},"row {i}\n"\n' for i in range(60_000)))
    assert len(many) == 60_000 and many[-1] == {"a": 59_999, "b": "row 59999\n"}


def test_compressed(write):
    path = write("train.csv.gz", gzip.compress(b"a,b\n1,2\n"))
    assert load_dataset("csv", data_files=path)["train"][0] == {"a": 1, "b": 2}
    assert load_dataset(path)["train"][0] == {"a": 1, "b": 2}
    raw = gzip.compress(b"a,b\n" + b"1,2\n" * 10_000)
    for broken in (raw[:-10], raw[:30] + b"\0" * 20 + raw[50:]):
        path = write("broken.csv.gz", broken)
        with pytest.raises(DataError, match="not a complete gzip file"):
            load_dataset("csv", data_files=path)


def test_not_utf8(csv):
    assert "x.csv:3: not UTF-8 text" in message(lambda: csv(b"a,b\n1,2\n1,caf\xe9\n"))


def test_features_of_a_csv(csv):
    features = Features(
        {"zip": Value("string"), "label": ClassLabel(names=["neg", "pos"]), "n": Value("float32")}
    )
    ds = csv("label,zip,n\npos,007,1\n0,010,2\n,,\n", features=features)
    assert ds.features == features and ds.column_names == ["zip", "label", "n"]
    assert ds[:] == {"zip": ["007", "010", ""], "label": [1, 0, None], "n": [1.0, 2.0, None]}


def test_features_take_a_name_before_a_number(csv):
    """Stars from 1 to 3: the cell 1 is the first class."""
    ds = csv("stars\n1\n3\n", features=Features({"stars": ClassLabel(names=["1", "2", "3"])}))
    assert ds["stars"] == [0, 2]


def test_features_that_do_not_fit(csv):
    content = "label,n\nmaybe,x\n"
    plain = {"label": Value("string"), "n": Value("string")}
    for wrong in ({"label": ClassLabel(names=["neg"])}, {"n": Value("int64")}):
        text = message(lambda w=wrong: csv(content, features=Features({**plain, **w})))
        assert "x.csv: column" in text and "cannot become" in text
    for names in (["label"], ["label", "n", "more"]):
        features = Features({name: Value("string") for name in names})
        assert "the features do not name the columns" in message(
            lambda f=features: csv(content, features=f)
        )


NA = ["NA", "null", "None", "nan", "N/A", "n/a", "NULL", "NaN", "<NA>", "#N/A", "-nan", ""]


@pytest.mark.parametrize("cell", NA)
def test_missing_values_of_pandas(csv, cell):
    content = f'n,t,f,b\n1,x,0.5,true\n{cell},{cell},{cell},{cell}\n"{cell}",nap,-1,false\n'
    ds = csv(content, na_values="pandas")
    assert ds[:] == {
        **{"n": [1, None, None], "t": ["x", None, "nap"]},
        **{"f": [0.5, None, -1.0], "b": [True, None, False]},
    }
    assert ds.features["n"] == Value("int64") and ds.features["f"] == Value("float64")
    text = Features({name: Value("string") for name in "ntfb"})
    assert csv(content, na_values="pandas", features=text)["t"] == ["x", None, "nap"]
    label = Features({**text, "t": ClassLabel(names=["x", "nap"])})
    assert csv(content, na_values="pandas", features=label)["t"] == [0, None, 1]
    if cell:
        assert csv(content)["t"] == ["x", cell, "nap"], "only where asked for"


def test_bad_lines_can_be_skipped(csv):
    with pytest.warns(UserWarning, match=r"x\.csv: 3 rows have not 2 cells and are skipped"):
        ds = csv("a,b\n1,2\n3\n4,5,6\n7,8\n9,9,9\n", on_bad_lines="skip")
    assert ds[:] == {"a": [1, 7], "b": [2, 8]}
    assert csv("a,b\n1,2\n", on_bad_lines="skip")[:] == {"a": [1], "b": [2]}


@pytest.mark.parametrize("content", ['a,b\n1\n3,"x\n4,5\n', 'a,b\n1\n3,4,"x\n4,5\n'])
def test_skipping_bad_lines_does_not_skip_the_rest_of_the_file(csv, content):
    text = message(lambda: csv(content, on_bad_lines="skip"))
    assert "x.csv:3: a quote is opened and never closed" in text


@pytest.mark.parametrize(
    "option", [{"na_values": "numpy"}, {"on_bad_lines": "warn"}, {"na_values": ["x"]}], ids=str
)
def test_values_of_options(csv, option):
    with pytest.raises(ConfigError, match=f"no such {next(iter(option))}"):
        csv("a\n1\n", **option)


# --- GLUE's own MRPC files -----------------------------------------------------------------------

GLUE = (
    "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    '1\t10\t11\tHe said "no".\t"He said no.\n'
    '0\t12\t13\tIt\'s 5" long.\tA "quoted" word"\n'
    "1\t14\t15\tNA\tnull\n"
)


def test_glue_s_mrpc(write):
    """Quotes are plain characters: with quoting, rows would melt into one another."""
    ds = load_dataset(write("train.tsv", GLUE), split="train")
    assert ds.column_names == ["label", "#1 ID", "#2 ID", "sentence1", "sentence2"]
    assert ds["sentence1"] == ['He said "no".', "It's 5\" long.", "NA"]
    assert ds["sentence2"] == ['"He said no.', 'A "quoted" word"', "null"]
    assert ds["label"] == [1, 0, 1]


def test_glue_s_test_file_has_no_labels(write):
    ds = load_dataset(write("test.tsv", GLUE.replace("\ufeffQuality", "index")), split="train")
    assert ds.column_names == ["index", "#1 ID", "#2 ID", "sentence1", "sentence2"] and len(ds) == 3


def test_other_files_are_no_mrpc(write):
    wine = write("wine.tsv", 'Quality\tName\n7\t"A ""B"""\n')
    assert load_dataset(wine, split="train")[0] == {"Quality": 7, "Name": 'A "B"'}
    asked = load_dataset(write("train.tsv", GLUE.replace('"', "")), split="train", quotes=True)
    assert asked.column_names[0] == "Quality", "an option turns the dialect off"


def test_the_real_mrpc(capsys):
    folder = os.environ.get("MINIFT_MRPC")
    if not folder:
        reason = "NOT TESTED ON THE REAL MRPC: set MINIFT_MRPC to a folder with GLUE's files"
        warnings.warn(reason, stacklevel=1)  # pytest lists warnings even where it hides skips
        pytest.skip(reason)
    raw = load_dataset(folder)
    assert raw.num_rows == {"train": 3668, "validation": 408, "test": 1725}
    assert sum(raw["train"]["label"]) == 2474 and set(raw["validation"]["label"]) == {0, 1}
    assert raw["train"][0]["sentence1"].startswith(
        'Amrozi accused his brother, whom he called "the'
    )
    for split in raw.values():
        assert all(isinstance(s, str) and s for n in ("sentence1", "sentence2") for s in split[n])
    assert "left alone" in capsys.readouterr().out


# --- json ----------------------------------------------------------------------------------------


def test_json_lines(jsonl):
    ds = jsonl('{"a": 1, "b": "x"}\n\n{"a": 2.5}\r\n  \n{"c": [1], "b": null}')
    assert ds[:] == {"a": [1.0, 2.5, None], "b": ["x", None, None], "c": [None, None, [1]]}
    assert ds.column_names == ["a", "b", "c"]


def test_json_array_and_field(write):
    rows = [{"text": "x\u2028y", "n": {"m": [1, 2]}}, {"text": "z", "n": None}]
    array = write("array.json", "\ufeff\n " + json.dumps(rows, indent=1))
    assert load_dataset("json", data_files=array, split="train").to_list() == rows
    squad = write("squad.json", json.dumps({"version": 1, "data": rows}, indent=1))
    assert load_dataset("json", data_files=squad, field="data")["train"].to_list() == rows
    assert load_dataset("jsonl", data_files=array, split="train").to_list() == rows


def test_line_separators_inside_texts(jsonl):
    texts = ["a\u2028b", "c\u0085d", "e\x0bf"]
    lines = "\n".join(json.dumps({"t": text}, ensure_ascii=False) for text in texts)
    assert jsonl(lines)["t"] == texts


def test_dates_and_numbers_in_text_stay_text(jsonl):
    ds = jsonl('{"d": "2020-01-01T00:00:00", "n": "1"}\n')
    assert ds[0] == {"d": "2020-01-01T00:00:00", "n": "1"}


def test_a_bad_line_names_line_and_column(jsonl):
    text = message(lambda: jsonl('{"a": 1}\n\n{"a": 2}\n{"a": }\n'))
    assert "x.jsonl:4:7: not JSON" in text and '{"a": }' in text
    assert "x.jsonl:2:1" in message(lambda: jsonl('{"a": 1}\nnonsense\n'))
    assert "x.jsonl:1:10" in message(lambda: jsonl('{"a": 1} nonsense\n'))
    assert "x.jsonl:3:7" in message(lambda: jsonl('\n{\n"a":1 "b"\n}\n'))  # one object, broken
    assert "x.jsonl:5:5" in message(lambda: jsonl('{\n"a": 1\n}\n{\n"a" 2\n}\n'))


def test_a_bad_array_names_line_and_column(write):
    path = write("x.json", '[\n {"a": 1},\n {"a": oops}\n]')
    text = message(lambda: load_dataset("json", data_files=path))
    assert "x.json:3:8: not JSON" in text and '{"a": oops}' in text


@pytest.mark.parametrize("text", ["5", '"x"', "null", "[1]"])
def test_a_line_that_is_no_object(jsonl, text):
    with pytest.raises(DataError, match=r"row 1 is no object|row 0 is no object"):
        jsonl('{"a": 1}\n' + text if text[0] != "[" else text)


@pytest.mark.parametrize("content", ["", "\n", "[]", "\ufeff"])
def test_no_json_rows(jsonl, content):
    ds = jsonl(content)
    assert len(ds) == 0 and ds.column_names == []
    features = Features({"a": Value("int8"), "l": ClassLabel(names=["n"]), "j": List(Json())})
    ds = jsonl(content, features=features)
    assert len(ds) == 0 and ds.features == features and ds[:] == {"a": [], "l": [], "j": []}


@pytest.mark.parametrize("content", ["{}", "[{}, {}]"])
def test_json_rows_without_columns_do_not_vanish(jsonl, content):
    assert "x.jsonl has no columns" in message(lambda: jsonl(content))


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('["a", "b"]', [{"text": "a"}, {"text": "b"}]),
        ('["a", null]', [{"text": "a"}, {"text": None}]),
        ('"a"\n"b"\n', [{"text": "a"}, {"text": "b"}]),
        ('\n{\n "a": 1,\n "b": [1, 2]\n}\n', [{"a": 1, "b": [1, 2]}]),
        ('{"a": {\n"b": 1}}', [{"a": {"b": 1}}]),
        ('{"a": [1, 2]}', [{"a": [1, 2]}]),
        ('  {"a": 1}  \n {"a": 2}\r\n', [{"a": 1}, {"a": 2}]),
    ],
)
def test_shapes_of_json_files(jsonl, content, rows):
    assert jsonl(content).to_list() == rows


CHATS = [
    {"m": [{"role": "u", "content": "x"}, {"role": "a", "tool": {"z": 1}}], "d": {"a": 1}},
    {"m": [{"role": "u", "content": "y"}], "d": {"a": 2}},
    {"m": None, "d": None},
]


def test_dicts_keep_exactly_their_keys(jsonl):
    """Pain 18: as a struct, every message would have a `tool` and a `content`, filled with None."""
    ds = jsonl("".join(json.dumps(row) + "\n" for row in CHATS))
    assert ds.to_list() == CHATS
    assert ds.features == {"m": Json(), "d": {"a": Value("int64")}}
    assert ds.map(lambda row: {"n": len(row["m"] or [])})["n"] == [2, 1, 0]


@pytest.mark.parametrize(
    "values",
    [
        [{"a": 1}, {"b": 1}],
        [{"a": 1}, {}],
        [[{"a": 1}, {"a": 1, "b": None}]],
        [[], [[{"a": 1}], [{"b": 1}]]],
        [{"a": {"b": 1}}, {"a": {"c": 1}}],
        [{"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}]}],
        # One set of keys, but no type for what is in them.
        [{"x": 1}, {"x": "y"}],
        [[{"role": "u", "content": "x"}, {"role": "u", "content": [{"text": "y"}]}]],
        [{"x": 2**64}, None],
    ],
)
def test_dicts_that_are_no_struct_are_json(jsonl, values):
    ds = jsonl("".join(json.dumps({"k": value}) + "\n" for value in values))
    assert ds.features == {"k": Json()} and ds["k"] == values


@pytest.mark.parametrize(
    "values",
    [
        [{"a": 1}, {"a": 2.5}, {"a": None}, None],
        [[{"a": 1, "b": "x"}], [], [{"b": "y", "a": 2}]],
        [{"a": {"b": [1]}}, {"a": None}],
    ],
)
def test_dicts_with_the_same_keys_are_a_struct(jsonl, values):
    ds = jsonl("".join(json.dumps({"k": value}) + "\n" for value in values))
    assert "Json" not in repr(ds.features) and ds["k"] == values


def test_json_features_keep_text_text(jsonl):
    """`datasets` reads the text "5" back as the number 5."""
    values = ["5", 5, None, "x", [1, "2"], {"a": "{}"}, "null", True]
    lines = "".join(json.dumps({"k": value}) + "\n" for value in values)
    assert jsonl(lines, features=Features({"k": Json()}))["k"] == values


@pytest.mark.parametrize("content", ['{"dat": []}', "[1]", '{"data": 5}', '{"data": {"a": 1}}'])
def test_a_field_that_is_not_there(jsonl, content):
    with pytest.raises(DataError, match=r"has no field 'data'|no list of objects"):
        jsonl(content, field="data")


@pytest.mark.parametrize(
    ("values", "row"),
    [
        ([1, 2, "x"], 2),
        (["x", None, 1], 2),
        ([True, 1], 1),
        ([1, 2**63], 1),  # F8: `datasets` makes floats of the whole column
        ([2**64, 1], 0),
        ([0.5, 2**53 + 1], 1),
    ],
)
def test_mixed_types_name_the_row(jsonl, values, row):
    lines = "".join(json.dumps({"k": 0, "a": value}) + "\n" for value in [*values, *values[:1]])
    text = message(lambda: jsonl(lines))
    assert "the values of column 'a' mix types" in text and text.count("xpected") <= 1
    assert f"row {row}: {values[row]!r}" in text


@pytest.mark.parametrize(
    "values",
    [
        [None, [1], 1],
        [[1], [2], ["x"]],
        [{"x": 1}, 5],
        [[[0, 4, "P"]], []],
        ["text", ["a", "list"]],
        [[1], {"a": 1}],
    ],
)
def test_lists_and_dicts_of_mixed_types_are_kept(jsonl, values):
    """A column of annotations, say, that the model never sees: the file can be read, as it is."""
    ds = jsonl("".join(json.dumps({"k": 0, "a": value}) + "\n" for value in values))
    assert ds.features["a"] == Json() and ds["a"] == values and ds["k"] == [0] * len(values)


def test_large_integers_stay_exact(jsonl):
    assert jsonl(f'{{"a": {2**63 - 1}}}\n{{"a": {-(2**63)}}}\n')["a"] == [2**63 - 1, -(2**63)]


def test_features_of_json(jsonl):
    features = Features({"label": ClassLabel(names=["n", "p"]), "ids": List(Value("int16"))})
    ds = jsonl(
        '{"ids": [1], "label": "p"}\n{"ids": [], "label": 0}\n'.replace("0", '"n"'),
        features=features,
    )
    assert ds.features == features and ds[:] == {"label": [1, 0], "ids": [[1], []]}
    nested = Features({"x": List(ClassLabel(names=["a", "b"]))})
    assert jsonl('{"x": [1, 0]}\n', features=nested).features == nested


# --- text, parquet, arrow ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\nb", ["a", "b"]),
        ("a\r\nb\rc\n", ["a", "b", "c"]),
        ("a\n\n\nb\n\n", ["a", "", "", "b", ""]),
        (" a \t\n\tb\x0b\n", [" a \t", "\tb\x0b"]),
        ("a\u2028b\u0085c\n", ["a\u2028b\u0085c"]),
        ("\ufeffa\n", ["a"]),
        ("\n", [""]),
        ("", []),
    ],
)
def test_text(write, content, lines):
    ds = load_dataset("text", data_files=write("x.txt", content), split="train")
    assert ds[:] == {"text": lines} and ds.features == {"text": Value("string")}


LINES = "a\r\nb\n\n\nc\n\nd\n"


@pytest.mark.parametrize(
    ("options", "content", "rows"),
    [
        ({"keep_linebreaks": True}, LINES, ["a\n", "b\n", "\n", "\n", "c\n", "\n", "d\n"]),
        ({"keep_linebreaks": True}, "a\u2028b\nc", ["a\u2028b\n", "c"]),
        ({"sample_by": "line"}, LINES, ["a", "b", "", "", "c", "", "d"]),
        ({"sample_by": "paragraph"}, LINES, ["a\nb", "\nc", "d\n"]),
        ({"sample_by": "paragraph"}, "a\n\n\n\nb", ["a", "b"]),
        ({"sample_by": "paragraph"}, "", []),
        ({"sample_by": "document"}, LINES, [LINES.replace("\r", "")]),
        ({"sample_by": "document"}, "", [""]),
    ],
)
def test_ways_to_cut_a_text(write, options, content, rows):
    ds = load_dataset("text", data_files=write("x.txt", content), split="train", **options)
    assert ds["text"] == rows


def test_parts_of_a_parquet_file(tmp_path):
    pq.write_table(pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]}), tmp_path / "x.parquet")

    def load(**options):
        return load_dataset("parquet", data_files=str(tmp_path / "*"), split="train", **options)

    assert load(columns=["b"])[:] == {"b": ["x", "y", "z"]}
    assert load(columns=["b", "a"]).column_names == ["b", "a"]
    assert load(columns=["b"], filters=[("a", ">", 1)])[:] == {"b": ["y", "z"]}
    some = load(filters=pc.field("a") > 2)
    assert some["b"] == ["z"] and some.fingerprint != load(filters=pc.field("a") > 1).fingerprint
    for wrong in ({"columns": ["c"]}, {"filters": [("c", "=", 1)]}, {"filters": [("a", "=", "x")]}):
        assert "x.parquet" in message(lambda w=wrong: load(**w))


FEATURES = Features({"label": ClassLabel(names=["n", "p"]), "ids": List(Value("int32"))})
TABLE = pa.table({"label": [0, 1], "ids": [[1], []]}, schema=FEATURES.arrow_schema)


def test_parquet_keeps_class_names(tmp_path):
    pq.write_table(TABLE, tmp_path / "x.parquet")
    ds = load_dataset("parquet", data_files=str(tmp_path / "x.parquet"), split="train")
    assert ds.features == FEATURES and ds[:] == {"label": [0, 1], "ids": [[1], []]}
    named = FEATURES | {"label": ClassLabel(names=["no", "yes"])}
    other = load_dataset(str(tmp_path / "x.parquet"), split="train", features=Features(named))
    assert other.features["label"].names == ["no", "yes"]


def test_parquet_dictionaries_and_folders_like_a_column(tmp_path):
    (tmp_path / "lang=en").mkdir()
    coded = pa.table({"t": pa.array(["a", "b", "a"]).dictionary_encode(), "n": [1, 2, 3]})
    pq.write_table(coded, tmp_path / "lang=en" / "train.parquet")
    ds = load_dataset(str(tmp_path), split="train")
    assert ds.features == {"t": Value("string"), "n": Value("int64")} and ds["t"] == ["a", "b", "a"]


def test_a_cut_parquet_file(tmp_path, write):
    pq.write_table(TABLE, tmp_path / "x.parquet")
    raw = (tmp_path / "x.parquet").read_bytes()
    for broken in (raw[:-20], raw[:10], b"", b"PAR1"):
        path = write("y.parquet", broken)
        with pytest.raises(DataError, match="not a readable parquet file"):
            load_dataset("parquet", data_files=path)


@pytest.mark.parametrize("make", [pa.ipc.new_stream, pa.ipc.new_file])
def test_arrow_stream_and_file(tmp_path, make):
    with make(tmp_path / "x.arrow", TABLE.schema) as writer:
        writer.write_table(TABLE)
    ds = load_dataset("arrow", data_files=str(tmp_path / "x.arrow"), split="train")
    assert ds.features == FEATURES and ds[:] == {"label": [0, 1], "ids": [[1], []]}


def test_a_cut_arrow_stream(tmp_path, write):
    with pa.ipc.new_stream(tmp_path / "x.arrow", TABLE.schema) as writer:
        for _ in range(3):
            writer.write_table(TABLE)
    raw = (tmp_path / "x.arrow").read_bytes()
    for end in range(0, len(raw), 8):
        path = write("y.arrow", raw[:end])
        with pytest.raises(DataError, match=r"y\.arrow is (cut off|not a readable)"):
            load_dataset("arrow", data_files=path)


# --- several files -------------------------------------------------------------------------------


def test_every_form_of_data_files(write, tmp_path):
    for name in ("a1", "a2", "b1"):
        write(f"{name}.csv", f"x\n{name}\n")

    def read(data_files):
        loaded = load_dataset("csv", data_files=data_files)
        return {split: ds["x"].tolist() for split, ds in loaded.items()}

    a1, a2, b1 = (str(tmp_path / f"{name}.csv") for name in ("a1", "a2", "b1"))
    stars, everything = str(tmp_path / "a*.csv"), str(tmp_path / "**" / "*.csv")
    assert read(a1) == read(Path(a1)) == read([a1]) == {"train": ["a1"]}
    assert read([a2, a1]) == {"train": ["a2", "a1"]}
    assert read(stars) == {"train": ["a1", "a2"]}
    assert read(everything) == {"train": ["a1", "a2", "b1"]}
    assert read({"train": stars, "test": [b1]}) == {"train": ["a1", "a2"], "test": ["b1"]}
    assert read({"dev": Path(b1)}) == {"dev": ["b1"]}
    assert load_dataset("csv", data_files={"train": a1, "test": b1}, split="test")["x"] == ["b1"]
    write(".hidden.csv", "x\nhidden\n")
    assert read(str(tmp_path / "*.csv")) == {"train": ["a1", "a2", "b1"]}


def test_relative_paths_and_home(write, tmp_path, monkeypatch):
    write("data/x.csv", "a\n1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("data/x.csv", "./data/*.csv", "~/data/x.csv"):
        assert load_dataset("csv", data_files=path, split="train")["a"] == [1]
    assert load_dataset("data", data_files="x.csv", split="train")["a"] == [1]


def test_data_files_of_a_folder(write, tmp_path):
    """They are not ignored in favour of what the folder's names say."""
    for name in ("train", "test", "more"):
        write(f"{name}.csv", f"x\n{name}\n")
    loaded = load_dataset(str(tmp_path), data_files={"train": "more.csv", "test": "t*.csv"})
    assert {split: ds["x"].tolist() for split, ds in loaded.items()} == {
        **{"train": ["more"], "test": ["test", "train"]}
    }
    write("x.json", "{}")
    with pytest.raises(ConfigError, match="of one format"):
        load_dataset(str(tmp_path), data_files=["x.json", "more.csv"])


def test_several_files_are_unified(write, tmp_path):
    write("1.jsonl", '{"a": 1, "b": null}\n')
    write("2.jsonl", '{"a": 2.5, "c": "x"}\n{"b": [1]}\n')
    ds = load_dataset("json", data_files=str(tmp_path / "*.jsonl"), split="train")
    assert ds[:] == {"a": [1.0, 2.5, None], "b": [None, None, [1]], "c": [None, "x", None]}


def test_several_files_that_differ_are_named(write, tmp_path):
    write("1.csv", "a\n1\n")
    write("2.csv", "a\nx\n")
    text = message(lambda: load_dataset("csv", data_files=str(tmp_path / "*.csv")))
    assert "1.csv" in text and "2.csv" in text and "int64" in text and "string" in text
    assert "Field a " in text


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ([1], [2.5], [1.0, 2.5]),
        ([None], ["x"], [None, "x"]),
        ([{"a": 1}], [{"a": 2}], [{"a": 1}, {"a": 2}]),
        ([{"a": 1}], [{"b": 2}], [{"a": 1}, {"b": 2}]),
        ([[{"a": 1}]], [[{"a": 2}, {"c": 1}], None], [[{"a": 1}], [{"a": 2}, {"c": 1}], None]),
        ([{"a": 1}], [None], [{"a": 1}, None]),
        ([{"a": 1}, {"b": 1}], [None], [{"a": 1}, {"b": 1}, None]),
        ([{"a": 1}, {"b": 1}], [{"a": 1}], [{"a": 1}, {"b": 1}, {"a": 1}]),
    ],
)
def test_files_with_other_types(write, tmp_path, first, second, joined):
    """A struct of both would fill the dicts of each file with the keys of the other."""
    for name, values in (("1", first), ("2", second), ("0", [None])):
        write(f"{name}.jsonl", "".join(json.dumps({"k": value}) + "\n" for value in values))
    files = [str(tmp_path / f"{name}.jsonl") for name in "12"]
    load = lambda files: load_dataset("json", data_files=files, split="train")["k"]  # noqa: E731
    assert load(files) == joined
    assert load([*files, str(tmp_path / "0.jsonl")]) == [*joined, None]
    assert load([str(tmp_path / "0.jsonl"), *files]) == [None, *joined]


def test_dicts_and_text_in_two_files_do_not_fit(write, tmp_path):
    write("1.jsonl", '{"k": {"a": 1}}\n')
    write("2.jsonl", '{"k": "5"}\n')
    text = message(lambda: load_dataset("json", data_files=str(tmp_path / "*.jsonl")))
    assert "1.jsonl" in text and "2.jsonl" in text and "string" in text


def test_int32_and_int64_files(tmp_path):
    for name, type_ in (("1", pa.int32()), ("2", pa.int64())):
        pq.write_table(pa.table({"a": pa.array([1], type_)}), tmp_path / f"{name}.parquet")
    ds = load_dataset(str(tmp_path), split="train")
    assert ds.features == {"a": Value("int64")} and ds["a"] == [1, 1]


# --- parts of splits ------------------------------------------------------------------------------


@pytest.fixture
def numbers(write):
    """Ten rows for training and three for testing."""
    return {
        split: write(f"{split}.csv", "x\n" + "".join(f"{i}\n" for i in range(start, stop)))
        for split, start, stop in (("train", 0, 10), ("test", 100, 103))
    }


ALL = [*range(10)]


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("train", ALL),
        ("train[:]", ALL),
        ("train[:3]", [0, 1, 2]),
        ("train[7:]", [7, 8, 9]),
        ("train[2:4]", [2, 3]),
        ("train[-5:]", [5, 6, 7, 8, 9]),
        ("train[-5:-3]", [5, 6]),
        ("train[:-8]", [0, 1]),
        ("train[5:3]", []),
        ("train[20:]", []),
        ("train[-20:2]", [0, 1]),
        ("train[:50%]", ALL[:5]),
        ("train[50%:]", ALL[5:]),
        ("train[-10%:]", [9]),
        ("train[:-10%]", ALL[:9]),
        ("train[:100%]", ALL),
        ("train[-100%:]", ALL),
        ("test[:33%]", [100]),  # rounded to the closest: 0.99 is 1
        ("test[33%:66%]", [101]),
        ("test[66%:]", [102]),
        ("test[:10%]", []),
        ("test[-10%:]", []),  # 0.3 of a row is none from the end as well; `datasets` gives all
        ("test[:-10%]", [100, 101, 102]),
        ("train[1:]+test[:1]", [*ALL[1:], 100]),
        ("test + train[:1]", [100, 101, 102, 0]),
        ("train[:1]+train[:1]", [0, 0]),
    ],
)
def test_parts_of_splits(numbers, tmp_path, split, rows):
    assert load_dataset("csv", data_files=numbers, split=split)["x"] == rows
    load_dataset("csv", data_files=numbers).save_to_disk(tmp_path / "saved")
    assert load_dataset(str(tmp_path / "saved"), split=split)["x"] == rows


def test_a_list_of_splits(numbers):
    parts = load_dataset("csv", data_files=numbers, split=["test[:1]", "train[:1]+test[-1:]"])
    assert [part["x"].tolist() for part in parts] == [[100], [0, 102]]
    assert load_dataset("csv", data_files=numbers, split=[]) == []


@pytest.mark.parametrize(
    ("split", "name"),
    [
        ("dev", "dev"),
        ("dev[:1]", "dev"),
        ("train+dev", "dev"),
        ("train[:1", "train[:1"),
        ("train[1]", "train[1]"),
        ("train[a:]", "train[a:]"),
        ("train[:1.5]", "train[:1.5]"),
        ("train[1:50%]", "train[1:50%]"),  # `datasets` takes the 1 for 1%
        ("train[:101%]", "train[:101%]"),
        ("train[:5](pct1_dropremainder)", "train[:5](pct1_dropremainder)"),
        ("train+", ""),
        ("", ""),
    ],
)
def test_unknown_and_malformed_splits(numbers, tmp_path, split, name):
    said = f"Unknown split \"{name}\". Should be one of ['train', 'test']."
    assert said in message(lambda: load_dataset("csv", data_files=numbers, split=split), ValueError)
    load_dataset("csv", data_files=numbers).save_to_disk(tmp_path / "saved")
    path = str(tmp_path / "saved")
    assert said in message(lambda: load_dataset(path, split=[split]), ConfigError)


def test_a_part_of_one_saved_dataset(tmp_path):
    """It is not ignored."""
    Dataset.from_dict({"x": [1, 2, 3]}).save_to_disk(tmp_path / "saved")
    assert load_dataset(str(tmp_path / "saved"), split="train[1:]")["x"] == [2, 3]
    assert load_dataset(str(tmp_path / "saved"))["x"] == [1, 2, 3]
    with pytest.raises(ConfigError, match='Unknown split "test"'):
        load_dataset(str(tmp_path / "saved"), split="test")


def test_only_the_files_of_the_split_are_read_and_once(numbers, monkeypatch):
    read = []
    reader = FORMATS["csv"].read
    replace_reader(monkeypatch, "csv", lambda p, o, f: read.append(p.name) or reader(p, o, f))
    load_dataset("csv", data_files=numbers, split=["test[:1]+test[2:]", "test"])
    assert read == ["test.csv"]


# --- large files ----------------------------------------------------------------------------------


@pytest.fixture
def large(monkeypatch):
    """Every file is a large one; which of them were parsed."""
    names = []
    attempts = parsing.attempts

    def counted(tables, features, path):
        names.append(path.name)
        return attempts(tables, features, path)

    monkeypatch.setattr(parsing, "CACHED_BYTES", 0)
    monkeypatch.setattr(parsing, "attempts", counted)
    return names


def replace_reader(monkeypatch, kind, read):
    monkeypatch.setitem(FORMATS, kind, dataclasses.replace(FORMATS[kind], read=read))


@pytest.mark.parametrize(
    ("name", "content", "row"),
    [
        ("x.csv", "a,b\n1,x\n", {"a": 1, "b": "x"}),
        ("x.tsv", "a\tb\n1\tx\n", {"a": 1, "b": "x"}),
        ("x.txt", "hello\n", {"text": "hello"}),
        ("x.jsonl", '{"a": {"b": 1}}\n{"a": {"c": [1, null]}}\n', {"a": {"b": 1}}),
    ],
)
def test_a_large_file_is_parsed_once(write, large, name, content, row):
    path = write(name, content)
    first, second = load_dataset(path, split="train"), load_dataset(path, split="train")
    assert large == [name]
    assert first[0] == second[0] == row and first[:] == second[:]
    assert first.features == second.features and first.fingerprint == second.fingerprint
    inside = [p for p in cache.cache_root().joinpath("src").iterdir()]
    _, meta = storage.open_folder(inside[0])
    assert len(inside) == 1 and meta["source"] == path and "load_dataset(" in meta["function"]


def test_a_large_parquet_file_is_parsed_once_and_keeps_class_names(tmp_path, large):
    pq.write_table(TABLE, tmp_path / "x.parquet")
    for _ in range(2):
        ds = load_dataset(str(tmp_path), split="train")
        assert ds.features == FEATURES and ds[:] == {"label": [0, 1], "ids": [[1], []]}
    assert large == ["x.parquet"]


def test_what_changes_a_table_changes_its_entry(write, large):
    path = write("x.csv", "a,b\n1,NA\n")
    text = Features({"a": Value("string"), "b": Value("string")})

    def load(**options):
        return load_dataset("csv", data_files=path, split="train", **options)[0]

    for _ in range(2):
        assert load() == {"a": 1, "b": "NA"}
        assert load(na_values="pandas") == {"a": 1, "b": None}
        assert load(features=text) == {"a": "1", "b": "NA"}
        assert load(column_names=["p", "q"]) == {"p": "a", "q": "b"}
    assert len(large) == 4
    write("x.csv", "a,b\n2,NA\n")
    os.utime(path, ns=(1, 1))
    assert load() == {"a": 2, "b": "NA"}


def test_a_file_that_changes_while_it_is_read(write, large, monkeypatch):
    """What was read must not be found under the name of what is there now."""
    path = write("x.csv", "a\n1\n")
    os.utime(path, ns=(1, 1))
    reader = FORMATS["csv"].read

    def slow(p, options, features):
        table = reader(p, options, features)
        write("x.csv", "a\n2\n")
        return table

    replace_reader(monkeypatch, "csv", slow)
    assert load_dataset(path, split="train")["a"] == [1]
    replace_reader(monkeypatch, "csv", reader)
    assert load_dataset(path, split="train")["a"] == [2]


def test_a_damaged_entry_is_parsed_again(write, large):
    path = write("x.csv", "a\n1\n")
    load_dataset(path)
    (entry,) = cache.cache_root().joinpath("src").iterdir()
    file = next(entry.glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.warns(UserWarning, match="damaged") as caught:
        assert load_dataset(path, split="train")["a"] == [1]
    assert len(caught) == 1 and len(large) == 2
    assert load_dataset(path, split="train")["a"] == [1] and len(large) == 2


def test_a_cache_that_cannot_be_written(write, large, monkeypatch):
    monkeypatch.setenv("MINIFT_CACHE", write("file", "no folder"))
    path = write("x.csv", "a\n1\n")
    with pytest.warns(UserWarning, match="MINIFT_CACHE") as caught:
        assert load_dataset(path, split="train")["a"] == [1]
    assert len(caught) == 1 and large == ["x.csv"]


def test_a_full_disk(write, large, monkeypatch):
    """The rows are there nevertheless, in memory."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "write_stream", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert load_dataset(write("x.csv", "a\n1\n"), split="train")["a"] == [1]


def test_arrow_and_small_files_are_not_copied(write, tmp_path, monkeypatch):
    load_dataset(write("x.csv", "a\n1\n"))
    monkeypatch.setattr(parsing, "CACHED_BYTES", 0)
    Dataset.from_dict({"a": [1]}).save_to_disk(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    assert load_dataset("arrow", data_files=str(file), split="train")["a"] == [1]
    assert not (cache.cache_root() / "src").exists()


# --- which files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("training.csv", "train"),
        ("my-train-file.csv", "train"),
        ("data_train_1.csv", "train"),
        ("TRAIN.csv", "train"),
        ("data.train.csv.gz", "train"),
        ("train-00000-of-00001.parquet", "train"),
        ("train1.csv", "train"),
        ("dev.csv", "validation"),
        ("val.csv", "validation"),
        ("valid.csv", "validation"),
        ("validation_matched.csv", "validation"),
        ("test.csv", "test"),
        ("testing.csv", "test"),
        ("eval.csv", "test"),
        ("evaluation-set.csv", "test"),
        ("train/data.csv", "train"),
        ("train/dev.csv", "validation"),
        ("a/test/b/data.csv", "test"),
        ("data/train-00000-of-00002.parquet", "train"),
        ("data/train_sft-00001-of-00002.parquet", "train_sft"),
        ("data/dev-00000-of-00001-a1b2.parquet", "dev"),
        ("data/gen.test-00000-of-00001.jsonl.gz", "gen.test"),
        ("other/unsupervised-00000-of-00001.parquet", ""),
        ("data/unsupervised-0-of-1.parquet", ""),
        ("trained.csv", ""),
        ("mytrain.csv", ""),
        ("constraint.csv", ""),
        ("latest.csv", ""),
        ("devices.csv", ""),
        ("data.csv", ""),
    ],
)
def test_the_split_that_a_name_says(name, split):
    assert split_of(Path(name)) == split


def test_a_folder_with_splits(write, tmp_path, capsys):
    for name in ("dev", "test", "train", "notes"):
        write(f"{name}.csv", f"x\n{name}\n")
    write("README.md", "# About\n")
    raw = load_dataset(str(tmp_path))
    assert {split: ds["x"].tolist() for split, ds in raw.items()} == {
        **{"train": ["train"], "validation": ["dev"], "test": ["test"]}
    }
    assert list(raw) == ["train", "validation", "test"]
    said = capsys.readouterr().out
    assert said.startswith(str(tmp_path)) and said.count("\n") == 1
    assert "reading train: train.csv, validation: dev.csv, test: test.csv; left" in said
    assert said.rstrip().endswith("left alone: README.md, notes.csv")


def test_a_folder_of_folders(write, tmp_path):
    for name in ("train/1", "train/2", "test/1"):
        write(f"{name}.jsonl", json.dumps({"x": name}) + "\n")
    raw = load_dataset(str(tmp_path))
    assert raw["train"]["x"] == ["train/1", "train/2"] and raw["test"]["x"] == ["test/1"]


def test_shards_win(write, tmp_path, capsys):
    for name in ("data/extra-00000-of-00001", "data/test-00000-of-00001", "data/train", "dev"):
        write(f"{name}.jsonl", json.dumps({"x": name}) + "\n")
    for i in (1, 0):
        write(f"data/train-0000{i}-of-00002.jsonl", json.dumps({"x": str(i)}) + "\n")
    raw = load_dataset(str(tmp_path))
    assert {split: ds["x"].tolist() for split, ds in raw.items()} == {
        "train": ["0", "1"],
        "test": ["data/test-00000-of-00001"],
        "extra": ["data/extra-00000-of-00001"],
    }
    assert list(raw) == ["train", "test", "extra"]
    assert "left alone: data/train.jsonl, dev.jsonl" in capsys.readouterr().out
    assert load_dataset(str(tmp_path), split="extra[:1]")["x"] == ["data/extra-00000-of-00001"]


def test_a_folder_without_splits(write, tmp_path):
    write("b.txt", "b\n")
    write("a.txt", "a\n")
    assert load_dataset(str(tmp_path))["train"]["text"] == ["a", "b"]


def test_hidden_files_and_other_formats_are_left_alone(write, tmp_path, capsys):
    write("train.csv", "x\n1\n")
    write(".cache/huggingface/train.csv", "x\nno\n")
    write("__pycache__/train.csv", "x\nno\n")
    write(".train.csv", "x\nno\n")
    write("dataset_infos.json", "{}")  # one file of each format: the one that says a split
    assert load_dataset(str(tmp_path))["train"]["x"] == [1]
    said = capsys.readouterr().out
    assert "left alone: dataset_infos.json" in said and "cache" not in said


def test_the_most_common_format_wins(write, tmp_path):
    write("train-1.csv", "x\n1\n")
    write("train-2.csv", "x\n2\n")
    write("test.jsonl", '{"x": 3}\n')
    assert list(load_dataset(str(tmp_path))) == ["train"]
    write("one/x.csv", "x\n1\n")
    pq.write_table(pa.table({"x": [2]}), tmp_path / "one" / "x.parquet")
    assert load_dataset(str(tmp_path / "one"))["train"]["x"] == [2]


def test_a_single_file(write):
    assert load_dataset(write("dev.csv", "x\n1\n"))["train"]["x"] == [1]


@pytest.mark.parametrize("path", ["nothing", "no/such/dir", "glue"])
def test_nothing_of_that_name(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    plugins.set_default_manager(plugins.build_manager(None, plugins=[minift_files]))
    text = message(lambda: load_dataset(path), MissingFileError)
    assert f"there is no dataset {path!r}" in text and "csv" in text and "no plugin" in text


def test_missing_files(write, tmp_path):
    for pattern in ("none.csv", "none-*.csv"):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            load_dataset("csv", data_files=str(tmp_path / pattern))
    with pytest.raises(MissingFileError, match="holds no data files"):
        load_dataset(str(tmp_path))
    with pytest.raises(DataError, match="cannot tell the format"):
        load_dataset(write("x.docx", "x"))


def test_unknown_split(write):
    path = write("x.csv", "a\n1\n")
    with pytest.raises(ValueError) as caught:
        load_dataset("csv", data_files=path, split="test")
    assert "Unknown split \"test\". Should be one of ['train']." in str(caught.value)


def test_unknown_options_name_the_nearest(write):
    path = write("x.csv", "a\n1\n")
    with pytest.raises(TypeError, match="'delimeter' means nothing for csv") as caught:
        load_dataset("csv", data_files=path, delimeter=";")
    assert "'delimiter'" in str(caught.value)
    with pytest.raises(ArgumentError, match="'streaming' means nothing for csv"):
        load_dataset("csv", data_files=path, streaming=True)


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        *[("json", "delimiter"), ("text", "quotes"), ("csv", "field"), ("parquet", "column_names")],
        *[("text", "columns"), ("csv", "filters"), ("json", "sample_by"), ("arrow", "columns")],
        *[("parquet", "keep_linebreaks"), ("json", "na_values"), ("text", "on_bad_lines")],
    ],
)
def test_an_option_of_another_format_is_not_ignored(write, kind, option):
    with pytest.raises(ArgumentError, match=f"{option!r} means nothing for {kind} files"):
        load_dataset(kind, data_files=write("x", "a\n"), **{option: ","})


def test_a_plugin_finds_a_name(write):
    train, dev = (
        write("t.jsonl", '{"x": "a", "l": "p"}\n'),
        write("d.jsonl", '{"x": "b", "l": "n"}\n'),
    )
    features = Features({"x": Value("string"), "l": ClassLabel(names=["n", "p"])})
    asked = []

    class Finder:
        @staticmethod
        def minift_find_dataset(path, name, revision, data_files):
            asked.append((path, name, revision, data_files))
            return DatasetFiles(
                {"train": [train], "validation": [Path(dev)]}, features, "here", "1"
            )

    from minift import hookimpl

    Finder.minift_find_dataset = staticmethod(hookimpl(Finder.minift_find_dataset))
    plugins.set_default_manager(plugins.build_manager(None, plugins=[minift_files, Finder()]))
    raw = load_dataset("glue", "mrpc", revision="abc")
    assert raw["train"][0] == {"x": "a", "l": 1} and raw["validation"].features == features
    assert asked == [("glue", "mrpc", "abc", None)]
    assert load_dataset("glue", split="validation")["l"] == [0]


# --- fingerprints --------------------------------------------------------------------------------


def test_a_file_s_fingerprint(write):
    path = write("x.csv", "a,b\n1,2\n")

    def digest(**options):
        return load_dataset("csv", data_files=path, split="train", **options).fingerprint

    first = digest()
    assert digest() == first
    different = {
        first,
        digest(quotes=False),
        digest(column_names=["a", "c"]),
        digest(features=Features({"a": Value("int8"), "b": Value("int64")})),
    }
    write("x.csv", "a,b\n1,3\n")
    assert digest() not in different and len(different) == 4


def test_a_changed_file_is_mapped_again(write):
    path = write("x.csv", "a\n1\n")

    def mapped():
        ds = load_dataset("csv", data_files=path, split="train")
        return ds.map(lambda row: {"b": row["a"] + 1})["b"].tolist()

    assert mapped() == [2]
    write("x.csv", "a\n5\n")
    assert mapped() == [6]
