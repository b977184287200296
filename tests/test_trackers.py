"""Trackers by name, `report_to`; the real libraries are in tests/parity/test_live_trackers.py."""

import json
import math

import minift_trackers
import pytest
from minift_trackers.tracker import Tracker, tags

from minift import TrainingArguments, hookimpl
from minift.errors import ArgumentError, ConfigError
from minift.plugins import build_manager, set_default_manager
from minift.testing import tiny

events: list[tuple] = []


class Diary(Tracker):
    """Writes into a list."""

    library = package = "json"

    def open(self, run, name, config):
        events.append(("open", run.id, name, config))
        return events

    def write(self, numbers, step):
        events.append(("write", step, numbers))

    def close(self, failed):
        events.append(("close", failed))


class Broken(Diary):
    def write(self, numbers, step):
        raise OSError("the server is away")


class Absent(Diary):
    library, package = "no_such_library", "no-such-package"


class Mine:
    @hookimpl
    def minift_register_trackers(self):
        return {"diary": Diary, "broken": Broken, "absent": Absent}


@pytest.fixture(autouse=True)
def plugins():
    events.clear()
    set_default_manager(build_manager(["no:trackers"], plugins=[Mine()]))


def trained(**settings):
    trainer = tiny.trainer("cpu", **settings)
    trainer.train()
    return trainer


def test_settings_and_every_record():
    trainer = trained(report_to="diary", run_name="first", logging_steps=2, learning_rate=1e-3)
    opened, *written, closed = events
    assert opened[:3] == ("open", trainer.run.id, "first") and closed == ("close", False)
    assert opened[3]["learning_rate"] == 1e-3 and opened[3]["model"]["model_type"] == "bert"
    assert json.loads(json.dumps(opened[3])) == opened[3]
    records = trainer.run.state.log_history
    assert [(step, numbers) for _, step, numbers in written] == [
        (record["step"], tags(record)) for record in records
    ]
    assert {"train/loss", "train/epoch", "train/learning_rate"} <= set(written[0][2])


def test_an_evaluation_by_itself_opens_it_too():
    trainer = trained(report_to=["diary"])
    events.clear()
    trainer.evaluate(tiny.rows(8))
    assert [kind for kind, *_ in events] == ["open", "write"]
    assert events[0][1] == trainer.run.id and "eval/loss" in events[1][2]


def test_names_and_numbers():
    record = {
        "loss": 0.5,
        "eval_f1": 1,
        "test_loss": math.nan,
        "step": 3,
        "eval_a_b": 0.2,
        "note": "x",
    }
    assert tags(record) == {"train/loss": 0.5, "eval/f1": 1, "eval/a_b": 0.2}


def test_all_are_those_that_can_be_used_here(capsys):
    trained(report_to="all")
    assert [kind for kind, *_ in events].count("open") == 2, "diary and broken"
    assert "OSError: the server is away" in capsys.readouterr().err


def test_a_failing_tracker_stops_nothing(capsys):
    trainer = trained(report_to="broken,diary")
    assert trainer.run.state.global_step == trainer.run.state.max_steps
    assert capsys.readouterr().err.count("is unplugged for this run") == 1
    assert [kind for kind, *_ in events][-1] == "close"


def test_an_exception_closes_it_as_failed():
    class Stop:
        @hookimpl
        def minift_on_step_end(self, run):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(report_to="diary", callbacks=[Stop()])
    assert events[-1] == ("close", True)


@pytest.mark.parametrize("none", ["none", ["none"], None, []])
def test_none(none):
    trained(report_to=none)
    assert not events


def test_what_cannot_be_used_is_an_error_before_the_first_step():
    with pytest.raises(ConfigError) as error:
        tiny.trainer("cpu", report_to=["diary", "dairy"])
    assert "report_to='dairy'" in str(error.value) and "diary (available)" in str(error.value)
    with pytest.raises(ConfigError, match="pip install no-such-package"):
        tiny.trainer("cpu", report_to="absent")
    for wrong in (5, [5], True):
        with pytest.raises((ArgumentError, ConfigError), match="report_to must be names"):
            TrainingArguments("x", report_to=wrong)


def test_ours_say_what_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, tracker in minift_trackers.minift_register_trackers().items():
        assert tracker.unavailable() == f"{name} is not installed (pip install {name})"
