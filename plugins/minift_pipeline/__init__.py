"""`pipeline(...)` and `minift predict`: labels of texts, from a model that was trained before."""

from minift import hookimpl


@hookimpl
def minift_register_commands():
    from minift_pipeline import command

    return {"predict": command}
