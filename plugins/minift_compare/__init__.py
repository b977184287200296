"""`minift compare RUN_A RUN_B`: is one model better than the other, or is it noise?"""

from minift import hookimpl


@hookimpl
def minift_register_commands():
    from minift_compare import command

    return {"compare": command}
