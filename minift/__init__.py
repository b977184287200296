"""minift: fine-tune pretrained encoders with a stack that one person can read in a weekend.

The names below are those of the Hugging Face course, chapter 3. They are imported on first use
(PEP 562), so that `import minift` costs milliseconds and `minift --help` never loads torch.
Where to start reading: `hookspecs.py` is the map, `training/loop.py` the heart.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# {file: its public names}. Editors and type checkers see the same names in `__init__.pyi`.
_NAMES = {
    "data.loading": "load_dataset load_from_disk",
    "data.dataset": "Dataset DatasetDict",
    "data.combining": "concatenate_datasets",
    "data.features": "Features Value ClassLabel List",
    "tokenizer": "AutoTokenizer",
    "collate": "DataCollatorWithPadding",
    "models.auto": "AutoConfig AutoModel AutoModelForSequenceClassification",
    "optim": "AdamW",
    "schedule": "get_scheduler get_linear_schedule_with_warmup",
    "training.arguments": "TrainingArguments",
    "training.trainer": "Trainer",
    "training.evaluation": "EvalPrediction",
    "training.callbacks": "EarlyStoppingCallback",
    "accelerate.accelerator": "Accelerator",
    "launch": "notebook_launcher",
    "pipeline": "pipeline",
    "rng": "set_seed",
    "errors": "MiniftError",
    "device": "Device",
    "hookspecs": "hookimpl",
}
_HOME = {name: f"minift.{file}" for file, names in _NAMES.items() for name in names.split()}
__all__ = [*_HOME, "__version__", "evaluate"]


def __getattr__(name: str) -> Any:
    if name == "evaluate":  # the module: `from minift import evaluate`
        return importlib.import_module("minift.evaluate")
    if name not in _HOME:
        raise AttributeError(f"module 'minift' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
