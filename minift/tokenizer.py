"""Text, or pairs of texts, to `input_ids`, `token_type_ids` and `attention_mask`.

The `tokenizers` library does the splitting, by the rules in the model's own tokenizer.json. This
file adds the familiar calling convention, padding to tensors, and a fingerprint for `Dataset.map`
that depends on vocabulary and rules but not on the options of the last call.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minift.data.ragged import Ragged, Runs, as_ragged, pad_columns
from minift.encoding import BatchEncoding
from minift.errors import ConfigError, DataError, MissingFileError
from minift.plugins import default_manager, resolve_checkpoint

LABEL_NAMES = ("labels", "label", "label_ids")
# The token columns, and their values at padded positions; input_ids get the padding token.
PAD_VALUES = {"input_ids": 0, "token_type_ids": 0, "attention_mask": 0, "special_tokens_mask": 1}
# The strategies of two options: True stands for the first of them, False for the last.
TRUNCATION = ("longest_first", "only_first", "only_second", "do_not_truncate")
PADDING = ("longest", "max_length", "do_not_pad")
SIDES = ("right", "left")


class Truncation(NamedTuple):
    """How rows that are too long are cut.

    Attributes:
        limit: of a row, in tokens, special ones included.
        strategy: of which text tokens are taken, one of TRUNCATION.
        left: tokens are taken from the left end of a text.
        stride: how many tokens two neighbouring windows of a text share.
        overflow: what is cut off becomes rows of its own.
    """

    limit: int
    strategy: str
    left: bool
    stride: int
    overflow: bool


class Tokenizer:
    """Texts to batches, by the rules of a `tokenizers.Tokenizer`.

    A plugin derives from it what belongs to a folder (`minift_find_tokenizer`). A call changes
    nothing in it, so that threads can share one.

    Attributes:
        backend_tokenizer: the library's object.
        digest: of its vocabulary and rules.
        model_input_names: the keys of the result of a call.
        model_max_length: the longest sequence that the model takes, in tokens.
        padding_side: "right" or "left".
        truncation_side: likewise.
        pad_token, pad_token_id: what rows are padded with; None if there is no such token.
    """

    digest: str
    pad_token: str | None
    pad_token_id: int | None

    def __init__(self, backend: Any, settings: Mapping[str, Any]) -> None:
        """Take the settings of tokenizer_config.json; two of them must be there."""
        self.backend_tokenizer = backend
        self.model_max_length: int = settings["model_max_length"]
        self.model_input_names: list[str] = settings["model_input_names"]
        self.padding_side = settings.get("padding_side", "right")
        self.truncation_side = settings.get("truncation_side", "right")
        one_of(SIDES, self.truncation_side, "truncation_side")
        check_padding("longest", self.padding_side)

    def __fingerprint__(self) -> str:
        """Return what results depend on: vocabulary, rules and limits."""
        limits = (self.model_max_length, self.padding_side, self.truncation_side, self.pad_token_id)
        return f"{self.digest} {self.model_input_names} {limits}"

    def __repr__(self) -> str:
        sizes = f"vocab_size={len(self)}, model_max_length={self.model_max_length}"
        return f"Tokenizer({sizes}, padding_side={self.padding_side!r})"

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=True)

    # -- text to ids ------------------------------------------------------------------------------

    def __call__(
        self, text: Any, text_pair: Any = None, *, add_special_tokens: bool = True,
        truncation: bool | str | None = None, max_length: int | None = None, stride: int = 0,
        padding: bool | str = False, pad_to_multiple_of: int | None = None,
        padding_side: str | None = None, is_split_into_words: bool = False,
        return_tensors: str | None = None, return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None, return_special_tokens_mask: bool = False,
        return_overflowing_tokens: bool = False, return_offsets_mapping: bool = False,
    ) -> BatchEncoding:  # fmt: skip
        """Tokenize one text (or pair of texts), or many.

        Args:
            text: a string, or a sequence of strings, such as a dataset's column.
            text_pair: the second text of each pair, of the same type.
            add_special_tokens: add those of the model, such as [CLS] text [SEP] text [SEP].
            truncation: True or "longest_first" takes tokens from the longer text of a pair;
                "only_first" and "only_second" take them from that one. False never truncates. None
                truncates if there is a `max_length` and no padding, as transformers does.
            max_length: in tokens, special ones included; by default the model's limit.
            stride: how many tokens two neighbouring windows of a text share.
            padding: True or "longest" pads to the longest row, "max_length" to that length.
            pad_to_multiple_of: round the padded length up.
            padding_side: "right" or "left", instead of the tokenizer's own.
            is_split_into_words: each text is a list of words.
            return_tensors: "pt" for torch tensors, "np" for arrays; by default lists.
            return_token_type_ids, return_attention_mask: None: if the model takes them.
            return_special_tokens_mask: 1 for each special token that was added.
            return_overflowing_tokens: what truncation cuts off becomes rows of its own;
                `overflow_to_sample_mapping` has the text's position for each row.
            return_offsets_mapping: where each token begins and ends in its text, in characters.

        Returns:
            {name: ids} for each of `model_input_names`: a list of T integers for one text, B such
            lists for many, or a tensor of shape (B, T).

        Raises:
            DataError: something is no text; says where.
            ConfigError: an option has a value that is not known, or two do not fit each other.
        """
        if truncation is None:
            truncation = max_length is not None and padding is False
        strategy = one_of(TRUNCATION, truncation, "truncation")
        limit = check_length("max_length", max_length) or self.model_max_length
        left = one_of(SIDES, self.truncation_side, "truncation_side") == "left"
        flags = {"token_type_ids": return_token_type_ids, "attention_mask": return_attention_mask}
        flags["special_tokens_mask"] = return_special_tokens_mask
        usual = self.model_input_names
        names = [n for n, flag in flags.items() if (n in usual if flag is None else flag)]
        how = Truncation(limit, strategy, left, stride, return_overflowing_tokens)
        columns, windows, details, is_single = self.encode_texts(
            text, text_pair, names, None if strategy == "do_not_truncate" else how,
            in_words=is_split_into_words, add_special_tokens=add_special_tokens,
            with_offsets=return_offsets_mapping,
        )  # fmt: skip
        num_rows = len(columns["input_ids"])
        if return_overflowing_tokens:
            rows = range(num_rows) if windows is None else [row for row, _ in windows]
            columns["overflow_to_sample_mapping"] = list(rows)
        if padding is not False or return_tensors is not None:
            to = (max_length, pad_to_multiple_of, padding_side)
            padded = self.pad(columns, padding, *to, return_tensors=return_tensors)
            columns = {name: padded[name] for name in columns}
        in_list = not is_single or return_tensors is not None or return_overflowing_tokens
        if not in_list:
            columns = {name: values[0] for name, values in columns.items()}
        pad_left = (padding_side or self.padding_side) == "left"
        result = BatchEncoding(columns, (details, windows, in_list, self.pad_token, pad_left))
        if return_offsets_mapping:
            offsets = [result.of_tokens("offsets", i) for i in range(num_rows)]
            result["offset_mapping"] = to_tensor(offsets, return_tensors) if in_list else offsets[0]
        return result

    def encode_texts(
        self, text: Any, text_pair: Any, names: Sequence[str], truncation: Truncation | None, *,
        in_words: bool, add_special_tokens: bool, with_offsets: bool,
    ) -> tuple[dict[str, Any], Any, Callable[[], list[Any]], bool]:  # fmt: skip
        """Return the token columns of one text or pair, or of many; a subclass knows how.

        Args:
            text, text_pair: as in a call; with `in_words`, each text is a list of words.
            names: of the columns beside `input_ids`.
            truncation: None: nothing is cut.
            add_special_tokens: as in a call.
            with_offsets: offsets will be asked for.

        Returns:
            Columns by name, as `Ragged`; what was kept, (row, positions) for each row of the
            columns, None if nothing was cut; a function for the library's encodings in detail; and
            True if it was one text or pair alone.
        """
        raise NotImplementedError

    def encode(
        self, text: Any, text_pair: Any = None, add_special_tokens: bool = True,
        truncation: bool | str | None = None, max_length: int | None = None,
        return_tensors: str | None = None,
    ) -> Any:  # fmt: skip
        """Return the `input_ids` of a text or pair; see `__call__`."""
        options = {"truncation": truncation, "max_length": max_length}
        names: Any = options | {"return_tensors": return_tensors}
        return self(text, text_pair, add_special_tokens=add_special_tokens, **names)["input_ids"]

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text, without special tokens."""
        return self(text, add_special_tokens=False).tokens()

    def pad(
        self, encoded: Mapping[str, Any] | Sequence[Mapping[str, Any]], padding: bool | str = True,
        max_length: int | None = None, pad_to_multiple_of: int | None = None,
        padding_side: str | None = None, return_tensors: str | None = None,
    ) -> BatchEncoding:  # fmt: skip
        """Pad the token columns of a batch to one length.

        Args:
            encoded: a dict of lists, or a list of dicts with equal keys.
            padding: True or "longest" pads to the longest row, "max_length" to that length; False
                does not pad.
            max_length: the length to pad to; by default the model's limit.
            pad_to_multiple_of: round the length up.
            padding_side: "right" or "left", instead of the tokenizer's own.
            return_tensors: "pt", "np", or None for lists.

        Returns:
            Token columns of shape (B, T), other columns of shape (B, ...).

        Raises:
            DataError: a column holds text, or its rows do not fit; the message names it.
        """
        columns = as_columns(encoded.data if isinstance(encoded, BatchEncoding) else encoded)
        strategy, side = check_padding(padding, padding_side or self.padding_side, return_tensors)
        if strategy == "do_not_pad" and return_tensors is None:
            return BatchEncoding(columns)
        ids = as_ragged("input_ids", columns.get("input_ids", ()))
        columns["input_ids"] = ids
        length = self._padded_length(ids.lengths, strategy, max_length, pad_to_multiple_of)
        if self.pad_token_id is None and np.any(ids.lengths != length):
            raise ConfigError("the tokenizer has no padding token", do="set tokenizer.pad_token")
        if "attention_mask" in self.model_input_names and len(ids):
            columns.setdefault("attention_mask", Runs.ones(ids.lengths))
        pad_values = {**PAD_VALUES, "input_ids": self.pad_token_id or 0}
        arrays = pad_columns(columns, pad_values, length, left=side == "left")
        if return_tensors is None:
            return BatchEncoding({name: x.tolist() for name, x in arrays.items()})
        return BatchEncoding({name: to_tensor(x, return_tensors) for name, x in arrays.items()})

    def _padded_length(
        self, lengths: np.ndarray, strategy: str, max_length: int | None, multiple: int | None
    ) -> int:
        """Return T, the length of all rows after padding."""
        length, multiple = int(lengths.max(initial=0)), check_length("pad_to_multiple_of", multiple)
        if strategy == "max_length":
            limit = check_length("max_length", max_length) or self.model_max_length
            if length > limit:
                what, do = "a row is longer than the length to pad to", "truncation=True"
                raise DataError(what, got=length, expected=limit, do=do)
            length = limit
        elif strategy == "do_not_pad":
            if np.any(lengths != length):
                what, got = "rows of different lengths do not make a tensor", lengths.tolist()
                raise DataError(what, got=got, do="padding=True")
            return length
        return -(-length // multiple) * multiple if multiple else length


class AutoTokenizer:
    """`AutoTokenizer.from_pretrained(path_or_name)`."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path, revision: str | None = None) -> Tokenizer:
        """Return the tokenizer of a folder, or of the model that a plugin finds by name.

        Raises:
            MissingFileError: there is no tokenizer, or no plugin that can read it.
        """
        folder = resolve_checkpoint(str(name_or_path), revision, "tokenizer").folder
        tokenizer = default_manager().hook.minift_find_tokenizer(folder=folder)
        if tokenizer is None:
            got = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "no files"
            expected = "tokenizer.json, vocab.txt, or vocab.json and merges.txt"
            do = "copy these too; `minift plugins` shows if minift_vocabulary is there to read them"
            raise MissingFileError(f"{folder} has no tokenizer", got=got, expected=expected, do=do)
        return tokenizer


# -- arguments ------------------------------------------------------------------------------------


def one_of(strategies: Sequence[str], value: Any, option: str) -> str:
    """Return the strategy, or the side, that an option's value names."""
    if isinstance(value, bool) and strategies is not SIDES:
        return strategies[0 if value else -1]
    if value not in strategies:
        raise ConfigError(f"unknown {option}", got=repr(value), expected=f"one of {strategies}")
    return value


def check_padding(padding: Any, side: Any, return_tensors: Any = None) -> tuple[str, str]:
    """Check options; return the strategy and the side of padding."""
    if return_tensors not in ("pt", "np", None):
        expected = "'pt', 'np' or None"
        raise ConfigError("unknown return_tensors", got=repr(return_tensors), expected=expected)
    return one_of(PADDING, padding, "padding"), one_of(SIDES, side, "padding_side")


def check_length(option: str, value: Any) -> Any:
    """Check an option that is a number of tokens, or None."""
    if value is not None and (type(value) is bool or value < 1 or value != int(value)):
        raise ConfigError(f"{option} is no length", got=repr(value), expected="1 or more")
    return value


def to_tensor(values: Any, return_tensors: str | None) -> Any:
    """Return numbers as an array ("np") or a tensor ("pt"), or as they are (None)."""
    if return_tensors == "pt":
        import torch

        return torch.as_tensor(np.asarray(values))
    return values if return_tensors is None else np.asarray(values)


def as_columns(batch: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a dict of columns from a dict of lists or a list of dicts, `label` as `labels`."""
    if isinstance(batch, Mapping):
        columns = dict(batch)
    else:
        names = list(batch[0]) if len(batch) else []
        for i, row in enumerate(batch):
            if set(row) != set(names):
                what = f"row {i} of the batch has other columns than row 0"
                raise DataError(what, got=sorted(row), expected=sorted(names))
        columns = {name: [row[name] for row in batch] for name in names}
    ids = columns.get("input_ids", ())
    if not isinstance(ids, Ragged) and len(ids) and np.ndim(ids[0]) == 0:
        columns = {name: [value] for name, value in columns.items()}  # a single row
    labels = [name for name in columns if name in LABEL_NAMES]
    if len(labels) > 1:
        raise DataError("which column holds the labels?", got=labels, do="remove the others")
    return {"labels" if name in LABEL_NAMES else name: value for name, value in columns.items()}
