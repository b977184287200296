"""Runs in the stores of the real trackers, read back by their own readers."""

import json
import time

import pytest
from minift_trackers.tracker import tags
from transformers.integrations.integration_utils import rewrite_logs

from minift.testing import tiny

SETTINGS = {"logging_steps": 2, "run_name": "first"}


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train for real with a tracker, and return the Trainer and its records by step."""
    monkeypatch.chdir(tmp_path)

    def train(name):
        trainer = tiny.trainer("cpu", tmp_path / "run", report_to=name, **SETTINGS)
        trainer.train()
        trainer.evaluate(tiny.rows(8))
        history = trainer.run.state.log_history
        assert any("eval_loss" in record for record in history)
        return trainer, history

    return train


def by_name(history):
    """{name: [(step, number), ...]}, as every tracker must have them."""
    found = {}
    for record in history:
        for name, value in tags(record).items():
            found.setdefault(name, []).append((record["step"], pytest.approx(value, rel=1e-6)))
    return found


def test_names_are_those_of_transformers(train):
    for record in train("none")[1]:
        plain = {name: value for name, value in record.items() if name != "step"}
        assert tags(record) == rewrite_logs(plain)


def test_tensorboard(train, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer, history = train("tensorboard")
    read = EventAccumulator(str(tmp_path / "run" / "runs" / trainer.run.id)).Reload()
    scalars = {name: read.Scalars(name) for name in read.Tags()["scalars"]}
    assert {n: [(s.step, s.value) for s in found] for n, found in scalars.items()} == by_name(
        history
    )
    (text, *_) = read.Tensors("config/text_summary")[0].tensor_proto.string_val
    config = json.loads(text.decode().removeprefix("```json\n").removesuffix("\n```"))
    assert config["logging_steps"] == 2 and config["model"]["model_type"] == "bert"


def wandb_rows(folder):
    """Return the rows of all runs in a folder; wandb's own process writes them, a little later."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        rows, kinds = [], []
        for path in folder.glob("offline-run-*/*.wandb"):
            store = DataStore()
            store.open_for_scan(str(path))
            while (data := store.scan_data()) is not None:
                record = wandb_internal_pb2.Record()
                record.ParseFromString(data)
                kinds.append(record.WhichOneof("record_type"))
                items = {i.key or "/".join(i.nested_key): i for i in record.history.item}
                rows.append({name: json.loads(item.value_json) for name, item in items.items()})
        if "exit" in kinds:
            return [row for row in rows if row]
        time.sleep(0.1)
    raise AssertionError("wandb has not written how the run ended")


def test_wandb_offline(train, tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    _, history = train("wandb")
    wandb.finish()
    found = {}
    for row in wandb_rows(tmp_path / "run" / "wandb"):
        step = row.pop("train/global_step")
        for name, value in row.items():
            if "/" in name:
                found.setdefault(name, []).append((step, value))
    assert {name: sorted(values) for name, values in found.items()} == by_name(history)


def test_mlflow_in_sqlite(train, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    trainer, history = train("mlflow")
    train("mlflow")  # another Trainer in the same process: a run of its own
    mlflow.end_run()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("minift")
    runs = client.search_runs([experiment.experiment_id])
    (run,) = [one for one in runs if one.data.tags["minift"] == trainer.run.id]
    assert len(runs) == 2 and run.info.run_name == "first"
    assert run.data.params["logging_steps"] == "2"
    found = {
        name: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }
    assert found == by_name(history)


def test_a_run_of_mlflow_that_the_user_has_begun_is_written_to_and_stays_open(
    train, tmp_path, monkeypatch
):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.set_experiment("mine")
    with mlflow.start_run(run_name="mine") as mine:
        _, history = train("mlflow")
        assert mlflow.active_run().info.run_id == mine.info.run_id
    read = mlflow.MlflowClient().get_run(mine.info.run_id)
    assert set(read.data.metrics) == set(by_name(history))
    assert read.data.params["logging_steps"] == "2" and read.info.status == "FINISHED"


def test_trackio(train, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    _, history = train("trackio")
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    trackio.finish()
    found = {}
    for row in SQLiteStorage.get_logs("minift", "first"):
        for name, value in row.items():
            if "/" in name:
                found.setdefault(name, []).append((row["step"], value))
    assert {name: sorted(values) for name, values in found.items()} == by_name(history)
