"""What goes wrong between here and the Hub: told in three lines, never a damaged file loaded."""

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from textwrap import indent

import pytest
import tiny
from fake_hub import Content, Fault
from minift_hub import client, download, trust
from minift_hub.snapshot import look_up

from minift import (
    AutoModel,
    AutoTokenizer,
    Dataset,
    DatasetDict,
    load_dataset,
    load_from_disk,
)
from minift.errors import DataError, MiniftError, MissingFileError, ModelError

NAME = "a/model"
CSV = "text,label\n" + "".join(f"row {i},{i % 2}\n" for i in range(50))


@pytest.fixture
def model(tmp_path_factory):
    return tiny.make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def served(hub, model, monkeypatch):
    """A model and a dataset; the client's waiting between its tries is cut short."""
    hub.add(NAME, model)
    hub.add("a/data", {"train.csv": CSV}, "dataset")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return hub


def refused(call, kind=MiniftError) -> str:
    """The message of the error, which is complete and tells no token."""
    with pytest.raises(kind) as caught:
        call()
    said = str(caught.value)
    assert "\n  " in said and "hf_secret" not in said
    return said


def load():
    return AutoModel.from_pretrained(NAME)


def blobs(tmp_path) -> list[Path]:
    return [p for p in (tmp_path / "hf").rglob("blobs/*") if p.is_file()]


# -------------------------------------------------------------------------------------- on the wire


def test_a_download_that_is_cut_goes_on_or_is_refused(served, tmp_path):
    served.faults = [Fault("/files/", cut=1000, times=1)]
    load()  # the client tries again by itself
    served.repos.clear()
    served.add("a/other", {"config.json": "{}", "model.safetensors": b"x" * 5000})
    served.faults = [Fault("/files/", cut=1000)]
    said = refused(lambda: AutoModel.from_pretrained("a/other"), client.HubError)
    assert "model 'a/other'" in said and "try again" in said
    assert not list((tmp_path / "hf").rglob("snapshots/*/model.safetensors"))[1:]


def test_a_large_download_goes_on_where_it_was_cut(served):
    """The client writes 10 MiB at a time, and asks for the rest."""
    served.add("a/large", {"config.json": "{}", "model.safetensors": os.urandom(12 << 20)})
    served.faults = [Fault("/files/", cut=11 << 20, times=1)]
    snapshot = look_up("a/large", "model", None)
    download.fetch(snapshot, ["model.safetensors"])  # and verifies it
    ranges = [r.headers.get("range") for r in served.requests if r.host == "store"]
    assert ranges == [None, f"bytes={10 << 20}-"]


def test_a_large_file_is_refused_if_a_byte_was_changed(served):
    """Also where the changed byte came before a cut, and the client went on from there."""
    for name, faults in {
        "a/good": [],
        "a/flipped": [Fault("/files/", flip=6 << 20)],
        "a/cut": [Fault("/files/", flip=6 << 20, cut=11 << 20, times=1)],
    }.items():
        served.add(name, {"config.json": "{}", "model.safetensors": os.urandom(12 << 20)})
        served.faults = faults
        snapshot = look_up(name, "model", None)
        if faults:
            refused(lambda s=snapshot: download.fetch(s, ["model.safetensors"]), ModelError)
        else:
            download.fetch(snapshot, ["model.safetensors"])


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "/files/"])
def test_a_byte_that_was_changed_is_refused_online_and_offline(served, name):
    served.faults = [Fault(name, method="GET", flip=700 if name == "/files/" else 5)]
    said = refused(load, ModelError)
    assert "is damaged: it is not what the Hub has" in said and "delete /" in said
    served.close()
    assert "is damaged" in refused(load, ModelError)
    Path(said.split("delete ")[1].split(" and load")[0]).unlink()
    assert "on this machine as a whole" in refused(load, MissingFileError)


def test_a_changed_dataset_is_refused_and_a_deleted_blob_heals_it(served, tmp_path):
    load_dataset("a/data")
    (blob,) = [p for p in blobs(tmp_path) if b"row 3" in p.read_bytes()]
    blob.write_text(CSV.replace("row 3", "row 4"))
    assert "train.csv of a/data is damaged" in refused(lambda: load_dataset("a/data"), DataError)
    blob.unlink()
    assert load_dataset("a/data")["train"]["text"][3] == "row 3"


def test_a_file_may_be_known_by_the_listing_alone(served, tmp_path):
    """Where links cannot be made, the cache holds plain files."""
    folder = Path(look_up(NAME, "model", None).folder)
    load()
    for link in folder.iterdir():
        data = link.read_bytes()
        link.unlink()
        link.write_bytes(data)
    load()
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert "is damaged" in refused(load, ModelError)


def forget_listings(tmp_path):
    """As after files were fetched one by one: only `snapshot_download` writes the listing."""
    from huggingface_hub import _tree_cache

    for listing in (tmp_path / "hf").rglob("trees/*.json"):
        listing.unlink()
    _tree_cache._IN_MEMORY_TREE_CACHE.clear()


def fetch_one_by_one(repo, names, repo_type):
    """As `datasets` and `transformers` fill the cache."""
    import huggingface_hub

    for name in names:
        huggingface_hub.hf_hub_download(
            repo, name, repo_type=repo_type, endpoint=client.endpoint(),
            cache_dir=client.cache_folder(),
        )  # fmt: skip


def test_a_part_of_a_dataset_is_not_taken_for_the_whole(served, tmp_path):
    """Offline, 5 of 10 rows, or one split of two, would be all that there seems to be."""
    half = "text,label\n" + "".join(f"row {i},0\n" for i in range(5))
    files = {"train-1.csv": half, "train-2.csv": half, "test.csv": half}
    served.add("a/parts", files, "dataset")
    fetch_one_by_one("a/parts", ["train-1.csv"], "dataset")
    served.close()
    said = refused(lambda: load_dataset("a/parts"), MissingFileError)
    assert "only in part" in said and "train-1.csv (1 files)" in said
    assert "hf download a/parts --repo-type dataset" in said
    for one in ({"split": "train"}, {"data_files": "train-1.csv"}):
        refused(lambda one=one: load_dataset("a/parts", **one), MissingFileError)


def test_a_part_of_a_dataset_is_completed_with_a_connection(served, tmp_path):
    served.add("a/parts", {"train-1.csv": CSV, "train-2.csv": CSV, "test.csv": CSV}, "dataset")
    fetch_one_by_one("a/parts", ["train-1.csv"], "dataset")
    for _ in "online", "offline":
        loaded = load_dataset("a/parts")
        assert {split: len(rows) for split, rows in loaded.items()} == {"train": 100, "test": 50}
        served.close()


def test_a_model_without_a_listing_may_lack_the_settings_of_its_tokenizer(served, tmp_path):
    fetch_one_by_one(NAME, ["config.json", "model.safetensors", "tokenizer.json"], "model")
    served.close()
    for call in (load, lambda: AutoTokenizer.from_pretrained(NAME)):
        said = refused(call, MissingFileError)
        assert "model 'a/model'" in said and "only in part" in said and "model.safetensors" in said


def test_a_listing_that_is_lost_is_asked_for_again(served, tmp_path):
    load()
    forget_listings(tmp_path)
    load()
    forget_listings(tmp_path)
    served.close()
    assert "only in part" in refused(load, MissingFileError)


def test_a_client_that_keeps_no_listing(served, monkeypatch):
    """Then the Hub is asked each time; what is cached is not downloaded again."""
    from huggingface_hub import _snapshot_download

    monkeypatch.setattr(_snapshot_download, "write_tree_cache", lambda *args: None)
    load()
    served.requests.clear()
    load()
    assert not [path for path in served.paths() if "resolve" in path]
    assert load_dataset("a/data")["train"].num_rows == 50


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_hub_that_is_busy(served, status):
    served.faults = [Fault("/api/", status=status, headers={"Retry-After": "1"})]
    said = refused(load, MissingFileError)
    assert "cannot be reached" in said and str(status) in said
    served.faults.clear()
    load()
    served.faults = [Fault("", status=status)]
    load()  # from the cache


def test_a_store_that_is_busy(served):
    AutoTokenizer.from_pretrained(NAME)
    served.faults = [Fault("/files/", status=503)]
    assert "503" in refused(load, client.HubError)
    served.faults.clear()
    served.requests.clear()
    load()  # what is complete is not fetched again
    assert not [path for path in served.paths() if "token" in path or "config.json" in path]


@pytest.mark.parametrize("drop", ["etag", "x-repo-commit"])
def test_answers_without_what_they_need(served, drop, tmp_path):
    served.faults = [Fault("/resolve/", drop=(drop, "x-linked-etag"))]
    assert "do this:" in refused(load)
    assert not blobs(tmp_path)


def test_a_store_that_does_not_say_hashes(served):
    """The blob is then called by git's hash of a pointer; the listing knows better."""
    served.faults = [Fault("/resolve/", drop=("x-linked-etag",))]
    load()
    served.faults = [Fault("/resolve/", drop=("x-linked-etag",))]
    load()


def test_the_server_is_down_and_nothing_is_cached(served):
    served.close()
    said = refused(load, MissingFileError)
    assert said.splitlines()[0] == (
        f"there is no model {NAME!r} on this machine as a whole, and the Hub cannot be reached"
    )
    assert "HF_HUB_OFFLINE" in said and "Traceback" not in said
    refused(lambda: load_dataset("a/data"), MissingFileError)


# --------------------------------------------------------------------------------- who may see what


def test_gated_private_and_missing(served, monkeypatch):
    repo = served.repos["model", NAME]
    repo.gated = True
    assert "nobody is logged in" in refused(load, client.HubError)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert "this account may not" in refused(load, client.HubError)
    repo.gated, repo.private = False, True
    load()
    monkeypatch.delenv("HF_TOKEN")
    served.add("a/private", {"config.json": "{}"}, private=True)
    said = refused(lambda: AutoModel.from_pretrained("a/private"), MissingFileError)
    assert "the Hub has none, or it is private" in said
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    said = refused(lambda: AutoModel.from_pretrained("a/private"), client.HubError)
    assert "the token was not accepted" in said
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert "there is no dataset 'a/none'" in refused(lambda: load_dataset("a/none"))


def test_a_revision_that_is_gone(served):
    served.add(NAME, {"config.json": "{}"}, revision="v1")
    AutoTokenizer.from_pretrained(NAME, revision="main")
    del served.repos["model", NAME].refs["v1"]
    said = refused(lambda: AutoModel.from_pretrained(NAME, revision="v1"), MissingFileError)
    assert f"no model {NAME!r} at v1, or no longer" in said
    assert 'pass revision="..." with the commit that a run.json recorded' in said


def test_a_token_in_an_answer_is_blotted_out(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "an-odd-token")
    said = client.first_line("asked with an-odd-token and hf_abcDEF123\nsecond line")
    assert said == "asked with hf_... and hf_..."


# ------------------------------------------------------------------------------------------ content


@pytest.mark.parametrize("said", ["", '{"files"', '{"files": {"a": {}}}', "[]", "[" * 100_000])
def test_a_damaged_listing_in_the_cache_names_itself(served, tmp_path, said):
    load_dataset("a/data")
    (listing,) = (tmp_path / "hf").rglob("datasets--a--data/trees/*.json")
    listing.write_text(said)
    message = refused(lambda: load_dataset("a/data"), client.HubError)
    assert f"delete {listing}" in message
    listing.unlink()
    load_dataset("a/data")


@pytest.mark.parametrize("split", ["../../evil", "a/b", "..", ".evil", "[train]", "{a: b}", "''"])
def test_a_split_is_no_path(served, split):
    head = f"---\nconfigs:\n- data_files: [{{split: {split}, path: train.csv}}]\n---\n"
    served.add("a/split", {"train.csv": CSV, "README.md": head}, "dataset")
    assert "not a name for a split" in refused(lambda: load_dataset("a/split"), DataError)
    refused(lambda: load_dataset("a/data", data_files={split: "train.csv"}), DataError)


def test_a_split_that_is_saved_is_no_path(tmp_path):
    rows = Dataset.from_dict({"x": [1]})
    for name in ("../evil", "/evil", "a/b", ".."):
        refused(lambda n=name: DatasetDict({n: rows}).save_to_disk(tmp_path / "a/out"), DataError)
    assert not list(tmp_path.iterdir())
    DatasetDict({"validation-1.b": rows}).save_to_disk(tmp_path / "out")
    assert load_from_disk(tmp_path / "out")["validation-1.b"]["x"] == [1]


DOUBLED = "- &a0 {name: a0, dtype: int32}\n" + "".join(
    f"- &a{i} {{name: a{i}, struct: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 30)
)
DEEP = '{"x":' * 100_000 + "1" + "}" * 100_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, content",
    [
        ("README.md", f"---\ndataset_info:\n  features:\n{indent(DOUBLED, '  ')}---\n"),
        ("README.md", "---\ndataset_info: &a\n  features: [*a]\n---\n"),
        ("README.md", f"---\na: {'[' * 10_000}\n---\n"),
        ("dataset_infos.json", DEEP),
        ("dataset_infos.json", "[1]"),
    ],
)
def test_descriptions_that_would_take_forever(served, name, content):
    served.add("a/odd", {"train.csv": CSV, name: content}, "dataset")
    assert f"{name} of a/odd is not" in refused(lambda: load_dataset("a/odd"), DataError)


@pytest.mark.parametrize("content", [DEEP, "[]", "{"])
def test_a_configuration_that_is_no_object(served, model, content):
    files = {p.name: p.read_bytes() for p in model.iterdir()}
    served.add("a/odd", {**files, "config.json": content})
    said = refused(lambda: AutoModel.from_pretrained("a/odd"), ModelError)
    assert "config.json of a/odd is not" in said


def test_patterns_take_no_time(served):
    """As regular expressions these would not end."""
    served.add("a/long", {"a" * 200 + ".csv": CSV, "/".join("a" * 60) + "/b.csv": CSV}, "dataset")
    for pattern in ("*a" * 25 + "b", "**/a/" * 25 + "c", "**/" * 1000 + "c"):
        said = refused(lambda p=pattern: load_dataset("a/long", data_files=p), MissingFileError)
        assert "has no file" in said


@pytest.mark.parametrize("evil", ["../evil.csv", "a/../../evil.csv", "..\\evil.csv", "/evil.csv"])
def test_paths_that_lead_out_of_the_folder(served, tmp_path, evil):
    served.add("a/evil", {"train.csv": CSV, evil: CSV}, "dataset")
    refused(lambda: load_dataset("a/evil", data_files=["train.csv", "**"]), DataError)
    refused(lambda: load_dataset("a/evil", data_files=evil), DataError)
    assert not [p for p in tmp_path.rglob("evil*") if p.is_file()]


def test_a_link_that_leads_out_of_the_cache(served, tmp_path):
    load()
    path = look_up(NAME, "model", None).folder / "config.json"
    other = tmp_path / "other.json"
    other.write_bytes(path.read_bytes())  # not even equal content
    path.unlink()
    path.symlink_to(other)
    assert "lies outside its folder" in refused(load, ModelError)


class Harm:
    def __reduce__(self):
        return exec, ("import pathlib; pathlib.Path('harm').touch()",)


def test_a_pickle_in_disguise(served, tmp_path, monkeypatch, model):
    """Its hash is right: it is what its author uploaded. Nothing in it is run."""
    monkeypatch.chdir(tmp_path)
    files = {p.name: p.read_bytes() for p in model.iterdir()}
    served.add("a/disguise", {**files, "model.safetensors": pickle.dumps(Harm())})
    said = refused(lambda: AutoModel.from_pretrained("a/disguise"), ModelError)
    assert "not a complete safetensors file" in said
    del files["model.safetensors"]
    served.add("a/pickle", {**files, "pytorch_model.bin": pickle.dumps(Harm())})
    said = refused(lambda: AutoModel.from_pretrained("a/pickle"), ModelError)
    assert "pytorch_model.bin, which can run any code" in said and "refs/pr/" in said
    served.add("a/rows", {"train.parquet": pickle.dumps(Harm())}, "dataset")
    said = refused(lambda: load_dataset("a/rows"), DataError)
    assert "not a readable parquet file" in said
    assert not Path("harm").exists()
    assert not [path for path in served.paths() if path.endswith(".bin")]


def test_no_weights_at_all(served):
    served.add("a/none", {"README.md": "nothing"})
    assert "is no model" in refused(lambda: AutoModel.from_pretrained("a/none"), ModelError)
    served.add("a/config", {"config.json": json.dumps(tiny.CONFIG)})
    assert "no weights" in refused(lambda: AutoModel.from_pretrained("a/config"), ModelError)


FULL = """
import resource
from minift import AutoModel
from minift.errors import MiniftError

resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    AutoModel.from_pretrained("a/large")
except MiniftError as error:
    print(error)
"""


@pytest.mark.slow
def test_the_disk_is_full(served, tmp_path):
    """A limit on the size of files ends a download as a full disk does."""
    served.add("a/large", {"config.json": "{}", "model.safetensors": bytes(300_000)})
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True)
    assert "there is no space left for the model 'a/large'" in done.stdout, done.stderr
    assert "HF_HOME" in done.stdout and "Traceback" not in done.stderr
    assert not list((tmp_path / "hf").rglob("snapshots/*/model.safetensors"))


def test_hashes_are_those_of_git(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    assert trust.hash_of(path, "sha1") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert trust.hash_of(path, "sha256") == Content(b"hello\n").sha256
    path.write_bytes(b"jello\n")
    os.utime(path, ns=(1, 1))
    assert trust.hash_of(path, "sha256") == Content(b"jello\n").sha256
