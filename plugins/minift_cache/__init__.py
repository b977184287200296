"""`minift cache`: what the cache folder holds, what can go, and whether it is sound."""

from minift import hookimpl


@hookimpl
def minift_register_commands():
    from minift_cache import command

    return {"cache": command.Cache}
