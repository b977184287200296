"""Texts to the `tokenizers` library's encodings, and these to columns.

Ids are made at once; words and offsets, which take longer, when somebody asks for them.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from minift.data.ragged import Ragged, Runs
from minift.errors import ArgumentError, DataError
from minift_vocabulary.truncation import Window, gather

ATTRIBUTES = {"token_type_ids": "type_ids", "special_tokens_mask": "special_tokens_mask"}


def pair_up(text: Any, text_pair: Any, in_words: bool) -> tuple[list[Any], bool]:
    """Return texts, or pairs of texts, as a list; and True if it was one alone."""
    texts, is_single = as_texts(text, "text", in_words)
    if text_pair is None:
        return texts, is_single
    pairs, one_pair = as_texts(text_pair, "text_pair", in_words)
    if len(pairs) != len(texts) or one_pair != is_single:
        got = f"{len(texts)} and {len(pairs)} texts"
        raise ArgumentError("text and text_pair do not match", got=got)
    return list(zip(texts, pairs, strict=True)), is_single


def as_texts(texts: Any, name: str, in_words: bool) -> tuple[list[Any], bool]:
    """Return one or many texts as a list, and True if it was one.

    Args:
        texts: strings; or, with `in_words`, lists of strings.
        name: what messages call them.

    Raises:
        DataError: something is no string; says at which position.
    """
    what = f"{name} must be a string or a sequence of strings"
    if isinstance(texts, str) and not in_words:
        return [texts], True
    if isinstance(texts, str | Mapping) or not isinstance(texts, Iterable):
        raise DataError(what, got=type(texts).__name__)
    rows = list(texts)
    if in_words and not all(isinstance(word, str) for word in rows):
        return [as_texts(row, f"{name}[{i}]", False)[0] for i, row in enumerate(rows)], False
    for i, row in enumerate(rows):
        if not isinstance(row, str):
            raise DataError(what, got=f"{row!r:.60} ({type(row).__name__}) at position {i}")
    return ([rows], True) if in_words else (rows, False)


def encode_rows(texts: list[Any], encode: Callable[[], list[Any]]) -> list[Any]:
    """Return the library's encoding of each text or pair, nothing cut."""
    try:
        return encode()
    except Exception as error:  # the library raises bare Exception
        cut_off = [i for i, text in enumerate(texts) if "\\ud" in ascii(text)]
        what = f"a text cannot be tokenized: {error}"
        if cut_off:
            what = f"the text at position {cut_off[0]} holds half a character (a lone surrogate)"
        raise DataError(what, do="text.encode(errors='ignore').decode() leaves it out") from None


def token_columns(
    rows: Sequence[Any], windows: Sequence[Window] | None, names: Sequence[str]
) -> dict[str, Ragged]:
    """Return columns of the library's encodings, or of the windows that are left of them."""
    lengths = np.fromiter(map(len, rows), np.int32, len(rows))
    ids = itertools.chain.from_iterable(row.ids for row in rows)
    flat = {"input_ids": np.fromiter(ids, np.int32, int(lengths.sum()))}
    for name, attribute in ATTRIBUTES.items():
        if name in names:
            numbers = b"".join(bytes(getattr(row, attribute)) for row in rows)
            flat[name] = np.frombuffer(numbers, np.int8)
    if windows is not None:
        kept, lengths = gather(windows, lengths)
        flat = {name: values[kept] for name, values in flat.items()}
    columns = {name: Ragged(values, lengths) for name, values in flat.items()}
    return columns | {n: Runs.ones(lengths) for n in names if n == "attention_mask"}
