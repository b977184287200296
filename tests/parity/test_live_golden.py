"""The golden files are what these peers answer today: a golden file gone stale is found here."""

import json
import math
import subprocess
import sys
from pathlib import Path

import live
import pytest
from recipe import GOLDEN

MAKER = Path(__file__).with_name("make_golden.py")
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with all golden files, made now."""
    live.require_minilm()
    folder = tmp_path_factory.mktemp("golden")
    subprocess.run([sys.executable, str(MAKER), "--out", str(folder)], check=True)
    return folder


def differences(got, want, where=""):
    """Paths at which two JSON trees differ, floats by more than 5e-6 (relative above 1).

    So much is between the peer's own answers on a processor with AVX2 and one with AVX-512.
    """
    if isinstance(want, float) and isinstance(got, (int, float)):
        return [] if math.isclose(got, want, rel_tol=5e-6, abs_tol=5e-6) else [where]
    if type(got) is not type(want):
        return [where]
    if isinstance(want, dict):
        if got.keys() != want.keys():
            return [where]
        return [path for key in want for path in differences(got[key], want[key], f"{where}/{key}")]
    if isinstance(want, list):
        if len(got) != len(want):
            return [where]
        pairs = enumerate(zip(got, want, strict=True))
        return [path for i, (a, b) in pairs for path in differences(a, b, f"{where}/{i}")]
    return [] if got == want else [where]


@pytest.mark.parametrize("name", NAMES)
def test_golden_file_is_current(made, name):
    got = json.loads((made / f"{name}.json").read_text(encoding="utf-8"))
    want = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    for tree in (got, want):
        del tree["header"]  # versions and platform may differ; answers may not
        for case in tree.get("configs", []):
            del case["config"]["transformers_version"]
    assert not differences(got, want)[:10]
