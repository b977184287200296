"""Every example runs as a user runs it, a few steps long."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny import load, make_model, make_rows, write_csv

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

# {example: (the words that make it quick, what it must have printed)}
EXPECTED = {
    "01_process_data.py": (
        ["--rows", "20"],
        ["'[CLS]', 'w", "one batch: {'input_ids': (8, ", "'attention_mask': (8, ", "each batch: ["],
    ),
    "02_trainer.py": (["--max-steps", "2"], ["best F1: ", "(12, 2) (12,)", "test_f1"]),
    "03_training_loop.py": (
        ["--max-steps", "2"],
        ["'labels': (16,)", "by hand: {'accuracy': ", "with an Accelerator: {'accuracy': "],
    ),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """(a model folder, a data folder: as in MRPC, an index column and a test split unlabelled)"""
    folder = tmp_path_factory.mktemp("given")
    model = make_model(folder / "model")
    (folder / "data").mkdir()
    for seed, (split, n) in enumerate({"train": 24, "validation": 12, "test": 4}.items()):
        rows = {**make_rows(n, seed), "idx": list(range(n))}
        if split == "test":
            del rows["label"]
        write_csv(folder / "data" / f"{split}.csv", rows)
    return model, folder / "data"


# In an environment that has what they show, with the peers: parity/test_live_inside.py.
ELSEWHERE = {"04_bertviz.py", "05_captum.py"}


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*EXPECTED, *ELSEWHERE}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_example(name, given, tmp_path):
    model, data = given
    quick, expected = EXPECTED[name]
    words = ["--dataset", str(data), "--checkpoint", str(model), "--device", "cpu", *quick]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for text in expected:
        assert text in done.stdout
    if name == "03_training_loop.py":
        assert load(tmp_path / "runs" / "loop") is not None
