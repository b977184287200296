"""What the README and the other pages show is true: links lead somewhere, code runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_model, make_rows, write_csv

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FOLDERS = ("minift", "plugins", "tests", "examples")  # not the environments beside them
PAGES = [
    *ROOT.glob("*.md"),
    *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md")),
]
FENCED = re.compile(r"```.*?```", re.DOTALL)


def text_of(page: Path) -> str:
    """A page without its code."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The names by which a link reaches the headings of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = text_of(page)
    targets = [*re.findall(r"\]\(([^)]+)\)", text), *re.findall(r'(?:src|href)="([^"]+)"', text)]
    for target in targets:
        if re.match(r"[a-z]+:", target):  # another site: tests use no network
            continue
        name, _, anchor = target.partition("#")
        other = page if not name else page.parent / name
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_python_block_is_python(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        compile(block, str(page), "exec")


def test_files_in_back_quotes_exist():
    """`tests/test_tour.py` in a sentence is a promise too."""
    for page in PAGES:
        for name in re.findall(r"`((?:minift|plugins|tests|examples)/[\w/.]+)`", text_of(page)):
            assert (ROOT / name).exists() or (page.parent / name).exists(), f"{page}: {name}"


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


def test_its_figures_are_those_of_the_benchmarks():
    """Five rows, each with a command, and each figure stands in BENCHMARKS.md as well."""
    benchmarks = (ROOT / "BENCHMARKS.md").read_text(encoding="utf-8")
    table = README.split("## Five figures")[1].split("\n\n")[1].splitlines()[2:]
    assert len(table) == 5
    for row in table:
        *figures, command = [cell.strip() for cell in row.strip("|").split("|")][1:]
        assert command.startswith("`") and command.strip("`") in benchmarks, command
        for number in re.findall(r"\.\d+|\d+\.\d+(?:e-\d+)?", " ".join(figures)):
            assert number in benchmarks, f"{row}: {number}"


def test_every_make_target_that_a_page_names_exists():
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for name in re.findall(r"\bmake ([a-z][\w-]*)[^`\n]*`", page.read_text(encoding="utf-8")):
            assert name in targets, f"{page.name}: make {name}"


def test_every_command_that_it_shows_exists():
    """The words after `minift`, and every option of them."""
    shell = "".join(re.findall(r"```(?:sh|console)\n(.*?)```", README, flags=re.DOTALL))
    lines = re.findall(r"(?:bin/minift|-m minift) (\w+) (.*)", shell)
    assert len(lines) >= 5
    for command, words in lines:
        call = [sys.executable, "-m", "minift", command, "--help"]
        shown = subprocess.run(call, capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        for option in re.findall(r"(?<!\S)(--[a-z-]+)", words.partition("#")[0]):
            assert re.search(rf"{option}\b", shown.stdout), f"{command} {option}"
