"""Text, or pairs of texts, to `input_ids`, `token_type_ids` and `attention_mask`.

The splitting itself is done by the `tokenizers` library, from the model's own tokenizer.json, or
from what a plugin makes of other files. What is added here: the calling convention that everybody
knows, padding to tensors, and a fingerprint that depends on the vocabulary and the rules but not on
what was tokenized last.
"""

import hashlib
import itertools
import json
import shutil
import warnings
from collections import UserDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minift.data.column import Column
from minift.data.ragged import Ragged, Runs, as_ragged, pad_columns
from minift.errors import ArgumentError, ConfigError, DataError, MissingFileError, ModelError
from minift.files import read_json, write_text
from minift.plugins import default_manager, find_checkpoint

# The roles of special tokens, and what the families call them: their own files may leave it unsaid.
ROLES = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
BERT = dict(zip(ROLES, ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"), strict=True))
ROBERTA = dict(zip(ROLES, ("<unk>", "</s>", "<pad>", "<s>", "<mask>"), strict=True))
GENERAL = ("", "pretrained", "tokenizersbackend")  # the classes that any model's tokenizer may have
UNTYPED = {"distilbert", "roberta", "modernbert"}
SAVED = ("model_max_length", "padding_side", "truncation_side", "model_input_names", *ROLES)
LABEL_NAMES = ("labels", "label", "label_ids")

TRUNCATION = {
    True: "longest_first",
    "longest_first": "longest_first",
    "only_first": "only_first",
    "only_second": "only_second",
    False: None,
    "do_not_truncate": None,
}
PADDING = {
    True: "longest",
    "longest": "longest",
    "max_length": "max_length",
    False: None,
    "do_not_pad": None,
}
FILLS = {"input_ids": 0, "token_type_ids": 0, "attention_mask": 0, "special_tokens_mask": 1}
AGAIN = "copy the file from the model again"


class BatchEncoding(UserDict[str, Any]):
    """What a tokenizer returns: a mapping whose entries can also be read as attributes.

    The rows of a batch become lists when somebody looks at them; `map` and padding do not.
    """

    def __getitem__(self, key: str) -> Any:
        if isinstance(self.data[key], Ragged):
            self.data[key] = self.data[key][:]
        return self.data[key]

    def __getattr__(self, name: str) -> Any:
        if name == "data" or name not in self.data:  # "data": while it is being copied
            raise AttributeError(name)
        return self[name]

    def __repr__(self) -> str:
        return repr(dict(self))

    def to(self, device: Any) -> "BatchEncoding":
        """The tensors on another device."""
        return BatchEncoding({name: value.to(device) for name, value in self.items()})


class Tokenizer:
    """A tokenizer loaded from a folder; see `AutoTokenizer.from_pretrained`.

    Attributes:
        model_input_names: the keys that calling it returns.
        model_max_length: the longest sequence that the model takes.
        padding_side: "right" or "left".
        truncation_side: the same.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer as Backend

        said, model = read_said(folder), read_json(folder / "config.json")
        self.folder = folder
        self._said = said
        self._file = read_file(folder, said, model)  # kept for saving: the folder may go
        try:
            self._backend = Backend.from_buffer(self._file)
        except Exception as error:  # the library raises bare Exception
            what = f"the tokenizer.json of {folder} cannot be read"
            raise ModelError(what, got=error, expected="the file as saved", do=AGAIN) from None
        self._backend.no_truncation()  # the file records what its author last used
        self._backend.no_padding()
        tokens = special_tokens(said, self._backend)
        mark_special(self._backend, tokens)
        self._digest = hashlib.blake2b(self._backend.to_str().encode(), digest_size=16).hexdigest()
        self.model_max_length = model_max_length(said, model)
        self.padding_side = said.get("padding_side", "right")
        self.truncation_side = said.get("truncation_side", "right")
        self.model_input_names = input_names(said, model)
        self.unk_token, self.sep_token, self.pad_token, self.cls_token, self.mask_token = tokens
        ids = [self._backend.token_to_id(token) if token else None for token in tokens]
        self.unk_token_id, self.sep_token_id, self.pad_token_id = ids[:3]
        self.cls_token_id, self.mask_token_id = ids[3:]

    def __fingerprint__(self) -> str:
        """Vocabulary, rules and limits, but not what the last call asked for."""
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
        text: "str | Sequence[str] | Column",
        text_pair: "str | Sequence[str] | Column | None" = None,
        *,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        padding: bool | str = False,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        add_special_tokens: bool = True,
    ) -> BatchEncoding:
        """Tokenize one text (or pair) or many.

        Args:
            text: a string, or a sequence of strings (a dataset's column too).
            text_pair: the second text of each pair, of the same form.
            truncation: True or "longest_first" takes tokens from the longer of the two;
                "only_first" and "only_second" take them from one. None cuts where `max_length` is
                given and nothing is padded, as transformers does; False never cuts.
            max_length: in tokens, special ones included; the model's limit by default.
            padding: True or "longest" pads to the longest of the batch, "max_length" to that.
            pad_to_multiple_of: round the padded length up.
            return_tensors: "pt" for torch tensors, "np" for arrays; else lists.
            add_special_tokens: put the model's own tokens around and between the texts.

        Returns:
            `model_input_names` to lists of integers, or lists of these for many texts.
        """
        single = isinstance(text, str)
        padded = one_of(PADDING, padding, "padding")
        if truncation is None:
            truncation = max_length is not None and padded is None
        special = self._backend.num_special_tokens_to_add(text_pair is not None)
        self._truncate(truncation, max_length, special if add_special_tokens else 0)
        texts = as_strings(text, "text")
        inputs: list[Any] = texts
        if text_pair is not None:
            pairs = as_strings(text_pair, "text_pair")
            if len(pairs) != len(texts) or isinstance(text_pair, str) != single:
                raise ArgumentError(
                    "text and text_pair do not match", got=f"{len(texts)} and {len(pairs)} texts"
                )
            inputs = list(zip(texts, pairs, strict=True))
        try:
            found = self._backend.encode_batch_fast(inputs, add_special_tokens=add_special_tokens)
        except Exception as error:  # the library raises bare Exception
            raise DataError(
                f"a text cannot be tokenized: {error}", do="truncation=True cuts from both texts"
            ) from None
        mask = Runs.ones([len(one) for one in found])
        flat = itertools.chain.from_iterable(one.ids for one in found)
        ids = np.fromiter(flat, np.int32, int(mask.lengths.sum()))
        columns: Any = {"input_ids": Ragged(ids, mask.lengths)}
        if "token_type_ids" in self.model_input_names:
            columns["token_type_ids"] = as_runs([bytes(one.type_ids) for one in found])
        columns["attention_mask"] = mask
        if padded or return_tensors:
            columns = self.pad(columns, padding, max_length, pad_to_multiple_of, return_tensors)
        if single and not return_tensors:
            return BatchEncoding({name: rows[0] for name, rows in columns.items()})
        return BatchEncoding(columns)

    def _truncate(self, truncation: bool | str, max_length: int | None, special: int) -> None:
        strategy = one_of(TRUNCATION, truncation, "truncation")
        if strategy is None:
            self._backend.no_truncation()
            return
        limit = self.model_max_length if max_length is None else max_length
        if limit < special:  # the library would not cut at all
            raise ConfigError(
                "max_length leaves no place for a text", got=limit, expected=f"at least {special}"
            )
        self._backend.enable_truncation(limit, strategy=strategy, direction=self.truncation_side)

    def pad(
        self,
        encoded: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Bring token columns to one length.

        Args:
            encoded: a dict of lists, or a list of dicts with equal keys.
            padding: True or "longest" pads to the longest row, "max_length" to that; False not.
            max_length: the length to pad to; the model's limit by default.
            pad_to_multiple_of: round the length up.
            return_tensors: "pt", "np", or None for lists.

        Returns:
            Token columns as blocks (B, T), the others as arrays (B, ...).

        Raises:
            DataError: a column holds text, which no tensor can, or its rows do not fit; names it.
        """
        columns = as_columns(encoded.data if isinstance(encoded, BatchEncoding) else encoded)
        kind = one_of(PADDING, padding, "padding")
        if kind is None and not return_tensors:
            return BatchEncoding(columns)
        ids = as_ragged("input_ids", columns.get("input_ids", ()))
        columns["input_ids"] = ids
        length = self._padded_length(ids.lengths, kind, max_length, pad_to_multiple_of)
        if self.pad_token_id is None and np.any(ids.lengths != length):
            raise ConfigError("the tokenizer has no padding token", do="set tokenizer.pad_token_id")
        if "attention_mask" in self.model_input_names and len(ids):
            columns.setdefault("attention_mask", Runs.ones(ids.lengths))
        fills = {**FILLS, "input_ids": self.pad_token_id or 0}
        block = pad_columns(columns, fills, length, left=self.padding_side == "left")
        if return_tensors == "pt":
            import torch

            return BatchEncoding({k: torch.from_numpy(v) for k, v in block.items()})
        if return_tensors == "np":
            return BatchEncoding(block)
        return BatchEncoding({name: values.tolist() for name, values in block.items()})

    def _padded_length(
        self, lengths: np.ndarray, kind: str | None, max_length: int | None, multiple: int | None
    ) -> int:
        """T, the length that all rows of a batch get."""
        length = int(lengths.max(initial=0))
        if kind is None:
            if np.any(lengths != length):
                what = "rows of different lengths do not make a tensor"
                raise DataError(what, got=lengths.tolist(), do="padding=True")
            return length
        if kind == "max_length":
            limit = self.model_max_length if max_length is None else max_length
            if length > limit:
                what = "a row is longer than the length to pad to"
                do = "tokenize with truncation=True"
                raise DataError(what, got=length, expected=limit, do=do)
            length = limit
        return -(-length // multiple) * multiple if multiple else length

    # -- ids to text ------------------------------------------------------------------------------

    def decode(self, token_ids: Any, skip_special_tokens: bool = False) -> str:
        """One sequence of ids as text."""
        ids = token_ids.tolist() if hasattr(token_ids, "tolist") else list(token_ids)
        return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def batch_decode(
        self, sequences: Iterable[Any], skip_special_tokens: bool = False
    ) -> list[str]:
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        if isinstance(ids, int):
            return self._backend.id_to_token(ids)
        return [self._backend.id_to_token(int(i)) for i in ids]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token, or ids of several; what is not in the vocabulary is unknown."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        found = self._backend.token_to_id(tokens)
        return self.unk_token_id if found is None else found

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text, without special ones."""
        self._backend.no_truncation()
        return self._backend.encode(text, add_special_tokens=False).tokens

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write tokenizer.json as it was read, tokenizer_config.json, and a copy of the rest."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt"):
            source, target = self.folder / name, folder / name
            if source.is_file() and source.resolve() != target.resolve():
                shutil.copyfile(source, target)
        write_text(folder / "tokenizer.json", self._file.decode())
        said = dict(self._said)
        for name, value in said.items():
            if name.endswith("_token"):
                said[name] = content(value)
        for name in SAVED:
            if getattr(self, name) is not None:
                said[name] = getattr(self, name)
        write_text(folder / "tokenizer_config.json", json.dumps(said, indent=2))


class AutoTokenizer:
    """`AutoTokenizer.from_pretrained(path_or_name)`."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path, revision: str | None = None) -> Tokenizer:
        """The tokenizer in a model's folder, or in the folder that a plugin finds for a name."""
        return Tokenizer(find_checkpoint(str(name_or_path), revision, "tokenizer"))


def read_said(folder: Path) -> dict[str, Any]:
    """What tokenizer_config.json and the older special_tokens_map.json say."""
    said = read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in said:  # else it says all itself
        said.update(read_json(folder / "special_tokens_map.json"))
    code = said.pop("auto_map", None)
    if code:
        warnings.warn(f"{folder}: auto_map {code} is ignored; the built-in tokenizer is used")
    return said


def read_file(folder: Path, said: dict[str, Any], model: dict[str, Any]) -> bytes:
    """The bytes of tokenizer.json, or of the one that a plugin makes of other files."""
    path = folder / "tokenizer.json"
    if path.is_file():
        return path.read_bytes()
    build = default_manager().hook.minift_build_tokenizer
    built = build(folder=folder, tokenizer_config=said, config=model)
    if built is None:
        raise MissingFileError(
            f"{folder} has no tokenizer",
            got=", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "an empty folder",
            expected="tokenizer.json; or, for the plugin minift_vocabulary, vocab.txt of a BERT, "
            "DistilBERT or ELECTRA, or vocab.json and merges.txt of a RoBERTa",
            do="copy these files too, and see `minift plugins` for what can read them",
        )
    return built.to_str().encode()


def content(token: Any) -> Any:
    """The text of a special token, which files have bare or in an object."""
    return token.get("content") if isinstance(token, Mapping) else token


def family(said: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """The "bert" of a BertTokenizer; what config.json says where the class is one for any model.

    The class goes first: a Japanese BERT has vocab.txt too, but a BertJapaneseTokenizer cuts it.
    """
    kind = str(said.get("tokenizer_class") or model.get("tokenizer_class") or "")
    kind = kind.removesuffix("Fast").removesuffix("Tokenizer").lower()
    return str(model.get("model_type", "")) if kind in GENERAL else kind


def special_tokens(said: Mapping[str, Any], backend: Any) -> list[str | None]:
    """The token of each of ROLES, None where the vocabulary lacks it.

    What is unsaid is what frames an empty text, or a usual name: RoBERTa's first if the frame is.
    """
    frame = backend.encode("").tokens
    ends = {"cls_token": frame[0], "sep_token": frame[-1]} if len(frame) > 1 else {}
    usual = (ends, ROBERTA, BERT) if ROBERTA["cls_token"] in frame else (ends, BERT, ROBERTA)
    vocabulary = backend.get_vocab()
    tokens = []
    for role in ROLES:
        names = [content(said[role])] if role in said else [names.get(role) for names in usual]
        known = [name for name in names if name in vocabulary]
        tokens.append(known[0] if known else None)
    return tokens


def mark_special(backend: Any, tokens: Sequence[str | None]) -> None:
    """Have these found whole in a text, and left out by `skip_special_tokens`."""
    marked = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens([token for token in tokens if token and token not in marked])


def model_max_length(said: Mapping[str, Any], model: Mapping[str, Any]) -> int:
    """The tokenizer's own limit, or the size of the model's position table if that is smaller."""
    # RoBERTa counts positions from the padding token's id + 1, so that it uses fewer.
    unused = model.get("pad_token_id", 1) + 1 if model.get("model_type") == "roberta" else 0
    positions = int(model.get("max_position_embeddings", 512)) - unused
    limit = said.get("model_max_length")
    if not isinstance(limit, int | float) or limit > 10**9:
        return positions
    return int(min(limit, positions) if "max_position_embeddings" in model else limit)


def input_names(said: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """`token_type_ids` only where the model has more than one type to look up.

    RoBERTa may have room for two, but only ever learned one.
    """
    if "model_input_names" in said:
        return list(said["model_input_names"])
    kinds = {family(said, model), model.get("model_type")}
    types = model.get("type_vocab_size", 2 if kinds & {"bert", "electra"} else 0)
    if types < 2 or kinds & UNTYPED:
        return ["input_ids", "attention_mask"]
    return ["input_ids", "token_type_ids", "attention_mask"]


def one_of(known: Mapping[Any, str | None], said: Any, what: str) -> str | None:
    """What an option's value means, or an error that lists the values there are."""
    if said not in known:
        raise ConfigError(f"unknown {what}", got=said, expected=list(known))
    return known[said]


def as_strings(texts: Any, name: str) -> list[str]:
    """A list of strings from one or many; a number or a None in it is named by its position."""
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


def as_runs(rows: Sequence[bytes]) -> Any:
    """Rows of small numbers as runs, or as lists if they are anything else."""
    zeros = [row.count(0) for row in rows]
    if any(row[zero:].strip(b"\1") for row, zero in zip(rows, zeros, strict=True)):
        return [list(row) for row in rows]
    return Runs(np.asarray([len(row) for row in rows], np.int32), np.asarray(zeros, np.int32))


def as_columns(rows: Any) -> dict[str, Any]:
    """A dict of columns from a dict of lists or a list of dicts; `label` becomes `labels`."""
    if isinstance(rows, Mapping):
        columns = dict(rows)
    else:
        columns = {name: [row[name] for row in rows] for name in same_keys(rows)}
    ids = columns.get("input_ids", ())
    if not isinstance(ids, Ragged) and len(ids) and np.ndim(ids[0]) == 0:
        columns = {name: [value] for name, value in columns.items()}  # a single row
    said = [name for name in columns if name in LABEL_NAMES]
    if len(said) > 1:
        raise DataError("which column holds the labels?", got=said, do="remove the others")
    return {"labels" if name in LABEL_NAMES else name: value for name, value in columns.items()}


def same_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of all rows; a row that has others would lose a value, or lack one."""
    names = list(rows[0]) if len(rows) else []
    for i, row in enumerate(rows):
        if set(row) != set(names):
            what = f"row {i} of the batch has other columns than row 0"
            raise DataError(what, got=sorted(row), expected=sorted(names))
    return names
