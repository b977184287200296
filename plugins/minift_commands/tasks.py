"""`minift tasks`: the tasks that plugins give, or all that is known of one."""

import inspect
from argparse import ArgumentParser, Namespace
from typing import Any

from minift import plugins
from minift.errors import ConfigError, PluginError, nearest
from minift.tasks import Task
from minift_commands.table import print_table

help = "the tasks that --task knows, or what is known of one"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="show all of this one")


def run(args: Namespace) -> int:
    if args.name:
        print_table([], details(find_task(args.name)))
    else:
        rows = [summary(name, task) for name, task in all_tasks().items()]
        print_table(["task", "data", "texts", "classes", "metric"], rows)
    return 0


def all_tasks() -> dict[str, Task]:
    """Return the tasks of all plugins by name.

    Raises:
        PluginError: a plugin gives something else, or a task with a field that cannot be used.
    """
    tasks = {}
    for name, entry in plugins.registry(plugins.default_manager(), "minift_register_tasks").items():
        if not isinstance(entry.value, Task):
            what = f"the plugin {entry.plugin} gives a task {name!r} that is no minift.tasks.Task"
            raise PluginError(what, got=f"a {type(entry.value).__name__}")
        check_task(entry.value, f"the task {name!r} of the plugin {entry.plugin}")
        tasks[name] = entry.value
    return tasks


def check_task(task: Task, source: str) -> None:
    """Check the fields of a task, which `source` names in errors."""
    names, fraction = task.label_names, task.validation_fraction
    several = names is not None and is_names(names) and len(set(names)) == len(names) > 1
    known_splits = {"train", "validation", "test"}
    two_or_more = "two or more different names, or None for a number"
    share = "a number between 0 and 1, and classes to draw it from in like shares"
    is_share = fraction is None or (names is not None and 0 < fraction < 1)
    rules = {
        "columns": (is_names(task.columns) and len(task.columns) <= 2, "one or two names"),
        "metrics": (is_names(task.metrics), "a list of names"),
        "label_names": (names is None or several, two_or_more),
        "splits": (set(task.splits) <= known_splits, "names for train, validation, test"),
        "validation_fraction": (is_share, share),
    }
    for field, (fits, expected) in rules.items():
        if not fits:
            what = f"{field} of {source} is not what it should be"
            raise PluginError(what, got=repr(getattr(task, field)), expected=expected)


def is_names(value: Any) -> bool:
    """Tell a list of names, with one at least, from a name alone, whose letters would be names."""
    strings = not isinstance(value, str) and all(isinstance(name, str) for name in value)
    return strings and len(value) > 0


def find_task(name: str) -> Task:
    """Return a task by its name, or by that of its benchmark and its own: "glue/mrpc"."""
    tasks = all_tasks()
    for short, task in tasks.items():
        if name in (short, f"{task.dataset}/{short}"):
            return task
    raise ConfigError(f"no plugin knows the task {name!r}", expected=nearest(name, tasks))


def summary(name: str, task: Task) -> list[str]:
    """Return one row of the table of all tasks."""
    data = "/".join(filter(None, (task.dataset, task.config)))
    classes = "a number" if task.label_names is None else str(len(task.label_names))
    return [name, data, ", ".join(task.columns), classes, ", ".join(task.metrics)]


def details(task: Task) -> list[list[str]]:
    """Return what is known of one task, as rows of a name and a text."""
    from minift.evaluate import find_metric

    rows = [["dataset", task.dataset or ""], ["config", task.config or ""]]
    rows.append(["columns", ", ".join(task.columns)])
    rows.append(["label", f"{task.label}: {', '.join(task.label_names or ['a number'])}"])
    rows += [["split", f"{split}: {theirs}"] for split, theirs in task.splits.items()]
    if task.validation_fraction:
        rows.append(["split", f"validation: {task.validation_fraction:.0%} of train, stratified"])
    if task.prepare:
        rows.append(["pairs", inspect.getdoc(task.prepare) or ""])
    rows.append(["note", task.note])
    for name in task.metrics:
        for key, score in find_metric(name).score_info.items():
            better = "more" if score.higher_is_better else "less"
            text = f"{name}: {key}, {score.low:g} to {score.high:g}, {better} is better"
            rows.append(["metric", text])
    rows += [["others", f"{model}: {score} ({source})"] for model, score, source in task.references]
    return [row for row in rows if row[1]]
