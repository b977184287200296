"""GLUE (Wang et al. 2019, arXiv 1804.07461) and SuperGLUE (1905.00537): tasks and metrics."""

from minift import hookimpl


@hookimpl
def minift_register_metrics():
    from minift_glue import metrics, statistics  # numpy is only loaded where something is measured

    return statistics.METRICS | metrics.by_name()


@hookimpl
def minift_register_tasks():
    from minift_glue.tasks import table

    return table()
