"""Every example runs as a user runs it, a few steps long."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_model, make_rows, write_csv

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.mark.parametrize("name", sorted(p.name for p in EXAMPLES.glob("[0-9]*.py")))
def test_example(name, tmp_path):
    model = make_model(tmp_path / "model")
    data = tmp_path / "data"
    data.mkdir()
    write_csv(data / "train.csv", make_rows(24))
    write_csv(data / "validation.csv", make_rows(12, seed=1))
    words = ["--dataset", str(data), "--checkpoint", str(model), "--max-steps", "2"]
    command = [sys.executable, str(EXAMPLES / name), *words, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "(12, 2) (12,)" in done.stdout
