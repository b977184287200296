"""Names on the Hub, through the real client and a Hub on loopback: what is loaded and asked."""

import gzip
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from hub_repositories import write_model
from minift_demo.headlines import weights_folder
from minift_hub import client, datasets, download, models, names, snapshot

from minift import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    ClassLabel,
    Trainer,
    TrainingArguments,
    Value,
    evaluate,
    hookimpl,
    load_dataset,
    plugins,
)
from minift.data import loading
from minift.data.file_formats import DatasetFiles
from minift.errors import ConfigError, DataError, MiniftError, MissingFileError, ModelError
from minift.plugins import resolve_checkpoint

PRINTED = """\
DatasetDict({
    train: Dataset({
        features: ['sentence1', 'sentence2', 'label', 'idx'],
        num_rows: 32
    })
    validation: Dataset({
        features: ['sentence1', 'sentence2', 'label', 'idx'],
        num_rows: 16
    })
    test: Dataset({
        features: ['sentence1', 'sentence2', 'label', 'idx'],
        num_rows: 16
    })
})"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def served(hub, repositories, model):
    """The Hub with all of them, and the model under the name that it has in the course."""
    for name, folders in repositories.items():
        for revision, folder in folders.items():
            hub.add(name, folder, "dataset", revision)
    hub.add("google-bert/bert-base-uncased", model)
    return hub


def asked(hub) -> list[str]:
    """What was asked since the last call."""
    found = hub.paths()
    hub.requests.clear()
    return found


def message(call, kind) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


# --------------------------------------------------------------------------------------- the course


def test_the_first_lines_of_the_course(served, capsys):
    raw = load_dataset("glue", "mrpc")
    assert repr(raw) == PRINTED
    assert raw["train"].features == {
        "sentence1": Value("string"),
        "sentence2": Value("string"),
        "label": ClassLabel(names=["not_equivalent", "equivalent"]),
        "idx": Value("int32"),
    }
    tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased")
    row = raw["train"][0]
    tokens = tokenizer(row["sentence1"], row["sentence2"])
    assert list(tokens) == ["input_ids", "token_type_ids", "attention_mask"]
    capsys.readouterr()
    network = AutoModelForSequenceClassification.from_pretrained("bert-base-uncased", num_labels=3)
    report = capsys.readouterr().err
    assert "newly initialised      classifier.bias, classifier.weight" in report
    assert "weights of google-bert/bert-base-uncased" in report
    assert network.config.num_labels == 3
    metric = evaluate.load("glue", "mrpc")
    scores = metric.compute(predictions=[1, 0, 1, 1], references=[1, 0, 0, 1])
    assert scores == {"accuracy": 0.75, "f1": pytest.approx(0.8)}


# ----------------------------------------------------------------------------------------- requests


def test_pinned_and_cached_asks_nothing(served):
    revision = load_dataset("glue", "mrpc")["train"].origin["revision"]
    pinned = AutoModel.from_pretrained("bert-base-uncased").load_report.revision
    asked(served)
    load_dataset("glue", "mrpc", revision=revision)
    AutoTokenizer.from_pretrained("bert-base-uncased", revision=pinned)
    AutoModel.from_pretrained("bert-base-uncased", revision=pinned)
    assert asked(served) == []
    load_dataset("glue", "mrpc")  # one question: where is the branch now?
    assert asked(served) == ["GET /api/datasets/nyu-mll/glue/revision/main"]


def test_cached_loads_with_the_server_down(served):
    before = load_dataset("glue", "mrpc")
    weights = AutoModel.from_pretrained("bert-base-uncased").state_dict()
    served.close()
    after = load_dataset("glue", "mrpc")
    assert {k: v.fingerprint for k, v in after.items()} == {
        k: v.fingerprint for k, v in before.items()
    }
    again = AutoModel.from_pretrained("bert-base-uncased").state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_new_commit_is_loaded_and_the_old_one_stays(served, model, tmp_path):
    first = resolve_checkpoint("bert-base-uncased")
    other = tiny.make_model(tmp_path / "other", hidden_size=16)
    served.add("google-bert/bert-base-uncased", other)
    second = resolve_checkpoint("bert-base-uncased")
    assert first.revision != second.revision
    assert AutoConfig.from_pretrained("bert-base-uncased").hidden_size == 16
    old = AutoConfig.from_pretrained("bert-base-uncased", revision=first.revision)
    assert old.hidden_size == 32


def test_only_what_is_needed_is_fetched(hub, model):
    files = {p.name: p.read_bytes() for p in model.iterdir()}
    more = dict.fromkeys(
        ["pytorch_model.bin", "tf_model.h5", "model.onnx", "run.py", "a/b.json"], ""
    )
    hub.add("a/model", {**files, **more, "model.fp16.safetensors": b"half"})
    AutoConfig.from_pretrained("a/model")
    assert fetched(hub) == {"config.json"}
    AutoTokenizer.from_pretrained("a/model")
    assert fetched(hub) == {"config.json", "tokenizer.json", "tokenizer_config.json"}
    AutoModel.from_pretrained("a/model")
    assert fetched(hub) == {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    }


def fetched(hub) -> set[str]:
    return {path.rpartition("/")[2] for path in hub.paths("hub") if "/resolve/" in path}


def test_the_token_goes_to_the_hub_alone(served, monkeypatch, capfd):
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    served.repos["model", "google-bert/bert-base-uncased"].private = True
    AutoModel.from_pretrained("bert-base-uncased")
    sent = {(r.host, r.headers.get("authorization")) for r in served.requests}
    assert sent == {("hub", "Bearer hf_good"), ("store", None)}
    assert "hf_good" not in "".join(capfd.readouterr())


def test_nothing_goes_to_any_other_address(served, monkeypatch):
    addresses = set()
    connect = socket.socket.connect

    def connect_and_tell(self, address):
        addresses.add(f"http://{address[0]}:{address[1]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_and_tell)
    load_dataset("glue", "mrpc")
    AutoModel.from_pretrained("bert-base-uncased")
    assert addresses == {served.url, served.store}


def test_a_path_or_another_plugins_name_asks_nothing(served, tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    Path("nyu-mll/glue").mkdir(parents=True)
    tiny.write_csv(Path("nyu-mll/glue/train.csv"), tiny.make_rows(4))
    assert len(load_dataset("nyu-mll/glue")["train"]) == 4
    Path("google-bert").mkdir()
    Path("google-bert/bert-base-uncased").symlink_to(model)
    AutoModel.from_pretrained("google-bert/bert-base-uncased")
    resolve_checkpoint("sentence-transformers/all-MiniLM-L6-v2")
    for name in ("nosuch", "nosuch.csv", "data/nosuch.csv", "./a/b", "/a/b", "a/b/c"):
        assert "no plugin knows the name" in message(
            lambda n=name: load_dataset(n), MissingFileError
        )
    assert asked(served) == []


def test_a_finder_that_found_no_file_is_told_so(monkeypatch):
    class Finder:
        @hookimpl
        def minift_find_dataset(self, path):
            return DatasetFiles({"train": []} if path == "one" else {})

    manager = plugins.build_manager(["files"], plugins=[Finder()])
    monkeypatch.setattr(plugins, "_default", manager)
    for name in ("none", "one"):
        assert "has no data files" in message(lambda n=name: load_dataset(n), MissingFileError)


def test_importing_the_plugin_is_light():
    check = "import sys, minift_hub, minift_hub.names; bad = {'torch', 'numpy', 'huggingface_hub'}"
    check += "; assert not bad & set(sys.modules), bad & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


# -------------------------------------------------------------------------------------------- names


def test_short_names_mean_their_owners(served):
    assert load_dataset("emotion", split="train").origin["source"] == "dair-ai/emotion split"
    for table in (names.DATASETS, names.MODELS):
        for short, whole in table.items():
            assert "/" not in short and names.REPOSITORY.fullmatch(whole), short
            assert names.repository(short, table) == whole


def test_a_misspelt_short_name_is_told_the_nearest(served):
    said = message(lambda: load_dataset("super_glu", "rte"), MissingFileError)
    assert "'super_glue' (the nearest short name), or namespace/name" in said
    said = message(lambda: AutoModel.from_pretrained("bert-base-uncasd"), MissingFileError)
    assert "'bert-base-uncased'" in said
    assert asked(served) == []


# ----------------------------------------------------------------------------------------- datasets


def test_every_configuration_is_as_its_files(served, repositories):
    """Rows and order by pyarrow's own reader; classes by the card, or the files' metadata."""
    import hub_repositories as made

    known = {"nyu-mll/glue": made.GLUE, "aps/super_glue": made.SUPER_GLUE}
    for repo, configs in known.items():
        folder = repositories[repo]["main"]
        for config, said in configs.items():
            raw = load_dataset(repo, config)
            assert list(raw) == list(said.splits)
            for split, dataset in raw.items():
                path = folder / f"{config}/{split}-00000-of-00001.parquet"
                assert dataset.to_arrow().to_pylist() == pq.read_table(path).to_pylist()
                classes = [n for n, kind in said.columns.items() if isinstance(kind, tuple)]
                for column in classes:
                    assert dataset.features[column].names == list(said.columns[column])


def test_the_configuration_without_a_name(served):
    assert len(load_dataset("dair-ai/emotion", split="train")) == 36  # "split" is marked
    assert set(load_dataset("ar_sarcasm")) == {"train", "test"}  # the only one
    assert "label" in load_dataset("rotten_tomatoes")["validation"].features  # none in the card
    said = message(lambda: load_dataset("glue"), ConfigError)
    assert "nyu-mll/glue has several configurations" in said and "mnli_matched, " in said
    said = message(lambda: load_dataset("glue", "mrcp"), ConfigError)
    assert "no configuration 'mrcp'" in said and "mrpc" in said


def test_classes_are_those_of_the_card(served):
    features = load_dataset("ar_sarcasm", split="train").features
    assert features["dialect"].names == ["egypt", "gulf", "levant", "magreb", "msa"]
    assert features["tweet"] == Value("string")


def test_a_script_is_never_run_and_what_the_hub_made_of_it_is_read(served):
    from hub_repositories import SCRIPT

    names = list(SCRIPT)
    for config in names:
        assert list(load_dataset("legacy/script", config)) == list(SCRIPT[config].splits)
    branch = load_dataset("legacy/script", names[0], revision="refs/convert/parquet")
    assert set(branch) == set(SCRIPT[names[0]].splits)
    said = message(lambda: load_dataset("legacy/script", revision="main"), DataError)
    assert "is a Python script, which is never run" in said
    served.add("a/script", {"script.py": "1/0", "README.md": "", "raw.csv": "x\n1\n"}, "dataset")
    said = message(lambda: load_dataset("a/script"), DataError)
    assert "never run" in said and "at refs/convert/parquet, or no longer" in said


def card(configs: str) -> str:
    return f"---\nconfigs:\n{configs}---\n"


ROWS = {
    f"{d}{s}.jsonl": f'{{"x": "{d}{s}"}}\n' for d in ("", "a/", "a/b/") for s in ("train", "test")
}
FORMS = {
    "one": ("data_files: train.jsonl", {"train": ["train"]}),
    "pattern": ("data_files: '*.jsonl'", {"train": ["test", "train"]}),
    "across": ("data_files: '**/train.jsonl'", {"train": ["a/b/train", "a/train", "train"]}),
    "list": ("data_files: [a/test.jsonl, train.jsonl]", {"train": ["a/test", "train"]}),
    "by split": (
        "data_files: {test: a/test.jsonl, train: [a/train.jsonl, train.jsonl]}",
        {"test": ["a/test"], "train": ["a/train", "train"]},
    ),
    "pairs": (
        "data_files: [{split: dev, path: test.jsonl}, {split: train, path: ['a/tr*']}]",
        {"dev": ["test"], "train": ["a/train"]},
    ),
    "folder": ("data_dir: a/b", {"train": ["a/b/train"], "test": ["a/b/test"]}),
    "files in a folder": ("data_files: test.jsonl\n  data_dir: a", {"train": ["a/test"]}),
}


@pytest.mark.parametrize("form", FORMS)
def test_data_files_of_a_card(hub, form):
    said, expected = FORMS[form]
    hub.add("a/d", {**ROWS, "README.md": card(f"- config_name: c\n  {said}\n")}, "dataset")
    raw = load_dataset("a/d", "c")
    assert {split: list(rows["x"]) for split, rows in raw.items()} == expected
    assert list(raw) == list(expected)


def test_data_files_that_the_caller_names(hub):
    hub.add(
        "a/d", {**ROWS, "README.md": card("- config_name: c\n  data_files: no.csv\n")}, "dataset"
    )
    raw = load_dataset("a/d", data_files={"x": "a/*.jsonl"})
    assert list(raw["x"]["x"]) == ["a/test", "a/train"]
    said = message(lambda: load_dataset("a/d", data_files="*.csv"), MissingFileError)
    assert "a/d has no file '*.csv'" in said and "a/test.jsonl" in said
    for evil in ("../x.jsonl", "/etc/passwd", "hf://a/b", "https://a/b.csv"):
        said = message(lambda e=evil: load_dataset("a/d", data_files=e), DataError)
        assert "outside its folder" in said


def test_files_without_a_card(hub):
    hub.add("a/d", {"x.jsonl": '{"x": 1}\n', ".git.jsonl": "", "LICENSE": "free"}, "dataset")
    assert load_dataset("a/d")["train"]["x"] == [1]
    hub.add("a/e", {"f/train.csv": "x\n1\n", "f/dev.csv": "x\n2\n"}, "dataset")
    assert load_dataset("a/e", "f")["validation"]["x"] == [2]
    assert "expected: f" in message(lambda: load_dataset("a/e", "g"), ConfigError).replace("'", "")
    hub.add("a/f", {"picture.png": b"\x89PNG"}, "dataset")
    assert "no data files" in message(lambda: load_dataset("a/f"), MissingFileError)
    mixed = card("- config_name: c\n  data_files: ['*']\n")
    hub.add("a/g", {"README.md": mixed, "a.csv": "x\n1\n", "b.jsonl": "{}"}, "dataset")
    assert "or of several" in message(lambda: load_dataset("a/g"), DataError)


def test_features_from_the_older_file_and_for_text_formats(hub, tmp_path):
    features = {"x": {"dtype": "string", "_type": "Value"}}
    features["label"] = {"names": ["no", "yes"], "_type": "ClassLabel"}
    files = {"train.csv": "x,label\n007,1\n"}
    infos = json.dumps({"default": {"features": features}})
    hub.add("a/d", {**files, "dataset_infos.json": infos}, "dataset")
    data = load_dataset("a/d")["train"]
    assert data[0] == {"x": "007", "label": 1} and data.features["label"].names == ["no", "yes"]
    pq.write_table(data.to_arrow().cast(data.features.arrow_schema), tmp_path / "train.parquet")
    swapped = infos.replace('"no", "yes"', '"yes", "no"')
    parquet = {"train.parquet": (tmp_path / "train.parquet").read_bytes()}
    hub.add("a/f", {**parquet, "dataset_infos.json": swapped}, "dataset")
    said = load_dataset("a/f")["train"].features["label"]
    assert said.names == ["no", "yes"]  # a file knows best what is in it
    infos = infos.replace("default", "plain_text")
    hub.add("a/g", {**files, "dataset_infos.json": infos}, "dataset")
    for name in (None, "plain_text"):  # a configuration may have any name where there is but one
        data = load_dataset("a/g", name)["train"]
        assert data.features["label"].names == ["no", "yes"]
        assert data.origin["source"] == "a/g plain_text"
    assert "no configuration" in message(lambda: load_dataset("a/g", "plain"), ConfigError)
    odd = "---\ndataset_info:\n  features:\n  - name: x\n    dtype: {image: {}}\n---\n"
    hub.add("a/e", {**files, "README.md": odd}, "dataset")
    with pytest.warns(UserWarning, match="features in the card are ignored"):
        assert load_dataset("a/e")["train"]["label"] == [1]


def test_a_card_that_is_no_yaml_or_too_large_is_refused(hub):
    hub.add("a/d", {**ROWS, "README.md": "---\na: [1\n---\n"}, "dataset")
    assert "is not YAML" in message(lambda: load_dataset("a/d"), DataError)
    for odd in ("data_files: 5", "data_files: [{split: train}, {path: {a: b}}]", "data_files:"):
        hub.add("a/odd", {**ROWS, "README.md": card(f"- config_name: c\n  {odd}\n")}, "dataset")
        assert "not given as paths" in message(lambda: load_dataset("a/odd"), DataError)
    harmful = "---\na: !!python/object/apply:os.system ['touch /tmp/harm']\n---\n"
    hub.add("a/e", {**ROWS, "README.md": harmful}, "dataset")
    assert "is not YAML" in message(lambda: load_dataset("a/e"), DataError)
    hub.add("a/f", {**ROWS, "README.md": "x" * 2_000_001}, "dataset")
    hub.requests.clear()
    assert "README.md of a/f is too large" in message(lambda: load_dataset("a/f"), DataError)
    assert not [path for path in hub.paths() if "resolve" in path]  # before it was downloaded
    hub.add("a/g", {"config.json": "x" * 2_000_001}, "model")
    assert "too large" in message(lambda: AutoConfig.from_pretrained("a/g"), ModelError)


def test_sizes_are_checked_before_a_download(served, monkeypatch):
    monkeypatch.setitem(download.LARGEST, "model", 1000)
    monkeypatch.setitem(download.LARGEST, "dataset", 1000)
    for load in (
        lambda: load_dataset("glue", "mrpc"),
        lambda: AutoModel.from_pretrained("bert-base-uncased"),
    ):
        said = message(load, client.HubError)
        assert "too large" in said and "hf download" in said
    assert not [path for path in served.paths("store")]


def parquet(column, **options) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": column}), sink, compression="zstd", **options)
    return sink.getvalue().to_pybytes()


LONG = "x" * 10_000
SMALL_FOR_LARGE = {  # files of a few kB at most, and about how many bytes they take in memory
    "numbers": ("train.parquet", lambda: parquet([7] * 100_000), 800_000),
    "numbers in one row": ("train.parquet", lambda: parquet([[7] * 100_000]), 800_000),
    "one text": ("train.parquet", lambda: parquet([LONG] * 1000), 10_000_000),
    "one text, with a type that says so": (
        "train.parquet",
        lambda: parquet(pa.DictionaryArray.from_arrays(pa.array([0] * 1000), [LONG])),
        10_000_000,
    ),
    "texts without a dictionary": (
        "train.parquet",
        lambda: parquet([LONG] * 100, use_dictionary=False),
        1_000_000,
    ),
    "texts in lists": ("train.parquet", lambda: parquet([[LONG] * 10] * 100), 10_000_000),
    "zipped": ("train.csv.gz", lambda: gzip.compress(b"x\n" + b"1\n" * 1_000_000), 2_000_000),
    "zipped lines": ("train.jsonl.gz", lambda: gzip.compress(b'{"x": 1}\n' * 100_000), 900_000),
}


@pytest.mark.parametrize("kind", SMALL_FOR_LARGE)
def test_memory_is_checked_before_reading(hub, monkeypatch, kind):
    """A value that repeats takes no space in the file, and counting it stops at the limit."""
    name, content, size = SMALL_FOR_LARGE[kind]
    hub.add("a/d", {name: content()}, "dataset")
    assert hub.repos["dataset", "a/d"].commits.popitem()[1][name].size < 10_000
    hub.add("a/d", {name: content()}, "dataset")
    monkeypatch.setattr(datasets, "MEMORY", size * 9 // 10)
    monkeypatch.setattr(loading, "load_files", lambda *_: pytest.fail("it was read"))
    assert "too large to be read" in message(lambda: load_dataset("a/d"), DataError)


@pytest.mark.parametrize("kind", SMALL_FOR_LARGE)
def test_what_fits_into_memory_is_read(hub, monkeypatch, kind):
    name, content, size = SMALL_FOR_LARGE[kind]
    hub.add("a/d", {name: content()}, "dataset")
    monkeypatch.setattr(datasets, "MEMORY", size * 12 // 10)
    assert len(load_dataset("a/d")["train"])


def test_counting_keeps_little_in_memory(tmp_path):
    """A text of 10 MB, 4,000 times: 40 GB in a few kB."""
    (tmp_path / "x").write_bytes(parquet(pa.DictionaryArray.from_arrays([0] * 4000, [LONG * 1000])))
    limit, usual, pool = 200_000_000, pa.default_memory_pool(), pa.system_memory_pool()
    pa.set_memory_pool(pool)
    try:
        assert datasets.parquet_bytes(tmp_path / "x", limit) > limit
    finally:
        pa.set_memory_pool(usual)
    assert 10_000_000 < pool.max_memory() < 2 * limit


def test_arrow_files_are_not_taken_from_the_hub(hub):
    hub.add("a/d", {"train.arrow": "ARROW", "train.csv": "x\n1\n"}, "dataset")
    assert load_dataset("a/d")["train"]["x"] == [1]
    said = message(lambda: load_dataset("a/d", data_files="train.arrow"), DataError)
    assert "of a format that minift does not read" in said


def test_patterns_stay_within_a_folder_unless_doubled():
    files = {name: snapshot.Entry(1) for name in ("a.csv", "d/a.csv", "d/e/a.csv", "d/b[1].csv")}
    listing = snapshot.Snapshot("a/d", "dataset", "0" * 40, Path(), files)
    for pattern, found in {
        "*.csv": ["a.csv"],
        "**/a.csv": ["a.csv", "d/a.csv", "d/e/a.csv"],
        "d/**": ["d/a.csv", "d/b[1].csv", "d/e/a.csv"],
        "d/?.csv": ["d/a.csv"],
        "d/b[1].csv": ["d/b[1].csv"],
        "[ab].csv": ["a.csv"],
        "**/[!a]*": ["d/b[1].csv"],
        "**/*": ["a.csv", "d/a.csv", "d/b[1].csv", "d/e/a.csv"],
        "d/**/**/a.csv": ["d/a.csv", "d/e/a.csv"],
        "**": ["a.csv", "d/a.csv", "d/b[1].csv", "d/e/a.csv"],
    }.items():
        assert datasets.matching(listing, pattern, "") == found, pattern


# ------------------------------------------------------------------------------------------- models


def test_weights_in_shards(hub, model, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    shards = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for shard in set(shards.values()):
        part = {name: t for name, t in tensors.items() if shards[name] == shard}
        save_file(part, tmp_path / shard, metadata={"format": "pt"})
    (tmp_path / models.WEIGHTS_INDEX).write_text(json.dumps({"weight_map": shards}))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    hub.add("a/shards", tmp_path)
    found = AutoModel.from_pretrained("a/shards").state_dict()
    whole = AutoModel.from_pretrained(model).state_dict()
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    (tmp_path / "sub").mkdir()
    for there in ("sub/x.safetensors", "x.bin"):
        (tmp_path / there).write_bytes((model / "model.safetensors").read_bytes())
    for evil in ("../x.safetensors", "sub/x.safetensors", "x.bin", "gone.safetensors"):
        (tmp_path / models.WEIGHTS_INDEX).write_text(json.dumps({"weight_map": {"x": evil}}))
        hub.add("a/evil", tmp_path)
        kind = MissingFileError if evil == "gone.safetensors" else ModelError
        said = message(lambda: AutoModel.from_pretrained("a/evil"), kind)
        assert "names a file" in said and evil in said


def test_real_weights_by_name_are_those_by_path(hub):
    folder = weights_folder()
    hub.add("sentence/minilm", folder)
    text = ["one text", "another, longer text"]
    outputs = []
    for name in ("sentence/minilm", str(folder)):
        tokenizer, network = (k.from_pretrained(name) for k in (AutoTokenizer, AutoModel))
        with torch.inference_mode():
            batch = tokenizer(text, padding=True, return_tensors="pt")
            outputs.append(network(**batch).last_hidden_state)
    assert torch.equal(*outputs)
    folder = resolve_checkpoint("sentence/minilm").folder
    blob = Path(os.path.realpath(folder / "model.safetensors"))
    flip(blob, blob.stat().st_size // 2)
    for _ in "online", "offline":
        said = message(lambda: AutoModel.from_pretrained("sentence/minilm"), ModelError)
        assert "model.safetensors of sentence/minilm is damaged" in said
        assert f"expected: {blob.name}" in said and f"delete {blob}" in said
        hub.close()


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_code_of_a_model_is_named_and_not_run(hub, model, tmp_path):
    files = {p.name: p.read_bytes() for p in model.iterdir()}
    said = json.loads(files["config.json"]) | {"auto_map": {"AutoModel": "code.Model"}}
    hub.add("a/code", {**files, "config.json": json.dumps(said), "code.py": "1/0"})
    with pytest.warns(UserWarning, match="auto_map"):
        AutoModel.from_pretrained("a/code")
    assert "code.py" not in fetched(hub)


# ------------------------------------------------------------------------- the record, the commands


def test_a_run_records_what_it_was_made_of(served, tmp_path):
    raw = load_dataset("glue", "mrpc")
    tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased")
    data = raw.map(lambda rows: tokenizer(rows["sentence1"], rows["sentence2"]), batched=True)
    network = AutoModelForSequenceClassification.from_pretrained("bert-base-uncased")
    args = TrainingArguments(str(tmp_path / "run"), max_steps=1, save_strategy="no", device="cpu")
    Trainer(network, args, train_dataset=data["train"], processing_class=tokenizer).train()
    said = json.loads((tmp_path / "run/run.json").read_text())
    revision = served.repos["model", "google-bert/bert-base-uncased"].refs["main"]
    assert said["model"]["source"] == "google-bert/bert-base-uncased"
    assert said["model"]["revision"] == revision
    assert said["data"]["train"]["source"] == "nyu-mll/glue mrpc"
    revision = served.repos["dataset", "nyu-mll/glue"].refs["main"]
    assert said["data"]["train"]["revision"] == revision


@pytest.mark.slow
def test_a_process_with_nothing_but_its_environment(served, tmp_path):
    """As a user has it: the plugin found by its entry point, then offline from the cache."""
    script = "from minift import *; d = load_dataset('glue', 'mrpc'); "
    script += "t = AutoTokenizer.from_pretrained('bert-base-uncased'); "
    script += "print(d['train'].fingerprint, len(t))"
    said = []
    for offline in ("0", "1"):
        environment = {**os.environ, "HF_HUB_OFFLINE": offline, "HF_TOKEN": "hf_good"}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "hf_good" not in done.stdout + done.stderr
        said.append((done.stdout, bool(asked(served))))
    assert said[0][0] == said[1][0] and [online for _, online in said] == [True, False]


def test_nothing_from_the_hub_commands_the_terminal(hub):
    """Titles, colours and the cursor: names of configurations and files say ? instead."""
    evil = "\x1b]0;owned\x07\x9b31m"
    said = json.dumps(f"x{evil}")
    head = f"---\nconfigs:\n- config_name: {said}\n  data_files: {said}\n- config_name: b\n"
    head += f"  data_files: a\ndataset_info:\n- config_name: {said}\n  splits:\n  - name: {said}\n"
    head += "- {config_name: c, splits: 3}\n---\n"
    hub.add("a/d", {"README.md": head, f"x{evil}.csv": "x\n1\n"}, "dataset")
    hub.add("a/m", {"config.json": "{}", f"x{evil}.bin": ""})
    errors = [lambda: load_dataset("a/d"), lambda: load_dataset("a/d", "none")]
    errors += [lambda: load_dataset("a/d", data_files="none")]
    errors += [lambda: AutoModelForSequenceClassification.from_pretrained("a/m")]
    for error in errors:
        said = message(error, MiniftError)
        assert "?" in said and not set("\x1b\x07\x9b") & set(said), said
