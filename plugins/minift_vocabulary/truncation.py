"""Rows that are too long, cut by the rules of the `tokenizers` library.

The library can cut by itself, but not here. Its limit is a setting of the tokenizer, which all
threads share, so that one call would be cut by the limit of another. And of a pair it builds every
overflow window, each remainder of one text with each of the other, whether anybody asks for them
or not: quadratic in time and memory. So rows are encoded whole, and only positions are chosen here.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minift.errors import ConfigError, DataError
from minift.tokenizer import Truncation

# The tokens of a row that are kept together: the row's number, and their positions in it, in order.
Window = tuple[int, np.ndarray]


def lengths_to_keep(first: int, second: int, limit: int, strategy: str) -> tuple[int, int]:
    """Return how many tokens of each text stay, of a row that is too long.

    "longest_first" takes from the longer text until both are equal, then from both in turn. An odd
    place is the longer text's; between equal texts, the second's.

    Args:
        first, second: tokens of the two texts; a single text has no second one.
        limit: for both together, without special tokens.
        strategy: "longest_first", "only_first" or "only_second".

    Raises:
        DataError: the text to cut from would have nothing left.
    """
    if strategy == "longest_first" or not limit:
        short = min(first, second, limit // 2)
        return (short, limit - short) if first <= second else (limit - short, short)
    kept = (limit - second, second) if strategy == "only_first" else (first, limit - first)
    if kept[strategy == "only_second"] <= 0:
        what = f"a text is too short to cut all that is too much from it ({strategy})"
        got, do = f"{first} and {second} tokens", "truncation=True cuts from both texts"
        raise DataError(what, got=got, expected=f"{limit} in all", do=do)
    return kept


def windows(length: int, size: int, stride: int, left: bool) -> list[slice]:
    """Return the parts of a text: the one that is kept, then those that overflow.

    Args:
        length: of the text, in tokens.
        size: of a part.
        stride: how many tokens two neighbours share.
        left: the text is cut on the left, so that parts are counted from its end.
    """
    if not 0 < size < length:  # nothing to cut, or nothing to keep: then the whole text overflows
        return [slice(0, size), slice(0, length)] if size < length else [slice(0, length)]
    if not 0 <= stride < size:
        what = "stride leaves no new token in a window"
        raise ConfigError(what, got=stride, expected=f"0 to {size - 1}, or a larger max_length")
    starts = range(0, length - stride, size - stride)
    parts = [slice(start, min(start + size, length)) for start in starts]
    return [slice(length - part.stop, length - part.start) for part in parts] if left else parts


def cut(encodings: Sequence[Any], special: int, how: Truncation) -> list[Window] | None:
    """Return the windows of all rows, or None if every row fits.

    Args:
        encodings: the library's results, B rows with their special tokens.
        special: how many of a row's tokens are special ones.
        how: with `overflow`, the windows of what was cut follow those that are kept. For a pair
            these are all combinations, in the library's order.

    Raises:
        ConfigError, DataError: the options leave no place for a text, or for new tokens.
    """
    limit = how.limit
    if limit < special:  # the library would not cut at all
        what = "max_length leaves no place for a text"
        raise ConfigError(what, got=limit, expected=f"at least {special}")
    if all(len(encoding) <= limit for encoding in encodings):
        return None
    chosen: list[Window] = []
    for row, encoding in enumerate(encodings):
        if len(encoding) <= limit:
            chosen.append((row, np.arange(len(encoding))))
            continue
        text = np.array([-1 if which is None else which for which in encoding.sequence_ids])
        around, first, second = (np.flatnonzero(text == which) for which in (-1, 0, 1))
        kept = lengths_to_keep(len(first), len(second), limit - special, how.strategy)
        parts, others = (
            windows(len(tokens), size, how.stride, how.left)[: None if how.overflow else 1]
            for tokens, size in zip((first, second), kept, strict=True)
        )
        pairs = [(part, other) for part in parts[1:] for other in others]
        pairs = [(parts[0], others[0]), *pairs, *((parts[0], other) for other in others[1:])]
        for part, other in pairs:
            positions = np.concatenate([around, first[part], second[other]])
            chosen.append((row, np.sort(positions)))
    return chosen


def gather(cuts: Sequence[Window], lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the windows' tokens are in the rows' flat arrays, and the windows' lengths."""
    starts = np.cumsum(lengths) - lengths
    places = [starts[row] + positions for row, positions in cuts]
    return np.concatenate(places), np.array([len(place) for place in places], np.int32)
