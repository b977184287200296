"""Weights & Biases: project WANDB_PROJECT; its own variables (WANDB_MODE=offline) hold as usual."""

from typing import Any, ClassVar

from minift_trackers.tracker import Tracker, folder_in, project


class WandB(Tracker):
    """Write to the run that the user has begun, or to one with the id of minift's.

    As in transformers, that stays open after training, for the evaluations that follow: until
    another one begins, or the process ends.
    """

    library = package = "wandb"
    ours: ClassVar[Any] = None  # the run that is open, if minift has begun it

    def open(self, run: Any, name: str, config: dict[str, Any]) -> Any:
        import wandb

        if wandb.run is not None and (wandb.run is not WandB.ours or wandb.run.id == run.id):
            return wandb.run
        if wandb.run is not None:
            wandb.run.finish()
        WandB.ours = wandb.init(
            project=project("WANDB_PROJECT"), name=name, id=run.id, resume="allow",
            dir=folder_in(run, "."), config=config,
        )  # fmt: skip
        return WandB.ours

    def write(self, numbers: dict[str, float], step: int) -> None:
        # Its own step only counts up, and a resumed run begins before the last one: chart by this.
        self.opened.log({**numbers, "train/global_step": step})

    def close(self, failed: bool) -> None:
        if failed and self.opened is WandB.ours:
            self.opened.finish(exit_code=1)
