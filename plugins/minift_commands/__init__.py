"""`minift train`, `eval`, `predict` and `plugins`: the core's parts, put together for a shell.

What they share is in `inputs.py`, and other plugins' commands may use it: `minift demo` does. This
module and those it imports bring no torch along, so that `minift --help` is quick; each command's
`run` imports the rest.
"""

from minift import hookimpl


@hookimpl(trylast=True)  # the registry asks it before the others: these stand first in the help
def minift_commands():
    from minift_commands.eval import Eval
    from minift_commands.plugins import Plugins
    from minift_commands.predict import Predict
    from minift_commands.train import Train

    return {"train": Train, "eval": Eval, "predict": Predict, "plugins": Plugins}
