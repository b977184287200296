"""Names of training arguments from elsewhere: older spellings, and those that minift does not have.

The only file of the core that may name a backend: `no_cuda` is an older name of `use_cpu`.
"""

import os
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any

from minift.errors import ArgumentError, nearest

# {older or other spelling: today's name}
ALIASES: dict[str, str] = {
    "evaluation_strategy": "eval_strategy",
    "no_cuda": "use_cpu",
    "warmup_ratio": "warmup_steps",  # a value below 1 is a share of all steps
    "num_epochs": "num_train_epochs",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "group_by_length": "train_sampling_strategy",  # as it was before there were three of them
}

# Arguments of transformers that minift does not have, and why. A value that switches one off asks
# for what minift does anyway, and is accepted.
OFF_VALUES: tuple[Any, ...] = (None, False, "none", "", [], ["none"])
ABSENT = {
    "push_to_hub": "nothing is uploaded during training",
    "report_to": "metrics.jsonl is always written; trackers are plugins (hook minift_on_log)",
    "logging_dir": "everything is written to output_dir",
    "optim": "the optimizer is AdamW; pass optimizers=(yours, schedule) to Trainer for another",
    "label_names": "the label column is label, labels or label_ids: rename yours",
    "ignore_data_skip": "resuming goes on with the very next row, at no cost",
    "overwrite_output_dir": "a new run replaces what has the same name and leaves the rest",
    "enable_jit_checkpoint": "SIGTERM always saves",
    "average_tokens_across_devices": "the mean is always over all items",
    "restore_callback_states_from_checkpoint": "callbacks decide by what the checkpoint holds",
    "save_safetensors": "nothing else is written",
    "log_level": "what is printed is little; -p no:progress leaves the rest out",
    "eval_accumulation_steps": "each batch's logits go to the host at once",
    "prediction_loss_only": "logits are small",
    "dataloader_pin_memory": "the device's plugin decides that",
    "length_column_name": "lengths are those of input_ids",
    "auto_find_batch_size": "it would change what is computed",
    "logging_nan_inf_filter": "a loss that is not finite ends the run and is shown as it is",
    "remove_unused_columns": "columns that the model does not take ride along untouched",
    **dict.fromkeys(("gradient_checkpointing", "activation_checkpointing"), "models fit in memory"),
    **dict.fromkeys(("fsdp", "deepspeed"), "models of this size fit one device"),
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), "call trainer.train() and so on"),
    **dict.fromkeys(("fp16_full_eval", "bf16_full_eval"), "weights stay fp32; see precision="),
    "torch_compile": "lengths differ from batch to batch; on CPU it was slower",
}
# Values of absent arguments that name what minift does.
SUPPORTED_VALUES: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        ("remove_unused_columns", "enable_jit_checkpoint", "save_safetensors"), (True,)
    ),
    **dict.fromkeys(("average_tokens_across_devices", "dataloader_pin_memory"), (True,)),
    "log_level": ("passive",),
    "optim": ("adamw_torch", "adamw_torch_fused"),
}


def is_left_out(name: str, value: Any) -> bool:
    """Return whether an argument changes nothing, as scripts that spell defaults out pass it."""
    off = (*OFF_VALUES, *SUPPORTED_VALUES.get(name, ()))
    return value is None if name in ALIASES else name in ABSENT and to_plain(value) in off


def current_setting(name: str, value: Any) -> tuple[str, Any]:
    """Return today's name of an argument, and its value under that name as one of Python's own."""
    value = to_plain(value)
    if name == "group_by_length" and isinstance(value, bool):
        value = "group_by_length" if value else "random"
    if name == "warmup_ratio" and not (isinstance(value, int | float) and value < 1):
        raise ArgumentError(f"{name} must be a number from 0 to below 1, got {value!r}")
    return ALIASES.get(name, name), value


def to_plain(value: Any) -> Any:
    """Return a value in Python's own types, as JSON has them, also inside of dicts and lists.

    Numbers and arrays of numpy's and torch's become Python's, keys and paths text, and a member of
    an Enum is its value.
    """
    if isinstance(value, Mapping):
        return {str(to_plain(name)): to_plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    value = value.value if isinstance(value, Enum) else value
    return value.tolist() if hasattr(value, "tolist") else value


def unknown_argument(name: str, names: Collection[str]) -> ArgumentError:
    """Return the error about a name that minift does not have: why, or which is the nearest."""
    what, expected = f"TrainingArguments has no argument {name!r}", nearest(name, names)
    do = "leave it out" if name in ABSENT else "see TrainingArguments for all names"
    return ArgumentError(what, got=ABSENT.get(name), expected=expected, do=do)
