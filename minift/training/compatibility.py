"""Names of training arguments from elsewhere: older spellings, and those that minift does not have.

The only file of the core that may name a backend: `no_cuda` is an older name of `use_cpu`.
"""

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
    "gradient_checkpointing": "models of this size fit in memory",
    "activation_checkpointing": "models of this size fit in memory",
    "eval_accumulation_steps": "each batch's logits go to the host at once",
    "prediction_loss_only": "logits are small",
    "dataloader_pin_memory": "the device's plugin decides that",
    "length_column_name": "lengths are those of input_ids",
    "do_train": "call trainer.train()",
    "do_eval": "call trainer.evaluate()",
    "do_predict": "call trainer.predict()",
    "auto_find_batch_size": "it would change what is computed",
    "fsdp": "models of this size fit one device",
    "deepspeed": "models of this size fit one device",
    "logging_nan_inf_filter": "a loss that is not finite ends the run and is shown as it is",
    "remove_unused_columns": "columns that the model does not take ride along untouched",
    "fp16_full_eval": "weights stay fp32; precision= chooses what is computed in",
    "torch_compile": "lengths differ from batch to batch; on CPU it was slower",
    "bf16_full_eval": "weights stay fp32; precision= chooses what is computed in",
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


def is_default_of_absent(name: str, value: Any) -> bool:
    """Return whether minift lacks this argument, but does what this value of it asks for."""
    return name in ABSENT and value in (*OFF_VALUES, *SUPPORTED_VALUES.get(name, ()))


def current_name(name: str, names: list[str]) -> str:
    """Today's name of an argument.

    Raises:
        ArgumentError: minift does not have it; says why, or which name is the nearest.
    """
    name = ALIASES.get(name, name)
    if name in names:
        return name
    what, expected = f"TrainingArguments has no argument {name!r}", nearest(name, names)
    do = "leave it out" if name in ABSENT else "see TrainingArguments for all names"
    raise ArgumentError(what, got=ABSENT.get(name), expected=expected, do=do)
