"""Text files: one row a line, paragraph or document, in the column `text`."""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from minift_files.options import Options
from minift_files.unpacking import text_blocks


def read_text(path: Path, options: Options) -> Iterator[pa.Table]:
    """Yield the rows of a text file."""
    end = {"line": "\n", "paragraph": "\n\n", "document": ""}[options.sample_by]
    kept = end if options.keep_linebreaks and end == "\n" else ""
    newlines = io.IncrementalNewlineDecoder(None, translate=True)  # \r\n and \r are \n from here on
    if not end:
        text = "".join(block.decode() for block in text_blocks(path, options.encoding))
        yield pa.table({"text": [newlines.decode(text, final=True)]})
        return
    rest = ""
    for block in text_blocks(path, options.encoding):
        text = rest + newlines.decode(block.decode())
        *rows, rest = text.split(end)
        yield table(rows, end, kept)
    rest += newlines.decode("", final=True)
    *rows, rest = rest.split(end)
    yield table(rows, end, kept)
    yield table([rest] if rest else [], end, "")


def table(rows: list[str], end: str, kept: str) -> pa.Table:
    """Return rows as a table; empty paragraphs are none, empty lines are."""
    rows = [row + kept for row in rows if row or end != "\n\n"]
    return pa.table({"text": pa.array(rows, pa.string())})
