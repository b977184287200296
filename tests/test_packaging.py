"""One distribution holds minift and every plugin; a new plugin edits one line, its entry point."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = {path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy; its build backend comes from a registry, or from here if it is here."""
    copy, target = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("minift", "plugins"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    (copy / "plugins" / "minift_new").mkdir()  # a plugin that nobody announced
    (copy / "plugins" / "minift_new" / "__init__.py").touch()
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps"]
    command += ["--quiet", "-w", str(target), str(copy)]
    if importlib.util.find_spec("hatchling"):
        command.append("--no-build-isolation")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("THE WHEEL WAS NOT BUILT: pip reaches no registry that has hatchling")
    assert done.returncode == 0, done.stderr
    (built,) = target.glob("*.whl")
    return built


@pytest.mark.slow  # pip fetches the build backend
def test_the_wheel_holds_every_folder_of_plugins(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    info = next(name for name in names if name.endswith("/METADATA")).split("/")[0]
    assert {name.split("/")[0] for name in names} == {"minift", "minift_new", info, *FOLDERS}
    for folder, base in (("minift", ROOT), *((name, ROOT / "plugins") for name in FOLDERS)):
        for path in (base / folder).rglob("*.py"):
            assert path.relative_to(base).as_posix() in names


def test_every_plugin_has_one_entry_point():
    modules = [
        value.partition(":")[0] for value in PROJECT["project"]["entry-points"]["minift"].values()
    ]
    assert sorted(modules) == sorted(FOLDERS)


def test_nothing_else_in_pyproject_names_a_plugin():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = text[text.index("[project.entry-points.minift]") :].partition("\n\n")[0]
    assert "minift_" not in text.replace(table, "")
