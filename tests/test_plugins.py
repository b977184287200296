"""The plugin system: discovery, choice, mistakes in plugins, observers that fail."""

import json
import subprocess
import sys
import types

import pytest

from minift import hookimpl, plugins
from minift.device import Device, choose_device, choose_precision
from minift.errors import ArgumentError, ConfigError, DeviceError, MissingFileError, PluginError


class EntryPoint:
    """What importlib.metadata gives, with a plugin of our choice behind it."""

    dist = None

    def __init__(self, name, load):
        self.name, self.load = name, load


def plugin(**hooks):
    """A plugin object with these functions as hooks."""
    module = types.ModuleType("made_here")
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function))
    return module


def test_installed_plugins_are_found_by_their_entry_points():
    manager = plugins.build_manager()
    names = [name for name, _ in manager.list_name_plugin()]
    assert {"cpu", "glue", "demo"} <= set(names)
    assert manager.load_errors == {}
    assert manager.versions["cpu"]


def test_a_plugin_that_does_not_import_stops_nothing():
    def broken():
        raise ImportError("No module named 'torch_of_tomorrow'")

    good = plugin(minift_register_metrics=lambda: {"mine": len})
    manager = plugins.build_manager(
        entry_points=[EntryPoint("broken", broken), EntryPoint("good", lambda: good)]
    )
    assert "torch_of_tomorrow" in str(manager.load_errors["broken"])
    assert plugins.registry(manager, "minift_register_metrics")["mine"].plugin == "good"


def test_a_plugin_with_a_wrong_argument_is_listed_as_broken():
    wrong = plugin(minift_on_log=lambda run, recrod: None)
    manager = plugins.build_manager(entry_points=[EntryPoint("wrong", lambda: wrong)])
    assert "recrod" in str(manager.load_errors["wrong"])


def test_a_misspelt_hook_is_an_error_that_names_the_right_one():
    wrong = plugin(minift_metricks=lambda: {})
    with pytest.raises(PluginError) as error:
        plugins.build_manager(entry_points=[EntryPoint("typo", lambda: wrong)])
    assert "minift_metricks" in str(error.value)
    assert "'minift_register_metrics'" in str(error.value)
    assert "-p no:typo" in str(error.value)


def test_two_plugins_with_one_name_are_an_error_that_names_both():
    first = plugin(minift_register_metrics=lambda: {"f1": len})
    second = plugin(minift_register_metrics=lambda: {"f1": max})
    manager = plugins.build_manager(
        entry_points=[EntryPoint("first", lambda: first), EntryPoint("second", lambda: second)]
    )
    with pytest.raises(PluginError) as error:
        plugins.registry(manager, "minift_register_metrics")
    assert "first" in str(error.value) and "second" in str(error.value)


def test_a_callback_without_hooks_is_told_what_its_methods_are_called_here():
    class TrainerCallback:
        def on_log(self, args, state, control, logs=None): ...

        def on_train_end(self, args, state, control): ...

    with pytest.raises(TypeError) as error:
        plugins.manager_for_run(plugins.build_manager(None), [TrainerCallback()])
    assert isinstance(error.value, ArgumentError)
    assert "on_log -> minift_on_log" in str(error.value)
    assert "on_train_end -> minift_on_train_end" in str(error.value)


def test_a_callback_may_be_a_class():
    class Counter:
        @hookimpl
        def minift_on_step_end(self, run): ...

    manager = plugins.manager_for_run(plugins.build_manager(None), [Counter])
    assert [type(p) for _, p in manager.list_name_plugin()] == [Counter]


def test_no_plugins_at_all_says_what_to_install():
    manager = plugins.build_manager(entry_points=[])
    with pytest.raises(DeviceError) as error:
        choose_device("auto", manager)
    assert "pip install" in str(error.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"cpu", "glue", "demo"}),
        (["no:demo"], {"cpu", "glue"}),
        (["cpu"], {"cpu"}),
        (None, set()),
    ],
)
def test_plugins_are_chosen_by_words(words, expected):
    manager = plugins.build_manager(words)
    names = {name for name, found in manager.list_name_plugin() if found is not None}
    assert names & {"cpu", "glue", "demo"} == expected


@pytest.mark.parametrize(
    ("value", "words"), [(None, []), ("", None), ("no:demo, cpu", ["no:demo", "cpu"])]
)
def test_words_come_from_the_environment(monkeypatch, value, words):
    monkeypatch.delenv("MINIFT_PLUGINS", raising=False)
    if value is not None:
        monkeypatch.setenv("MINIFT_PLUGINS", value)
    assert plugins.selection_from_environment() == words


def test_a_file_is_a_plugin(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import minift\n@minift.hookimpl\n"
        "def minift_register_metrics():\n    return {'mine': len}\n"
    )
    manager = plugins.build_manager(None, files=[file])
    assert plugins.registry(manager, "minift_register_metrics")["mine"].plugin == "mine"
    with pytest.raises(MissingFileError):
        plugins.build_manager(None, files=[tmp_path / "absent.py"])


def test_an_observer_that_fails_is_reported_and_unplugged():
    heard, said = [], []

    class Fails:
        @hookimpl
        def minift_on_log(self, run, record):
            heard.append("fails")
            raise RuntimeError("disk full")

    class Listens:
        @hookimpl
        def minift_on_log(self, record):  # fewer arguments than the spec has
            heard.append(record["loss"])

    manager = plugins.manager_for_run(plugins.build_manager(None), [Listens(), Fails()])
    for loss in (1, 2):
        plugins.call_observers(
            manager, "minift_on_log", said.append, run=None, record={"loss": loss}
        )
    assert heard == ["fails", 1, 2]
    assert len(said) == 1 and "disk full" in said[0] and "unplugged" in said[0]


def test_observers_get_arguments_with_defaults_and_cannot_end_the_process():
    heard, said = [], []

    def exits(run):
        raise SystemExit(3)

    listens = plugin(minift_on_log=lambda run, record=None: heard.append(record))
    manager = plugins.build_manager(None, plugins=[listens])
    manager.register(plugin(minift_on_log=exits), name="exits")
    plugins.call_observers(manager, "minift_on_log", said.append, run=None, record={"loss": 1})
    assert heard == [{"loss": 1}] and len(said) == 1 and "SystemExit: 3" in said[0]


def test_an_installed_plugin_that_exits_when_imported_is_listed():
    def exits():
        raise SystemExit(3)

    manager = plugins.build_manager(entry_points=[EntryPoint("exits", exits)])
    assert isinstance(manager.load_errors["exits"], SystemExit)


def test_a_file_replaces_a_plugin_that_is_left_out_and_no_other(tmp_path):
    file = tmp_path / "progress.py"
    file.write_text("import minift\n@minift.hookimpl\ndef minift_on_log(run): ...\n")
    manager = plugins.build_manager(["no:progress"], [file])
    assert [c.name for c in manager.get_hookcallers(manager.get_plugin("progress"))] == [
        "minift_on_log"
    ]
    for select, files in (([], [file]), (None, [file, file])):
        with pytest.raises(PluginError, match="-p no:progress"):
            plugins.build_manager(select, files)


def test_a_run_has_its_own_manager():
    class Callback:
        @hookimpl
        def minift_on_step_end(self, run): ...

    base = plugins.build_manager(["cpu"])
    plugins.manager_for_run(base, [Callback()])
    assert [name for name, _ in base.list_name_plugin()] == ["cpu"]


# ----------------------------------------------------------------------------------------- devices


def test_auto_takes_the_highest_priority_that_is_available():
    class Fast(Device):
        name, priority = "fast", 9

        @classmethod
        def unavailable(cls):
            return "no such chip in this machine"

    class Plain(Device):
        name = "plain"

    given = plugin(minift_register_devices=lambda: {"fast": Fast, "plain": Plain})
    manager = plugins.build_manager(None, plugins=[given])
    assert choose_device("auto", manager).name == "plain"
    with pytest.raises(DeviceError) as error:
        choose_device("fast", manager)
    assert "no such chip" in str(error.value) and "plain (available)" in str(error.value)
    with pytest.raises(DeviceError, match="no plugin provides 'slow'"):
        choose_device("slow", manager)


def test_precision_auto_is_what_the_hardware_computes_natively():
    class Native(Device):
        def precisions(self):
            return {"fp32": None, "bf16": None}

    class Slow(Device):
        def precisions(self):
            return {"fp32": None, "bf16": "emulated here"}

    assert choose_precision("auto", Native())[0] == "bf16"
    assert choose_precision("auto", Slow()) == ("fp32", "auto: emulated here")
    assert choose_precision("bf16", Slow())[0] == "bf16"
    with pytest.raises(ConfigError, match="fp16"):
        choose_precision("fp16", Native())


# ------------------------------------------------------------------------------ command `plugins`


def run_cli(*words, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-m", "minift", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_minift_plugins_lists_hooks_and_devices():
    done = run_cli("plugins", "--json")
    assert done.returncode == 0, done.stderr
    listed = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert listed["cpu"]["hooks"] == ["minift_register_devices"]
    assert listed["cpu"]["devices"] == [{"name": "cpu", "priority": 0, "unavailable": None}]
    text = run_cli("plugins").stdout
    assert "device cpu: available" in text


def test_minift_plugins_lists_a_left_out_plugin():
    done = run_cli("-p", "no:demo", "plugins")
    assert "left out with -p" in done.stdout
    assert run_cli("-p", "no:demo", "demo").returncode == 2


def test_the_loop_names_every_hook_and_who_listens():
    from minift import hookspecs

    outline = run_cli("plugins", "--loop").stdout
    for name in vars(hookspecs):
        if name.startswith("minift_"):
            assert outline.count(name) == 1, name
    assert "minift_register_devices" in outline and "<- cpu" in outline


def test_trace_prints_every_hook_call():
    done = run_cli("plugins", MINIFT_TRACE="1")
    assert "hook minift_register_devices -> cpu" in done.stderr


class Slow(Device):
    name, priority = "slow", -1


def test_auto_takes_no_device_of_negative_priority():
    given = plugin(minift_register_devices=lambda: {"slow": Slow})
    manager = plugins.build_manager(None, plugins=[given])
    with pytest.raises(DeviceError, match="slow"):
        choose_device("auto", manager)
    assert choose_device("slow", manager).name == "slow"


# --------------------------------------------------------------------------- a run and its plugins


class Cost:
    """A callback that brings a device and a metric, less of which is better."""

    def __init__(self):
        self.heard = []

    @hookimpl
    def minift_register_devices(self):
        return {"mine": type("Mine", (Device,), {"name": "mine"})}

    @hookimpl
    def minift_register_metrics(self):
        from minift.evaluate import Metric, ScoreInfo

        less = {"cost": ScoreInfo(higher_is_better=False)}
        return {"cost": Metric(lambda p, r: {"cost": 0.5}, less)}

    @hookimpl
    def minift_on_evaluate(self, run, result):
        self.heard.append(("evaluate", result.metrics["eval_cost"]))

    @hookimpl
    def minift_on_train_end(self, run):
        self.heard.append("end")


def run_of(folder, callback, device="mine", **settings):
    from minift import Trainer, TrainingArguments
    from minift.testing import tiny

    args = TrainingArguments(
        str(folder), device=device, max_steps=2, per_device_train_batch_size=4,
        eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1,
        metric_for_best_model="cost", disable_tqdm=True, **settings,
    )  # fmt: skip
    rows = tiny.rows(8)
    return Trainer(
        tiny.model(), args, data_collator=tiny.collate, train_dataset=rows, eval_dataset=rows,
        compute_metrics="cost", callbacks=[callback],
    )  # fmt: skip


def test_a_callback_may_register_what_the_run_names(tmp_path):
    callback = Cost()
    trained = run_of(tmp_path / "run", callback)
    trained.train()
    assert trained.run.device.name == "mine"
    assert callback.heard == [("evaluate", 0.5)] * 2 + ["end"]
    assert trained.state.best_step == 1 and trained.state.metric_history == [0.5, 0.5]


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("postgres://ann:s3cr@t@host/db", "postgres://ann:PASSWORD@host/db"),
        ("https://ghp_abc@host/x", "https://PASSWORD@host/x"),
        ("mysql://host/db?user=ann&password=s3cret", "mysql://host/db?user=ann&password=PASSWORD"),
        ("host=x password=s3cret dbname=y", "host=x password=PASSWORD dbname=y"),
        ("https://host:80/@ann/x", "https://host:80/@ann/x"),
        ("ann@host", "ann@host"),
    ],
)
def test_passwords_in_addresses_are_never_stored(text, stored):
    from minift.training.recorder import without_token

    assert without_token(text) == stored
    assert json.loads(without_token(json.dumps({"a": [text]}))) == {"a": [stored]}


@pytest.mark.parametrize("fails", [False, True])
def test_observers_hear_the_last_evaluation_of_minift_train_before_the_end(
    tmp_path, fails, monkeypatch
):
    """A tracker that closes at the end loses nothing; what fails there is an exception to it."""
    from minift_commands.build import train_and_save

    from minift import Trainer, TrainingArguments
    from minift.testing import tiny

    class Tracker:
        def __init__(self):
            self.heard = []

        @hookimpl
        def minift_on_evaluate(self, run, result):
            self.heard.append("evaluate")

        @hookimpl
        def minift_on_train_end(self, run):
            self.heard.append("end")

        @hookimpl
        def minift_on_exception(self, run, exception):
            self.heard.append(str(exception))

    args, rows, tracker = TrainingArguments(str(tmp_path), max_steps=1), tiny.rows(4), Tracker()
    trainer = Trainer(
        tiny.model(), args, data_collator=tiny.collate, train_dataset=rows, eval_dataset=rows,
        callbacks=[tracker],
    )  # fmt: skip
    if not fails:
        assert "eval_loss" in train_and_save(trainer)
        assert tracker.heard == ["evaluate", "end"]
    else:
        monkeypatch.setattr(Trainer, "save_model", lambda self: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            train_and_save(trainer)
        assert len(tracker.heard) == 1 and "division" in tracker.heard[0]
    status = json.loads((tmp_path / "run.json").read_text())["status"]
    assert status == ("failed" if fails else "finished")
