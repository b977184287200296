"""`minift train`, `eval`, `tasks`, `plugins`, `env`: the core's parts, for a shell.

Each command is a module with `help`, `configure(parser)` and `run(args)`, as the hook wants it.
What they share is in these files, which other plugins' commands may use, as `minift demo` does:

    resolve.py   which rows, columns, label, names, metrics: options over run over task over guess
    labels.py    labels to class numbers or float32, and the checks of rows
    build.py     rows to the inputs of a model, to a Trainer
    table.py     a table, in a terminal or for other programs

This module and those it imports do not import torch, so that `minift --help` is quick; each
command's `run` imports the rest.
"""

from minift import hookimpl


@hookimpl(trylast=True)  # the registry asks it before the others: these stand first in the help
def minift_register_commands():
    from minift_commands import env, eval, plugins, tasks, train

    return {"train": train, "eval": eval, "plugins": plugins.Plugins, "tasks": tasks, "env": env}
