"""A model to the Hub: in one commit, with a card, and with nothing that is private."""

import contextlib
import io
import json
import sys

import pytest
import tiny
import yaml
from minift_hub import card

from minift import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Dataset,
    Trainer,
    TrainingArguments,
    cli,
    load_dataset,
)
from minift.errors import MiniftError, MissingFileError, PluginError
from minift.plugins import build_manager, default_manager, set_default_manager
from minift.training.recorder import without_token

PUSHED = {
    "README.md",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture
def run(hub, tmp_path, monkeypatch):
    """A finished run on data and a model of the Hub; all that a run folder can hold is in it."""
    rows = tiny.make_rows(24)
    (tmp_path / "data/mrpc").mkdir(parents=True)
    for split in ("train", "validation"):
        Dataset.from_dict(rows).to_parquet(tmp_path / f"data/mrpc/{split}.parquet")
    configs = "- config_name: mrpc\n  data_files: {train: mrpc/train*, validation: mrpc/val*}\n"
    (tmp_path / "data/README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    hub.add("nyu-mll/glue", tmp_path / "data", "dataset")
    hub.add("google-bert/bert-base-uncased", tiny.make_model(tmp_path / "model"))
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    monkeypatch.setattr(
        sys, "argv",
        ["/home/secret/bin/minift", "train", "--model", "google-bert/bert-base-uncased",
         f"--output-dir={tmp_path}/secret/run", "--run-name", "hf_good", "~/secret/x.csv"],
    )  # fmt: skip
    raw = load_dataset("glue", "mrpc")
    tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased")
    data = raw.map(lambda b: tokenizer(b["sentence1"], b["sentence2"]), batched=True)
    network = AutoModelForSequenceClassification.from_pretrained("bert-base-uncased", num_labels=2)
    args = TrainingArguments(str(tmp_path / "secret/run"), max_steps=2, save_steps=1, seed=7)
    args.device = "cpu"
    trainer = Trainer(
        network,
        args,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        compute_metrics=["accuracy", "f1"],
    )
    trainer.train()
    trainer.save_model()
    trainer.evaluate()
    return trainer


def run_cli(*words: str) -> tuple[int, str]:
    """The exit code and what was printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = cli.main(list(words))
    return code, out.getvalue()


def pushed(hub, repo: str) -> dict[str, bytes]:
    """What is there now."""
    found = hub.repos["model", repo]
    contents = found.commits[found.refs["main"]]
    return {name: b"".join(content.blocks()) for name, content in contents.items()}


def test_one_commit_with_the_model_and_a_card_alone(run, hub, tmp_path):
    assert list(run.run.folder.glob("checkpoint-*")) and (run.run.folder / "run.json").is_file()
    code, said = run_cli("push", str(run.run.folder), "tester/mine", "--message", "Mine")
    assert code == 0, said
    repo = hub.repos["model", "tester/mine"]
    assert repo.messages == ["Mine"] and not repo.private
    assert said.strip().endswith(f"/tester/mine/commit/{repo.refs['main']}")
    files = pushed(hub, "tester/mine")
    assert set(files) == PUSHED
    for name in PUSHED - {"README.md", "config.json", "tokenizer_config.json"}:
        assert files[name] == (run.run.folder / name).read_bytes()
    for name, content in files.items():
        for secret in (b"hf_good", b"secret", str(tmp_path).encode()):
            assert secret not in content, (name, secret)
    sent = {r.headers.get("authorization") for r in hub.requests if r.host == "store"}
    assert sent == {None}


def test_what_was_pushed_loads_by_its_name(run, hub):
    assert run.push_to_hub(repo_id="tester/again").startswith("http")
    network = AutoModelForSequenceClassification.from_pretrained("tester/again")
    tokenizer = AutoTokenizer.from_pretrained("tester/again")
    batch = tokenizer("w1 w2", "w30", return_tensors="pt")
    expected = run.model.eval()(**batch).logits
    assert network(**batch).logits.tolist() == expected.tolist()


def test_the_card_says_how_it_was_made(run, hub):
    run.push_to_hub(repo_id="tester/mine")
    text = pushed(hub, "tester/mine")["README.md"].decode()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["base_model"] == "google-bert/bert-base-uncased"
    assert head["datasets"] == ["nyu-mll/glue"] and head["metrics"] == ["accuracy", "f1"]
    (result,) = head["model-index"][0]["results"]
    revision = hub.repos["dataset", "nyu-mll/glue"].refs["main"]
    assert result["dataset"]["type"] == "nyu-mll/glue" and result["dataset"]["config"] == "mrpc"
    assert result["dataset"]["revision"] == revision
    scores = run.state.log_history[-1]
    shown = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert shown == {name: round(scores[f"eval_{name}"], 4) for name in ("accuracy", "f1")}
    assert f"| accuracy | {scores['eval_accuracy']:.4f} |" in text
    assert f"| f1 | {scores['eval_f1']:.4f} |" in text
    assert "- seed: 7" in text and "precision: " in text and "torch " in text
    assert "minift train" not in text and "/" + "secret" not in text
    model = hub.repos["model", "google-bert/bert-base-uncased"].refs["main"]
    assert f"fine-tuned with minift, from `google-bert/bert-base-uncased` at `{model}`" in text
    assert f"- eval: 24 of `nyu-mll/glue mrpc` at `{revision}`" in text


def test_the_scores_are_of_the_runs_own_rows_and_of_the_model_that_is_pushed(run, hub):
    scores = run.evaluate()
    run.evaluate(run.run.eval_dataset.select(range(3)))
    run.push_to_hub(repo_id="tester/mine")
    text = pushed(hub, "tester/mine")["README.md"].decode()
    assert "Scores on 24 rows" in text and f"| accuracy | {scores['eval_accuracy']:.4f} |" in text
    run.recorder.scores = {}
    run.push_to_hub(repo_id="tester/mine")  # evaluates by itself
    assert pushed(hub, "tester/mine")["README.md"].decode() == text


def test_no_token_is_recorded(run):
    said = (run.run.folder / "run.json").read_text()
    assert "hf_good" not in said and "TOKEN" in json.loads(said)["command"]
    assert without_token("--token=hf_" + "a1B2" * 8) == "--token=TOKEN"
    assert without_token("api_org_" + "a1B2" * 8) == "TOKEN"
    assert without_token("hf_models/bert") == "hf_models/bert"


def test_without_a_record_the_card_is_short(tmp_path, hub):
    text = card.card_of(tiny.make_model(tmp_path / "m"), "tester/m")
    assert "base_model" not in text and "## Training" not in text and "# m" in text


def test_what_tells_of_this_machine_in_json_stays_here(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    folder = tiny.make_model(tmp_path / "m")
    tiny.edit_config(folder, _name_or_path="/home/secret/model")
    assert run_cli("push", str(folder), "m", "--private")[0] == 0  # the account's own namespace
    files = pushed(hub, "tester/m")
    assert b"secret" not in files["config.json"] and hub.repos["model", "tester/m"].private
    assert json.loads(files["config.json"])["hidden_size"] == 32


def test_pushing_again_sends_what_has_changed(run, hub):
    run.push_to_hub(repo_id="tester/mine")
    hub.requests.clear()
    run.push_to_hub("Again", repo_id="tester/mine")
    assert not [path for path in hub.paths("store") if path.startswith("PUT")]
    assert hub.repos["model", "tester/mine"].messages == ["End of training", "Again"]


def test_what_cannot_be_pushed(hub, tmp_path, monkeypatch):
    folder = tiny.make_model(tmp_path / "m")
    code, said = run_cli("push", str(folder), "tester/m")  # nobody is logged in
    assert code == 2 and "hf auth login" in said and "Traceback" not in said
    code, said = run_cli("push", str(tmp_path), "tester/m")
    assert code == 2 and "holds no saved model" in said
    with pytest.raises(MissingFileError):
        default_manager().hook.minift_publish(
            folder=tmp_path / "none", repo="a/b", message=None, private=False
        )
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    code, said = run_cli("push", str(folder), "tester/m")
    assert code == 2 and "the token was not accepted" in said and "hf_secret" not in said
    hub.close()
    code, said = run_cli("push", str(folder), "tester/m")
    assert code == 2 and "the Hub cannot be reached" in said and "hf_secret" not in said


def test_pushing_without_a_plugin_or_a_folder(run, monkeypatch):
    run.run.manager = build_manager(None)
    with pytest.raises(PluginError, match="no plugin publishes"):
        run.push_to_hub(repo_id="tester/mine")
    run.args.output_dir = None
    with pytest.raises(MiniftError, match="needs a folder"):
        run.push_to_hub(repo_id="tester/mine")
    set_default_manager(None)


def test_training_uploads_nothing(run, hub):
    assert not [r for r in hub.requests if r.method in ("POST", "PUT")]
