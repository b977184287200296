"""A commit of a repository: what files it has, with sizes and hashes, before any is downloaded."""

import json
from dataclasses import dataclass
from pathlib import Path

from minift_hub.client import HubError, clean, list_files, snapshot_download

NO_FILE = "no file has this name"


@dataclass(frozen=True)
class Entry:
    """A file of a repository: its size in bytes, and its sha256 or git's sha1, "" if unknown."""

    size: int
    digest: str = ""


@dataclass(frozen=True)
class Snapshot:
    """A commit of a repository.

    Attributes:
        repo: "namespace/name".
        repo_type: "model" or "dataset".
        revision: the commit, 40 hexadecimal digits.
        folder: where its files are in the library's cache once they are downloaded.
        files: {path in the repository: Entry}.
    """

    repo: str
    repo_type: str
    revision: str
    folder: Path
    files: dict[str, Entry]

    @property
    def blobs(self) -> Path:
        """The folder of the files' contents, each under its hash; those in `folder` link there."""
        return self.folder.parent.parent / "blobs"

    def some_files(self) -> str:
        """Return the first names, for a message."""
        return clean(", ".join(sorted(self.files)[:12]))


def look_up(repo: str, repo_type: str, revision: str | None) -> Snapshot:
    """Find the commit that a revision means now, and list its files.

    This takes one request, or two where the commit is new, and none if it is cached and `revision`
    is its hash. It works offline and with the server down, from the cache, if that has the listing:
    files that were fetched one by one may be a part of the data, or a tokenizer without its
    settings, and nothing about them would tell.

    Raises:
        MissingFileError: there is no such repository or revision, or it is neither cached nor to be
            reached, or cached without its listing.
        HubError: the cache's listing of the files is damaged.
    """
    folder = Path(snapshot_download(repo, repo_type, revision, [NO_FILE], quiet=True))
    listing = folder.parent.parent / "trees" / f"{folder.name}.json"
    files = {}
    if listing.is_file():
        try:
            for name, entry in json.loads(listing.read_text(encoding="utf-8"))["files"].items():
                size = int(entry.get("lfs_size") or entry["size"])
                files[name] = Entry(size, entry.get("lfs_sha256") or entry["blob_id"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            what = f"the list of the files of {repo} in the cache is damaged"
            raise HubError(what, got=repr(error)[:200], do=f"delete {listing}") from None
    else:  # fetched file by file, as `datasets` does, or by a client that kept no listing
        for file in list_files(repo, repo_type, folder):
            lfs = file.lfs
            files[file.path] = Entry(
                *((lfs.size, lfs.sha256) if lfs else (file.size, file.blob_id))
            )
    return Snapshot(repo, repo_type, folder.name, folder, files)
