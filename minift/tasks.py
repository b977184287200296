"""Tasks: data sets whose columns, label names and metric are known, for `minift train --task NAME`.

Plugins give them by name through the hook `minift_register_tasks`; see plugins/minift_glue.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is known of a data set; the commands that read it check it.

    Attributes:
        columns: one column of text, or two for pairs.
        label_names: of the classes, in the order of their numbers; None: a number is predicted.
        metrics: names that `evaluate.load` takes.
        label: the column with the labels.
        dataset, config: arguments of `load_dataset`, where the command names no data.
        splits: {"train", "validation" or "test": the split's name there, or
            "configuration:split"}; empty: the data set's own.
        validation_fraction: the share of the training rows that become the validation rows, in
            like shares of the classes; None: the data set has validation rows.
        prepare: function(Dataset) -> Dataset with `columns`, for rows that have others.
        to_metric_inputs: function(EvalPrediction) -> (predictions, references) for the metrics,
            where rows are scored by groups; the prediction's `rows` have all columns.
        references: (model, score as printed, source) for scores that others have published.
        note: one more sentence for `minift tasks NAME`.
    """

    columns: Sequence[str]
    label_names: Sequence[str] | None
    metrics: Sequence[str]
    label: str = "label"
    dataset: str | None = None
    config: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    validation_fraction: float | None = None
    prepare: Callable[[Any], Any] | None = None
    to_metric_inputs: Callable[[Any], tuple[Any, Any]] | None = None
    references: Sequence[tuple[str, str, str]] = ()
    note: str = ""
