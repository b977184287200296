"""`minift env`: what it says is what choosing a device, torch and the system say."""

import json
import os
import platform
import shutil
import subprocess
import sys
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from minift_commands import env

from minift import cli, plugins
from minift.device import choose_device, choose_precision

PLUGIN = """
from minift import Device, hookimpl

class Fast(Device):
    name, priority = "fast", 90
    description = "a fast one"
    def precisions(self):
        return {"fp32": None, "bf16": None}

class Absent(Device):
    name, priority = "absent", 99
    @classmethod
    def unavailable(cls):
        return "no such chip in this machine"

@hookimpl
def minift_register_devices():
    return {"fast": Fast, "absent": Absent}
"""


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "quick.py"
    path.write_text(PLUGIN)
    return str(path)


def said(capsys, *words):
    assert cli.main(list(words)) == 0
    return capsys.readouterr().out


def test_for_programs(capsys, own_cache):
    found = json.loads(said(capsys, "-p", "cpu", "-p", "commands", "env", "--json"))
    for name in ("minift", "torch", "numpy", "pyarrow", "tokenizers", "safetensors", "pluggy"):
        assert found["versions"][name] == version(name)
    assert found["versions"]["python"] == platform.python_version()
    device = choose_device("auto", plugins.build_manager(["cpu"]))
    precision, reason = choose_precision("auto", device)
    assert found["devices"] == [
        {"name": "cpu", "priority": 0, "unavailable": None, "plugin": "cpu"}
    ]
    assert found["auto"] == {
        "device": "cpu", "description": "cpu", "precision": precision, "precision_reason": reason,
    }  # fmt: skip
    assert found["processor"]["cores"] == os.cpu_count()
    assert found["processor"]["threads"] == torch.get_num_threads()
    assert found["processes"] == {"world_size": 1, "rank": 0, "local_rank": 0}
    assert found["cache"]["folder"] == str(own_cache)
    assert found["not_loaded"] == {}


def test_for_people(capsys, plugin, own_cache):
    lines = said(capsys, "--plugin", plugin, "env").splitlines()
    assert "device cpu (cpu): available" in lines
    assert "device absent (quick): no such chip in this machine" in lines
    reason = "precision_reason auto: a fast one computes bf16 natively"
    assert f"auto: device fast, description a fast one, precision bf16, {reason}" in lines
    assert "processes: world_size 1, rank 0, local_rank 0" in lines
    (versions,) = [line for line in lines if line.startswith("versions: ")]
    assert f"torch {version('torch')}" in versions and f"minift {version('minift')}" in versions
    (cache,) = [line for line in lines if line.startswith(f"cache: folder {own_cache}, free ")]
    assert cache.endswith("GB")


def test_memory_is_the_kernels(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(env, "MEMINFO", tmp_path / "meminfo")
    assert env.memory() == {}
    assert "memory: total" not in said(capsys, "env")
    env.MEMINFO.write_text("MemTotal:  2000000 kB\nMemFree: 1 kB\nMemAvailable:  1000000 kB\n")
    assert env.memory() == {"total": 2_048_000_000, "available": 1_024_000_000}
    assert "memory: total 2.0 GB, available 1.0 GB" in said(capsys, "env").splitlines()


def test_one_of_several_processes(monkeypatch, capsys):
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "3"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert "processes: world_size 4, rank 3, local_rank 1" in said(capsys, "env").splitlines()


def test_without_any_device_it_says_so_and_goes_on(capsys):
    out = said(capsys, "-p", "commands", "env")
    assert "auto: reason the device 'auto' cannot be used here" in out
    assert "precision" not in out and "cache: " in out


def test_a_plugin_that_does_not_load_is_shown(capsys):
    class Entry:
        name, dist = "broken", None

        def load(self):
            raise ImportError("no module named nowhere")

    plugins.set_default_manager(plugins.build_manager(entry_points=[Entry()]))
    assert env.run(Namespace(json=False)) == 0
    assert "plugin broken does not load: ImportError: no module named nowhere" in (
        capsys.readouterr().out.splitlines()
    )


def test_free_space_of_a_folder_that_is_not_there_yet(tmp_path):
    free = env.free_space(tmp_path / "later" / "still later")
    assert abs(free - shutil.disk_usage(tmp_path).free) < 1e9
    assert env.free_space(Path("nowhere")) is not None  # relative: where we are


def test_torch_is_not_imported_for_the_help():
    check = (
        "import sys\nfrom minift import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "assert 'minift_commands.env' in sys.modules and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "devices, precision, versions" in done.stdout


def test_a_library_without_metadata_is_said_to_be_not_installed(monkeypatch):
    """A checkout on the path, or a library that somebody packed: no reason to end a run."""
    from minift.training import recorder

    monkeypatch.setattr(recorder, "LIBRARIES", ("torch", "no-such-library"))
    versions = recorder.versions()
    assert versions["torch"] == version("torch")
    assert versions["no-such-library"] == "not installed"
