"""minift: fine-tune pretrained encoders with a stack that one person can read in a weekend.

The names below are those of the Hugging Face course, chapter 3. They are imported on first use
(PEP 562), so that `import minift` costs milliseconds and `minift --help` never loads torch.
Where to start reading: `hookspecs.py` is the map, `training/loop.py` the heart.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "load_dataset": "minift.data.loading",
    "load_from_disk": "minift.data.loading",
    "Dataset": "minift.data.dataset",
    "DatasetDict": "minift.data.dataset",
    "concatenate_datasets": "minift.data.combining",
    "Features": "minift.data.features",
    "Value": "minift.data.features",
    "ClassLabel": "minift.data.features",
    "List": "minift.data.features",
    "AutoTokenizer": "minift.tokenizer",
    "DataCollatorWithPadding": "minift.collate",
    "AutoConfig": "minift.models.auto",
    "AutoModel": "minift.models.auto",
    "AutoModelForSequenceClassification": "minift.models.auto",
    "AdamW": "minift.optim",
    "get_scheduler": "minift.schedule",
    "get_linear_schedule_with_warmup": "minift.schedule",
    "TrainingArguments": "minift.training.arguments",
    "Trainer": "minift.training.trainer",
    "EvalPrediction": "minift.training.evaluation",
    "EarlyStoppingCallback": "minift.training.callbacks",
    "Accelerator": "minift.accelerate.accelerator",
    "notebook_launcher": "minift.launch",
    "pipeline": "minift.pipeline",
    "set_seed": "minift.rng",
    "MiniftError": "minift.errors",
    "Device": "minift.device",
    "hookimpl": "minift.hookspecs",
}
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


if TYPE_CHECKING:  # what a type checker and an editor see
    from minift import evaluate
    from minift.accelerate.accelerator import Accelerator
    from minift.collate import DataCollatorWithPadding
    from minift.data.combining import concatenate_datasets
    from minift.data.dataset import Dataset, DatasetDict
    from minift.data.features import ClassLabel, Features, List, Value
    from minift.data.loading import load_dataset, load_from_disk
    from minift.device import Device
    from minift.errors import MiniftError
    from minift.hookspecs import hookimpl
    from minift.launch import notebook_launcher
    from minift.models.auto import AutoConfig, AutoModel, AutoModelForSequenceClassification
    from minift.optim import AdamW
    from minift.pipeline import pipeline
    from minift.rng import set_seed
    from minift.schedule import get_linear_schedule_with_warmup, get_scheduler
    from minift.tokenizer import AutoTokenizer
    from minift.training.arguments import TrainingArguments
    from minift.training.callbacks import EarlyStoppingCallback
    from minift.training.evaluation import EvalPrediction
    from minift.training.trainer import Trainer
