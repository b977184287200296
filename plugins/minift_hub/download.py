"""The files of a repository, in the cache that huggingface_hub keeps.

Two steps, both by `snapshot_download`, which works online, offline, and with the server down:
`look_up` turns a name into a commit and the list of its files, with sizes and hashes, and downloads
none; `fetch` downloads exactly those that are wanted, after their sizes were checked, and has them
verified. A commit that is pinned and cached needs no request.
"""

import contextlib
import errno
import glob
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minift.errors import MiniftError, MissingFileError, PluginError

MOST = {"model": 5_000_000_000, "dataset": 2_000_000_000}  # bytes that are downloaded unasked
NOTHING = "no file has this name"
TOKEN = re.compile(r"\b(hf|api_org)_\w+")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Errors of the client's HTTP library, by name: which library that is has changed before.
AWAY = {"OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ConnectionError"}


class HubError(MiniftError, ConnectionError):
    """The Hub did not answer, or not as it should."""


@dataclass(frozen=True)
class Entry:
    """A file of a repository: its size in bytes, and its sha256 or git's sha1, "" if unknown."""

    size: int
    digest: str = ""


@dataclass(frozen=True)
class Snapshot:
    """A commit of a repository: the folder that its files are in once they are downloaded."""

    repo: str
    kind: str  # "model" or "dataset"
    revision: str  # the commit, 40 hexadecimal digits
    folder: Path
    files: dict[str, Entry]

    def some_files(self) -> str:
        """The first names, for a message."""
        return clean(", ".join(sorted(self.files)[:12]))


def look_up(repo: str, kind: str, revision: str | None) -> Snapshot:
    """The commit that a revision means now, and what is in it. One request if it is known, or two.

    Raises:
        MissingFileError: there is no such repository or revision, or it is neither cached nor to be
            reached.
        HubError: the cache's listing of the files is damaged.
    """
    folder = Path(snapshot_download(repo, kind, revision, [NOTHING], quiet=True))
    listing = folder.parent.parent / "trees" / f"{folder.name}.json"
    files = {}
    if listing.is_file():
        try:
            for name, said in json.loads(listing.read_text(encoding="utf-8"))["files"].items():
                size = int(said.get("lfs_size") or said["size"])
                files[name] = Entry(size, said.get("lfs_sha256") or said["blob_id"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            what = f"the list of the files of {repo} in the cache is damaged"
            raise HubError(what, got=repr(error)[:200], do=f"delete {listing}") from None
    else:  # downloaded by an older client, which kept no listing
        found = [p for p in folder.rglob("*") if p.is_file()]
        files = {p.relative_to(folder).as_posix(): Entry(p.stat().st_size) for p in found}
    return Snapshot(repo, kind, folder.name, folder, files)


def fetch(snapshot: Snapshot, names: list[str]) -> None:
    """Have these files in the snapshot's folder, as they are on the Hub.

    Raises:
        HubError: a download failed, or is larger than a download may be that nobody asked for.
        ModelError, DataError: a file is not what its hash says.
    """
    from minift_hub import trust

    trust.check_names(snapshot, names)
    missing = [name for name in names if not (snapshot.folder / name).is_file()]
    if missing:
        size = sum(snapshot.files[name].size for name in missing)
        count = f"{len(missing)} file{'s' if len(missing) > 1 else ''}, {in_units(size)}"
        if size > MOST[snapshot.kind]:
            raise HubError(
                f"{snapshot.repo} is too large to be downloaded just by its name",
                got=count,
                expected=f"at most {MOST[snapshot.kind] / 1e6:,.0f} MB",
                do=f"download it (`hf download {snapshot.repo}`), and pass the path of the folder",
            )
        said = f"{snapshot.repo} at {snapshot.revision[:12]}: downloading {count}"
        print(said, file=sys.stderr)
        patterns = [glob.escape(name) for name in missing]
        quiet = size <= trust.SMALL
        with trust.hashing(snapshot, missing):
            snapshot_download(snapshot.repo, snapshot.kind, snapshot.revision, patterns, quiet)
    trust.verify(snapshot, names)


def in_units(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"


def snapshot_download(
    repo: str, kind: str, revision: str | None, patterns: list[str], quiet: bool
) -> str:
    """The library's own, with its errors told as ours."""
    library = imported()
    bars = library.utils.tqdm

    class Silent(bars):  # type: ignore[valid-type, misc]
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{**settings, "disable": True})

    with told(f"{kind} {repo!r}" + (f" at {revision}" if revision else "")), without_warnings():
        return library.snapshot_download(
            repo,
            repo_type=kind,
            revision=revision,
            allow_patterns=patterns,
            tqdm_class=Silent if quiet else bars,
            endpoint=endpoint(),
            cache_dir=cache_folder(),
        )


def imported() -> Any:
    """huggingface_hub, which is not among what minift itself needs."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError:
        raise PluginError(
            "names on the Hub need the library huggingface_hub, which is not installed",
            do='pip install "minift[hub]", or pass the path of a folder',
        ) from None
    return huggingface_hub


def endpoint() -> str | None:
    """The Hub's address, read when it is needed: the library keeps what it was at its import."""
    return os.environ.get("HF_ENDPOINT") or None


def cache_folder() -> str | None:
    """Where downloads are kept, likewise; None leaves it to the library."""
    home = os.environ.get("HF_HOME")
    return os.environ.get("HF_HUB_CACHE") or (os.path.join(home, "hub") if home else None)


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Without "No files matched": a listing is all that `look_up` wants."""
    logger = logging.getLogger("huggingface_hub._snapshot_download")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


# --------------------------------------------------------------------------------- its errors, told


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Errors of the library in three lines, without any token; `what` was asked for."""
    try:
        yield
    except MiniftError:
        raise
    except Exception as error:  # somebody else's code, and several libraries below it
        raise retold(error, what) from None


def scrub(text: object) -> str:
    """The first line of a text from elsewhere, without tokens."""
    return clean(without_tokens(str(text).strip().partition("\n")[0]))[:300]


def without_tokens(text: str) -> str:
    found = imported().get_token()
    return TOKEN.sub("hf_...", text.replace(found, "hf_...") if found else text)


def clean(text: object) -> str:
    """A text of the Hub for a terminal: what would move its cursor or change its colours is "?"."""
    return CONTROL.sub("?", str(text))


def retold(error: Exception, here: str) -> MiniftError:
    """The error that a user should see instead of the library's."""
    errors, said = imported().errors, scrub(f"{type(error).__name__}: {error}")
    status = getattr(getattr(error, "response", None), "status_code", None)
    unknown = isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError)
    if unknown and not isinstance(error, errors.GatedRepoError):
        what = f"there is no {here}: no such path, and the Hub has none, or it is private"
        return MissingFileError(
            what, got=said, do="check the name: `minift hub search TEXT`; then the token"
        )
    if status in (401, 403):
        got = "the token was not accepted" if imported().get_token() else "nobody is logged in"
        return HubError(
            f"the Hub does not allow this with the {here}",
            got=got if status == 401 else "this account may not",
            do="ask for access on its page, then `hf auth login`, or a token in HF_TOKEN",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        what = f"there is no {here}, or no longer"
        do = 'leave it out, or pass revision="..." with the commit that a run.json recorded'
        return MissingFileError(what, expected="a branch, a tag or a commit", do=do)
    if isinstance(error, errors.LocalEntryNotFoundError):
        return MissingFileError(
            f"there is no {here} on this machine as a whole, and the Hub cannot be reached",
            got=scrub(reason(error)),
            do="connect (is HF_HUB_OFFLINE set?), or pass the path of a folder",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        what = f"there is no space left for the {here}"
        return HubError(what, got=said, do="make some, or move the cache with HF_HOME")
    if AWAY & {kind.__name__ for kind in type(error).__mro__}:
        do = "connect (is HF_HUB_OFFLINE set?)"
        return HubError(f"the Hub cannot be reached for the {here}", got=said, do=do)
    what = f"the Hub and the {here} did not go together as they should"
    return HubError(what, got=said, do="try again; what is complete is not downloaded twice")


def reason(error: BaseException) -> BaseException:
    """The first cause in a chain of errors, which says more than the last."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
