"""The cache folder: where it is, and one writer for each entry at a time.

$MINIFT_CACHE or ~/.cache/minift
  map/<fingerprint>/           one immutable result, see storage.py; touched whenever it is opened
  map/<fingerprint>.work/      its finished shards, while it is computed or after that was killed
  map/.<fingerprint>.tmp-*/    while it is written or removed, or after that was killed
  src/                         the same for files that were read
  locks/<fingerprint>          locked while that result is computed; names the process

Results are never changed and a lock ends with its process, so nothing needs to be repaired after a
crash; `minift cache prune` removes what killed processes left.
"""

import contextlib
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from minift.errors import ConfigError, DataError
from minift.files import MANIFEST, local_path

try:
    import fcntl
except ImportError:  # Windows: two processes may then compute the same result, never mix it
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")


def cache_root() -> Path:
    """Return the cache folder; MINIFT_CACHE is read at each call, so that a test can move it."""
    named = os.environ.get("MINIFT_CACHE")
    return (local_path(named) if named else Path.home() / ".cache" / "minift").absolute()


def entry_path(kind: str, fingerprint: str) -> Path:
    """Return where the result with this fingerprint is, or will be; `kind` is "map" or "src"."""
    return cache_root() / kind / fingerprint


def open_or_compute(
    folder: Path, fingerprint: str, open_result: Callable[[], T], compute: Callable[[], T]
) -> T:
    """Open the result in a folder, or be the one that computes it while others wait.

    Args:
        folder: where the result is, or will be.
        fingerprint: of the result; its lock is held while it is computed.
        open_result: raises a DataError if there is no result, or a damaged one, which is computed
            again with a warning.
        compute: writes the result and opens it.
    """
    with contextlib.suppress(DataError, FileNotFoundError):  # it is pruned while it is opened
        return open_result()
    with lock(fingerprint):
        try:
            return open_result()  # of who had the lock before
        except DataError as error:
            if (folder / MANIFEST).exists():
                warnings.warn(f"a cached result is computed again: {error}", stacklevel=3)
                (folder / MANIFEST).unlink()
        return compute()


@contextlib.contextmanager
def lock(fingerprint: str, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a result: one process computes it, others wait and then find it.

    Args:
        fingerprint: of the result; or the absolute path of a file that is locked for other reasons.
        wait: until another process lets go of it.

    Yields:
        True if the lock is ours; False, with wait=False only, if another process holds it.

    Raises:
        ConfigError: the folder of the file cannot be written.
    """
    path, locked = cache_root() / "locks" / fingerprint, False
    while not locked:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b", buffering=0)
        except OSError as error:
            problem = f"the folder {path.parent} cannot be written: {error}"
            do = "choose one that you can write; MINIFT_CACHE sets that of the cache"
            raise ConfigError(problem, do=do) from None
        with file:
            ours, locked = acquire(file, wait), False
            # `minift cache prune` may have removed the file: others would lock a new one.
            with contextlib.suppress(FileNotFoundError):
                locked = not ours or os.path.samestat(os.fstat(file.fileno()), path.stat())
            if locked:
                yield ours


def acquire(file: BinaryIO, wait: bool) -> bool:
    """Take the lock, write our name into the file, and return whether the lock is ours."""
    with contextlib.suppress(OSError, AttributeError):  # a file system without locks, or Windows
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, even a crash
        except BlockingIOError:
            if not wait:
                return False
            holder = os.pread(file.fileno(), 300, 0).decode(errors="replace")
            text = f"{holder or 'another process'} is computing this result; waiting for it"
            print(f"minift: {text} ({file.name})", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    return True
