"""`BatchEncoding`: what a tokenizer returns, and where each of its tokens is from."""

from collections import UserDict
from typing import Any

from minift.data.ragged import Ragged
from minift.errors import ConfigError


class BatchEncoding(UserDict[str, Any]):
    """The result of a tokenizer: a dict whose entries are attributes too.

    Token columns are arrays, which `Dataset.map` and padding take as they are; an entry becomes a
    list of lists when it is read.
    """

    def __init__(self, columns: Any, details: tuple[Any, ...] | None = None) -> None:
        """Take columns, and what is known of single tokens.

        Args:
            columns: by name.
            details: a function that returns the library's encodings with words and offsets, which
                take longer than ids alone and are therefore made when somebody asks; the windows
                that were kept of the rows, None if nothing was cut; whether the columns hold
                several rows; what stands at padding; and whether that is on the left.
        """
        super().__init__(columns)
        self.details = details

    def __getitem__(self, key: str) -> Any:
        if isinstance(self.data[key], Ragged):
            self.data[key] = self.data[key][:]
        return self.data[key]

    def __getattr__(self, name: str) -> Any:
        if name == "data" or name not in self.data:  # copy() asks for "data" before it is set
            raise AttributeError(name)
        return self[name]

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> Any:  # to another process go the columns, not the tokenizer
        return BatchEncoding, (self.data,)

    def to(self, device: Any) -> "BatchEncoding":
        """Return the tensors on another device."""
        return BatchEncoding({name: value.to(device) for name, value in self.items()})

    def tokens(self, batch_index: int = 0) -> list[str]:
        """Return the tokens of a row as text."""
        return self.of_tokens("tokens", batch_index)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return for each token of a row the number of its word; None for special tokens."""
        return self.of_tokens("word_ids", batch_index)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return 0 or 1 for a token of the first or second text; None for special tokens."""
        return self.of_tokens("sequence_ids", batch_index)

    def of_tokens(self, name: str, index: int) -> list[Any]:
        """Return an attribute of the library's encoding for each token of a row."""
        if self.details is None:
            raise ConfigError("only what a tokenizer itself returned knows its tokens' origin")
        encode, windows, in_list, pad_token, pad_left = self.details
        row, positions = (index, None) if windows is None else windows[index]
        values = getattr(encode()[row], name)
        values = values if positions is None else [values[i] for i in positions]
        ids = self["input_ids"][index] if in_list else self["input_ids"]
        pad_value = {"tokens": pad_token, "offsets": (0, 0)}.get(name)
        padding = [pad_value] * (len(ids) - len(values))
        return padding + values if pad_left else values + padding
