"""The text of a file, whatever it is packed in and in whichever encoding, in blocks of UTF-8.

What a file is packed in is told by its first bytes, as `datasets` does: names are often wrong (the
zip archives of some sites are called `.csv`).
"""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from minift.errors import DataError

BLOCK = 1 << 20  # bytes that are read at once
# How a packed file begins.
BEGINNINGS = {
    "gzip": rb"\x1f\x8b\x08",
    "zip": rb"PK(\x03\x04|\x05\x06)",
    "bz2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    "xz": rb"\xfd7zXZ\x00",
    "zstd": rb"\x28\xb5\x2f\xfd",
    "7z": rb"7z\xbc\xaf\x27\x1c",
    "rar": rb"Rar!\x1a\x07",
    "tar": rb"(?s).{257}ustar",
}
# The marks that some editors and spreadsheets write before a text; UTF-16's begins UTF-32's.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
OPENERS: dict[str, Callable[[Any], Any]] = {
    "gzip": lambda file: gzip.GzipFile(fileobj=file),
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "zstd": lambda file: pa.CompressedInputStream(file, "zstd"),  # Python has none before 3.14
}
ERRORS = (zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException)  # of damaged files


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file for reading, through all that it is packed in.

    Raises:
        DataError: it is damaged, or an archive of several files, or of a kind that is not read.
    """
    kinds: list[str] = []
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            while kind := packed_in(file):
                kinds.append(kind)
                file = stack.enter_context(io.BufferedReader(unpack(path, kind, file)))
            yield file
        except (*ERRORS, OSError, EOFError, RuntimeError) as error:
            if not kinds:
                raise
            what = f"{path} is not a complete {kinds[-1]} file: {error}"
            raise DataError(what, do="fetch the file again, or unpack it yourself") from None


def packed_in(file: io.BufferedReader) -> str:
    """Return the kind of packed file that begins here, or ""."""
    start = file.peek(512)
    return next((kind for kind, how in BEGINNINGS.items() if re.match(how, start)), "")


def unpack(path: Path, kind: str, file: Any) -> Any:
    """Return a file that unpacks another one of this kind as it is read."""
    if kind in OPENERS:
        return OPENERS[kind](file)
    names, got = [], None
    if kind == "zip":
        archive = zipfile.ZipFile(file)
        hidden = re.compile(r"__MACOSX/|(.*/)?([._][^/]*|)$")
        names = [name for name in archive.namelist() if not hidden.match(name)]
        got = f"{len(names)} files: {', '.join(names):.200}"
    if len(names) == 1:
        return archive.open(names[0])
    do = "unpack it, and name files of it with data_files= (save a workbook as csv)"
    expected = f"a data file, alone or packed by {', '.join(OPENERS)} or zip"
    raise DataError(f"{path} is a {kind} archive", got=got, expected=expected, do=do)


def text_blocks(path: Path, encoding: str | None = None, size: int = BLOCK) -> Iterator[bytes]:
    """Yield a file's text in UTF-8 and without a mark; blocks end between two characters.

    Args:
        path: the file.
        size: of a block in the file, in bytes.
        encoding: of the text. By default what a mark at its beginning says, and UTF-8 without one.

    Raises:
        DataError: the text is not in this encoding; names the line.
    """
    with unpacked(path) as file:
        start = file.peek(8)[:8]
        marked = next((name for mark, name in MARKS.items() if start.startswith(mark)), "utf-8")
        name = codecs.lookup(encoding or marked).name.removesuffix("-sig")
        mark = codecs.BOM_UTF8 if name == "utf-8" and start.startswith(codecs.BOM_UTF8) else b""
        if name == "utf-8" and b"\0" in start:
            do = 'pass its encoding, for example encoding="utf-16-le" (or "utf-16-be")'
            raise DataError(f"{path} is not text in UTF-8", got=f"it begins {start!r}", do=do)
        decoder, rest, more = codecs.getincrementaldecoder(name)(), b"", True
        passed = len(file.read(len(mark)))
        while more:
            block = file.read(size)
            more, passed = bool(block), passed + len(block)
            try:
                text = decoder.decode(block, final=not more)
                if name == "utf-8":  # spare encoding it again
                    begun = decoder.getstate()[0]  # a character of which a part is missing
                    block, rest = rest + block[: len(block) - len(begun)], begun
                else:
                    block = text.encode()
            except UnicodeError as error:
                raise not_text(path, name, passed, error) from None
            if block:
                yield block


def not_text(path: Path, encoding: str, passed: int, error: UnicodeError) -> DataError:
    """Return the error of bytes that are no text in an encoding; `passed` of them were read."""
    got = None
    if isinstance(error, UnicodeDecodeError):
        passed += error.start - len(error.object)
        got = f"byte 0x{error.object[error.start]:02x}"
    with unpacked(path) as file:
        starts = range(0, passed, BLOCK)
        line = 1 + sum(file.read(min(BLOCK, passed - i)).count(b"\n") for i in starts)
    name = "UTF-8" if encoding == "utf-8" else encoding
    do = 'pass the encoding that it is in, for example encoding="cp1252" (Windows, Excel), '
    do += '"latin-1" or "utf-16"; or save the file as UTF-8'
    return DataError(f"{path}:{line}: not {name} text", got=got, do=do)
