"""`minift train --task NAME` over a Hub on loopback, for every task; then with the network off."""

import json

import huggingface_hub.constants
import pytest
from hub_repositories import write_model
from minift_glue.tasks import TASKS

from minift import cli

pytestmark = pytest.mark.slow


QUICK = ["--max-steps", "2", "--per-device-train-batch-size", "8", "--save-strategy", "no"]
QUICK += ["--disable-tqdm", "true", "--device", "cpu", "--max-length", "32", "--precision", "fp32"]
OWNERS = {"glue": "nyu-mll", "super_glue": "aps", "emotion": "dair-ai", "imdb": "stanfordnlp"}
OWNERS |= {"ar_sarcasm": "iabufarha", "rotten_tomatoes": "cornell-movie-review-data"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("task", TASKS)
def test_a_task_by_names_alone(task, hub, repositories, model, tmp_path, monkeypatch, capsys):
    """The second run makes no request and ends with the same scores of the same weights."""
    name = TASKS[task].dataset
    name = f"{OWNERS[name]}/{name}"
    commit = hub.add(name, repositories[name]["main"], "dataset")
    hub.add("google-bert/bert-base-uncased", model)
    command = ["train", "--model", "bert-base-uncased", "--task", task, *QUICK]
    printed, weights = [], []
    for out in ("online", "offline"):
        assert cli.main([*command, "--output-dir", str(tmp_path / out)]) == 0
        printed.append(capsys.readouterr().out.splitlines()[-2])
        weights.append((tmp_path / out / "model.safetensors").read_bytes())
        run = json.loads((tmp_path / out / "run.json").read_text())
        assert run["status"] == "finished"
        for part in run["data"].values():
            assert part["source"].startswith(name) and part["revision"] == commit
        if out == "online":
            assert hub.requests
            hub.requests.clear()
            hub.close()
            monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
            monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not hub.requests
    assert "eval_loss" in printed[0] and printed[0] == printed[1]
    assert weights[0] == weights[1]
