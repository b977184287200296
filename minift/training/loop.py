"""THE loop. One function, read from top to bottom; `hookspecs.py` is its map.

Three rules make it exact:

- A micro-batch gives a *sum* of losses and a count. Gradients add up sums and are divided once, by
  the count of the whole group, so how a step is cut into micro-batches does not matter.
- The order of epoch e and the dropout masks of step s are streams of their own, computed from the
  seed, e and s; evaluating, logging or interrupting moves neither.
- Nothing is read from the device between log points. A loss or gradient that is not finite sets a
  latch there, which masks every update from that step on; it is read with the next log record, and
  the rows of that step are computed again from the seed.

So the state of a run between two steps is small: weights, moments, a step number and the sums since
the last log record. `checkpoint.py` saves just that.
"""

import math
import signal
from typing import Any

import numpy as np
import torch

from minift import rng
from minift.errors import ConfigError, TrainingError
from minift.training import checkpoint
from minift.training.arguments import interval
from minift.training.batches import row_order, split_into_batches
from minift.training.callbacks import best_metric_of
from minift.training.evaluation import evaluate, loss_of
from minift.training.run import Run, plain


def train(run: Run) -> None:
    """Train `run.model` from `run.state.global_step` to `run.state.max_steps`."""
    args, state, device, optimizer = run.args, run.state, run.device, run.optimizer
    assert run.train_dataset is not None
    per_epoch = steps_per_epoch(run)
    window = run.window  # what the next log record is about
    if args.eval_on_start and state.global_step == 0:
        evaluate_and_compare(run)
    run.model.train()
    optimizer.zero_grad(set_to_none=True)

    while state.global_step < state.max_steps and not state.stop_reason:
        epoch, done = divmod(state.global_step, per_epoch)
        # O(1) seek: an epoch's plan is a function
        updates = [own_batches(run, group) for group in epoch_plan(run, epoch)[done:]]
        plan = [rows for parts, _ in updates for rows in parts]  # the same, batch by batch
        number = state.global_step * args.gradient_accumulation_steps  # of the plan's first batch
        size = args.per_device_train_batch_size
        stream = run.batches(run.train_dataset, plan, size, number)

        for parts, weight in updates:
            masks = state.global_step * device.world_size + device.rank  # each rank has its own
            device.seed(rng.derive(args.seed, "dropout", masks))
            step_loss, step_count = 0.0, 0
            try:
                for i, _ in enumerate(parts):
                    batch = next(stream)
                    with device.autocast(run.precision):
                        outputs = run.forward(batch)
                        loss_sum, count = loss_of(run, outputs, batch)
                        loss_sum, count = loss_sum * weight, count * weight
                    device.backward(loss_sum, last=i == len(parts) - 1)
                    step_loss, step_count = step_loss + loss_sum.detach(), step_count + count
            except torch.OutOfMemoryError as error:
                run.halve_batches(parts, error)
                optimizer.zero_grad(set_to_none=True)
                break  # nothing has changed: the same update again, in smaller parts

            all_loss, all_count = over_all_ranks(run, step_loss, step_count)
            norm = device.clip_grad_norm(optimizer, args.max_grad_norm, all_count)
            window.add(all_loss, all_count, norm)
            learning_rate = optimizer.param_groups[0]["lr"]  # the one that this update uses
            if device.step(optimizer, window.halted):
                run.scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            state.global_step += 1
            state.epoch = state.global_step / per_epoch
            run.call_observers("minift_on_step_end")

            if logging_due(run, per_epoch):
                run.log({**window.fetch(run), "learning_rate": learning_rate})
            improved = False
            if evaluation_due(run, per_epoch):
                window.fetch(run, keep=True)  # never evaluate, and never save, after a halt
                improved = device.any_rank(evaluate_and_compare(run))
                reason = run.manager.hook.minift_should_stop(run=run)
                if device.any_rank(reason is not None):
                    state.stop_reason = reason or "another process stopped"
            terminated = device.any_rank(run.terminated)
            if terminated or saving_due(run, per_epoch, improved):
                window.fetch(run, keep=True)
                checkpoint.save(run)
            if terminated:
                raise SystemExit(128 + (run.terminated or signal.SIGTERM))  # as a shell reports it
            if state.stop_reason or state.global_step == state.max_steps:
                window.fetch(run, keep=True)
                return


class Window:
    """Sums on the device since the last log record, and the latch."""

    def __init__(self, device: Any) -> None:
        self.device = device
        # Each window begins with these. New ones would be part of what some backends compile.
        self.zeros = self.number(0), self.number(0)
        self.loss, self.count = self.zeros
        self.norm, self.step = self.number(0), self.number(0)
        self.halted = self.number(0)  # 1 from the first step that is not finite
        self.bad_step = self.number(-1)
        self.total_loss, self.total_count = 0.0, 0.0

    def number(self, value: float) -> torch.Tensor:
        return torch.full((), float(value), device=self.device.torch_device)

    def sums(self) -> dict[str, float]:
        """What a checkpoint keeps, so that a log record after it is that of a run without it."""
        got = self.device.fetch({"loss": self.loss, "count": self.count})
        return {**got, "total_loss": self.total_loss, "total_count": self.total_count}

    def mean(self) -> float:
        """The loss per item over the whole run so far."""
        sums = self.sums()
        count = sums["count"] + sums["total_count"]
        return (sums["loss"] + sums["total_loss"]) / (count or 1)

    def restore(self, sums: dict[str, float], step: int) -> None:
        self.loss, self.count = self.number(sums["loss"]), self.number(sums["count"])
        self.step = self.number(step)
        self.total_loss, self.total_count = sums["total_loss"], sums["total_count"]

    def add(self, loss: torch.Tensor, count: torch.Tensor, norm: torch.Tensor) -> None:
        """One optimizer step: its summed loss, its count, its gradient's norm."""
        finite = torch.isfinite(loss)
        if self.device.scaler is None:  # else gradients overflow now and then, and the step is left
            finite = finite & torch.isfinite(norm)
        self.bad_step = torch.where((self.halted == 0) & ~finite, self.step, self.bad_step)
        self.step = self.step + 1
        self.halted = torch.maximum(self.halted, (~finite).to(self.halted.dtype))
        self.loss, self.count, self.norm = self.loss + loss, self.count + count, norm

    def fetch(self, run: Run, keep: bool = False) -> dict[str, float]:
        """The record of the window, on the host.

        Args:
            run: for the message, should it come to that.
            keep: only look at the latch, and go on adding.

        Raises:
            TrainingError: a loss or gradient was not finite; says the step, the learning rate and
                the rows, which have not changed the model.
        """
        got = self.device.fetch(
            {"loss": self.loss, "count": self.count, "norm": self.norm, "bad": self.bad_step}
        )
        if got["bad"] >= 0:
            raise not_finite(run, int(got["bad"]))
        if keep:
            return {}
        self.total_loss += got["loss"]
        self.total_count += got["count"]
        self.loss, self.count = self.zeros
        return {"loss": got["loss"] / (got["count"] or 1), "grad_norm": got["norm"]}


def not_finite(run: Run, step: int) -> TrainingError:
    """The error that names what was being computed when numbers stopped being finite."""
    epoch, index = divmod(step, steps_per_epoch(run))
    rows = [int(row) for part in epoch_plan(run, epoch)[index] for row in part]
    lambdas = getattr(run.scheduler, "lr_lambdas", None)
    rate = run.args.learning_rate * (lambdas[0](step) if lambdas else 1.0)
    return TrainingError(
        f"the loss or the gradient is not finite at step {step + 1}",
        got=f"learning rate {rate:.3g}, precision {run.precision}, training rows {rows}",
        expected="finite numbers; the model is as it was before that step",
        do="look at those rows, or lower the learning rate"
        + ("" if run.precision == "fp32" else ", or compute in fp32"),
    )


# ------------------------------------------------------------------------------------ what and when


def epoch_plan(run: Run, epoch: int) -> list[list[np.ndarray]]:
    """The rows of an epoch: optimizer steps of micro-batches of row numbers, those of all ranks."""
    args, dataset = run.args, run.train_dataset
    assert dataset is not None
    size, group = run.rows_at_once, args.gradient_accumulation_steps
    seed = args.seed if args.data_seed is None else args.data_seed
    kind = args.train_sampling_strategy
    lengths = dataset.lengths("input_ids") if kind == "group_by_length" else None
    order = row_order(len(dataset), seed, epoch, lengths, size * group)
    if kind == "sequential":
        order = np.arange(len(dataset))
    micro = split_into_batches(order, size, args.dataloader_drop_last)
    return [micro[i : i + group] for i in range(0, len(micro), group)]


def own_batches(run: Run, group: list[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """This rank's share of an update, batch by batch, and 1.

    At the end of an epoch there may be fewer rows than ranks. One without a row computes another's,
    so that it has gradients of the same shapes to add up, and 0 says that they do not count.
    """
    shares = [np.array_split(rows, run.device.world_size)[run.device.rank] for rows in group]
    parts = [
        part for rows in shares for part in np.array_split(rows, run.batch_splits) if len(part)
    ]
    return (parts, 1) if parts else ([group[0][:1]], 0)


def over_all_ranks(run: Run, loss: Any, count: Any) -> tuple[torch.Tensor, ...]:
    """The sum of the losses of an update, and of how many items, fp32 scalars on the device."""
    where = run.device.torch_device
    sums = [torch.as_tensor(value, dtype=torch.float32, device=where) for value in (loss, count)]
    return run.device.all_reduce(torch.stack(sums)).unbind()


def steps_per_epoch(run: Run) -> int:
    """Optimizer steps in an epoch, at least 1."""
    assert run.train_dataset is not None
    n, args, size = len(run.train_dataset), run.args, run.rows_at_once
    micro = n // size if args.dataloader_drop_last else math.ceil(n / size)
    return max(1, math.ceil(micro / args.gradient_accumulation_steps))


def due(run: Run, strategy: str, every: int, per_epoch: int) -> bool:
    """Whether the step that was just done is one of those that a strategy names."""
    step = run.state.global_step
    if strategy == "epoch":
        return step % per_epoch == 0 or step == run.state.max_steps
    return strategy == "steps" and (step % every == 0 or step == run.state.max_steps)


def logging_due(run: Run, per_epoch: int) -> bool:
    args, state = run.args, run.state
    if args.logging_first_step and state.global_step == 1:
        return True
    return due(run, args.logging_strategy, args.log_every(state.max_steps), per_epoch)


def evaluation_due(run: Run, per_epoch: int) -> bool:
    args, state = run.args, run.state
    done = state.epoch if args.eval_strategy == "epoch" else state.global_step
    if run.eval_dataset is None or done < args.eval_delay:
        return False
    total = state.max_steps
    every = interval(args.eval_steps, total) if args.eval_steps else args.log_every(total)
    return due(run, args.eval_strategy, every, per_epoch)


def saving_due(run: Run, per_epoch: int, improved: bool) -> bool:
    args = run.args
    if args.output_dir is None or args.save_strategy == "best":
        return args.output_dir is not None and improved
    if run.state.stop_reason and args.save_strategy != "no":
        return True
    return due(run, args.save_strategy, interval(args.save_steps, run.state.max_steps), per_epoch)


def evaluate_and_compare(run: Run) -> bool:
    """Evaluate, log, and note whether this is the best model so far; if so, keep it if asked to."""
    assert run.eval_dataset is not None
    result = evaluate(run, run.eval_dataset)
    run.log(result.metrics)
    run.call_observers("minift_on_evaluate", result=result)
    name, greater = best_metric_of(run.args)
    value = result.metrics.get(name)
    best = run.state.best_metric
    if value is None and (run.args.metric_for_best_model or run.args.load_best_model_at_end):
        raise ConfigError(
            f"metric_for_best_model={run.args.metric_for_best_model!r} is not measured",
            expected=", ".join(result.metrics),
        )
    if value is None:
        return False
    run.state.scores.append(value := plain(value))
    if math.isnan(value):
        return False
    if best is not None and not (value > best if greater else value < best):
        return False
    run.state.best_metric, run.state.best_step = value, run.state.global_step
    if run.args.load_best_model_at_end:
        checkpoint.save_best(run)
    return True
