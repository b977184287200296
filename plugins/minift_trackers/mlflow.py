"""MLflow: experiment MLFLOW_EXPERIMENT_NAME, in the store that MLFLOW_TRACKING_URI names."""

import os
import re
from typing import Any

from minift_trackers.tracker import Tracker

PARAMETERS = 100  # as many as MLflow takes at once


class MLflow(Tracker):
    """Write to the run that the user has begun, or to one with the id of minift's as its tag."""

    library = package = "mlflow"
    ours = True  # False: the user's run, which is theirs to end

    def open(self, run: Any, name: str, config: dict[str, Any]) -> Any:
        import mlflow

        active = mlflow.active_run()
        tag = active and active.data.tags.get("minift")
        self.ours = active is None or tag is not None
        if not self.ours:
            log_settings(config)
        if not self.ours or tag == run.id:
            return active
        mlflow.end_run()  # of an earlier Trainer, opened again by an evaluation
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "minift"))
        known = mlflow.search_runs(
            filter_string=f"tags.minift = '{run.id}'", output_format="list", max_results=1
        )
        if known:
            return mlflow.start_run(run_id=known[0].info.run_id)
        opened = mlflow.start_run(run_name=name, tags={"minift": run.id})
        log_settings(config)
        return opened

    def write(self, numbers: dict[str, float], step: int) -> None:
        import mlflow

        # Names of classes can be in names of metrics: MLflow takes no others than these letters.
        named = {re.sub(r"[^\w\-./ :]", "_", name): value for name, value in numbers.items()}
        mlflow.log_metrics(named, step=step, run_id=self.opened.info.run_id)

    def close(self, failed: bool) -> None:
        import mlflow

        if self.ours:
            mlflow.end_run("FAILED" if failed else "FINISHED")


def log_settings(config: dict[str, Any]) -> None:
    """Store settings as the parameters of the run that is open."""
    import mlflow

    settings = list(config.items())
    for start in range(0, len(settings), PARAMETERS):
        mlflow.log_params(dict(settings[start : start + PARAMETERS]))
