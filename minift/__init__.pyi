# The public names of minift: `__init__.py` imports each when it is first used.
from minift_callbacks.early_stopping import EarlyStoppingCallback as EarlyStoppingCallback
from minift_inspect.inspection import inspect as inspect
from minift_notebook.launch import notebook_launcher as notebook_launcher
from minift_pipeline.pipeline import pipeline as pipeline

from minift import evaluate as evaluate
from minift.accelerate.accelerator import Accelerator as Accelerator
from minift.collate import DataCollatorWithPadding as DataCollatorWithPadding
from minift.data.combining import concatenate_datasets as concatenate_datasets
from minift.data.dataset import Dataset as Dataset
from minift.data.dataset import DatasetDict as DatasetDict
from minift.data.features import ClassLabel as ClassLabel
from minift.data.features import Features as Features
from minift.data.features import List as List
from minift.data.features import Value as Value
from minift.data.loading import load_dataset as load_dataset
from minift.data.loading import load_from_disk as load_from_disk
from minift.device import Device as Device
from minift.errors import MiniftError as MiniftError
from minift.hookspecs import hookimpl as hookimpl
from minift.models.auto import AutoConfig as AutoConfig
from minift.models.auto import AutoModel as AutoModel
from minift.models.auto import (
    AutoModelForSequenceClassification as AutoModelForSequenceClassification,
)
from minift.optim import AdamW as AdamW
from minift.rng import set_seed as set_seed
from minift.schedule import get_linear_schedule_with_warmup as get_linear_schedule_with_warmup
from minift.schedule import get_scheduler as get_scheduler
from minift.tokenizer import AutoTokenizer as AutoTokenizer
from minift.training.arguments import TrainingArguments as TrainingArguments
from minift.training.evaluation import EvalPrediction as EvalPrediction
from minift.training.trainer import Trainer as Trainer

__version__: str
