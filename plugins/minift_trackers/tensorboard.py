"""TensorBoard: event files in output_dir/runs, or in TENSORBOARD_LOGGING_DIR."""

import json
import os
from typing import Any

from minift_trackers.tracker import Tracker, folder_in


class TensorBoard(Tracker):
    library = package = "tensorboard"

    def open(self, run: Any, name: str, config: dict[str, Any]) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        folder = os.environ.get("TENSORBOARD_LOGGING_DIR") or folder_in(run, "runs")
        if folder is None:
            raise ValueError("TensorBoard needs an output_dir, or TENSORBOARD_LOGGING_DIR")
        writer = SummaryWriter(os.path.join(folder, run.id))
        writer.add_text("config", f"```json\n{json.dumps(config, indent=2)}\n```")
        return writer

    def write(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.opened.add_scalar(name, value, step)
        self.opened.flush()

    def close(self, failed: bool) -> None:
        self.opened.close()
