"""Trackers that people have: `report_to="tensorboard"`, wandb, mlflow, trackio, several, or "all".

Each file is one tracker: three functions of its own library. `tracker.py` is what they share.
"""

from minift import hookimpl
from minift_trackers.mlflow import MLflow
from minift_trackers.tensorboard import TensorBoard
from minift_trackers.trackio import Trackio
from minift_trackers.wandb import WandB


@hookimpl
def minift_register_trackers():
    return {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow, "trackio": Trackio}
