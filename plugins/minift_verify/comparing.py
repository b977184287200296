"""What two finished runs ended with: the same or not, and where they first differ."""

import hashlib
import json
from pathlib import Path
from typing import Any

TIMED = ("runtime", "per_second")  # endings of what may differ


def differences(one: Path, other: Path) -> list[str]:
    """The first difference of the records, of the weights and of the optimizer; [] if equal."""
    found = [of_records(records(one), records(other))]
    found.append(of_tensors(one / "model.safetensors", other / "model.safetensors"))
    last = [newest_checkpoint(folder) / "optimizer.safetensors" for folder in (one, other)]
    found.append(of_tensors(*last))
    return [line for line in found if line]


def records(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without times."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(x).items() if not k.endswith(TIMED)} for x in lines]


def of_records(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> str:
    for a, b in zip(one, other, strict=False):
        for name in [*a, *b]:
            # As text: NaN is equal to NaN here.
            if json.dumps(a.get(name)) != json.dumps(b.get(name)):
                got = f"{a.get(name)!r} in A, {b.get(name)!r} in B"
                return f"metrics.jsonl, record of step {a.get('step')}: {name} is {got}"
    if len(one) != len(other):
        return f"metrics.jsonl has {len(one)} records in A, {len(other)} in B"
    return ""


def newest_checkpoint(folder: Path) -> Path:
    found = [p for p in folder.glob("checkpoint-*") if p.name.rpartition("-")[2].isdigit()]
    return max(found, key=lambda p: int(p.name.rpartition("-")[2]), default=folder)


def of_tensors(one: Path, other: Path) -> str:
    """ "" if the files are equal, else the first tensor that is not."""
    name = f"{one.parent.name}/{one.name}".removeprefix("A/")
    missing = [path for path in (one, other) if not path.is_file()]
    if missing:
        return f"{missing[0]} is not there"
    if sha256(one) == sha256(other):
        return ""
    import torch
    from safetensors.torch import load_file

    a, b = load_file(one), load_file(other)
    for key in sorted(a):
        if key not in b or a[key].shape != b[key].shape or not torch.equal(a[key], b[key]):
            return f"{name}: {key}"
    return f"{name}: the tensors are equal, the files are not"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
