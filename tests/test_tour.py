"""The tour in minift/README.md is true: files, line counts, exercises, figures."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOUR = (ROOT / "minift" / "README.md").read_text(encoding="utf-8")


def test_the_map_names_every_file():
    tree = TOUR.split("## Map")[1]
    named = set(re.findall(r"^  ([\w/.]+\.py) ", tree, flags=re.MULTILINE))
    files = {path.relative_to(ROOT / "minift") for path in (ROOT / "minift").rglob("*.py")}
    public = {path for path in files if path.parts[0] != "testing" and path.name[:2] != "__"}
    assert named == {path.as_posix() for path in public}
    plugins = set(re.findall(r"^  (minift_\w+) ", tree, flags=re.MULTILINE))
    assert plugins == {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir()}
