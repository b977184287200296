"""A model card from a run: what it was trained on, how it scores, how to do it again.

All of it is read from the run folder. What is private stays there: paths on this machine become
their last part, and tokens are blotted out.
"""

import json
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minift_hub.client import without_tokens
from minift_hub.names import REPOSITORY

SETTINGS = (
    *("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "lr_scheduler_type", "warmup_steps", "weight_decay"),
    *("max_grad_norm", "label_smoothing_factor", "train_sampling_strategy"),
)


def card_of(folder: Path, repo: str) -> str:
    """Return README.md for the model in a run folder; it is short where there is no run.json."""
    import yaml

    run = read_run(folder)
    scores = (run.get("scores") or {}).get("values") or {}
    scores = {key: value for key, value in scores.items() if isinstance(value, int | float)}
    model, data = run.get("model") or {}, run.get("data") or {}
    base = model.get("source") if model.get("revision") else None
    head: dict[str, Any] = {"tags": ["minift"], "pipeline_tag": "text-classification"}
    if base:
        head["base_model"] = base
    evaluated = data.get("eval") or {}
    public = [part for part in (data.get("train") or {}, evaluated) if part.get("revision")]
    if public:
        head["datasets"] = sorted({part["source"].split()[0] for part in public})
    names = [name for name in scores if name != "loss"]
    if names:
        head["metrics"] = names
        if evaluated.get("revision") and not (run.get("inputs") or {}).get("validation"):
            head["model-index"] = [index_entry(repo, evaluated, scores)]
    text = "\n".join(["---", yaml.safe_dump(head, sort_keys=False).strip(), "---", ""])
    return text + "\n".join(body(repo, run, base, scores))


def read_run(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def index_entry(repo: str, evaluated: Mapping[str, Any], scores: Mapping[str, float]) -> Any:
    """Return the scores as the Hub shows them beside a model."""
    source, _, config = evaluated["source"].partition(" ")
    data = {"name": evaluated["source"], "type": source, "revision": evaluated["revision"]}
    if config:
        data["config"] = config
    values = {key: round(value, 4) for key, value in scores.items() if key != "loss"}
    metrics = [{"type": key, "value": value, "name": key} for key, value in values.items()]
    task = {"type": "text-classification", "name": "Text Classification"}
    results = [{"task": task, "dataset": data, "metrics": metrics}]
    return {"name": repo.rpartition("/")[2], "results": results}


def body(
    repo: str, run: Mapping[str, Any], base: str | None, scores: Mapping[str, float]
) -> list[str]:
    """Return the lines of the part for people."""
    model, data = run.get("model") or {}, run.get("data") or {}
    inputs = run.get("inputs") or {}
    lines = ["", f"# {repo.rpartition('/')[2]}", ""]
    start = f"[{base}](https://huggingface.co/{base}) at `{model['revision']}`" if base else ""
    lines += [f"A text classifier, fine-tuned with minift{f' from {start}' if start else ''}.", ""]
    if inputs.get("names"):
        lines += [f"Classes: {', '.join(f'`{name}`' for name in inputs['names'])}.", ""]
    if data:
        lines += ["## Data", ""]
        lines += [f"- {split}: {described(rows)}" for split, rows in data.items()]
        if inputs.get("validation"):
            lines += [f"- held out for evaluation: {inputs['validation']}"]
        lines += [""]
    if scores:
        lines += [f"## Scores on {run['scores']['rows']:,} rows of evaluation", ""]
        lines += ["| measure | value |", "|---|---|"]
        lines += [f"| {key} | {value:.4f} |" for key, value in scores.items()]
        lines += [""]
    if run:
        lines += ["## Training", ""]
        args = run.get("arguments") or {}
        lines += [f"- {key}: {args[key]}" for key in SETTINGS if args.get(key) is not None]
        lines += [f"- seed: {(run.get('arguments') or {}).get('seed')}"]
        lines += [f"- device: {run.get('device')}, precision: {run.get('precision')}"]
        versions = run.get("versions") or {}
        shown = [f"{name} {v}" for name, v in versions.items() if name != "platform"]
        lines += [f"- versions: {', '.join(shown)}", "", f"To do it again{pinned(run)}:", ""]
        lines += ["```sh", without_tokens(command(run)), "```", ""]
    lines += ["To use it:", "", "```python", "from minift import pipeline", ""]
    lines += [f'classify = pipeline("text-classification", "{repo}")', "```", ""]
    return lines


def described(rows: Mapping[str, Any]) -> str:
    source = f"`{rows['source']}` at `{rows['revision']}`" if rows.get("revision") else "own files"
    return f"{rows.get('rows', 0):,} rows of {source}"


def pinned(run: Mapping[str, Any]) -> str:
    """Name the commits that the run used: the command takes what a name stands for on its day."""
    used = [run.get("model") or {}, *(run.get("data") or {}).values()]
    pins = [f"`{one['source']}` at `{one['revision']}`" for one in used if one.get("revision")]
    text = f" (names mean what is there now; the run used {', '.join(dict.fromkeys(pins))})"
    return text if pins else ""


def command(run: Mapping[str, Any]) -> str:
    """Return the command of the run for a shell, without paths of this machine."""
    words = [str(word) for word in run.get("command") or ["minift"]]
    program = os.path.basename(words[0])
    first = f"python {shlex.quote(program)}" if program.endswith(".py") else program
    if program == "__main__.py":
        first = "python -m minift"
    return " ".join([first, *(shlex.quote(without_path(word)) for word in words[1:])])


def without_path(word: str) -> str:
    """Cut paths in a word (train=a/b.csv,test=c/d.csv) to their last part; all else stays."""
    return "".join(map(last_part, re.split("([=,])", word)))


def last_part(value: str) -> str:
    """Return the last part of a path; a name on the Hub is no path, unless it exists locally."""
    local = os.path.exists(os.path.expanduser(value)) or not REPOSITORY.fullmatch(value)
    if local and re.search(r"[/\\]", value):
        value = re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value
