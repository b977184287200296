"""`Recorder`: what is written about a run, for people and for the commands that read it.

output_dir/
  run.json        configuration, versions, device, precision and why, data, seeds, how it ended
  metrics.jsonl   one line a log record
  checkpoint-STEP/  what training goes on from; see checkpoint.py
  best-STEP/      the best model so far, with load_best_model_at_end
  config.json, model.safetensors, tokenizer files: the model, when it was saved
"""

import json
import os
import platform
import re
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from minift.files import explained, write_text
from minift.models.weights import unwrap
from minift.training.compatibility import to_plain
from minift.training.evaluation import EvalLoopOutput
from minift.training.run import Run

LIBRARIES = ("minift", "torch", "numpy", "pyarrow", "tokenizers", "safetensors", "pluggy")
TIMES = ("_runtime", "_per_second")


@dataclass
class Recorder:
    """Keeps run.json and metrics.jsonl up to date, in the one process that writes.

    Attributes:
        inputs: how rows became the model's inputs; whoever tokenized them fills it in.
        scores: metrics of the model on eval_dataset, and the step they were measured at.
        before_end: saves and evaluates, where that is part of the run, as for `minift train`.
        status: "running", "saving", "finished", "interrupted" or "failed".
    """

    run: Run
    inputs: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    status: str = ""
    before_end: Any = lambda: None

    def start(self) -> None:
        """Make the run folder; records of an earlier run are replaced, a resumed run's kept."""
        run = self.run
        if run.writes:
            records = "".join(json.dumps(record) + "\n" for record in run.state.log_history)
            write_text(run.folder / "metrics.jsonl", records)
        run.started = time.time()
        self.write_status("running")
        run.call_observers("minift_on_train_begin")

    def log(self, record: dict[str, Any]) -> None:
        """Add a record to the history and to metrics.jsonl, and call the observers."""
        run, state = self.run, self.run.state
        record = {**to_plain(record), "epoch": round(state.epoch, 4), "step": state.global_step}
        state.log_history.append(record)
        if run.writes and run.folder.is_dir():
            path = run.folder / "metrics.jsonl"
            with explained(path), path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        run.call_observers("minift_on_log", record=record)

    def write_status(self, status: str, error: BaseException | None = None) -> None:
        """Write run.json; with an error that only stopped the run, the status is "interrupted"."""
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        self.status = "interrupted" if stopped else status
        if not self.run.writes:
            return
        record = {**self.describe(), "status": self.status}
        if error is not None:
            record["error"] = f"{type(error).__name__}: {error}"
        try:
            write_text(self.run.folder / "run.json", without_token(json.dumps(record, indent=2)))
        except OSError:
            if error is None:  # else the error that ends the run matters more: a full disk
                raise

    def record_scores(self, result: EvalLoopOutput, prefix: str) -> None:
        """Keep the metrics of an evaluation on eval_dataset."""
        scores = {name: v for name, v in result.metrics.items() if not name.endswith(TIMES)}
        values = {name.removeprefix(f"{prefix}_"): v for name, v in scores.items()}
        step = self.run.state.global_step
        self.scores = {"step": step, "rows": result.num_samples, "values": values}
        if self.run.started:
            self.write_status(self.status)

    @property
    def current_scores(self) -> dict[str, Any]:
        """The scores, or {} if the model has been trained since they were measured."""
        return self.scores if self.scores.get("step") == self.run.state.global_step else {}

    def describe(self) -> dict[str, Any]:
        """Return everything that somebody needs to know to repeat the run."""
        run = self.run
        report = getattr(run.model, "load_report", None)
        data = {}
        for name, dataset in (("train", run.train_dataset), ("eval", run.eval_dataset)):
            if dataset is not None:
                facts = {"rows": len(dataset), "columns": dataset.column_names}
                data[name] = {**facts, "fingerprint": dataset.fingerprint, **dataset.origin}
        return {
            "run": run.id,
            "arguments": run.args.to_dict(),
            "device": run.device.description,
            "precision": run.precision,
            "precision_reason": run.precision_reason,
            "model": {
                "class": type(unwrap(run.model)).__name__,
                "source": report.source if report else None,
                "revision": report.revision if report else "",
                "parameters": sum(p.numel() for p in run.model.parameters()),
            },
            "data": data,
            "inputs": self.inputs,
            "scores": self.current_scores,
            "versions": versions(),
            "command": sys.argv,
            "state": {k: v for k, v in asdict(run.state).items() if k != "log_history"},
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.started)),
            "seconds": round(time.time() - run.started, 3),
        }


def without_token(text: str) -> str:
    """Replace the Hub's tokens and the passwords in addresses: others read run.json."""
    token = os.environ.get("HF_TOKEN")
    text = text.replace(token, "TOKEN") if token else text
    text = re.sub(r"\b(hf|api_org)_[A-Za-z0-9]{30,}", "TOKEN", text)
    text = re.sub(r'(?i)((?:password|passwd|pwd|secret)=)[^&;\s"]+', r"\1PASSWORD", text)
    return re.sub(r'(://(?:[^/\s:@"]*:)?)[^/\s"]+@', r"\1PASSWORD@", text)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that numbers can depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout on the path, or a library packed by others
            found[name] = "not installed"
    return found
