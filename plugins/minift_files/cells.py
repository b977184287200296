"""Cells of a delimited file: whether a column of text holds whole numbers, numbers or booleans."""

from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from minift.data.features import ClassLabel, Value

# Arrow would also read 0x1F as a number, and a column of the word "nan".
WHOLE = r"^[+-]?[0-9]+$"
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
NO_NUMBER = "^[+-]?(?i:nan|inf|infinity)$"
BOOL = "^(?i:true|false)$"
EXACT = 2.0**53  # whole numbers below it are floats, too

# A kind of cells and the pattern that tells it; "whole" is refined by `sizes_of`.
PATTERNS = {"whole": WHOLE, "number": NUMBER, "nan": NO_NUMBER, "bool": BOOL}


def is_text(feature: Any) -> bool:
    """Return True for text, whose cells stay as they are (`007` keeps its zeros), and for classes:
    "1" may be the name of one.
    """
    text = isinstance(feature, Value) and feature.dtype in ("string", "large_string")
    return text or isinstance(feature, ClassLabel)


def read_cells(column: pa.ChunkedArray, known: Collection[str]) -> tuple[pa.ChunkedArray, set[str]]:
    """Return a column of text as numbers, if that is beyond doubt, and the kinds of its cells.

    The kinds are "whole" numbers, "long" ones that a float would round, "digits" that no 64 bits
    hold, "number", "nan", "bool" and "text"; empty cells are of none. If a column is `known` to
    hold text, nothing more is looked for.
    """
    if "text" in known:
        return column, set()
    quick = quick_cells(column, known)
    if quick is None and pc.any(pc.equal(column, "")).as_py():
        quick = quick_cells(empty_to_null(column), known)
    return quick or (column, kinds_of(column))


def kinds_of(column: pa.ChunkedArray) -> set[str]:
    """Return the kinds of the cells of a column."""
    cells = pc.utf8_trim_whitespace(column)
    cells = cells.filter(pc.not_equal(cells, ""))  # drops nulls, too
    kinds: set[str] = set()
    for kind, pattern in PATTERNS.items():
        mask = pc.match_substring_regex(cells, pattern)
        if pc.any(mask).as_py():
            kinds |= sizes_of(cells.filter(mask)) if kind == "whole" else {kind}
            cells = cells.filter(pc.invert(mask))
    return kinds | ({"text"} if len(cells) else set())


def quick_cells(
    cells: pa.ChunkedArray, known: Collection[str]
) -> tuple[pa.ChunkedArray, set[str]] | None:
    """Return numbers and their kinds where Arrow's own reading is beyond doubt, else None."""
    try:
        if "number" not in known:
            numbers = cells.cast(pa.int64())
            hexadecimal = any(pc.any(pc.match_substring(cells, x)).as_py() for x in "xX")
            return None if hexadecimal else (numbers, exactness(numbers))
    except pa.ArrowInvalid:
        pass
    try:
        floats = cells.cast(pa.float64())
    except pa.ArrowInvalid:
        return None
    exact = pc.all(pc.less(pc.abs(floats), EXACT)).as_py()  # and none is NaN or infinite
    fractions = "number" in known or pc.any(pc.not_equal(floats, pc.floor(floats))).as_py()
    return (floats, {"number"}) if exact and fractions else None


def sizes_of(cells: pa.ChunkedArray) -> set[str]:
    """Return the kinds of whole numbers, by how many digits they have."""
    try:
        return exactness(pc.utf8_ltrim(cells, "+").cast(pa.int64()))
    except pa.ArrowInvalid:
        return {"digits"}


def exactness(numbers: pa.ChunkedArray) -> set[str]:
    """Return whether floats hold these integers without rounding."""
    try:
        numbers.cast(pa.float64())
    except pa.ArrowInvalid:
        return {"long"}
    return {"whole"} if len(numbers) > numbers.null_count else set()


def type_of(kinds: Collection[str]) -> pa.DataType:
    """Return the type that holds cells of these kinds without loss, text where none does."""
    if kinds and {"whole", "long"}.issuperset(kinds):
        return pa.int64()
    if {"whole", "number"}.intersection(kinds) and {"whole", "number", "nan"}.issuperset(kinds):
        return pa.float64()
    return pa.bool_() if set(kinds) == {"bool"} else pa.string()


def as_type(column: pa.ChunkedArray, wanted: pa.DataType, feature: Any) -> pa.ChunkedArray:
    """Return cells of text as another type, or as names of classes; an empty cell is then null."""
    if isinstance(feature, ClassLabel):
        return empty_to_null(pc.utf8_trim_whitespace(column))
    if pa.types.is_string(wanted):
        return column
    try:
        return empty_to_null(column).cast(wanted)
    except pa.ArrowInvalid:  # a blank, a plus, capitals
        cells = pc.utf8_ltrim(pc.utf8_lower(pc.utf8_trim_whitespace(column)), "+")
        return empty_to_null(cells).cast(wanted)


def empty_to_null(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return cells of which those without a character are missing."""
    return pc.if_else(pc.equal(cells, ""), pa.scalar(None, pa.string()), cells)
