"""GLUE (Wang et al. 2019, arXiv 1804.07461): tasks by name, with their columns and metrics."""

from minift import hookimpl


def accuracy_and_f1(predictions, references):
    """MRPC's own pair of numbers; class 1 is "equivalent"."""
    from minift import evaluate  # numpy is only loaded where something is measured

    return {
        **evaluate.accuracy(predictions, references),
        **evaluate.f1(predictions, references),
    }


@hookimpl
def minift_metrics():
    return {"glue/mrpc": accuracy_and_f1}


@hookimpl
def minift_tasks():
    return {
        "mrpc": {
            "columns": ["sentence1", "sentence2"],
            "label": "label",
            "names": ["not_equivalent", "equivalent"],
            "metric": "glue/mrpc",
        }
    }
