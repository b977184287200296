"""Trackio: project TRACKIO_PROJECT, in the folder TRACKIO_DIR; `trackio show` draws it."""

from typing import Any

from minift_trackers.tracker import Tracker, project


class Trackio(Tracker):
    library = package = "trackio"

    def open(self, run: Any, name: str, config: dict[str, Any]) -> Any:
        import trackio

        return trackio.init(
            project("TRACKIO_PROJECT"), name=name, config=config, resume="allow", embed=False
        )

    def write(self, numbers: dict[str, float], step: int) -> None:
        self.opened.log(numbers, step=step)

    def close(self, failed: bool) -> None:
        self.opened.finish()
