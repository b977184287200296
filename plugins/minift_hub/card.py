"""A model card from a run: what it was trained on, how it scores, with which settings.

All of it is read from run.json. What is private stays there: the card has no command and no path of
this machine, and names data and models only if they are on the Hub.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minift_hub.client import library

SETTINGS = (
    *("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "lr_scheduler_type", "warmup_steps", "weight_decay"),
    *("max_grad_norm", "label_smoothing_factor", "train_sampling_strategy", "seed"),
)


def card_of(folder: Path, repo: str) -> str:
    """Return README.md for the model in a run folder; it is short where there is no run.json."""
    path = folder / "run.json"
    run = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    scores = (run.get("scores") or {}).get("values") or {}
    scores = {key: value for key, value in scores.items() if isinstance(value, int | float)}
    data = [rows for rows in (run.get("data") or {}).values() if rows.get("revision")]
    model, evaluated = run.get("model") or {}, results(run, scores)
    head = library().ModelCardData(
        tags=["minift"],
        pipeline_tag="text-classification",
        base_model=model.get("source") if model.get("revision") else None,
        datasets=sorted({rows["source"].split()[0] for rows in data}) or None,
        metrics=[name for name in scores if name != "loss"] or None,
        model_name=repo.rpartition("/")[2] if evaluated else None,
        eval_results=evaluated or None,
    )
    return f"---\n{head}\n---\n\n" + "\n\n".join(sections(repo, run, scores)) + "\n"


def results(run: Mapping[str, Any], scores: Mapping[str, float]) -> list[Any]:
    """Return the scores as the Hub shows them beside a model, if others can get the same rows."""
    rows = (run.get("data") or {}).get("eval") or {}
    if not rows.get("revision") or (run.get("inputs") or {}).get("validation"):
        return []
    source, _, config = rows["source"].partition(" ")
    return [
        library().EvalResult(
            task_type="text-classification",
            dataset_type=source,
            dataset_name=rows["source"],
            dataset_config=config or None,
            dataset_revision=rows["revision"],
            metric_type=name,
            metric_value=round(value, 4),
        )
        for name, value in scores.items()
        if name != "loss"
    ]


def sections(repo: str, run: Mapping[str, Any], scores: Mapping[str, float]) -> Iterator[str]:
    """Yield the parts for people, in Markdown."""
    base = f", from {on_the_hub(run['model'])}" if (run.get("model") or {}).get("revision") else ""
    yield f"# {repo.rpartition('/')[2]}\n\nA text classifier, fine-tuned with minift{base}."
    inputs, args = run.get("inputs") or {}, run.get("arguments") or {}
    if names := inputs.get("names"):
        yield f"Classes: {', '.join(f'`{name}`' for name in names)}."
    if data := run.get("data"):
        lines = [
            f"- {split}: {rows['rows']:,} of {on_the_hub(rows)}" for split, rows in data.items()
        ]
        if held_out := inputs.get("validation"):
            lines.append(f"- held out for evaluation: {held_out}")
        yield "\n".join(["## Data\n", *lines])
    if scores:
        title = f"## Scores on {run['scores']['rows']:,} rows of evaluation\n"
        rows = [f"| {key} | {value:.4f} |" for key, value in scores.items()]
        yield "\n".join([title, "| measure | value |", "|---|---|", *rows])
    if run:
        lines = [f"- {key}: {args[key]}" for key in SETTINGS if args.get(key) is not None]
        lines.append(f"- device: {run.get('device')}, precision: {run.get('precision')}")
        versions = run.get("versions") or {}
        shown = [f"{name} {version}" for name, version in versions.items() if name != "platform"]
        yield "\n".join(["## Training\n", *lines, f"- versions: {', '.join(shown)}"])
    use = f'classify = pipeline("text-classification", "{repo}")'
    yield f"To use it:\n\n```python\nfrom minift import pipeline\n\n{use}\n```"


def on_the_hub(one: Mapping[str, Any]) -> str:
    """Return the name of data or of a model with its commit; of what is not on the Hub, none."""
    return f"`{one['source']}` at `{one['revision']}`" if one.get("revision") else "own files"
