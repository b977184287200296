"""`Tracker`: what a run tells any tracker. A failing one is unplugged, and training goes on."""

import importlib.util
import math
import os
from pathlib import Path
from typing import Any, ClassVar

from minift import hookimpl


class Tracker:
    """An observer that copies the settings and the records of a run to a library's own store.

    A record that comes before training or after it (`trainer.evaluate()`) opens the same run of the
    tracker again.

    Attributes:
        library: the module of the library.
        package: what `pip install` calls it.
    """

    library: ClassVar[str]
    package: ClassVar[str]

    def __init__(self) -> None:
        self.opened: Any = None  # the library's own object for a run

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why it cannot be used, or None; the library is not imported for that."""
        if importlib.util.find_spec(cls.library) is None:
            return f"{cls.package} is not installed (pip install {cls.package})"
        return None

    def open(self, run: Any, name: str, config: dict[str, Any]) -> Any:
        """Begin, or go on with, the tracker's run that belongs to `run.id`; return its object."""
        raise NotImplementedError

    def write(self, numbers: dict[str, float], step: int) -> None:
        """Store numbers by name, such as "train/loss" and "eval/accuracy"."""
        raise NotImplementedError

    def close(self, failed: bool) -> None:
        """Bring everything to the disk, and end the tracker's run."""
        raise NotImplementedError

    @hookimpl
    def minift_on_train_begin(self, run: Any) -> None:
        from minift.models.weights import unwrap
        from minift.training.compatibility import to_plain

        if self.opened is None:
            model = getattr(unwrap(run.model), "config", None)
            config = {**run.args.to_dict(), **({"model": model.to_dict()} if model else {})}
            self.opened = self.open(run, run.args.run_name or run.id, to_plain(config))

    @hookimpl
    def minift_on_log(self, run: Any, record: dict[str, Any]) -> None:
        self.minift_on_train_begin(run)
        self.write(tags(record), record["step"])

    @hookimpl
    def minift_on_train_end(self, run: Any) -> None:
        self.end(failed=False)

    @hookimpl
    def minift_on_exception(self, run: Any, exception: BaseException) -> None:
        self.end(failed=True)

    def end(self, failed: bool) -> None:
        if self.opened is not None:
            self.close(failed)
            self.opened = None


def tags(record: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a record under the names that transformers gives them in trackers."""
    numbers = {}
    for name, value in record.items():
        if name != "step" and isinstance(value, int | float) and math.isfinite(value):
            part, _, rest = name.partition("_")
            numbers[f"{part}/{rest}" if part in ("eval", "test") else f"train/{name}"] = value
    return numbers


def project(variable: str) -> str:
    return os.environ.get(variable, "minift")


def folder_in(run: Any, name: str) -> Path | None:
    """Return a folder of the run's own; None if the run writes no files."""
    if not run.writes:
        return None
    folder: Path = run.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
