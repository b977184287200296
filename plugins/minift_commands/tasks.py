"""`minift tasks`: the tasks that plugins know, or all that is known of one."""

import inspect
import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from minift import plugins
from minift.errors import ConfigError, nearest


class Tasks:
    """The command, as `minift_register_commands` wants it."""

    help = "the tasks that --task knows, or what is known of one"

    @staticmethod
    def configure(parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", metavar="NAME", help="show all of this one")

    @staticmethod
    def run(args: Namespace) -> int:
        if args.name:
            show("", details(find_task(args.name)))
            return 0
        tasks = plugins.registry(plugins.default_manager(), "minift_register_tasks")
        rows = [summary(name, found.value) for name, found in tasks.items()]
        show("task data texts classes metric", rows)
        return 0


def find_task(name: str) -> dict[str, Any]:
    """A task by its name, or by that of its benchmark and its own: "glue/mrpc"."""
    tasks = plugins.registry(plugins.default_manager(), "minift_register_tasks")
    if name in tasks:
        return tasks[name].value
    for short, found in tasks.items():
        if name == f"{found.value.get('dataset')}/{short}":
            return found.value
    raise ConfigError(f"no plugin knows the task {name!r}", expected=nearest(name, tasks))


def words(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def summary(name: str, task: dict[str, Any]) -> list[str]:
    """One row of the table."""
    where = "/".join(filter(None, (task.get("dataset"), task.get("config"))))
    names = task["names"]
    classes = "a number" if names is None else str(len(names))
    return [name, where, words(task["columns"]), classes, words(task["metric"])]


def details(task: dict[str, Any]) -> list[list[str]]:
    """What one task says, as rows of a name and a text."""
    from minift.evaluate import find_metric

    rows = [[key, words(task[key])] for key in ("dataset", "config", "columns") if task.get(key)]
    rows.append(["label", f"{task['label']}: {words(task['names'] or 'a number')}"])
    rows += [["split", f"{split}: {theirs}"] for split, theirs in task.get("splits", {}).items()]
    if "held_out" in task:
        rows.append(["split", f"validation: {task['held_out']:.0%} of train, stratified"])
    if "prepare" in task:
        rows.append(["pairs", inspect.getdoc(task["prepare"]) or ""])
    if "note" in task:
        rows.append(["note", task["note"]])
    for name in [task["metric"]] if isinstance(task["metric"], str) else task["metric"]:
        for key, score in find_metric(name).score_info.items():
            better = "more" if score.higher_is_better else "less"
            said = f"{name}: {key}, {score.low:g} to {score.high:g}, {better} is better"
            rows.append(["metric", said])
    for other in task.get("reference", []):
        rows.append(["others", "{model}: {score} ({source})".format(**other)])
    return rows


def show(head: str, rows: list[list[str]]) -> None:
    """Rows of cells: a table in a terminal, else columns of plain text."""
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(*head.split(), box=box.SIMPLE, show_header=bool(head))
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    rows = [head.split(), *rows] if head else rows
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip())
