"""The cache folder: where it is, one entry per fingerprint, one writer at a time.

$MINIFT_CACHE or ~/.cache/minift
  map/<fingerprint>/     one immutable result, see storage.py
  locks/<fingerprint>    held while that result is being computed
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: two processes may then compute the same result, never mix it
    fcntl = None  # type: ignore[assignment]


def cache_root() -> Path:
    """The folder, from MINIFT_CACHE, read at each call so that a test can move it."""
    named = os.environ.get("MINIFT_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "minift"


def entry_path(kind: str, fingerprint: str) -> Path:
    """Where the result with this fingerprint is, or will be."""
    return cache_root() / kind / fingerprint


@contextlib.contextmanager
def lock(fingerprint: str) -> Iterator[None]:
    """One process computes; others wait here and then find the result."""
    path = cache_root() / "locks" / fingerprint
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks is like Windows
                fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, or by a crash
        yield
