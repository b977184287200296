"""What a file yields, as one table: kept in the cache if the file is large, and found there again.

src/<fingerprint>/    in the cache: the parsed table of one file, see minift/data/storage.py
"""

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from minift.data import cache, storage
from minift.data.features import Features
from minift.data.loading import apply_features
from minift.errors import ConfigError
from minift_files.unpacking import packed_in

# Smaller files are parsed each time, which takes no longer than opening an entry of the cache and
# leaves no thousand folders behind. A packed one counts sixteen times.
CACHED_BYTES = 1 << 20

Read = Callable[[], Iterator[pa.Table]]
Part = TypeVar("Part")


def in_types_of_all(
    read: Callable[[], Iterator[Part]],
    note: Callable[[Part], Mapping[str, Any]],
    schema: Callable[[], pa.Schema],
    typed: Callable[[Part, Mapping[str, Any]], pa.Table],
) -> Iterator[pa.Table]:
    """Yield the parts of a file as tables, whose types are guessed from the first part.

    If a later part disagrees, the file is read to its end without keeping anything, and then once
    more, with types that fit all of it: a table of another schema says that the file begins anew.

    Args:
        read: yields the parts of the file.
        note: widens the types to fit a part, and returns its columns.
        schema: returns the types that fit all parts so far.
        typed: makes a table with this schema of a part and its columns.
    """
    parts, first = read(), None
    for part in parts:
        columns = note(part)
        first = first or schema()
        if schema() != first:
            for rest in parts:
                note(rest)
            yield from (typed(again, note(again)) for again in read())
            return
        yield typed(part, columns)


def parsed(
    path: Path, read: Read, features: Features | None, source: str, meta: dict[str, Any]
) -> pa.Table:
    """Return the rows of a file, those of a large one mapped into memory from the cache.

    If the cache cannot be written, the table stays in memory, with a warning.

    Args:
        path: the file.
        read: yields its rows as tables, at least one. Where one has another schema than the table
            before it, the file begins anew: a later row needed wider types.
        features: what the user asks the columns to be.
        source: the digest of the file and of how it is read.
        meta: what the entry of the cache says of itself.
    """
    folder = cache.entry_path("src", source)

    def open_parsed() -> pa.Table:
        return storage.open_folder(folder)[0]

    def parse() -> pa.Table:
        storage.write(folder, attempts(ahead(read()), features, path), meta)
        return open_parsed()

    with path.open("rb") as file:
        bound = CACHED_BYTES // 16 if packed_in(file) else CACHED_BYTES
    if path.stat().st_size >= bound:
        try:
            return cache.open_or_compute(folder, source, open_parsed, parse)
        except (OSError, ConfigError) as error:
            warnings.warn(f"{path} stays in memory; move the cache with MINIFT_CACHE: {error}")
    *_, table = (pa.concat_tables(whole) for _, whole in attempts(read(), features, path))
    return table


def ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield tables of which the next is read, by another thread, while one is used."""
    with ThreadPoolExecutor(1) as other_thread:
        following = other_thread.submit(next, tables, None)
        while (table := following.result()) is not None:
            following = other_thread.submit(next, tables, None)
            yield table


def attempts(
    tables: Iterable[pa.Table], features: Features | None, path: Path
) -> Iterator[tuple[pa.Schema, Iterable[pa.Table]]]:
    """Yield all tables of a file and their schema, and again all if a later one has another."""
    for schema, whole in itertools.groupby(tables, key=lambda table: table.schema):
        if features is None:
            yield schema, whole
        else:
            yield features.arrow_schema, with_features(whole, features, path)


def with_features(tables: Iterable[pa.Table], features: Features, path: Path) -> Iterator[pa.Table]:
    """Yield tables with the given features; class names become their numbers."""
    start = 0
    for table in tables:
        yield apply_features(table, features, path, start)
        start += table.num_rows
