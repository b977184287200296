"""`minift.inspect(...)`: one batch followed through a model, for notebooks and for the command."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minift_commands.build import Inputs, inputs_for, load_tokenizer
from minift_commands.options import DataOptions
from minift_commands.resolve import likely_columns, unclear_columns

from minift.data.dataset import Dataset
from minift.errors import ArgumentError
from minift.files import local_path, read_json, write_text
from minift.models.auto import AutoModelForSequenceClassification
from minift.models.weights import unwrap
from minift.tokenizer import LABEL_NAMES
from minift_inspect.facts import USUAL, Record, gather
from minift_inspect.page import to_page
from minift_inspect.text import to_text


@dataclass(frozen=True)
class Inspection:
    """What was found; a notebook shows it as a page, `print` as text.

    Attributes:
        facts: a plain record, see `minift_inspect.facts.gather`.
    """

    facts: Record

    def __str__(self) -> str:
        return to_text(self.facts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return to_page(self.facts, inline=True)

    def save(self, path: str | Path) -> Path:
        """Write the page, one file that needs nothing else."""
        write_text(local_path(path), to_page(self.facts))
        return local_path(path)


def inspect(
    model: Any, dataset: Dataset | str | Path | None = None, row: int = 0, tokenizer: Any = None,
    batch_size: int = 8, split: str | None = None, options: DataOptions | None = None,
) -> Inspection:  # fmt: skip
    """Follow one batch through a classifier, in fp32 on the host.

    Args:
        model: a folder, a name, or a model object, which then needs its tokenizer.
        dataset: rows as they were loaded, not tokenized; or a folder, file or name; by default what
            the model's run was trained with.
        row: which row to look at closely. The batch is this row and those that follow it.
        tokenizer: of a model object.
        batch_size: rows of the batch.
        split: which rows of a dataset by its name; by default the validation rows.
        options: text columns, label column and so on, as of `minift eval`.

    Raises:
        ArgumentError: there is no such row.
        ConfigError, DataError: the rows do not fit the model.
    """
    options, settings, network = options or DataOptions(), {}, model
    if isinstance(model, str | Path):
        settings = settings_of(str(model))
        network = AutoModelForSequenceClassification.from_pretrained(model)
        tokenizer = tokenizer or load_tokenizer(str(model), options.max_length)
    elif tokenizer is None:
        raise ArgumentError("a model object needs its tokenizer", do="pass tokenizer=")
    network = unwrap(network)
    if isinstance(dataset, Dataset):
        label = next((name for name in LABEL_NAMES if name in dataset.features), None)
        columns, title, rows = likely_columns(dataset, label), "the dataset", dataset
        if columns is None:
            raise unclear_columns(dataset)
    else:
        inputs = named_inputs(model, dataset, options)
        split = split or ("validation" if "validation" in inputs.data else next(iter(inputs.data)))
        rows, columns, label, title = inputs.rows(split), inputs.text_columns, "labels", split
    if not 0 <= row < len(rows):
        raise ArgumentError("there is no such row", got=row, expected=f"0 to {len(rows) - 1}")
    first = max(0, min(row, len(rows) - batch_size))
    chosen = rows.select(range(first, min(first + batch_size, len(rows))))
    labels = chosen[label][:] if label in chosen.features else None
    where = row - first, settings, title, first
    device = network.device
    try:
        return Inspection(gather(network.to("cpu"), tokenizer, chosen, columns, labels, *where))
    finally:
        network.to(device)


def named_inputs(model: Any, dataset: str | Path | None, options: DataOptions) -> Inputs:
    """Prepare the rows that a name stands for; a file's are the validation rows."""
    if dataset is not None:
        kind = "validation_file" if local_path(dataset).is_file() else "dataset"
        options = replace(options, **{kind: str(dataset)})  # type: ignore[arg-type]
    if isinstance(model, str | Path):
        return inputs_for(str(model), options)
    return Inputs.prepare(options)


def settings_of(folder: str) -> Record:
    """Return how AdamW was used in a model's run, by names of TrainingArguments; else nothing."""
    path = local_path(folder) / "run.json"
    record = read_json(path) if path.is_file() else {}
    given = {name: value for name, value in record.get("arguments", {}).items() if name in USUAL}
    return given | ({"max_steps": record["state"]["max_steps"] or 1} if given else {})
