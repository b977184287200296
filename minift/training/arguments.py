"""`TrainingArguments`: every setting of a run, with the names and defaults of the peer's.

The fields of the class are the one table of settings: name, type, default, range, help text. A
value is checked by it wherever it is set, and `minift train` makes its flags of it. Older spellings
are understood; a name that minift does not have is an error that says why, never ignored.
"""

import dataclasses
import math
import os
from dataclasses import dataclass, field
from typing import Any

from minift.errors import ArgumentError, ConfigError
from minift.schedule import SCHEDULES
from minift.settings import AT_LEAST_1, NOT_NEGATIVE, Range, checked, choice, is_finite, types_of
from minift.training.compatibility import ALIASES, current_setting, is_left_out, unknown_argument

PRECISION_FLAGS = ("bf16", "fp16", "tf32")

# What a run computes depends on these, so a checkpoint is resumed with the same ones only.
DECISIVE = (
    *("num_train_epochs", "max_steps", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs"),
    *("warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
    *("label_smoothing_factor", "precision", "seed", "data_seed", "train_sampling_strategy"),
    *("dataloader_drop_last", "metric_for_best_model", "greater_is_better"),
)


def is_steps(n: float | str) -> bool:
    return not isinstance(n, str) and (0 < n < 1 or (n >= 1 and n % 1 == 0))


WORKERS = Range("a whole number, 0 to 1000", lambda n: 0 <= n <= 1000)
MAX_STEPS = Range("at least 1, or -1: num_train_epochs decides", lambda n: n in (-1, 0) or n >= 1)
BELOW_1 = Range("a number from 0 to below 1", lambda n: 0 <= n < 1)
STEPS = Range("a whole number of steps, or above 0 and below 1 a share of all", is_steps)
OR_AUTO = Range(f"auto, or {STEPS.expected}", lambda n: n == "auto" or is_steps(n))
SAVING, STRATEGY = choice("no", "steps", "epoch", "best"), choice("no", "steps", "epoch")
SAMPLING = choice("random", "sequential", "group_by_length")
PRECISION = choice("auto", "fp32", *PRECISION_FLAGS)
BY_NAME = Range("finite numbers by name", lambda numbers: all(map(is_finite, numbers.values())))
TRACKERS = Range(
    "names of trackers, all or none", lambda names: all(isinstance(n, str) for n in names or ())
)
FOLDER, CHECKPOINT = Range("a folder", bool), Range("True, False or a folder")


def arg(default: Any, text: str, values: Range | None = None) -> Any:
    return field(default=default, metadata={"help": text, "range": values})


@dataclass(init=False)
class TrainingArguments:
    """The settings of a run. `TrainingArguments("folder", learning_rate=3e-5, ...)`"""

    # What is written where
    output_dir: str | None = arg("trainer_output", "run folder; None in Python: no files", FOLDER)
    run_name: str | None = arg(None, "a name for the run, recorded in run.json")

    # How much
    num_train_epochs: float = arg(3.0, "passes over the training rows; fractions stop by steps")
    max_steps: float = arg(-1, "optimizer steps in all", MAX_STEPS)
    per_device_train_batch_size: int = arg(8, "rows in a micro-batch of training", AT_LEAST_1)
    per_device_eval_batch_size: int = arg(8, "rows in a batch of evaluation", AT_LEAST_1)
    gradient_accumulation_steps: int = arg(1, "micro-batches in an optimizer step", AT_LEAST_1)

    # The optimizer: AdamW
    learning_rate: float = arg(5e-5, "peak learning rate", NOT_NEGATIVE)
    lr_scheduler_type: str = arg("linear", "name of a schedule", choice(*SCHEDULES))
    lr_scheduler_kwargs: dict[str, float] | None = arg(None, "its own: power=2,lr_end=0", BY_NAME)
    warmup_steps: float = arg(0, "steps of rising rates; below 1, a share of all", NOT_NEGATIVE)
    weight_decay: float = arg(0.0, "decoupled; not applied to biases and norms", NOT_NEGATIVE)
    adam_beta1: float = arg(0.9, "decay rate of the first moment", BELOW_1)
    adam_beta2: float = arg(0.999, "decay rate of the second moment", BELOW_1)
    adam_epsilon: float = arg(1e-8, "added to the root of the second moment", NOT_NEGATIVE)
    max_grad_norm: float = arg(1.0, "L2 norm that gradients are clipped to; 0 = off", NOT_NEGATIVE)

    label_smoothing_factor: float = arg(0.0, "share of the target spread over all classes", BELOW_1)

    # Where and how it is computed
    device: str = arg("auto", "auto, or a device that a plugin provides (`minift plugins`)")
    use_cpu: bool = arg(False, "the same as device=cpu")
    precision: str = arg("auto", "auto: bf16 where native, else fp32", PRECISION)
    bf16: bool | None = arg(None, "True: precision=bf16; False: precision=fp32")
    fp16: bool | None = arg(None, "True: precision=fp16; False: precision=fp32")
    tf32: bool | None = arg(None, "True: precision=tf32, on GPUs that have it")

    full_determinism: bool = arg(False, "refuse operations that may differ from run to run")

    # Rows
    seed: int = arg(42, "of every random stream of the run")
    data_seed: int | None = arg(None, "of the order of rows; seed by default")
    train_sampling_strategy: str = arg("random", "order of the rows", SAMPLING)
    dataloader_drop_last: bool = arg(False, "leave out the last, shorter batch of an epoch")
    dataloader_num_workers: int = arg(0, "processes that collate batches; 0 = this one", WORKERS)

    # What is logged and evaluated, and when. Intervals below 1 are a share of all steps.
    logging_strategy: str = arg("steps", "when to log", STRATEGY)
    logging_steps: float | str = arg("auto", "steps a log line; auto = about 50 a run", OR_AUTO)
    logging_first_step: bool = arg(False, "also log the first step")
    eval_strategy: str = arg("no", "when to evaluate", STRATEGY)
    eval_steps: float | None = arg(None, "between evaluations; logging_steps by default", STEPS)
    eval_delay: float = arg(0, "steps or epochs before the first evaluation", NOT_NEGATIVE)
    eval_on_start: bool = arg(False, "also evaluate before the first step")
    report_to: str | list[str] | None = arg("none", "trackers: a,b, all or none", TRACKERS)
    disable_tqdm: bool | None = arg(None, "no progress bar; by default one on a terminal only")

    # What is saved and when
    save_strategy: str = arg("steps", "when to save; best: when the metric improved", SAVING)
    save_steps: float = arg(0.1, "between checkpoints; the last step has one too", STEPS)
    save_total_limit: int | None = arg(2, "how many checkpoints are kept; none: all", AT_LEAST_1)
    save_only_model: bool = arg(False, "checkpoints without what resuming needs")
    resume_from_checkpoint: bool | str | None = arg(None, "True: the newest valid one", CHECKPOINT)

    # Which model is the best
    load_best_model_at_end: bool = arg(False, "keep the best model apart, and end with it")
    metric_for_best_model: str | None = arg(None, "what best_metric follows; loss by default")
    greater_is_better: bool | None = arg(None, "by default as the metric's name says")

    def __init__(self, output_dir: str | None = "trainer_output", **settings: Any) -> None:
        vars(self).update({f.name: f.default for f in dataclasses.fields(self)})
        given = {name: v for name, v in settings.items() if not is_left_out(name, v)}
        for name, value in {"output_dir": output_dir, **given}.items():
            if (current := ALIASES.get(name)) in given:
                raise ArgumentError(f"{name} and {current} are one argument", do="pass one of them")
            setattr(self, name, value)
        self.check()

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field, under any of its names, to a value that its row of the table allows."""
        current, plain = current_setting(name, value)
        fields = {f.name: f for f in dataclasses.fields(self)}
        if current not in fields:
            raise unknown_argument(name, fields)
        types, values = types_of(fields[current].type), fields[current].metadata["range"]
        plain = checked(name, plain, types, values)
        is_path = values in (FOLDER, CHECKPOINT) and isinstance(plain, str)
        super().__setattr__(current, os.path.expanduser(plain) if is_path else plain)

    def check(self) -> None:
        """Refuse settings that contradict each other, all at once."""
        wrong = []
        if not 0 < self.num_train_epochs < 1e9 and self.max_steps <= 0:
            wrong.append("num_train_epochs or max_steps must be a positive number")
        flags = {flag for flag in PRECISION_FLAGS if getattr(self, flag)}
        if len(chosen := flags | {self.precision} - {"auto"}) > 1:
            wrong.append(f"precision cannot be {' and '.join(sorted(chosen))} at once")
        if self.use_cpu and self.device not in ("auto", "cpu"):
            wrong.append(f"use_cpu=True and device={self.device!r} contradict each other")
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
        return interval(self.warmup_steps, total) if self.warmup_steps else 0

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
