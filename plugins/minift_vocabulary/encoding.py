"""The `tokenizers` library's encodings of texts, as columns.

Ids alone take half the time; words and offsets of tokens are made when somebody asks.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minift.data.ragged import Ragged, Runs
from minift.errors import DataError
from minift_vocabulary.truncation import Window, gather

ATTRIBUTES = {"token_type_ids": "type_ids", "special_tokens_mask": "special_tokens_mask"}


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
