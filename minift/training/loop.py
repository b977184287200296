"""The training loop: one function, read from top to bottom; `hookspecs.py` has its outline.

Three rules make it exact:

- A micro-batch gives a *sum* of losses and a count. The gradients of these sums are accumulated and
  divided once, by the total count of the update, so it does not matter how a step is cut into
  micro-batches.
- The order of epoch e and the dropout masks of step s are random streams of their own, computed
  from the seed and from e or s, so evaluating, logging or interrupting a run changes neither.
- Nothing is read from the device between log points. A loss or gradient that is not finite sets a
  flag on the device (`LossTracker.skip_updates`), and no update changes the weights from that step
  on. The flag is read with the next log record, and the error names the rows of that step, which
  follow from the seed.

So the state of a run between two steps is small: weights, moments, a step number and the sums since
the last log record. `checkpoint.py` saves only these.
"""

import math
import signal
from collections.abc import Callable
from typing import Any

import torch

from minift import rng
from minift.device import Device
from minift.errors import ConfigError, TrainingError
from minift.training import checkpoint
from minift.training.arguments import interval
from minift.training.batches import epoch_plan, epoch_updates, split_batches, steps_per_epoch
from minift.training.compatibility import to_plain
from minift.training.evaluation import best_metric_of
from minift.training.run import Run


def train(
    run: Run, log: Callable[[dict[str, Any]], None], evaluate: Callable[[], dict[str, Any]]
) -> None:
    """Train `run.model` from `run.state.global_step` to `run.state.max_steps`.

    Args:
        run: what is trained, and with what.
        log: takes each record of losses.
        evaluate: evaluates and logs, and returns the metrics.
    """
    args, state, device = run.args, run.state, run.device
    optimizer, losses = run.optimizer, run.losses
    if args.eval_on_start and state.global_step == 0:
        evaluate_and_compare(run, evaluate)
    modules = list(run.model.modules())
    optimizer.zero_grad(set_to_none=True)

    while state.global_step < state.max_steps and not state.stop_reason:
        # One optimizer step each; rank_weight is 1, or 0 on a rank without rows of its own.
        for rows, rank_weight, batches in epoch_updates(run):
            stream = state.global_step * device.world_size + device.rank  # one stream per rank
            device.seed(rng.derive(args.seed, "dropout", stream))
            loss_sum, num_items = 0.0, 0
            try:
                for i, batch in enumerate(batches, start=1):
                    if not all(module.training for module in modules):  # whoever looked at it
                        run.model.train()
                    with device.autocast(run.precision):
                        loss, count, _ = run.compute_loss(batch)
                        loss, count = loss * rank_weight, count * rank_weight
                    device.backward(loss, last=i == len(rows))  # accumulates gradients
                    loss_sum, num_items = loss_sum + loss.detach(), num_items + count
            except torch.OutOfMemoryError as error:
                split_batches(run, rows, error)
                optimizer.zero_grad(set_to_none=True)
                break  # no weight has changed: repeat this update in smaller batches

            total_loss, total_items = sum_over_ranks(device, loss_sum, num_items)
            grad_norm = device.clip_grad_norm(optimizer, args.max_grad_norm, total_items)
            losses.add(total_loss, total_items, grad_norm)
            show_gradients(run)
            learning_rate = optimizer.param_groups[0]["lr"]  # before the schedule changes it
            if device.step(optimizer, skip=losses.skip_updates):  # False: fp16 overflowed
                run.scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            state.global_step += 1
            epoch, steps = divmod(state.global_step, steps_per_epoch(run))
            state.epoch = epoch + steps * args.gradient_accumulation_steps / run.epoch_batches
            run.call_observers("minift_on_step_end")

            if should_log(run):
                log({**fetch_losses(run, reset=True), "learning_rate": learning_rate})
            improved = False
            if should_evaluate(run):
                fetch_losses(run)  # raises if a loss was not finite, before anything is saved
                improved = device.any_rank(evaluate_and_compare(run, evaluate))
                reason = run.manager.hook.minift_should_stop(run=run)
                if device.any_rank(reason):  # False goes on as None does
                    state.stop_reason = reason or "another process stopped"
            terminated = device.any_rank(run.termination_signal)
            if terminated or should_save(run, improved):
                fetch_losses(run)
                checkpoint.save(run)
            if terminated:
                number = run.termination_signal or signal.SIGTERM  # it may be another process's
                raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
            if state.stop_reason or state.global_step == state.max_steps:
                fetch_losses(run)
                return


def show_gradients(run: Run) -> None:
    """Call the observers of gradients, if there are any.

    What the optimizer would divide while it reads the gradients is divided now, to the same bits.
    """
    if run.manager.hook.minift_on_gradients.get_hookimpls():
        divisor = vars(run.optimizer).pop("grad_scale", None)
        if divisor is not None:
            parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
            torch._foreach_div_([p.grad for p in parameters if p.grad is not None], divisor)
        run.call_observers("minift_on_gradients")


def sum_over_ranks(device: Device, loss: Any, count: Any) -> tuple[torch.Tensor, ...]:
    """Return the loss sum and the item count of all ranks, as fp32 scalars on the device."""
    where = device.torch_device
    sums = [torch.as_tensor(value, dtype=torch.float32, device=where) for value in (loss, count)]
    return device.all_reduce(torch.stack(sums)).unbind()


def fetch_losses(run: Run, reset: bool = False) -> dict[str, float]:
    """Return the mean loss since the last log record, and the norm of the last gradient.

    Args:
        run: holds the losses, and what the error says about the step.
        reset: set the sums to zero, for the next log record.

    Raises:
        TrainingError: a loss or gradient was not finite; the message gives the step, its learning
            rate and its rows. The model is as it was before that step.
    """
    fetched = run.losses.fetch(reset)
    step = int(fetched.pop("bad_step"))
    if step < 0:
        return fetched
    epoch, index = divmod(step, steps_per_epoch(run))
    rows = [int(row) for batch in epoch_plan(run, epoch)[index] for row in batch]
    lambdas = getattr(run.scheduler, "lr_lambdas", None)
    learning_rate = run.args.learning_rate * (lambdas[0](step) if lambdas else 1.0)
    what = f"the loss or the gradient is not finite at step {step + 1}; the model is as before it"
    got = f"learning rate {learning_rate:.3g}, precision {run.precision}, training rows {rows}"
    do = "look at those rows, lower the learning rate, or compute in fp32"
    raise TrainingError(what, got=got, do=do)


def evaluate_and_compare(run: Run, evaluate: Callable[[], dict[str, Any]]) -> bool:
    """Evaluate; return whether this is the best model so far.

    With `load_best_model_at_end`, the best model is also saved.

    Raises:
        ConfigError: metric_for_best_model is not among the metrics.
    """
    args, state, metrics = run.args, run.state, evaluate()
    name, greater_is_better = best_metric_of(args, run.manager)
    value, best = to_plain(metrics.get(name)), state.best_metric
    wanted = args.metric_for_best_model or args.load_best_model_at_end
    if not isinstance(value, int | float) and (value is not None or wanted):
        what = f"metric_for_best_model={args.metric_for_best_model!r} is no number that is measured"
        raise ConfigError(what, got=value, expected=", ".join(metrics))
    if value is None:
        return False
    state.metric_history.append(value)
    better = best is None or (value > best if greater_is_better else value < best)
    if math.isnan(value) or not better:
        return False
    state.best_metric, state.best_step = value, state.global_step
    if args.load_best_model_at_end:
        checkpoint.save_best(run)
    return True


# ------------------------------------------------------- when to do what, asked after each update


def should_log(run: Run) -> bool:
    args, state = run.args, run.state
    first = args.logging_first_step and state.global_step == 1
    return first or is_due(run, args.logging_strategy, args.log_every(state.max_steps))


def should_evaluate(run: Run) -> bool:
    args, state = run.args, run.state
    done = state.epoch if args.eval_strategy == "epoch" else state.global_step
    if run.eval_dataset is None or done < args.eval_delay:
        return False
    total = state.max_steps
    every = interval(args.eval_steps, total) if args.eval_steps else args.log_every(total)
    return is_due(run, args.eval_strategy, every)


def should_save(run: Run, improved: bool) -> bool:
    """`improved`: the evaluation after this step found the best model so far."""
    args = run.args
    due = is_due(run, args.save_strategy, interval(args.save_steps, run.state.max_steps))
    return args.output_dir is not None and (improved if args.save_strategy == "best" else due)


def is_due(run: Run, strategy: str, every: int) -> bool:
    """Return whether the strategy ("no", "steps", "epoch") names the step just done.

    The last step is due for both "steps" and "epoch".
    """
    step, state = run.state.global_step, run.state
    every = steps_per_epoch(run) if strategy == "epoch" else every
    last = step == state.max_steps or state.stop_reason is not None
    return strategy in ("steps", "epoch") and (step % every == 0 or last)
