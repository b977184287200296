"""Rows to padded batches: the collator, and padding to fixed shapes."""

from dataclasses import dataclass
from typing import Any

from minift.data.batch import RowBatch
from minift.tokenizer import Tokenizer


@dataclass
class DataCollatorWithPadding:
    """A list of rows to a dict of tensors, padded to the longest row of the batch.

    It takes rows of a dataset (padded straight from the memory map), a list of dicts, or a dict of
    lists. `label` and `label_ids` become `labels`; a column of text is an error that names it.

    Attributes:
        tokenizer: says the padding token, its side and the model's inputs.
        padding: True or "longest"; "max_length" pads to `max_length`, for compiled shapes; False
            takes only rows that are equally long.
        max_length: in tokens; the model's limit by default.
        pad_to_multiple_of: round the length up, for hardware that likes multiples of 8.
    """

    tokenizer: Tokenizer
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"

    def __call__(self, features: Any) -> dict[str, Any]:
        """
        Returns:
            `input_ids`, `attention_mask`, `token_type_ids`: int64 of shape (B, T); `labels`:
            int64 or float32 of shape (B,) or (B, num_labels).
        """
        rows = features.columns() if isinstance(features, RowBatch) else features
        kind = "np" if self.return_tensors == "np" else "pt"
        padded = self.tokenizer.pad(
            rows, self.padding, self.max_length, self.pad_to_multiple_of, kind
        )
        return padded.data


def pad_to_shape(
    batch: dict[str, Any], batch_size: int, length: int, pad_token_id: int
) -> dict[str, Any]:
    """Pad a collated batch in host memory to B x T, for devices that compile each shape anew.

    Args:
        batch: tensors of shape (B, ...); those that have the shape of `input_ids` are (B, T).
        batch_size: the new B. Added rows repeat the first one; an `example_mask` of 0 must leave
            them out of the loss.
        length: the new T. Added positions hold padding, which `attention_mask` marks with 0.
        pad_token_id: fills `input_ids`; all other columns are filled with 0.
    """
    import torch

    padded = dict(batch)
    for name, value in batch.items():
        if not isinstance(value, torch.Tensor) or not value.dim():
            continue
        per_token = name != "labels" and "input_ids" in batch
        if per_token and value.shape == batch["input_ids"].shape:
            pad_value = pad_token_id if name == "input_ids" else 0
            missing = length - value.shape[1]
            value = torch.nn.functional.pad(value, (0, missing), value=pad_value)
        copies = value[:1].expand(batch_size - len(value), *value.shape[1:])
        padded[name] = torch.cat([value, copies])
    return padded
