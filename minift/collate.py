"""Rows to padded batches: the collator, and padding to fixed shapes."""

from dataclasses import dataclass
from typing import Any

from minift.data.lazy import RowBatch
from minift.tokenizer import Tokenizer, check_padding


@dataclass
class DataCollatorWithPadding:
    """Collate rows into a dict of tensors, padded to the longest row of the batch.

    Attributes:
        tokenizer: gives the padding token, the side to pad on, and the model's input names.
        padding: True or "longest"; "max_length" pads to `max_length`, for devices that compile
            each shape anew; False takes only rows of equal length.
        max_length: in tokens; by default the model's limit.
        pad_to_multiple_of: round the length up, for hardware that prefers multiples of 8.
        return_tensors: "pt" for torch tensors, "np" for arrays.
    """

    tokenizer: Tokenizer
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"

    def __post_init__(self) -> None:
        check_padding(self.padding, self.tokenizer.padding_side, self.return_tensors)

    def __call__(self, features: Any) -> dict[str, Any]:
        """Collate rows.

        Args:
            features: rows of a dataset, which are padded straight from the memory map; or a list
                of dicts, or a dict of lists. `label` and `label_ids` become `labels`.

        Returns:
            `input_ids`, `attention_mask`, `token_type_ids`: int64 of shape (B, T); `labels`:
            int64 or float32 of shape (B,) or (B, num_labels).

        Raises:
            DataError: a column holds text, which cannot be in a tensor.
        """
        rows = features.columns() if isinstance(features, RowBatch) else features
        lengths = (self.padding, self.max_length, self.pad_to_multiple_of)
        return self.tokenizer.pad(rows, *lengths, return_tensors=self.return_tensors).data


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
