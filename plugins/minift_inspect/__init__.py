"""`minift inspect` and `minift.inspect`: one batch followed through a model."""

from minift import hookimpl


@hookimpl
def minift_register_commands():
    from minift_inspect import command

    return {"inspect": command}
