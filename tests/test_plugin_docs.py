"""The page for authors of plugins is whole and true: plugins/README.md against the code."""

import inspect
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import make_rows, write_csv

from minift import Device, cli, hookspecs, plugins

PAGE = Path(__file__).resolve().parent.parent / "plugins" / "README.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
PLUGINS = {block.split()[1].rstrip(":"): block for block in BLOCKS if "@hookimpl" in block}
HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("minift_")}
ROWS = [[cell.strip() for cell in line.split(" | ")] for line in TEXT.splitlines() if " | " in line]


@pytest.fixture
def manager(tmp_path):
    """A function: the plugins of the page by their files' names, and no others."""

    def build(*names):
        for name in names:
            (tmp_path / name).write_text(PLUGINS[name], encoding="utf-8")
        return plugins.build_manager(None, [tmp_path / name for name in names])

    return build


# -------------------------------------------------------------------------------------- the tables


def test_every_hook_is_there_with_its_arguments():
    said = re.findall(r"^\| `(minift_\w+)\((.*?)\)` \|", TEXT, flags=re.MULTILINE)
    true = [(name, ", ".join(inspect.signature(hook).parameters)) for name, hook in HOOKS.items()]
    assert sorted(said) == sorted(true)


def test_the_plugin_to_see_has_the_hook():
    checked = []
    for first, *_, last in ROWS:
        hook = re.match(r"\| `(minift_\w+)\(", first)
        folder = PAGE.parent / last.strip("`| ")
        if hook and folder.is_dir():
            source = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
            assert f"def {hook[1]}(" in source, f"{folder.name} has no {hook[1]}"
            checked.append(hook[1])
    others = ["minift_on_evaluate", "minift_on_gradients", "minift_add_options"]  # on the page
    others += ["minift_should_stop"]  # of a callback
    assert sorted(checked + others) == sorted(HOOKS)


def test_every_word_with_minifts_name_is_a_hook_or_a_plugin():
    folders = {path.name for path in PAGE.parent.iterdir()}
    assert set(re.findall(r"\bminift_\w+", TEXT)) <= set(HOOKS) | folders


def test_every_member_of_a_device_is_there_with_its_arguments():
    """What `__init__` sets among them; attributes and properties are bare names."""
    true = {name for name in {**vars(Device), **vars(Device())} if not name.startswith("_")}
    table = TEXT.split("### The whole contract")[1].split("###")[0]
    said = re.findall(r"^\| `(\w+)(\(.*?\))?` \|", table, flags=re.MULTILINE)
    assert sorted(name for name, _ in said) == sorted(true)
    for name, arguments in said:
        value = inspect.getattr_static(Device, name, None)
        function = getattr(value, "__func__", value)  # of a classmethod
        if callable(function):
            names = ", ".join(list(inspect.signature(function).parameters)[1:])  # after self
            assert arguments == f"({names})", name
        else:
            assert not arguments, f"{name} is no method"


def test_links_lead_somewhere():
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL), re.MULTILINE)
    anchors = {title.lower().replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\((.*?)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (PAGE.parent / target).exists(), target


def test_the_options_of_the_kit_exist():
    (entry,) = [e for e in entry_points(group="pytest11") if e.value == "minift.testing.options"]
    added = []
    options = SimpleNamespace(addoption=lambda name, **_: added.append(name))
    entry.load().pytest_addoption(SimpleNamespace(getgroup=lambda *_: options))
    commands = re.findall(r"^pytest --pyargs minift.testing (.*)$", TEXT, flags=re.MULTILINE)
    assert commands
    after = TEXT.split("## Testing a plugin")[1]
    assert set(re.findall(r"(?<=[ `])--[\w-]+", after)) == {"--pyargs", *added}


# -------------------------------------------------------------------------------------- the plugins


def test_every_block_is_python():
    for block in BLOCKS:
        compile(block, "plugins/README.md", "exec")


def test_every_plugin_loads_and_hears_what_it_should(manager):
    """`build_manager` refuses a misspelt hook, and a plugin that has none."""
    loaded = manager(*PLUGINS)
    heard = {
        name: [caller.name for caller in loaded.get_hookcallers(plugin)]
        for name, plugin in loaded.list_name_plugin()
    }
    assert heard == {
        "bell": ["minift_on_train_end"],
        "mistakes": ["minift_on_evaluate"],
        "gradients": ["minift_add_options", "minift_on_gradients"],
        "enough": ["minift_should_stop"],
        "balanced": ["minift_register_metrics"],
        "shelf": ["minift_find_dataset"],
        "count": ["minift_register_commands"],
        "buckets": ["minift_register_devices"],
    }


def test_the_observers_say_what_they_see(manager):
    said = []
    run = SimpleNamespace(log_message=said.append, state=SimpleNamespace(global_step=7))
    result = SimpleNamespace(
        predictions=np.array([[2.0, 0.5], [0.0, 3.0], [1.0, 0.0]]), label_ids=np.array([1, 0, 0])
    )
    loaded = manager("bell.py", "mistakes.py")
    plugins.call_observers(loaded, "minift_on_evaluate", said.append, run=run, result=result)
    plugins.call_observers(loaded, "minift_on_train_end", said.append, run=run)
    assert said == ["surest mistakes, rows: 1 (by 3.00), 0 (by 1.50)", "\adone: 7 steps"]


def test_the_decision_reads_the_history(manager):
    history = [{"loss": 1.0}, {"eval_accuracy": 0.8}]
    run = SimpleNamespace(state=SimpleNamespace(log_history=history))
    hook = manager("enough.py").hook
    assert hook.minift_should_stop(run=run) is None
    history.append({"eval_accuracy": 0.95})
    assert hook.minift_should_stop(run=run) == "an accuracy of 0.950 is enough"


def test_the_metric_weighs_classes_alike(manager):
    metric = plugins.registry(manager("balanced.py"), "minift_register_metrics")[
        "balanced_accuracy"
    ].value
    assert metric([0, 0, 0, 1], [0, 0, 1, 1]) == {"balanced_accuracy": 0.75}


def test_the_finder_and_the_command(manager, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "datasets" / "reviews").mkdir(parents=True)
    write_csv(tmp_path / "datasets" / "reviews" / "train.csv", make_rows(5))
    manager("shelf.py", "count.py")
    files = ["--plugin", str(tmp_path / "shelf.py"), "--plugin", str(tmp_path / "count.py")]
    assert cli.main([*files, "count", "shelf/reviews"]) == 0
    assert capsys.readouterr().out == "train: 5\n"
    assert cli.main([*files, "count", "shelf/none"]) == 2  # left to the next, and there is none
    assert "there is no dataset 'shelf/none'" in capsys.readouterr().err


def test_the_test_of_a_plugin_passes(manager, tmp_path):
    manager("count.py")
    (block,) = [block for block in BLOCKS if "import count" in block]
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_backend_passes_the_kit(manager, tmp_path):
    """It fills batches up, so it is no copy of the host."""
    manager("buckets.py")
    words = ["--device", "buckets", "--minift-plugin", "buckets.py", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "--pyargs", "minift.testing", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 24, done.stdout
