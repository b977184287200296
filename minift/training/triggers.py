"""When to log, evaluate and save: asked after each optimizer step."""

from minift.errors import ConfigError
from minift.plugins import default_manager
from minift.training.arguments import interval
from minift.training.batches import steps_per_epoch
from minift.training.run import Run


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


def save_frequency(run: Run) -> str:
    """Return in words how often a checkpoint is written."""
    strategy, steps = run.args.save_strategy, interval(run.args.save_steps, run.state.max_steps)
    steps = steps_per_epoch(run) if strategy == "epoch" else steps
    others = {"no": "never (save_strategy)", "best": "when the best metric improves"}
    often = others.get(strategy, f"every {steps} steps")
    return often if run.args.output_dir else "never (output_dir is None)"


def is_due(run: Run, strategy: str, every: int) -> bool:
    """Return whether the strategy ("no", "steps", "epoch") names the step just done.

    The last step is due for both "steps" and "epoch".
    """
    step, state = run.state.global_step, run.state
    every = steps_per_epoch(run) if strategy == "epoch" else every
    last = step == state.max_steps or state.stop_reason is not None
    return strategy in ("steps", "epoch") and (step % every == 0 or last)


def check_decisions(run: Run) -> None:
    """Refuse what decides by evaluations, a callback or an argument, where there will be none.

    Raises:
        ConfigError: nothing would ever ask it, or there are no rows to evaluate.
    """
    args, unit = run.args, steps_per_epoch(run) if run.args.eval_strategy == "epoch" else 1
    if (args.eval_strategy != "no" or args.eval_on_start) and not len(run.eval_dataset or ()):
        what, got = "evaluating in training needs an eval_dataset with rows", args.eval_strategy
        raise ConfigError(what, got=f"eval_strategy={got}", do="pass eval_dataset=")
    plugins = [impl.plugin for impl in run.manager.hook.minift_should_stop.get_hookimpls()]
    asked = [type(one).__name__ for one in plugins if not default_manager().is_registered(one)]
    best = ("metric_for_best_model", "greater_is_better")
    asked += [name for name in best if getattr(args, name) is not None]
    never = args.eval_strategy == "no" or run.state.max_steps / unit < args.eval_delay
    if asked and never:
        got = f"eval_strategy={args.eval_strategy!r}, eval_delay={args.eval_delay}"
        what = f"{asked[0]} looks at evaluations, and this run has none"
        raise ConfigError(what, got=got, do="choose eval_strategy and eval_delay, or leave it out")
