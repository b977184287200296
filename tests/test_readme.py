"""What the README shows is true: its tree names every file, its plugin runs."""

import re
import subprocess
import sys
from pathlib import Path

from tiny import make_model, make_rows, write_csv

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_names_every_file():
    tree = README.split("## Where to read")[1]
    for path in (ROOT / "minift").rglob("*.py"):
        if not path.name.startswith("__") and path.parent.name != "testing":  # the kits
            name = path.relative_to(ROOT / "minift").as_posix()
            assert name in tree, name
    for name in re.findall(r"\b[a-z]+/[a-z_]+\.py|\b[a-z_]+\.py", tree):
        folders = ("minift", "plugins", "tests", "examples")  # not the environments beside them
        assert any(list((ROOT / folder).rglob(name)) for folder in folders), f"{name} is not there"


def test_the_plugin_in_it_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    plugin = next(block for block in blocks if "hookimpl" in block)
    (tmp_path / "slow_steps.py").write_text(plugin)
    model = make_model(tmp_path / "model")
    data = write_csv(tmp_path / "train.csv", make_rows(16))
    words = ["--plugin", str(tmp_path / "slow_steps.py"), "train", "--model", str(model)]
    words += ["--train-file", str(data), "--max-steps", "2", "--output-dir", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", "minift", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("s a step so far") == 2


def test_every_python_block_is_python():
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        compile(block, "README.md", "exec")
