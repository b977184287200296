"""The plugin template as a stranger has it: built, installed beside minift, found, run, removed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from tiny import make_model, make_rows, write_csv

pytestmark = pytest.mark.slow


TEMPLATE = Path(__file__).resolve().parent.parent / "examples" / "plugin_template"


def shell(*words, **options):
    """A command in a process of its own, with all installed plugins and nothing from PYTHONPATH."""
    hidden = ("PYTHONPATH", "MINIFT_PLUGINS", "MINIFT_TRACE", "PIP_PREFIX", "PIP_USER")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    command = [str(word) for word in words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


def pip(*words):
    return shell(sys.executable, "-m", "pip", "--disable-pip-version-check", *words)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy, so that nothing is built or cached in the checkout."""
    folder = tmp_path_factory.mktemp("template") / "mine"
    shutil.copytree(TEMPLATE, folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return folder


@pytest.fixture(scope="module")
def wheel(project):
    """The template's wheel. Its build backend comes from a registry, or from here if it is here."""
    target = project.parent / "dist"
    build = ["wheel", "--no-deps", "-w", target, project]
    done = pip(*build)
    if done.returncode and importlib.util.find_spec("hatchling"):
        done = pip(*build, "--no-build-isolation")
    if "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("THE TEMPLATE WAS NOT TESTED: pip reaches no registry that has hatchling")
    assert done.returncode == 0, done.stderr
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture
def installed(wheel, tmp_path):
    """The Python of a fresh environment with minift and the template's wheel in it.

    torch is not installed a second time: a .pth file has the new environment also look where this
    one does. `addsitedir` follows the .pth files there, one of which leads to this checkout if
    minift is installed from it in editable mode. What pip adds or removes is the new one's alone.
    """
    import venv

    folder = tmp_path / "fresh"
    venv.create(folder, with_pip=False)
    scheme = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    ours = sysconfig.get_path("purelib")
    (packages / "beside_minift.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    python = Path(sysconfig.get_path("scripts", "venv", scheme)) / Path(sys.executable).name
    done = pip("--python", python, "install", "--no-deps", wheel)
    assert done.returncode == 0, done.stderr
    return python


@pytest.fixture
def train(tmp_path):
    """The words of a short training run after `minift`."""
    model = make_model(tmp_path / "model")
    data = write_csv(tmp_path / "train.csv", make_rows(24))
    words = ["train", "--model", model, "--train-file", data, "--output-dir", tmp_path / "out"]
    return [*words, "--max-steps", "3", "--per-device-train-batch-size", "8"]


def test_it_is_found_and_trains(installed, train, tmp_path):
    listed = json.loads(shell(installed, "-m", "minift", "plugins", "--json", cwd=tmp_path).stdout)
    entry = next(entry for entry in listed if entry["name"] == "threads")
    assert entry["version"] == "0.1.0" and entry["error"] is None
    hooks = ["minift_on_train_begin", "minift_on_train_end", "minift_register_devices"]
    assert entry["hooks"] == hooks
    assert entry["devices"] == [{"name": "threads", "priority": -1, "unavailable": None}]

    done = shell(installed, "-m", "minift", *train, "--device", "threads:2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "training on threads:2" in done.stderr
    assert "threads:2: " in done.stderr and "cores busy for" in done.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["device"] == "threads:2" and record["state"]["global_step"] == 3
    assert (tmp_path / "out" / "model.safetensors").is_file()

    wrong = shell(installed, "-m", "minift", *train, "--device", "threads:none", cwd=tmp_path)
    assert wrong.returncode == 2 and "threads:1, threads:2" in wrong.stderr


def test_its_tests_pass(installed, project):
    done = shell(installed, "-m", "pytest", "-p", "no:cacheprovider", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr


def test_removed_it_is_gone(installed, train, tmp_path):
    done = pip("--python", installed, "uninstall", "--yes", "minift-threads")
    assert done.returncode == 0, done.stderr
    listed = json.loads(shell(installed, "-m", "minift", "plugins", "--json", cwd=tmp_path).stdout)
    names = {entry["name"] for entry in listed}
    assert "threads" not in names and "cpu" in names  # minift is still there

    done = shell(installed, "-m", "minift", *train, "--device", "threads:2", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "the device 'threads:2' cannot be used here" in done.stderr
    assert "no plugin provides 'threads'" in done.stderr and "cpu (available)" in done.stderr
    assert not (tmp_path / "out").exists()
