"""The tour in minift/README.md is true: its files, line counts, exercises, glossary and figures."""

import inspect
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from test_layers import ROWS, code_lines, module_name

from minift import Device, hookspecs
from minift.models import attention
from minift.models.unpadding import Unpadding

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "minift"
TOUR = (CORE / "README.md").read_text(encoding="utf-8")
SITTINGS = re.findall(r"^## (\d)\. (.*?)$(.*?)(?=^## )", TOUR, flags=re.MULTILINE | re.DOTALL)
SPINE = 2500  # lines that a student reads, at most
FILE_ROW = re.compile(r"^\| \[(?:.*?)\]\((.*?)\) \| (\d+) \|", re.MULTILINE)

# What the answer of each exercise says: tests that fail, and tests that pass all the same.
ANSWERS = {
    "1": (
        {"test_how_a_step_is_cut_into_micro_batches_does_not_matter"},
        {"test_eval_loss_is_the_mean_over_rows_whatever_the_batch"},
    ),
    "2": (
        {
            "test_leaving_padding_out_changes_no_logit_and_no_gradient",
            "test_a_right_padded_row_equals_the_row_alone",
        },
        {"test_what_stands_at_padding_does_not_matter"},
    ),
    "3": (
        {"test_orders_of_epochs_and_seeds_are_all_different", "test_an_order_never_changes"},
        {"test_an_order_has_every_row_once", "test_an_order_depends_on_nothing_global"},
    ),
    "4": (
        {"test_rows_written_in_another_order_have_another_fingerprint"},
        {"test_add_column", "test_different_content_has_different_fingerprints"},
    ),
    "5": (
        {
            "test_the_generator_is_seeded_saved_and_restored",
            "test_two_runs_are_equal_to_the_bit",
            "test_a_resumed_run_is_equal_to_the_bit",
        },
        {"test_logits_and_losses_are_the_references"},
    ),
}


def test_the_map_names_every_file():
    """Those of minift/ in the order in which they import each other."""
    tree = TOUR.split("## Map")[1]
    named = re.findall(r"^  ([\w/.]+\.py) ", tree, flags=re.MULTILINE)
    public = {
        path.relative_to(CORE).as_posix()
        for path in CORE.rglob("*.py")
        if path.parent.name != "testing" and path.name[:2] != "__"
    }
    assert sorted(named) == sorted(public)
    height = {name: i for i, row in enumerate(ROWS) for name in row}
    heights = [height[module_name(CORE / name)] for name in named]
    assert heights == sorted(heights)
    plugins = set(re.findall(r"^  (minift_\w+) ", tree, flags=re.MULTILINE))
    assert plugins == {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir()}


# ------------------------------------------------------------------------------------ the sittings


def lines_in(path: Path) -> int:
    return code_lines(path.read_text(encoding="utf-8"))


def test_there_are_five_sittings():
    assert [number for number, _, _ in SITTINGS] == ["1", "2", "3", "4", "5"]
    assert set(ANSWERS) == {number for number, _, _ in SITTINGS}


@pytest.mark.parametrize(("number", "title", "text"), SITTINGS)
def test_a_sitting_counts_its_lines(number, title, text):
    """Each number is right within a tenth, and the list of sittings has their sum."""
    files = FILE_ROW.findall(text)
    assert files
    for path, said in files:
        assert int(said) == pytest.approx(lines_in(CORE / path), rel=0.1), path
    row = re.search(rf"^\| \[{number}\. {re.escape(title)}\].*\| (\d+) \|$", TOUR, re.MULTILINE)
    assert int(row[1]) == sum(int(said) for _, said in files)


def test_the_spine_is_short():
    spine = [path for _, _, text in SITTINGS for path, _ in FILE_ROW.findall(text)]
    assert len(spine) == len(set(spine))
    assert sum(lines_in(CORE / path) for path in spine) <= SPINE
    total = re.search(r"^\| all \| \| (\d+) \|$", TOUR, flags=re.MULTILINE)
    rows = [said for _, _, text in SITTINGS for _, said in FILE_ROW.findall(text)]
    assert int(total[1]) == sum(map(int, rows))


# ----------------------------------------------------------------------------------- the exercises


def copy_of_the_repository(folder: Path) -> Path:
    """What a test run needs, in a folder where files may be changed."""
    without = shutil.ignore_patterns("__pycache__", "parity", "xla", "benchmarks")
    for name in ("minift", "plugins", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=without)
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    return folder


def apply_change(diff: str, folder: Path) -> None:
    """Replace the lines with a minus by those with a plus; they must stand there exactly once."""
    head, *lines = diff.strip("\n").splitlines()
    path = folder / head.removeprefix("--- a/")
    old = "".join(line[1:] + "\n" for line in lines if line[0] != "+")
    new = "".join(line[1:] + "\n" for line in lines if line[0] != "-")
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name} has no longer the lines that the exercise changes"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "text"), [(number, text) for number, _, text in SITTINGS], ids=lambda x: x[:1]
)
def test_an_exercise_has_the_answer_that_the_page_gives(number, text, tmp_path):
    """Made in a copy: the command runs, these tests fail, those pass, and the answer names them."""
    fail, hold = ANSWERS[number]
    exercise = text.split("**Exercise")[1]
    answer = exercise.split("<summary>Answer</summary>")[1]
    assert set(re.findall(r"`(test_\w+)`", answer)) <= fail | hold
    assert fail <= set(re.findall(r"`(test_\w+)`", answer))
    (command,) = re.findall(r"```sh\npytest (.*?)\n```", exercise)
    for diff in re.findall(r"```diff\n(.*?)```", exercise, flags=re.DOTALL):
        apply_change(diff, copy_of_the_repository(tmp_path))
    for plugin in re.findall(r"```python\n# (\S+\.py)\n", exercise):
        block = re.search(r"```python\n(.*?)```", exercise, flags=re.DOTALL)[1]
        (tmp_path / plugin).write_text(block, encoding="utf-8")
    words = re.findall(r'"[^"]*"|\S+', command)
    call = [sys.executable, "-m", "pytest", "-rA", "--tb=short", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*call, *(word.strip('"') for word in words)],
        cwd=tmp_path,  # first on the path of `python -m`
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.findall(r"^(PASSED|FAILED|ERROR) \S+::(test_\w+)", done.stdout, flags=re.MULTILINE)
    assert {name for word, name in found if word != "PASSED"} == fail, done.stdout
    assert hold <= {name for word, name in found if word == "PASSED"} - fail, done.stdout


# -------------------------------------------------------------------------- glossary and figures


def test_the_glossary_leads_to_files():
    table = TOUR.split("## Glossary")[1].split("## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| \[.*?\]\((.+?)\) \|$", table, flags=re.MULTILINE)
    assert len(rows) >= 20
    for words, _, path in rows:
        source = (CORE / path).read_text(encoding="utf-8")
        for name in re.findall(r"`([\w.]+?)`", words):
            assert name.rpartition(".")[2] in source, f"{path} has no {name}"


@pytest.mark.parametrize("path", sorted((CORE / "figures").glob("*.svg")), ids=lambda p: p.name)
def test_a_figure_is_readable_in_light_and_dark(path):
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.get("viewBox") and root.find("{http://www.w3.org/2000/svg}title") is not None
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"<script|<image|@import|href=|url\((?!#)", text)
    assert TOUR.count(f'src="figures/{path.name}"') == 1


def texts(name: str) -> set[str]:
    root = ElementTree.parse(CORE / "figures" / name)
    return {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}


def test_the_figure_of_a_step_has_every_hook_of_the_loop():
    shown = {text for text in texts("step.svg") if text.startswith("minift_")}
    source = inspect.getsource(hookspecs)
    called = set(re.findall(r"def (minift_on_\w+|minift_should_stop)\(", source))
    assert shown == called
    for text in texts("step.svg"):
        for method in re.findall(r"device\.(\w+)\(", text):
            assert callable(getattr(Device, method))


def test_the_figure_of_unpadding_has_its_numbers():
    """Those of the docstring of models/unpadding.py, computed again."""
    import torch

    ids = torch.tensor([[101, 7592, 102, 0, 0], [101, 2129, 2024, 2017, 102], [101, 102, 0, 0, 0]])
    unpadding = Unpadding.from_mask((ids != 0).long())
    shown = texts("unpadding.svg")
    assert {str(i) for i in unpadding.indices.tolist()} <= shown
    assert {str(i) for i in ids.flatten().tolist()} <= shown
    assert len(unpadding.blocks) == 1
    for name in ("unpad", "split_heads", "merge_heads", "pad", "first_token_index"):
        assert name in shown and (hasattr(unpadding, name) or hasattr(attention, name))
