"""Checkpoints: complete or not there, without pickle, enough to continue to the bit.

    output_dir/checkpoint-40/
      config.json, model.safetensors, ...  the model, a folder that `from_pretrained` opens
      optimizer.safetensors                "PARAMETER:exp_avg" and so on, see serialization.py
      state.json                           the step, history, settings, schedule
      manifest.json                        written last: each file's length and digest
    output_dir/best-24/                    the model alone, with load_best_model_at_end

A kill or a full disk at any moment leaves what was there before. Each folder notes the id of the
run that wrote it, and no run removes what another one wrote. No generator is saved: the loop
derives its random streams from the seed and the step (rng.py).
"""

import contextlib
import json
import os
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minift import distributed, files
from minift.data import cache
from minift.device import choose_precision
from minift.errors import ConfigError, DataError, MissingFileError, TrainingError
from minift.signals import on_signal
from minift.training import serialization
from minift.training.arguments import interval
from minift.training.batches import steps_per_epoch
from minift.training.run import Run, TrainerState

PREFIX = "checkpoint-"

# -------------------------------------------------------------------------- which ones there are


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Return the folders called checkpoint-STEP, in the order of their steps."""
    found = [path for path in output_dir.glob(f"{PREFIX}*") if path.is_dir()]
    numbered = [path for path in found if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(numbered, key=step_of)


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))


def run_id_of(folder: Path) -> str | None:
    """Return the id of the run that wrote a folder; None if it has no readable manifest."""
    with contextlib.suppress(DataError):
        return files.read_manifest(folder).meta.get("run")
    return None


def last_run_id(output_dir: Path) -> str | None:
    """Return the id of the run that run.json describes, if there is one."""
    with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
        return json.loads((output_dir / "run.json").read_text(encoding="utf-8")).get("run")
    return None


def newest_valid(output_dir: Path, run_id: str | None, log: Callable[[str], None]) -> Path:
    """Return the newest valid checkpoint of a run.

    Args:
        output_dir: the run folder.
        run_id: which run's; None takes any, where nothing tells whose the folder is.
        log: called with a line for each newer checkpoint that is skipped, and why.

    Raises:
        MissingFileError: there is none.
    """
    checkpoints = list_checkpoints(output_dir)
    for folder in reversed(checkpoints):
        try:
            if run_id in (None, files.verify_folder(folder).meta.get("run")):
                read_state(folder)
                return folder
            log(f"skipped {folder}: an earlier run in this folder wrote it")
        except (DataError, MissingFileError) as error:
            log(f"skipped {folder}: {error}")
    what = f"there is no valid checkpoint in {output_dir}"
    got = ", ".join(p.name for p in checkpoints) or "no folder called checkpoint-STEP"
    raise MissingFileError(what, got=got, do="start without resume_from_checkpoint")


def verified(folder: Path) -> Path:
    """Return a checkpoint that the user named, with every byte as it was written.

    Raises:
        MissingFileError: there is no such folder, or it is the one that checkpoints are in.
        DataError: it is damaged.
    """
    inside = ", ".join(path.name for path in list_checkpoints(folder))
    if inside or not folder.is_dir():
        got = f"a run folder, with {inside}" if inside else "no such folder"
        expected = "a folder called checkpoint-STEP; or True for the newest in output_dir"
        raise MissingFileError(f"{folder} is not a checkpoint", got=got, expected=expected)
    files.verify_folder(folder)
    return folder


def find(run: Run, resume: bool | str | Path | None, precision_may_change: bool) -> Path | None:
    """Return the checkpoint that a run has to go on from, if any.

    Args:
        run: about to begin; it takes the checkpoint's precision, if it may.
        resume: of `train()`; None: what the arguments say.
        precision_may_change: no precision was asked for.
    """
    args, in_folder = run.args, run.args.output_dir is not None
    word = str(args.resume_from_checkpoint if resume is None else resume)
    before = last_run_id(run.folder) if in_folder else None
    if before and run.writes:
        files.recover(run.folder)
    run.device.barrier()  # from here on all processes see the same files
    others = [path.name for path in list_checkpoints(run.folder)] if in_folder else []
    anew = word.lower() in ("none", "false", "")
    if anew and not (distributed.restarted() and before and others):
        if others and run.writes:
            names = ", ".join(others)
            run.log_message(f"a new run begins in {run.folder}, which holds {names} of others")
        return None
    if not anew and word.lower() != "true":
        folder = verified(files.local_path(word))
    elif not in_folder:
        raise ConfigError("output_dir is None: nothing was saved", do="name a checkpoint")
    else:
        folder = newest_valid(run.folder, before, run.log_message)
    if precision_may_change:
        saved = read_state(folder)["arguments"]["precision"]
        run.precision, _ = choose_precision(saved, run.device)
        run.precision_reason = "as in the checkpoint"
        args.set_precision(run.precision)
    return folder


def read_state(folder: Path) -> dict[str, Any]:
    """Return state.json of a checkpoint.

    Raises:
        MissingFileError: it holds the model alone.
    """
    path = folder / "state.json"
    if not path.is_file():
        what = f"{folder} holds a model alone (save_only_model), which cannot be resumed"
        raise MissingFileError(what, do="start a new run from that model")
    return json.loads(path.read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------- saving


def save(run: Run) -> None:
    """Write checkpoint-STEP, and remove the oldest of this run beyond save_total_limit.

    One process writes, and the others wait for it.

    Raises:
        TrainingError: there is no space; all earlier checkpoints are intact.
    """
    if run.writes:
        folder = run.folder / f"{PREFIX}{run.state.global_step}"
        write(run, folder, with_state=not run.args.save_only_model)
        remove_oldest(folder, run.id, run.args.save_total_limit)
        remove_other_best(run)
        run.call_observers("minift_on_save", path=folder)
    run.device.barrier()


def write(run: Run, folder: Path, with_state: bool) -> None:
    """Write the model, and if asked for what training goes on from, to a folder."""
    meta = {"run": run.id, "step": run.state.global_step}
    with new_folder(folder, meta, serialization.checkpoint_bytes(run.model)) as scratch:
        if run.save_model is not None:
            run.save_model(scratch)
        serialization.save_model(run.model, scratch, run.device, run.processing_class)
        if with_state:
            serialization.write_state(scratch / "state.json", serialization.run_state(run))


@contextlib.contextmanager
def new_folder(folder: Path, meta: Mapping[str, Any], size: int) -> Iterator[Path]:
    """Yield a scratch folder that becomes `folder`, whole, when the block ends without an error.

    Args:
        folder: its final name.
        meta: JSON for the manifest; "run" is the id of the run that writes it.
        size: bytes that must be free before anything is written.

    Raises:
        TrainingError: there is no space, or writing failed; what was there is as it was.
    """
    aside = folder.with_name(f"{folder.name}.unknown-{uuid.uuid4().hex[:8]}")
    with files.explained(folder, size, TrainingError), files.new_folder(folder, meta) as scratch:
        files.check_space(scratch, size)
        yield scratch
        if folder.exists() and run_id_of(folder) is None:  # nobody knows whose: not deleted
            os.replace(folder, aside)


def check_saving(run: Run) -> None:
    """Refuse now what could not be saved later: too large, or of what no file can hold.

    Else say how often checkpoints are written, and how much disk they take.
    """
    serialization.check_model(run.model)
    json.dumps(serialization.run_state(run)[1])
    size, limit = serialization.checkpoint_bytes(run.model), run.args.save_total_limit
    disk = f"{limit} are kept, {limit * size / 1e6:,.0f} MB of disk" if limit else "all are kept"
    with files.explained(run.folder / PREFIX, size, TrainingError):
        run.folder.mkdir(parents=True, exist_ok=True)
        files.check_space(run.folder, size)
    often = save_frequency(run)
    run.log_message(f"checkpoints are written {often}, {size / 1e6:,.0f} MB each; {disk}")


def save_frequency(run: Run) -> str:
    """Return in words how often a checkpoint is written."""
    strategy, steps = run.args.save_strategy, interval(run.args.save_steps, run.state.max_steps)
    steps = steps_per_epoch(run) if strategy == "epoch" else steps
    others = {"no": "never (save_strategy)", "best": "when the best metric improves"}
    often = others.get(strategy, f"every {steps} steps")
    return often if run.args.output_dir else "never (output_dir is None)"


@contextlib.contextmanager
def interruptible(run: Run) -> Iterator[None]:
    """Let the first SIGTERM or Ctrl-C end a run after its step, and say how it goes on.

    Raises:
        ConfigError: another process trains in the run folder; each would remove the other's files.
    """

    def notice(number: int) -> None:
        run.termination_signal = number
        with contextlib.suppress(RuntimeError):  # it came in the middle of another line
            run.log_message("ending after this step, and saving it; the next signal ends at once")

    run.termination_signal = 0  # an earlier one ended an earlier call
    lock = only_run(run.folder) if run.writes else contextlib.nullcontext()
    try:
        with lock, on_signal(signal.SIGTERM, notice), on_signal(signal.SIGINT, notice):
            yield
    except (KeyboardInterrupt, SystemExit):
        run.log_message(how_to_go_on(run))
        raise


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, or raise a ConfigError that names the process which has it."""
    path = folder / ".lock"
    with cache.lock(str(path), wait=False) as ours:
        # "process PID on HOST", or nothing yet if it has just begun
        _, pid, _, host = [*path.read_text().split(maxsplit=3), *[""] * 4][:4]
        # Where that is dead, workers live that it had started.
        if not ours and (not pid or files.is_alive(int(pid), host)):
            got = f"process {pid} on {host}" if pid else "a process that has just begun"
            do = "choose another output_dir, or wait for it"
            raise ConfigError(f"another run trains in {folder}", got=got, do=do)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def how_to_go_on(run: Run) -> str:
    """Return a line for the person whose run has ended early."""
    ended = f"the run ended at step {run.state.global_step} of {run.state.max_steps}"
    saved = [path for path in list_checkpoints(run.folder) if run_id_of(path) == run.id]
    if not saved:
        return f"{ended}, without a checkpoint: one is written {save_frequency(run)}"
    alone = f"{saved[-1].name} holds its model alone (save_only_model)"
    again = f"it goes on from {saved[-1].name} with\n  {run.resume_command}"
    return f"{ended}; {alone if run.args.save_only_model else again}"


def remove_oldest(saved: Path, run_id: str, limit: int | None) -> None:
    """Keep the checkpoint just saved and the newest others of this run, `limit` in all.

    There are later ones than `saved` if the run continued from an earlier checkpoint, for example
    because these were damaged. They go first.
    """
    others = [p for p in list_checkpoints(saved.parent) if p != saved and run_id_of(p) == run_id]
    others.sort(key=lambda folder: step_of(folder) < step_of(saved))
    for folder in others[: max(0, len(others) + 1 - limit)] if limit else ():
        remove(folder, run_id)


def remove(folder: Path, run_id: str) -> None:
    with contextlib.suppress(OSError):
        files.remove_folder(folder)


# ------------------------------------------------------------------------------------- restoring


def restore(run: Run, folder: Path) -> None:
    """Put a run, built as the saved one was, at its step; the folder has been verified.

    Raises:
        ConfigError: settings, rows or model are not those of the saved run; names them.
    """
    serialization.check_same_setup(run, read_state(folder), folder)
    saved = serialization.load_training_state(
        folder / "state.json", run.model, run.device, [run.optimizer], [run.scheduler]
    )
    run.state, run.id = TrainerState(**saved["state"]), run_id_of(folder) or run.id
    run.losses.load_state_dict(saved["losses"], run.state.global_step)
    if (device := saved["device"]) != (now := run.device.description):
        run.log_message(f"saved on {device}: on {now} results are equal to rounding")


# -------------------------------------------------------------------------------- the best model


def save_best(run: Run) -> None:
    """Write the model as it is now to best-STEP, at whatever steps checkpoints are saved."""
    folder = run.folder / f"best-{run.state.best_step}"
    run.state.best_model_checkpoint = str(folder)
    if run.writes:
        write(run, folder, with_state=False)
        remove_other_best(run)
    run.device.barrier()


def remove_other_best(run: Run) -> None:
    """Remove this run's best-STEP folders that neither it nor its newest checkpoint refers to."""
    states = [asdict(run.state)]
    for path in [p for p in list_checkpoints(run.folder) if run_id_of(p) == run.id][-1:]:
        with contextlib.suppress(MissingFileError, ValueError, KeyError):  # it may be damaged
            states.append(read_state(path)["state"])
    needed = {Path(state["best_model_checkpoint"] or "").name for state in states}
    for path in run.folder.glob("best-*"):
        if path.name not in needed and run_id_of(path) == run.id:
            remove(path, run.id)


def load_best(run: Run) -> None:
    """Load the weights that were best, wherever the run folder was moved to.

    Raises:
        DataError: they are gone or damaged; the last ones are in the newest checkpoint.
    """
    if run.state.best_model_checkpoint is not None:
        folder = Path(run.state.best_model_checkpoint)
        folder = folder if folder.is_dir() else run.folder / folder.name
        files.verify_folder(folder)
        serialization.load_model(run.model, folder)
