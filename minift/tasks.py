"""Tasks: data sets whose columns, label names and metric are known, for `minift train --task NAME`.

Plugins give them by name through the hook `minift_register_tasks`; see plugins/minift_glue.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from minift.errors import ConfigError


@dataclass(frozen=True)
class Reference:
    """A score that somebody else published, as they print it, and where."""

    model: str
    score: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is known of a data set; it is checked where it is made.

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
        references: scores of others.
        note: one more sentence for `minift tasks NAME`.

    Raises:
        ConfigError: a field does not hold what it should.
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
    references: Sequence[Reference] = ()
    note: str = ""

    def __post_init__(self) -> None:
        names, fraction = self.label_names, self.validation_fraction
        distinct = names is None or (is_names(names) and len(set(names)) == len(names) > 1)
        if not is_names(self.columns) or len(self.columns) > 2:
            self.refuse("columns", "one or two names")
        if not is_names(self.metrics):
            self.refuse("metrics", "a list of names")
        if not distinct:
            self.refuse("label_names", "two or more different names, or None for a number")
        if not set(self.splits) <= {"train", "validation", "test"}:
            self.refuse("splits", "names for train, validation, test")
        if fraction is not None and (names is None or not 0 < fraction < 1):
            expected = "a number between 0 and 1, and classes to draw it from in like shares"
            self.refuse("validation_fraction", expected)

    def refuse(self, name: str, expected: str) -> NoReturn:
        """Raise an error about a field."""
        what = f"{name} of a Task is not what it should be"
        raise ConfigError(what, got=repr(getattr(self, name)), expected=expected)


def is_names(value: Any) -> bool:
    """Tell a list of names, with one at least, from a name alone, whose letters would be names."""
    strings = not isinstance(value, str) and all(isinstance(name, str) for name in value)
    return strings and len(value) > 0
