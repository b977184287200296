"""`minift train`, `eval`, `predict`, `tasks`, `plugins`, `env`: the core's parts, for a shell.

What they share is in `inputs.py`, and other plugins' commands may use it: `minift demo` does. This
module and those it imports bring no torch along, so that `minift --help` is quick; each command's
`run` imports the rest.
"""

from minift import hookimpl


@hookimpl(trylast=True)  # the registry asks it before the others: these stand first in the help
def minift_register_commands():
    from minift_commands.env import Env
    from minift_commands.eval import Eval
    from minift_commands.plugins import Plugins
    from minift_commands.predict import Predict
    from minift_commands.tasks import Tasks
    from minift_commands.train import Train

    given = {"train": Train, "eval": Eval, "predict": Predict}
    return given | {"plugins": Plugins, "tasks": Tasks, "env": Env}
