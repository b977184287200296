"""THE loop. One function, read from top to bottom; `hookspecs.py` is its map.

Three rules make it exact:

- A micro-batch gives a *sum* of losses and a count. Gradients add up sums and are divided once, by
  the count of all micro-batches of the update, so how a step is cut into them does not matter.
- The order of epoch e and the dropout masks of step s are random streams of their own, computed
  from the seed, e and s; evaluating, logging or interrupting moves neither.
- Nothing is read from the device between log points. A loss or gradient that is not finite sets a
  latch there, which masks every update from that step on; it is read with the next log record, and
  the rows of that step are computed again from the seed.

So the state of a run between two steps is small: weights, moments, a step number and the sums since
the last log record. `checkpoint.py` saves just that.
"""

import math
import signal
from typing import Any

import torch

from minift import rng
from minift.device import Device
from minift.errors import ConfigError, TrainingError
from minift.training import checkpoint
from minift.training.batches import (
    epoch_plan,
    epoch_updates,
    split_batches_further,
    steps_per_epoch,
)
from minift.training.callbacks import best_metric_of
from minift.training.evaluation import evaluate
from minift.training.recorder import Recorder, to_python
from minift.training.run import Run
from minift.training.triggers import should_evaluate, should_log, should_save


def train(run: Run, recorder: Recorder) -> None:
    """Train `run.model` from `run.state.global_step` to `run.state.max_steps`."""
    args, state, device = run.args, run.state, run.device
    optimizer, losses = run.optimizer, run.losses
    if args.eval_on_start and state.global_step == 0:
        evaluate_and_compare(run, recorder)
    run.model.train()
    optimizer.zero_grad(set_to_none=True)

    while state.global_step < state.max_steps and not state.stop_reason:
        for rows, weight, batches in epoch_updates(run):  # of one optimizer step
            stream = state.global_step * device.world_size + device.rank  # masks differ by rank
            device.seed(rng.derive(args.seed, "dropout", stream))
            loss_sum, num_items = 0.0, 0
            try:
                for i, batch in enumerate(batches, start=1):
                    with device.autocast(run.precision):
                        outputs = run.forward(batch)
                        loss, count = run.compute_loss(outputs, batch)
                        loss, count = loss * weight, count * weight
                    device.backward(loss, last=i == len(rows))  # gradients of sums add up
                    loss_sum, num_items = loss_sum + loss.detach(), num_items + count
            except torch.OutOfMemoryError as error:
                split_batches_further(run, rows, error)
                optimizer.zero_grad(set_to_none=True)
                break  # nothing has changed: the same update again, in smaller batches

            total_loss, total_items = sum_over_ranks(device, loss_sum, num_items)
            grad_norm = device.clip_grad_norm(optimizer, args.max_grad_norm, total_items)
            losses.add(total_loss, total_items, grad_norm)
            learning_rate = optimizer.param_groups[0]["lr"]  # the one that this update uses
            if device.step(optimizer, skip=losses.skip_updates):
                run.scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            state.global_step += 1
            state.epoch = state.global_step / steps_per_epoch(run)
            run.call_observers("minift_on_step_end")

            if should_log(run):
                means = fetch_losses(run, reset=True)
                recorder.log({**means, "learning_rate": learning_rate})
            improved = False
            if should_evaluate(run):
                fetch_losses(run)  # raises if one is not finite: never evaluate, or save, after it
                improved = device.any_rank(evaluate_and_compare(run, recorder))
                reason = run.manager.hook.minift_should_stop(run=run)
                if device.any_rank(reason is not None):
                    state.stop_reason = reason or "another process stopped"
            terminated = device.any_rank(run.termination_signal)
            if terminated or should_save(run, improved):
                fetch_losses(run)
                checkpoint.save(run)
            if terminated:  # with the exit code that a shell would report
                raise SystemExit(128 + (run.termination_signal or signal.SIGTERM))
            if state.stop_reason or state.global_step == state.max_steps:
                fetch_losses(run)
                return


def sum_over_ranks(device: Device, loss: Any, count: Any) -> tuple[torch.Tensor, ...]:
    """Add up the losses of an update, and the numbers of items: fp32 scalars on the device."""
    where = device.torch_device
    sums = [torch.as_tensor(value, dtype=torch.float32, device=where) for value in (loss, count)]
    return device.all_reduce(torch.stack(sums)).unbind()


def fetch_losses(run: Run, reset: bool = False) -> dict[str, float]:
    """Return the mean loss since the last log record, and the norm of the last gradient.

    Args:
        run: the losses, and what the error says about the step.
        reset: start the sums of the next log record.

    Raises:
        TrainingError: a loss or gradient was not finite; says the step, the learning rate and the
            rows. The model is as it was before that step.
    """
    fetched = run.losses.fetch(reset)
    step = int(fetched.pop("bad_step"))
    if step < 0:
        return fetched
    epoch, index = divmod(step, steps_per_epoch(run))
    rows = [int(row) for batch in epoch_plan(run, epoch)[index] for row in batch]
    lambdas = getattr(run.scheduler, "lr_lambdas", None)
    learning_rate = run.args.learning_rate * (lambdas[0](step) if lambdas else 1.0)
    what = f"the loss or the gradient is not finite at step {step + 1}"
    got = f"learning rate {learning_rate:.3g}, precision {run.precision}, training rows {rows}"
    expected = "finite numbers; the model is as it was before that step"
    do = "look at those rows, or lower the learning rate"
    do += "" if run.precision == "fp32" else ", or compute in fp32"
    raise TrainingError(what, got=got, expected=expected, do=do)


def evaluate_and_compare(run: Run, recorder: Recorder) -> bool:
    """Evaluate and log; return whether this is the best model so far, which is kept if asked for.

    Raises:
        ConfigError: metric_for_best_model is not among the metrics.
    """
    assert run.eval_dataset is not None
    args, state = run.args, run.state
    result = evaluate(run, run.eval_dataset)
    recorder.log(result.metrics)
    run.call_observers("minift_on_evaluate", result=result)
    name, greater_is_better = best_metric_of(args)
    value, best = to_python(result.metrics.get(name)), state.best_metric
    if value is None and (args.metric_for_best_model or args.load_best_model_at_end):
        what = f"metric_for_best_model={args.metric_for_best_model!r} is not measured"
        raise ConfigError(what, expected=", ".join(result.metrics))
    if value is None:
        return False
    state.scores.append(value)
    better = best is None or (value > best if greater_is_better else value < best)
    if math.isnan(value) or not better:
        return False
    state.best_metric, state.best_step = value, state.global_step
    if args.load_best_model_at_end:
        checkpoint.save_best(run)
    return True
