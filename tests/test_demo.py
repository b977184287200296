"""`minift demo`, cut to two steps: real weights, real texts, the whole command."""

import json
import subprocess
import sys

import pytest

from minift.errors import MiniftError

pytestmark = pytest.mark.slow


def packages_missing():
    from minift_demo import headlines

    try:
        headlines.weights_folder(), headlines.corpus_folder()
    except MiniftError as error:
        return str(error)
    return None


@pytest.mark.skipif(packages_missing() is not None, reason=f"NOT TESTED: {packages_missing()}")
def test_demo(tmp_path):
    out = tmp_path / "run"
    words = ["demo", "--max-steps", "2", "--device", "cpu", "--output-dir", str(out)]
    done = subprocess.run([sys.executable, "-m", "minift", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for expected in ("this model", "always the commoner class", "right, the surest", "wrong, the"):
        assert expected in done.stdout
    assert json.loads((out / "run.json").read_text())["status"] == "finished"
    names = json.loads((out / "config.json").read_text())["id2label"]
    assert names == {"0": "not_match", "1": "match"}

    # what it says to type next works as it stands
    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("  minift eval")]
    assert lines == [f"minift eval {out} --split test"]
    words = lines[0].split()[1:]
    done = subprocess.run([sys.executable, "-m", "minift", *words], capture_output=True, text=True)
    assert done.returncode == 0 and "test_accuracy" in done.stdout, done.stderr


def test_a_missing_package_says_what_to_type(monkeypatch, capsys, tmp_path):
    import importlib.metadata

    from minift import cli

    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", nothing)
    monkeypatch.setattr(importlib.metadata, "files", nothing)
    assert cli.main(["demo", "--output-dir", str(tmp_path / "run")]) == 2
    assert "pip install --no-deps" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
