"""`minift verify-resume RUN`: compare a run that is killed with one that is not."""

from minift import hookimpl


@hookimpl
def minift_register_commands():
    from minift_verify import command

    return {"verify-resume": command}
