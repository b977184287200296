"""Text, or pairs of texts, to `input_ids`, `token_type_ids` and `attention_mask`.

The `tokenizers` library does the splitting, by the rules in the model's own tokenizer.json. This
file adds the familiar calling convention, padding to tensors, and a fingerprint for `Dataset.map`
that depends on vocabulary and rules but not on the options of the last call.
"""

import hashlib
import itertools
import json
import shutil
from collections import UserDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minift import tokenizer_config
from minift.data.ragged import Ragged, Runs, as_ragged, pad_columns
from minift.errors import ArgumentError, ConfigError, DataError
from minift.files import local_path, read_json, write_text
from minift.plugins import resolve_checkpoint

LABEL_NAMES = ("labels", "label", "label_ids")
# The token columns, and their values at padded positions; input_ids get the padding token.
PAD_VALUES = {"input_ids": 0, "token_type_ids": 0, "attention_mask": 0, "special_tokens_mask": 1}
# The strategies of two options: True stands for the first of them, False for the last.
TRUNCATION = ("longest_first", "only_first", "only_second", "do_not_truncate")
PADDING = ("longest", "max_length", "do_not_pad")
SETTINGS = ("model_max_length", "padding_side", "truncation_side", "model_input_names")


class BatchEncoding(UserDict[str, Any]):
    """The result of a tokenizer: a dict whose entries are attributes too.

    Token columns are arrays, which `Dataset.map` and padding take as they are; an entry becomes a
    list of lists when it is read.
    """

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

    def to(self, device: Any) -> "BatchEncoding":
        """Return the tensors on another device."""
        return BatchEncoding({name: value.to(device) for name, value in self.items()})


class Tokenizer:
    """A tokenizer from a folder; see `AutoTokenizer.from_pretrained`.

    Attributes:
        model_input_names: the keys of the result of a call.
        model_max_length: the longest sequence that the model takes, in tokens.
        padding_side: "right" or "left".
        truncation_side: likewise.
        pad_token, pad_token_id: a special token and its id, or None; likewise unk, sep, cls, mask.
    """

    def __init__(self, folder: Path) -> None:
        config, model_config = tokenizer_config.read(folder), read_json(folder / "config.json")
        self.folder, self._config = folder.absolute(), config
        # Kept for save_pretrained: the folder may be gone by then.
        self._json = tokenizer_config.read_tokenizer_json(folder, config, model_config)
        self._backend = tokenizer_config.parse_tokenizer_json(self._json, folder)
        self._backend.no_truncation()  # the file may record options of the author's last call
        self._backend.no_padding()
        tokens = tokenizer_config.find_special_tokens(config, self._backend)
        tokenizer_config.mark_special(self._backend, tokens)
        self._digest = hashlib.blake2b(self._backend.to_str().encode(), digest_size=16).hexdigest()
        self.model_max_length = tokenizer_config.model_max_length(config, model_config)
        self.padding_side = config.get("padding_side", "right")
        self.truncation_side = config.get("truncation_side", "right")
        self.model_input_names = tokenizer_config.model_input_names(config, model_config)
        self.unk_token, self.sep_token, self.pad_token, self.cls_token, self.mask_token = tokens
        ids = [self._backend.token_to_id(token) if token else None for token in tokens]
        self.unk_token_id, self.sep_token_id, self.pad_token_id = ids[:3]
        self.cls_token_id, self.mask_token_id = ids[3:]

    def __fingerprint__(self) -> str:
        """Return what results depend on: vocabulary, rules and limits, not the last call."""
        limits = (self.model_max_length, self.padding_side, self.truncation_side, self.pad_token_id)
        return f"{self._digest} {self.model_input_names} {limits}"

    def __repr__(self) -> str:
        return (
            f"Tokenizer(vocab_size={len(self)}, model_max_length={self.model_max_length}, "
            f"model_input_names={self.model_input_names}, padding_side={self.padding_side!r})"
        )

    def __len__(self) -> int:
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def vocab_size(self) -> int:
        return self._backend.get_vocab_size(with_added_tokens=False)

    # -- text to ids ------------------------------------------------------------------------------

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        *,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        padding: bool | str = False,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        add_special_tokens: bool = True,
    ) -> BatchEncoding:
        """Tokenize one text (or pair of texts), or many.

        Args:
            text: a string, or a sequence of strings, such as a dataset's column.
            text_pair: the second text of each pair, of the same type.
            truncation: True or "longest_first" takes tokens from the longer text of a pair;
                "only_first" and "only_second" take them from that one. False never truncates. None
                truncates if there is a `max_length` and no padding, as transformers does.
            max_length: in tokens, special ones included; by default the model's limit.
            padding: True or "longest" pads to the longest row, "max_length" to that length.
            pad_to_multiple_of: round the padded length up.
            return_tensors: "pt" for torch tensors, "np" for arrays; by default lists.
            add_special_tokens: add those of the model, such as [CLS] text [SEP] text [SEP].

        Returns:
            {name: ids} for each of `model_input_names`: a list of T integers for one text, B such
            lists for many, or a tensor of shape (B, T).
        """
        is_single = isinstance(text, str)
        pad_strategy = strategy_of(PADDING, padding, "padding")
        if truncation is None:
            truncation = max_length is not None and pad_strategy == "do_not_pad"
        special = self._backend.num_special_tokens_to_add(text_pair is not None)
        self._set_truncation(truncation, max_length, special if add_special_tokens else 0)
        inputs: list[Any] = as_strings(text, "text")
        if text_pair is not None:
            pairs = as_strings(text_pair, "text_pair")
            if len(pairs) != len(inputs) or isinstance(text_pair, str) != is_single:
                got = f"{len(inputs)} and {len(pairs)} texts"
                raise ArgumentError("text and text_pair do not match", got=got)
            inputs = list(zip(inputs, pairs, strict=True))
        try:
            rows = self._backend.encode_batch_fast(inputs, add_special_tokens=add_special_tokens)
        except Exception as error:  # the library raises bare Exception
            do = "truncation=True cuts from both texts"
            raise DataError(f"a text cannot be tokenized: {error}", do=do) from None
        mask = Runs.ones([len(row) for row in rows])
        ids = itertools.chain.from_iterable(row.ids for row in rows)
        input_ids = np.fromiter(ids, np.int32, int(mask.lengths.sum()))
        columns: Any = {"input_ids": Ragged(input_ids, mask.lengths)}
        if "token_type_ids" in self.model_input_names:
            type_ids = np.frombuffer(b"".join(bytes(row.type_ids) for row in rows), np.int8)
            columns["token_type_ids"] = Ragged(type_ids, mask.lengths)
        columns["attention_mask"] = mask
        if pad_strategy != "do_not_pad" or return_tensors:
            columns = self.pad(columns, padding, max_length, pad_to_multiple_of, return_tensors)
        if is_single and not return_tensors:
            return BatchEncoding({name: values[0] for name, values in columns.items()})
        return BatchEncoding(columns)

    def _set_truncation(self, truncation: bool | str, max_length: int | None, special: int) -> None:
        """Set the backend's truncation; `special` tokens are added to each text or pair."""
        strategy = strategy_of(TRUNCATION, truncation, "truncation")
        if strategy == "do_not_truncate":
            self._backend.no_truncation()
            return
        limit = self.model_max_length if max_length is None else max_length
        if limit < special:  # the library would not truncate at all
            what = "max_length leaves no place for a text"
            raise ConfigError(what, got=limit, expected=f"at least {special}")
        self._backend.enable_truncation(limit, strategy=strategy, direction=self.truncation_side)

    def pad(
        self,
        encoded: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Pad the token columns of a batch to one length.

        Args:
            encoded: a dict of lists, or a list of dicts with equal keys.
            padding: True or "longest" pads to the longest row, "max_length" to that length; False
                does not pad.
            max_length: the length to pad to; by default the model's limit.
            pad_to_multiple_of: round the length up.
            return_tensors: "pt", "np", or None for lists.

        Returns:
            Token columns of shape (B, T), other columns of shape (B, ...).

        Raises:
            DataError: a column holds text, or its rows do not fit; the message names it.
        """
        columns = as_columns(encoded.data if isinstance(encoded, BatchEncoding) else encoded)
        strategy = strategy_of(PADDING, padding, "padding")
        if strategy == "do_not_pad" and not return_tensors:
            return BatchEncoding(columns)
        ids = as_ragged("input_ids", columns.get("input_ids", ()))
        columns["input_ids"] = ids
        length = self._padded_length(ids.lengths, strategy, max_length, pad_to_multiple_of)
        if self.pad_token_id is None and np.any(ids.lengths != length):
            raise ConfigError("the tokenizer has no padding token", do="set tokenizer.pad_token_id")
        if "attention_mask" in self.model_input_names and len(ids):
            columns.setdefault("attention_mask", Runs.ones(ids.lengths))
        pad_values = {**PAD_VALUES, "input_ids": self.pad_token_id or 0}
        arrays = pad_columns(columns, pad_values, length, left=self.padding_side == "left")
        if return_tensors == "pt":
            import torch

            return BatchEncoding({name: torch.from_numpy(x) for name, x in arrays.items()})
        if return_tensors == "np":
            return BatchEncoding(arrays)
        return BatchEncoding({name: x.tolist() for name, x in arrays.items()})

    def _padded_length(
        self, lengths: np.ndarray, strategy: str, max_length: int | None, multiple: int | None
    ) -> int:
        """Return T, the length of all rows after padding."""
        length = int(lengths.max(initial=0))
        if strategy == "do_not_pad":
            if np.any(lengths != length):
                what = "rows of different lengths do not make a tensor"
                raise DataError(what, got=lengths.tolist(), do="padding=True")
            return length
        if strategy == "max_length":
            limit = self.model_max_length if max_length is None else max_length
            if length > limit:
                what = "a row is longer than the length to pad to"
                do = "tokenize with truncation=True"
                raise DataError(what, got=length, expected=limit, do=do)
            length = limit
        return -(-length // multiple) * multiple if multiple else length

    # -- ids to text ------------------------------------------------------------------------------

    def decode(self, token_ids: Any, skip_special_tokens: bool = False) -> str:
        """Return one sequence of ids as text."""
        ids = token_ids.tolist() if hasattr(token_ids, "tolist") else list(token_ids)
        return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False) -> list[str]:
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        if isinstance(ids, int):
            return self._backend.id_to_token(ids)
        return [self._backend.id_to_token(int(i)) for i in ids]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """Return the id of a token, or a list of ids; those not in the vocabulary are unknown."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        token_id = self._backend.token_to_id(tokens)
        return self.unk_token_id if token_id is None else token_id

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text, without special tokens."""
        self._backend.no_truncation()
        return self._backend.encode(text, add_special_tokens=False).tokens

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write tokenizer.json unchanged, tokenizer_config.json, and copies of other files."""
        folder = local_path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt"):
            source, target = self.folder / name, folder / name
            if source.is_file() and source.resolve() != target.resolve():
                shutil.copyfile(source, target)
        write_text(folder / "tokenizer.json", self._json.decode())
        config = dict(self._config)
        for name, value in self._config.items():
            if name.endswith("_token"):
                config[name] = tokenizer_config.token_text(value)
        current = {name: getattr(self, name) for name in (*SETTINGS, *tokenizer_config.ROLES)}
        config |= {name: value for name, value in current.items() if value is not None}
        write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2))


class AutoTokenizer:
    """`AutoTokenizer.from_pretrained(path_or_name)`."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path, revision: str | None = None) -> Tokenizer:
        """Return the tokenizer of a folder, or of the model that a plugin finds by name."""
        return Tokenizer(resolve_checkpoint(str(name_or_path), revision, "tokenizer").folder)


# -- arguments ------------------------------------------------------------------------------------


def strategy_of(strategies: Sequence[str], value: bool | str, option: str) -> str:
    """Return the strategy that an option's value names."""
    if isinstance(value, bool):
        return strategies[0 if value else -1]
    if value not in strategies:
        raise ConfigError(f"unknown {option}", got=value, expected=f"True, False, {strategies}")
    return value


def as_strings(texts: Any, name: str) -> list[str]:
    """Return one or many texts as a list, or raise a DataError that names the position."""
    what = f"{name} must be a string or a sequence of strings"
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, Mapping) or not isinstance(texts, Iterable):
        raise DataError(what, got=type(texts).__name__)
    strings = list(texts)
    for i, text in enumerate(strings):
        if not isinstance(text, str):
            raise DataError(what, got=f"{text!r:.60} ({type(text).__name__}) at position {i}")
    return strings


def as_columns(batch: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a dict of columns from a dict of lists or a list of dicts, `label` as `labels`."""
    if isinstance(batch, Mapping):
        columns = dict(batch)
    else:
        columns = {name: [row[name] for row in batch] for name in shared_keys(batch)}
    ids = columns.get("input_ids", ())
    if not isinstance(ids, Ragged) and len(ids) and np.ndim(ids[0]) == 0:
        columns = {name: [value] for name, value in columns.items()}  # a single row
    labels = [name for name in columns if name in LABEL_NAMES]
    if len(labels) > 1:
        raise DataError("which column holds the labels?", got=labels, do="remove the others")
    return {"labels" if name in LABEL_NAMES else name: value for name, value in columns.items()}


def shared_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys of the rows, or raise a DataError if rows have different keys."""
    names = list(rows[0]) if len(rows) else []
    for i, row in enumerate(rows):
        if set(row) != set(names):
            what = f"row {i} of the batch has other columns than row 0"
            raise DataError(what, got=sorted(row), expected=sorted(names))
    return names
