"""Names of classes: one meaning, or an error, in whatever form and way the labels come in."""

import json
import warnings

import pyarrow as pa
import pytest
from pyarrow import parquet

from minift import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    List,
    Value,
    concatenate_datasets,
    load_dataset,
    load_from_disk,
)
from minift.errors import DataError

STARS = ["1", "2", "3", "4", "5"]


def from_csv(values, feature, folder):
    cells = "".join(f"{value}\n" for value in values)
    (folder / "rows.csv").write_text("label\n" + cells)
    return load("csv", folder / "rows.csv", feature)


def from_json(values, feature, folder):
    (folder / "rows.jsonl").write_text("".join(json.dumps({"label": v}) + "\n" for v in values))
    return load("json", folder / "rows.jsonl", feature)


def from_parquet(values, feature, folder):
    parquet.write_table(pa.table({"label": values}), folder / "rows.parquet")
    return load("parquet", folder / "rows.parquet", feature)


def from_arrow(values, feature, folder):
    table = pa.table({"label": values})
    write_arrow(table, folder / "rows.arrow")
    return load("arrow", folder / "rows.arrow", feature)


def from_dict(values, feature, folder):
    return Dataset.from_dict({"label": values}, features=Features({"label": feature}))


def from_cast(values, feature, folder):
    return Dataset.from_dict({"label": values}).cast_column("label", feature)


def write_arrow(table, path):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def load(kind, path, feature):
    features = Features({"label": feature})
    return load_dataset(kind, data_files=str(path), features=features, split="train")


WAYS = [from_csv, from_json, from_parquet, from_arrow, from_dict, from_cast]


def names_of(dataset):
    feature = dataset.features["label"]
    return [None if v in (None, -1) else feature.int2str(v) for v in dataset["label"]]


# --- representations -----------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("names", "values", "meaning"),
    [
        (STARS, [1, 2, 3, 4, 5], STARS),
        (STARS, [5.0, 1.0], ["5", "1"]),
        (STARS, ["1", "4"], ["1", "4"]),
        (STARS, ["4.0", " 5"], ["4", "5"]),
        (["0.0", "1.0"], [1.0, 0.0], ["1.0", "0.0"]),
        (["0.0", "1.0"], [1, 0], ["1.0", "0.0"]),
        (["0.5", "1.5"], [1.5, 0.5], ["1.5", "0.5"]),
        (["False", "True"], [True, False], ["True", "False"]),
        (["True", "False"], [True, False], ["True", "False"]),
        (["true", "false"], [False, True], ["false", "true"]),
        (["-2", "-1", "0"], [-1, -2, 0], ["-1", "-2", "0"]),
        (["neg", "pos"], [1, 0], ["pos", "neg"]),
        (["neg", "pos"], [1.0, 0.0], ["pos", "neg"]),
        (["neg", "pos"], [True, False], ["pos", "neg"]),
        (["neg", "pos"], [" pos", "neg "], ["pos", "neg"]),
        (["neg", "pos"], ["Pos", "NEG"], ["pos", "neg"]),
        (["neg", "pos"], ["1", "0"], ["pos", "neg"]),
        (["neg", "pos"], ["1.0", "0.0"], ["pos", "neg"]),
        (["neg", "pos"], [-1, 1], [None, "pos"]),
        (["0", "1", "10", "2"], [10, 2, 1], ["10", "2", "1"]),
    ],
    ids=str,
)
def test_labels_mean_the_same_whatever_way_they_come(way, names, values, meaning, tmp_path):
    assert names_of(way(values, ClassLabel(names=names), tmp_path)) == meaning


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("names", "values"),
    [
        (STARS, [1, 4]),
        (STARS, [1.0, 4.0]),
        (["-1", "0", "1"], [-1, 0, 1]),
        (["1", "0"], [1, 0]),
        (["True", "False"], [1, 0]),
    ],
    ids=str,
)
def test_numbers_that_could_be_names_or_class_numbers(way, names, values, tmp_path):
    """A cell of a csv file is text, and so a name; a number is refused, and then means nothing."""
    feature = ClassLabel(names=names)
    if way is from_csv:
        found = [
            float({"True": 1, "False": 0}.get(n, n))
            for n in names_of(way(values, feature, tmp_path))
        ]
        assert found == values
        return
    with pytest.raises(DataError, match="may be names or class numbers") as caught:
        way(values, feature, tmp_path)
    assert "Value('string')" in str(caught.value) and "map" in str(caught.value)


def test_both_ways_out_of_numbers_that_could_be_names():
    stars, ambiguous = ClassLabel(names=STARS), Dataset.from_dict({"label": [1, 4]})
    text = ambiguous.cast_column("label", Value("string")).cast_column("label", stars)
    assert names_of(text) == ["1", "4"]
    mapped = ambiguous.map(lambda row: {"label": STARS[row["label"]]})
    assert names_of(mapped.cast_column("label", stars)) == ["2", "5"]


def test_class_numbers_of_names_that_are_numbers_are_still_class_numbers(tmp_path):
    """As in a file that holds 0 for "1": where no other reading is possible."""
    for way in (from_json, from_parquet, from_dict, from_cast):
        assert names_of(way([0, 1, 4], ClassLabel(names=STARS), tmp_path)) == ["1", "2", "5"]
    encoded = from_dict(["1", "5", "2"], ClassLabel(names=STARS), tmp_path)
    again = Dataset.from_list(encoded.to_list(), features=encoded.features)
    assert names_of(again) == ["1", "5", "2"]
    for other in (
        encoded.map(lambda row: {"label": row["label"]}),
        encoded.map(lambda batch: {"x": batch["label"]}, batched=True, batch_size=1),
        encoded.cast_column("label", ClassLabel(names=STARS)),
        encoded.select([0, 1, 2]),
    ):
        assert names_of(other) == ["1", "5", "2"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("names", "values"),
    [
        (STARS, [0, 5]),
        (STARS, ["0", "1"]),
        (STARS, [1.5, 5]),
        (["neg", "pos"], [0, 2]),
        (["neg", "pos"], [0, -100]),
        (["neg", "pos"], [0.5, 1]),
        (["neg", "pos"], ["neutral", "pos"]),
        (["neg", "pos"], ["nan", "pos"]),
    ],
    ids=str,
)
def test_what_is_no_class_is_an_error(way, names, values, tmp_path):
    with pytest.raises(DataError, match="invalid class label"):
        way(values, ClassLabel(names=names), tmp_path)


# --- widths --------------------------------------------------------------------------------------

WIDTHS = [*(f"int{n}" for n in (8, 16, 32, 64)), *(f"uint{n}" for n in (8, 16, 32, 64))]


def stored(width, names=("neg", "pos"), values=(1, 0, 1)):
    """A table as another writer leaves it: the names in the metadata, the numbers of any width."""
    schema = Features({"label": ClassLabel(names=list(names))}).arrow_schema
    array = pa.array(values, pa.type_for_alias(width))
    return pa.table({"label": array}).replace_schema_metadata(schema.metadata)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_label_column_of_any_width_keeps_its_names(width, tmp_path):
    parquet.write_table(stored(width), tmp_path / "rows.parquet")
    write_arrow(stored(width), tmp_path / "rows.arrow")
    opened = [
        load_dataset(k, data_files=str(tmp_path / f"rows.{k}"), split="train")
        for k in ("parquet", "arrow")
    ]
    for dataset in (Dataset(stored(width)), *opened):
        assert names_of(dataset) == ["pos", "neg", "pos"]
        assert dataset.data.schema.field("label").type == pa.int64()
    dataset.save_to_disk(tmp_path / "saved")
    assert names_of(load_from_disk(tmp_path / "saved")) == ["pos", "neg", "pos"]
    joined = concatenate_datasets([dataset, Dataset(stored("int64"))])
    assert names_of(joined) == ["pos", "neg", "pos"] * 2


def test_a_column_of_fractions_with_names_is_numbers():
    table = stored("float64", values=(0.5, 1.0))
    assert Dataset(table).features == {"label": Value("float64")}


# --- from one numbering to another ---------------------------------------------------------------


def classes(names, values):
    return from_dict(values, ClassLabel(names=names), None)


def by_cast(dataset, feature):
    return dataset.cast(Features({"label": feature}))


def by_cast_column(dataset, feature):
    return dataset.cast_column("label", feature)


def by_dict(dataset, feature):
    return DatasetDict(train=dataset).cast_column("label", feature)["train"]


def by_map(dataset, feature):
    features = Features({"label": feature, "x": Value("int64")})
    return dataset.map(lambda row: {"x": 1}, features=features)


def by_map_of_picked_rows(dataset, feature):
    return by_map(dataset.select(range(len(dataset))[::-1]), feature).select(
        range(len(dataset))[::-1]
    )


CASTS = [by_cast, by_cast_column, by_dict, by_map, by_map_of_picked_rows]


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["neg", "pos"], ["pos", "neg"]),
        (["neg", "pos"], ["neg", "neutral", "pos"]),
        (["neg", "neutral", "pos"], ["pos", "neg"]),  # no row is neutral
        (["Neg", "pos "], ["POS", "neg"]),
        (["1", "2", "3"], ["3", "2", "1"]),
        (["0", "1"], ["1", "0"]),
        (["0.0", "1.0"], ["1", "0"]),
        (["False", "True"], ["true", "false"]),
    ],
    ids=str,
)
def test_from_one_class_label_to_another_a_class_keeps_its_name(cast, old, new):
    last = len(old) - 1
    found = names_of(cast(classes(old, [last, 0, None, last]), ClassLabel(names=new)))
    spelled = [None if n is None else ClassLabel.spelling(n) for n in found]
    assert spelled == [
        ClassLabel.spelling(old[n]) if n is not None else None for n in (last, 0, None, last)
    ]


@pytest.mark.parametrize("cast", CASTS)
def test_hidden_labels_stay_hidden(cast):
    changed = cast(classes(["a", "b"], [-1, 1, None]), ClassLabel(names=["b", "a"]))
    assert list(changed["label"]) == [-1, 0, None]


@pytest.mark.parametrize("cast", CASTS)
def test_classes_without_a_name_in_common_are_renamed(cast):
    """As `datasets` documents it: names for numbers."""
    renamed = cast(classes(["neg", "pos"], [1, 0]), ClassLabel(names=["bad", "good"]))
    assert names_of(renamed) == ["good", "bad"]
    numbered = cast(
        from_dict([1, 0], ClassLabel(num_classes=2), None), ClassLabel(names=["n", "y"])
    )
    assert names_of(numbered) == ["y", "n"]
    with pytest.raises(DataError, match="no class has the number 2"):
        cast(classes(["a", "b", "c"], [2]), ClassLabel(names=["x", "y"]))


@pytest.mark.parametrize("cast", CASTS)
def test_a_class_that_the_other_numbering_lacks_is_an_error(cast):
    with pytest.raises(DataError, match="'neutral'"):
        cast(classes(["neg", "neutral", "pos"], [0, 1]), ClassLabel(names=["pos", "neg"]))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_features_at_loading_go_by_the_names_that_a_file_has(kind, tmp_path):
    for width in ("int64", "int8"):
        table = stored(width)
        if kind == "parquet":
            parquet.write_table(table, tmp_path / "rows")
        else:
            write_arrow(table, tmp_path / "rows")
        assert names_of(load(kind, tmp_path / "rows", ClassLabel(names=["pos", "neg"]))) == [
            "pos",
            "neg",
            "pos",
        ]


def test_lists_of_classes_are_not_renumbered():
    one, two = (List(ClassLabel(names=names)) for names in (["a", "b"], ["b", "a"]))
    lists = Dataset.from_dict({"label": [["a", "b"]]}, features=Features({"label": one}))
    assert lists.cast_column("label", one)["label"][0] == [0, 1]
    with pytest.raises(DataError, match="other names"):
        lists.cast_column("label", two)
    other = Dataset.from_dict({"label": [["a", "b"]]}, features=Features({"label": two}))
    with pytest.raises(DataError, match="other classes"):
        concatenate_datasets([lists, other])


def test_datasets_with_other_classes_are_joined_after_one_cast():
    one, two = classes(["neg", "pos"], [0, 1]), classes(["neutral", "pos"], [1, 0])
    with pytest.raises(DataError, match="other classes") as caught:
        concatenate_datasets([one, two])
    assert "cast_column" in caught.value.do and "neutral" in str(caught.value)
    every = ClassLabel(names=["neg", "pos", "neutral"])  # as it says: the names of both
    joined = concatenate_datasets([part.cast_column("label", every) for part in (one, two)])
    assert names_of(joined) == ["neg", "pos", "pos", "neutral"]


# --- one numbering for all splits ----------------------------------------------------------------


def test_splits_are_encoded_with_one_numbering():
    """A split that lacks a class, or has one more, numbers the others alike."""
    splits = DatasetDict(
        train=Dataset.from_dict({"label": ["neg", "neutral", "pos"]}),
        test=Dataset.from_dict({"label": ["pos", None, "neg"]}),
        other=Dataset.from_dict({"label": ["odd", "pos"]}),
    ).class_encode_column("label")
    assert {tuple(ds.features["label"].names) for ds in splits.values()} == {
        ("neg", "neutral", "odd", "pos")
    }
    assert {name: list(ds["label"]) for name, ds in splits.items()} == {
        "train": [0, 1, 3],
        "test": [3, None, 0],
        "other": [2, 3],
    }


def test_a_test_split_that_hides_its_labels_adds_no_class():
    splits = DatasetDict(
        train=Dataset.from_dict({"label": [0, 1, 1]}), test=Dataset.from_dict({"label": [-1, -1]})
    ).class_encode_column("label")
    assert splits["train"].features["label"].names == ["0", "1"]
    assert list(splits["test"]["label"]) == [-1, -1]
    alone = Dataset.from_dict({"label": [-1, 0, 1]}).class_encode_column("label")
    assert alone.features["label"].names == ["-1", "0", "1"] and list(alone["label"]) == [0, 1, 2]


def test_the_order_of_text_is_said_where_it_is_not_that_of_numbers():
    numbers = Dataset.from_dict({"label": [10, 2, 1]})
    with pytest.warns(UserWarning, match="order of text") as said:
        encoded = numbers.class_encode_column("label")
    assert encoded.features["label"].names == ["1", "10", "2"]  # as in `datasets`
    assert len(str(said[0].message).splitlines()) == 1 and "key=float" in str(said[0].message)
    names = sorted(encoded.features["label"].names, key=float)
    ordered = encoded.cast_column("label", ClassLabel(names=names))
    assert ordered.features["label"].names == ["1", "2", "10"] and list(ordered["label"]) == [
        2,
        1,
        0,
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for values in ([1, 2, 3], ["a", "b"], [0.5, 1.5], [True, False], ["x10", "x2"]):
            Dataset.from_dict({"label": values}).class_encode_column("label")
