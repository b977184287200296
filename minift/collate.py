"""Rows to padded batches: the collator."""

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
