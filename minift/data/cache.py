"""The cache folder: where it is, and one writer for each entry at a time.

$MINIFT_CACHE or ~/.cache/minift
  map/<fingerprint>/           one immutable result, see storage.py; its time: when it was last used
  map/<fingerprint>.work/      only while it is being computed, or after that was killed
  map/<fingerprint>.tmp-*/     only while it is being written, or after that was killed
  src/                         the same for files that were read
  locks/<fingerprint>          locked while that result is being computed, and says by whom

Results are never changed and a lock ends with its process, so nothing needs to be repaired after a
crash; `minift cache prune` removes what was left lying about.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from minift.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows: two processes may then compute the same result, never mix it
    fcntl = None  # type: ignore[assignment]

NO_WAIT = getattr(fcntl, "LOCK_NB", 0)
_enabled = True


def enable_caching() -> None:
    """Keep and reuse the results of `map` in this process, as is the default."""
    global _enabled
    _enabled = True


def disable_caching() -> None:
    """Compute every `map` of this process anew, and keep its result for this process only."""
    global _enabled
    _enabled = False


def is_caching_enabled() -> bool:
    return _enabled


def cache_root() -> Path:
    """The folder, from MINIFT_CACHE, read at each call so that a test can move it."""
    named = os.environ.get("MINIFT_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "minift"


def entry_path(kind: str, fingerprint: str) -> Path:
    """Where the result with this fingerprint is, or will be."""
    return cache_root() / kind / fingerprint


@contextlib.contextmanager
def lock(fingerprint: str, wait: bool = True) -> Iterator[bool]:
    """One process computes; others wait here and then find the result.

    Yields:
        Whether the lock is ours; False only with wait=False, if somebody else has it.

    Raises:
        ConfigError: the cache folder cannot be written.
    """
    path, locked = cache_root() / "locks" / fingerprint, False
    while not locked:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b", buffering=0)
        except OSError as error:
            what = f"the cache folder {cache_root()} cannot be written: {error}"
            do = "set MINIFT_CACHE to a folder that you can write"
            raise ConfigError(what, do=do) from None
        with file:
            links = os.fstat(file.fileno()).st_nlink  # always 0 on some file systems
            ours = acquire(file, wait)
            # `minift cache prune` may have removed the file meanwhile: others would open a new one.
            locked = not ours or os.fstat(file.fileno()).st_nlink == links
            if locked:
                yield ours


def acquire(file: BinaryIO, wait: bool) -> bool:
    """Take the lock and write down who has it; whether it is ours."""
    if fcntl is None:
        return True
    with contextlib.suppress(OSError):  # a file system without locks is like Windows
        try:
            fcntl.flock(file, fcntl.LOCK_EX | NO_WAIT)  # ends with the process, even by a crash
        except BlockingIOError:
            if not wait:
                return False
            holder = os.pread(file.fileno(), 300, 0).decode(errors="replace")
            said = f"{holder or 'another process'} is computing this result; waiting for it"
            print(f"minift: {said} ({file.name})", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    return True
