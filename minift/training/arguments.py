"""`TrainingArguments`: every setting of a run, with the names and defaults of the peer's.

Each field's help text is also that of its flag in `minift train`. Older spellings are understood;
a name that minift does not have is an error that says why, never ignored.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from minift.errors import ArgumentError, ConfigError
from minift.training.compatibility import current_name, is_default_of_absent

CHOICES = {
    "logging_strategy": ("no", "steps", "epoch"),
    "eval_strategy": ("no", "steps", "epoch"),
    "save_strategy": ("no", "steps", "epoch", "best"),
    "train_sampling_strategy": ("random", "sequential", "group_by_length"),
    "precision": ("auto", "fp32", "bf16", "fp16", "tf32"),
}

# Settings, what they must be unless they have their defaults, and the check of that.
RANGES: tuple[tuple[tuple[str, ...], str, Callable[[float], bool]], ...] = (
    (("per_device_train_batch_size", "per_device_eval_batch_size"), "at least 1", lambda n: n >= 1),
    (("gradient_accumulation_steps", "save_total_limit"), "at least 1", lambda n: n >= 1),
    (("learning_rate", "warmup_steps", "max_grad_norm"), "0 or more", lambda n: n >= 0),
    (("dataloader_num_workers",), "0 or more", lambda n: n >= 0),
    (("logging_steps", "eval_steps", "save_steps"), "positive", lambda n: n > 0),
    (("label_smoothing_factor",), "from 0 to below 1", lambda n: 0 <= n < 1),
)

PRECISION_FLAGS = ("bf16", "fp16", "tf32")

# What a run computes depends on these, so a checkpoint is resumed with the same ones only.
DECISIVE = (
    *("num_train_epochs", "max_steps", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs"),
    *("warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
    *("label_smoothing_factor", "precision", "seed", "data_seed", "train_sampling_strategy"),
    *("dataloader_drop_last", "metric_for_best_model", "greater_is_better"),
)


def arg(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(init=False)
class TrainingArguments:
    """The settings of a run. `TrainingArguments("folder", learning_rate=3e-5, ...)`"""

    # What is written where
    output_dir: str | None = arg("trainer_output", "run folder; None in Python: write nothing")
    run_name: str | None = arg(None, "a name for the run, recorded in run.json")

    # How much
    num_train_epochs: float = arg(3.0, "passes over the training rows; fractions stop by steps")
    max_steps: int = arg(-1, "optimizer steps; if positive, overrides num_train_epochs")
    per_device_train_batch_size: int = arg(8, "rows in a micro-batch of training")
    per_device_eval_batch_size: int = arg(8, "rows in a batch of evaluation")
    gradient_accumulation_steps: int = arg(1, "micro-batches in an optimizer step")

    # The optimizer: AdamW
    learning_rate: float = arg(5e-5, "peak learning rate")
    lr_scheduler_type: str = arg("linear", "name of a schedule, see minift/schedule.py")
    lr_scheduler_kwargs: dict[str, float] | None = arg(None, "its own settings: power=2,lr_end=0")
    warmup_steps: float = arg(0, "steps of rising learning rate; below 1, a share of all steps")
    weight_decay: float = arg(0.0, "decoupled; not applied to biases and norms")
    adam_beta1: float = arg(0.9, "decay rate of the first moment")
    adam_beta2: float = arg(0.999, "decay rate of the second moment")
    adam_epsilon: float = arg(1e-8, "added to the root of the second moment")
    max_grad_norm: float = arg(1.0, "global L2 norm that gradients are clipped to; 0 = off")

    label_smoothing_factor: float = arg(0.0, "share of the target spread over all classes")

    # Where and how it is computed
    device: str = arg("auto", "auto, or a device that a plugin provides (`minift plugins`)")
    use_cpu: bool = arg(False, "the same as device=cpu")
    precision: str = arg("auto", "auto: bf16 where native, else fp32; or fp32, bf16, fp16, tf32")
    bf16: bool | None = arg(None, "True: precision=bf16; False: precision=fp32")
    fp16: bool | None = arg(None, "True: precision=fp16; False: precision=fp32")
    tf32: bool | None = arg(None, "True: precision=tf32, on GPUs that have it")

    full_determinism: bool = arg(False, "refuse operations that may differ from run to run")

    # Rows
    seed: int = arg(42, "of every random stream of the run")
    data_seed: int | None = arg(None, "of the order of rows; seed by default")
    train_sampling_strategy: str = arg("random", "random, sequential or group_by_length")
    dataloader_drop_last: bool = arg(False, "leave out the last, shorter batch of an epoch")
    dataloader_num_workers: int = arg(0, "processes that collate batches; 0 = this one")

    # What is logged and evaluated, and when. Intervals below 1 are a share of all steps.
    logging_strategy: str = arg("steps", "no, steps or epoch")
    logging_steps: int | float | str = arg("auto", "steps a log line; auto = about 50 lines a run")
    logging_first_step: bool = arg(False, "also log the first step")
    eval_strategy: str = arg("no", "no, steps or epoch")
    eval_steps: float | None = arg(None, "steps between evaluations; logging_steps by default")
    eval_delay: float = arg(0, "steps, or with eval_strategy=epoch epochs, before the first one")
    eval_on_start: bool = arg(False, "also evaluate before the first step")
    disable_tqdm: bool | None = arg(None, "no progress bar; by default one on a terminal only")

    # What is saved and when
    save_strategy: str = arg("steps", "no, steps, epoch, or best: when the metric improved")
    save_steps: float = arg(500, "steps between checkpoints; the last step has one too")
    save_total_limit: int | None = arg(None, "how many of this run's checkpoints are kept")
    save_only_model: bool = arg(False, "checkpoints without what resuming needs")
    resume_from_checkpoint: str | None = arg(None, "true: the newest valid one; or its folder")

    # Which model is the best
    load_best_model_at_end: bool = arg(False, "keep the best model apart, and end with it")
    metric_for_best_model: str | None = arg(None, "what best_metric follows; loss by default")
    greater_is_better: bool | None = arg(None, "by default as the metric's name says")

    def __init__(self, output_dir: str | None = "trainer_output", **settings: Any) -> None:
        fields = {f.name: f for f in dataclasses.fields(self)}
        values = {name: f.default for name, f in fields.items()}
        values["output_dir"] = None if output_dir is None else str(output_dir)
        if settings.pop("group_by_length", False):  # as it was before there were three strategies
            settings.setdefault("train_sampling_strategy", "group_by_length")
        if (settings.get("warmup_ratio") or 0) >= 1:
            raise ArgumentError("warmup_ratio must be below 1", got=settings["warmup_ratio"])
        for name, value in settings.items():
            if is_default_of_absent(name, value):
                continue
            current = current_name(name, list(fields))
            if current != name and current in settings:
                raise ArgumentError(f"{name} and {current} are one argument", do="pass one of them")
            value = value.item() if hasattr(value, "item") else value  # a number of numpy's
            if isinstance(value, str) and isinstance(fields[current].default, int | float):
                raise ArgumentError(f"{name} must be a number", got=repr(value))
            values[current] = value
        vars(self).update(values)
        self.check()

    def check(self) -> None:
        """Refuse settings that contradict each other or cannot mean anything, all at once."""
        wrong = []
        for names, must_be, fits in RANGES:
            for name in names:
                value, default = getattr(self, name), getattr(TrainingArguments, name)
                if value != default and not fits(float(value)):
                    wrong.append(f"{name} must be {must_be}, got {value}")
        if not 0 < self.num_train_epochs < 1e9 and self.max_steps <= 0:
            wrong.append("num_train_epochs or max_steps must be a positive number")
        for name, words in CHOICES.items():
            if getattr(self, name) not in words:
                wrong.append(f"{name} must be {' or '.join(words)}, got {getattr(self, name)!r}")
        flags = [flag for flag in PRECISION_FLAGS if getattr(self, flag)]
        for flag in flags:
            if self.precision not in ("auto", flag):
                wrong.append(f"{flag}=True and precision={self.precision!r} contradict each other")
        if self.use_cpu and self.device not in ("auto", "cpu"):
            wrong.append(f"use_cpu=True and device={self.device!r} contradict each other")
        if len(flags) > 1:
            wrong.append(f"{' and '.join(flags)} cannot both be chosen")
        needs_evaluation = self.load_best_model_at_end or self.save_strategy == "best"
        if self.eval_strategy == "no" and needs_evaluation:
            wrong.append("the best model is found by evaluating: choose eval_strategy")
        if self.output_dir is None and (self.load_best_model_at_end or self.resume_from_checkpoint):
            wrong.append("load_best_model_at_end and resume_from_checkpoint need an output_dir")
        if wrong:
            raise ConfigError("; ".join(wrong), do="correct the training arguments")

    def requested_precision(self) -> str:
        """Return precision=, or the one that bf16=, fp16= and tf32= ask for."""
        if self.precision != "auto":
            return self.precision
        default = "auto" if self.bf16 is None and self.fp16 is None else "fp32"
        return next((name for name in PRECISION_FLAGS if getattr(self, name)), default)

    def set_precision(self, precision: str) -> None:
        """Let `precision`, `bf16` and the other flags say what is really computed in."""
        self.precision = precision
        for name in PRECISION_FLAGS:
            setattr(self, name, name == precision)

    def warmup(self, total: int) -> int:
        """Warm-up in steps, of `total`."""
        steps = self.warmup_steps
        return int(steps) if steps >= 1 else math.ceil(total * steps)

    def log_every(self, total: int) -> int:
        """Steps between log lines."""
        if self.logging_steps == "auto":
            return max(1, round(total / 50))
        return interval(float(self.logging_steps), total)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def interval(steps: float, total: int) -> int:
    """Steps between two moments; below 1 a share of all steps, rounded up."""
    return int(steps) if steps >= 1 else max(1, math.ceil(total * steps))
