#!/usr/bin/env bash
# safetensors 0.8.0 with numpy 2.4: `safetensors.numpy.save` writes the numbers of a transposed
# array in the order of memory under the shape of the view, and of a slice with a step the first
# numbers of the buffer. The file is valid and reads without a warning, with other values.
# `safetensors.torch.save` refuses both with a ValueError ("non contiguous").
# np.ascontiguousarray before saving is what helps.
# Seen on 29 November 2026:
#   transposed: saved [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]], read [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
. "$folder/venv/bin/activate"
pip install --quiet safetensors==0.8.0 numpy==2.4.0
python - <<'PYTHON'
import numpy as np
from safetensors.numpy import load, save

weight = np.arange(6.0).reshape(2, 3)
for name, saved, read in (
    ("transposed", weight.T, [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]),
    ("every second", np.arange(10.0)[::2], [0.0, 1.0, 2.0, 3.0, 4.0]),
    ("column", weight[:, 1], None),
):
    got = load(save({"x": saved}))["x"].tolist()
    print(f"{name}: saved {saved.tolist()}, read {got}")
    assert got != saved.tolist(), f"{name} is right now"
    assert read is None or got == read
assert load(save({"x": np.ascontiguousarray(weight.T)}))["x"].tolist() == weight.T.tolist()
PYTHON
