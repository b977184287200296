"""Compare the results of two finished runs, and find where they first differ."""

import json
from pathlib import Path
from typing import Any

from minift.files import file_entry

TIMED = ("runtime", "per_second")  # endings of the names of values that may differ


def differences(one: Path, other: Path) -> list[str]:
    """Return the first difference of records, weights and optimizer, a line each; [] if equal."""
    from minift.training.checkpoint import list_checkpoints

    lines = [compare_records(records(one), records(other))]
    lines.append(compare_tensors(one / "model.safetensors", other / "model.safetensors"))
    last = [[folder, *list_checkpoints(folder)][-1] for folder in (one, other)]
    lines.append(compare_tensors(*(folder / "optimizer.safetensors" for folder in last)))
    return [line for line in lines if line]


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of metrics.jsonl without times."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(x).items() if not k.endswith(TIMED)} for x in lines]


def compare_records(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> str:
    """Return the first difference of two lists of records, "" if they are equal."""
    for a, b in zip(one, other, strict=False):
        for name in [*a, *b]:
            # As text: NaN is equal to NaN here.
            if json.dumps(a.get(name)) != json.dumps(b.get(name)):
                got = f"{a.get(name)!r} in A, {b.get(name)!r} in B"
                return f"metrics.jsonl, record of step {a.get('step')}: {name} is {got}"
    if len(one) != len(other):
        return f"metrics.jsonl has {len(one)} records in A, {len(other)} in B"
    return ""


def compare_tensors(one: Path, other: Path) -> str:
    """Return "" if two safetensors files are equal, else the first tensor that is not."""
    name = f"{one.parent.name}/{one.name}".removeprefix("A/")
    missing = [path for path in (one, other) if not path.is_file()]
    if missing:
        return f"{missing[0]} is not there"
    if file_entry(one) == file_entry(other):
        return ""
    import torch
    from safetensors.torch import load_file

    a, b = load_file(one), load_file(other)
    for key in sorted(a):
        if key not in b or a[key].shape != b[key].shape or not torch.equal(a[key], b[key]):
            return f"{name}: {key}"
    return f"{name}: the tensors are equal, the files are not"
