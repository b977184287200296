"""huggingface_hub as minift uses it: its server and cache, its errors in our words, no token shown.

This file alone imports the library, and only when a name is looked up.
"""

import contextlib
import errno
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minift.errors import MiniftError, MissingFileError, PluginError

TOKEN = re.compile(r"\b(hf|api_org)_\w+")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Errors of the client's HTTP library, by name: which library that is has changed before.
UNREACHABLE = {"OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ConnectionError"}


class HubError(MiniftError, ConnectionError):
    """The Hub did not answer, or not as it should."""


def library() -> Any:
    """Return the module huggingface_hub, which minift itself does not depend on."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError:
        what = "names on the Hub need the library huggingface_hub, which is not installed"
        do = 'pip install "minift[hub]", or pass the path of a folder'
        raise PluginError(what, do=do) from None
    return huggingface_hub


def api() -> Any:
    """Return the library's interface to the server of HF_ENDPOINT."""
    return library().HfApi(endpoint=endpoint())


def endpoint() -> str | None:
    """Return the Hub's address as it is set now: the library keeps what it was at its import."""
    return os.environ.get("HF_ENDPOINT") or None


def cache_folder() -> str | None:
    """Return the folder for downloads as it is set now; None leaves it to the library."""
    home = os.environ.get("HF_HOME")
    named = os.environ.get("HF_HUB_CACHE") or (os.path.join(home, "hub") if home else None)
    return named and os.path.expandvars(os.path.expanduser(named))


def snapshot_download(
    repo: str, repo_type: str, revision: str | None, patterns: list[str], quiet: bool
) -> str:
    """Call the library's function of this name, and raise its errors as ours."""
    bars = library().utils.tqdm

    class Silent(bars):  # type: ignore[valid-type, misc]
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{**settings, "disable": True})

    request = f"{repo_type} {repo!r}" + (f" at {revision}" if revision else "")
    with translate_errors(request), without_warnings():
        return library().snapshot_download(
            repo,
            repo_type=repo_type,
            revision=revision,
            allow_patterns=patterns,
            tqdm_class=Silent if quiet else bars,
            endpoint=endpoint(),
            cache_dir=cache_folder(),
        )


def list_files(repo: str, repo_type: str, folder: Path) -> list[Any]:
    """Ask the Hub which files a commit has; those in the cache's folder of it may be a part.

    Raises:
        MissingFileError: the Hub cannot be reached; says what there is, and how to get the rest.
    """
    request = f"{repo_type} {repo!r} at {folder.name}"
    try:
        with translate_errors(request):
            options = {"repo_type": repo_type, "revision": folder.name, "recursive": True}
            entries = list(api().list_repo_tree(repo, **options))
    except HubError as error:
        here = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        do = f"connect, and load it once, or `hf download {repo} --repo-type {repo_type}`"
        what = f"the {request} may be here only in part: the cache has files of it, and no listing"
        got = clean(f"{', '.join(here[:8])} ({len(here)} files); {error.got or error.what}")
        expected = "the list of its files, which loading it by its name with a connection writes"
        raise MissingFileError(what, got=got, expected=expected, do=do) from None
    return [entry for entry in entries if hasattr(entry, "blob_id")]  # folders have none


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Silence "No files matched": `snapshot.look_up` asks for a listing and no files."""
    logger = logging.getLogger("huggingface_hub._snapshot_download")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


# ------------------------------------------------------------------------------------------- texts


def clean(text: object) -> str:
    """Make a text of the Hub safe for a terminal: "?" for what moves the cursor or sets colours."""
    return CONTROL.sub("?", str(text))


def without_tokens(text: str) -> str:
    """Replace access tokens in a text, the user's and whatever looks like one."""
    token = library().get_token()
    return TOKEN.sub("hf_...", text.replace(token, "hf_...") if token else text)


def first_line(text: object) -> str:
    """Return the first line of a text from elsewhere, cut to 300 characters, without tokens."""
    return clean(without_tokens(str(text).strip().partition("\n")[0]))[:300]


# ------------------------------------------------------------------------------------------ errors


@contextlib.contextmanager
def translate_errors(request: str) -> Iterator[None]:
    """Raise errors of the library as ours: what was asked for, what happened, what to do."""
    try:
        yield
    except MiniftError:
        raise
    except Exception as error:  # somebody else's code, and several libraries below it
        raise translated(error, request) from None


def translated(error: Exception, request: str) -> MiniftError:
    """Return the error that a user sees instead of the library's."""
    errors, got = library().errors, first_line(f"{type(error).__name__}: {error}")
    status = getattr(getattr(error, "response", None), "status_code", None)
    unknown = isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError)
    if unknown and not isinstance(error, errors.GatedRepoError):
        what = f"there is no {request}: no such path, and the Hub has none, or it is private"
        do = "check the name: `hf models ls --search TEXT`; then the token"
        return MissingFileError(what, got=got, do=do)
    if status in (401, 403):
        account = "the token was not accepted" if library().get_token() else "nobody is logged in"
        got = account if status == 401 else "this account may not"
        do = "ask for access on its page, then `hf auth login`, or a token in HF_TOKEN"
        return HubError(f"the Hub does not allow this with the {request}", got=got, do=do)
    if isinstance(error, errors.RevisionNotFoundError):
        what = f"there is no {request}, or no longer"
        do = 'leave it out, or pass revision="..." with the commit that a run.json recorded'
        return MissingFileError(what, expected="a branch, a tag or a commit", do=do)
    connect = "connect (is HF_HUB_OFFLINE set?)"
    if isinstance(error, errors.LocalEntryNotFoundError):
        what = f"there is no {request} on this machine as a whole, and the Hub cannot be reached"
        do = f"{connect}, or pass the path of a folder"
        return MissingFileError(what, got=first_line(first_cause(error)), do=do)
    what = f"the Hub and the {request} did not go together as they should"
    do = "try again; what is complete is not downloaded twice"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        what, do = f"there is no space left for the {request}", "make some, or set HF_HOME"
    elif UNREACHABLE & {base.__name__ for base in type(error).__mro__}:
        what, do = f"the Hub cannot be reached for the {request}", connect
    return HubError(what, got=got, do=do)


def first_cause(error: BaseException) -> BaseException:
    """Return the first of a chain of errors, which says more than the last."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
