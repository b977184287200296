"""`minift cache`: list, prune and verify the results in the cache folder."""

from minift import hookimpl


@hookimpl
def minift_register_commands():
    from minift_cache import command

    return {"cache": command}
