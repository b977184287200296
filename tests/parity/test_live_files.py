"""Files in every form that people have them in, read by minift and by `datasets`: the same rows."""

import bz2
import gzip
import io
import json
import lzma
import zipfile

import datasets
import numpy as np
import pandas
import polars
import pytest

import minift

datasets.disable_progress_bars()

ROWS = [
    {"text": "alpha, beta", "label": 0, "score": 0.5},
    {"text": 'a "b"\nc', "label": 1, "score": 2.0},
]
ROW_LINES = "\n".join(json.dumps(row, indent=1) for row in ROWS)
FRAME = pandas.DataFrame(ROWS)
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def zipped(raw: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inside.csv", raw)
    return buffer.getvalue()


def written(write, *args, **options) -> bytes:
    buffer = io.BytesIO()
    write(buffer, *args, **options)
    return buffer.getvalue()


# {what it is: (format, bytes of the file, options)}
FORMS = {
    "csv": ("csv", FRAME.to_csv(index=False).encode(), {}),
    "csv with pandas' index": ("csv", FRAME.to_csv().encode(), {}),
    "csv of a spreadsheet": ("csv", b"v1,v2,,\nham,see you,,\nspam,win,,\n", {}),
    "two columns of one name": ("csv", b"a,a,b\n1,2,3\n", {}),
    "csv, CRLF and a mark": (
        "csv",
        FRAME.to_csv(index=False, lineterminator="\r\n").encode("utf-8-sig"),
        {},
    ),
    "csv with sep": ("csv", FRAME.to_csv(index=False, sep=";").encode(), {"sep": ";"}),
    "csv without header": ("csv", b"x,1\ny,2\n", {"column_names": ["t", "n"]}),
    "csv in latin-1": ("csv", "text,n\ncaf\xe9,1\n".encode("latin-1"), {"encoding": "latin-1"}),
    "csv in utf-16": ("csv", "text,n\ncaf\xe9,1\n".encode("utf-16"), {"encoding": "utf-16"}),
    "csv, zip": ("csv", zipped(FRAME.to_csv(index=False).encode()), {}),
    "csv, gzip": ("csv", gzip.compress(FRAME.to_csv(index=False).encode()), {}),
    "csv, bz2": ("csv", bz2.compress(FRAME.to_csv(index=False).encode()), {}),
    "csv, xz": ("csv", lzma.compress(FRAME.to_csv(index=False).encode()), {}),
    "json lines": ("json", LINES.encode(), {}),
    "json lines, gzip": ("json", gzip.compress(LINES.encode()), {}),
    "json lines in utf-16": ("json", LINES.encode("utf-16-le"), {"encoding": "utf-16-le"}),
    "json array": ("json", json.dumps(ROWS).encode(), {}),
    "objects over several lines": (
        "json",
        ROW_LINES.encode(),
        {},
    ),
    "rows in a field": ("json", json.dumps({"v": 1, "data": ROWS}).encode(), {"field": "data"}),
    "columns in a field": (
        "json",
        json.dumps({"data": FRAME.to_dict("list")}).encode(),
        {"field": "data"},
    ),
    "mixed lists": ("json", b'{"t": "a", "n": [[0, 4, "P"]]}\n{"t": "b", "n": []}\n', {}),
    "dicts with other keys": ("json", b'{"d": {"a": 1}}\n{"d": {"b": "x"}}\n', {}),
    "texts": ("text", b"a\nb\r\n\nc", {}),
    "texts in latin-1": ("text", "caf\xe9\n".encode("latin-1"), {"encoding": "latin-1"}),
    "parquet of pandas": (
        "parquet",
        written(FRAME.assign(c=pandas.Categorical(["x", "y"])).to_parquet),
        {},
    ),
    "parquet of polars": (
        "parquet",
        written(lambda file: polars.DataFrame(ROWS).write_parquet(file)),
        {},
    ),
}


def plain(features) -> dict:
    """Features in JSON; large_string is string here, as text of any kind is to minift."""
    return json.loads(json.dumps(features.to_dict()).replace("large_string", "string"))


@pytest.fixture
def theirs(tmp_path):
    def load(kind, path, **options):
        cache = str(tmp_path / "peer")
        return datasets.load_dataset(
            kind, data_files=str(path), split="train", cache_dir=cache, **options
        )

    return load


@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_as_datasets(tmp_path, theirs, form):
    kind, raw, options = FORMS[form]
    path = tmp_path / f"file.{kind}"
    path.write_bytes(raw)
    ours = minift.load_dataset(kind, data_files=str(path), split="train", **options)
    peer = theirs(kind, path, **options)
    assert ours.column_names == peer.column_names
    # The peer takes an empty cell for a missing one also where no cell of the column is text.
    empty = {name for name in ours.column_names if all(v == "" for v in ours[name])}
    shown = [name for name in ours.column_names if name not in empty]
    assert ours.select_columns(shown).to_list() == peer.select_columns(shown).to_list()
    ours_plain, peer_plain = plain(ours.features), plain(peer.features)
    # Where types are mixed, all of a column is Json here, and the innermost part of it there.
    shown = [name for name in shown if ours_plain[name] != {"_type": "Json"}]
    assert {n: ours_plain[n] for n in shown} == {n: peer_plain[n] for n in shown}


def test_from_pandas_as_in_datasets():
    frame = pandas.DataFrame(
        {
            "text": ["a", None, "c"],
            "object": pandas.Series(["a", np.nan, "c"], dtype=object),
            "n": np.array([1, 2, 3], np.int8),
            "f": [0.5, np.nan, 2],
            "i": pandas.array([1, None, 3], dtype="Int64"),
            "l": [[1], [], None],
            "when": pandas.to_datetime(["2020-01-01", None, "2020-01-03"]),
        }
    )
    for one in (frame, frame.set_index("text"), frame.iloc[[2, 0, 1]], frame[frame["n"] > 1]):
        for index in (None, True, False):
            ours = minift.Dataset.from_pandas(one, preserve_index=index)
            peer = datasets.Dataset.from_pandas(one, preserve_index=index)
            assert ours.to_list() == peer.to_list(), index
            assert plain(ours.features) == plain(peer.features)


@pytest.mark.parametrize("arguments", [("csv", "a"), ("", "a")])
def test_data_dir_as_in_datasets(tmp_path, arguments):
    for name in ("a/train.csv", "a/test.csv", "b/train.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"x\n{name}\n")
    kind, folder = arguments
    path = kind or str(tmp_path)
    folder = str(tmp_path / folder) if kind else folder
    ours = minift.load_dataset(path, data_dir=folder)
    peer = datasets.load_dataset(path, data_dir=folder, cache_dir=str(tmp_path / "peer"))
    assert {k: v.to_list() for k, v in ours.items()} == {k: v.to_list() for k, v in peer.items()}
