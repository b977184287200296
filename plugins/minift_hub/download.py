"""Downloading exactly the files that are needed, after their sizes were checked; then verifying."""

import glob
import sys

from rich import filesize

from minift_hub import trust
from minift_hub.client import HubError, snapshot_download
from minift_hub.snapshot import Snapshot

LARGEST = {"model": 5_000_000_000, "dataset": 2_000_000_000}  # bytes that are downloaded unasked


def fetch(snapshot: Snapshot, names: list[str]) -> None:
    """Have these files in the snapshot's folder, as they are on the Hub.

    Raises:
        HubError: a download failed, or is larger than a download may be that nobody asked for.
        ModelError, DataError: a file is not what its hash says.
    """
    trust.check_names(snapshot, names)
    missing = [name for name in names if not (snapshot.folder / name).is_file()]
    if missing:
        size = sum(snapshot.files[name].size for name in missing)
        files = f"{len(missing)} file{'s' if len(missing) > 1 else ''}, {filesize.decimal(size)}"
        limit = LARGEST[snapshot.repo_type]
        if size > limit:
            what = f"{snapshot.repo} is too large to be downloaded just by its name"
            do = f"download it (`hf download {snapshot.repo}`), and pass the path of the folder"
            raise HubError(what, got=files, expected=f"at most {filesize.decimal(limit)}", do=do)
        print(f"{snapshot.repo} at {snapshot.revision[:12]}: downloading {files}", file=sys.stderr)
        patterns = [glob.escape(name) for name in missing]
        quiet = size <= trust.SMALL
        snapshot_download(snapshot.repo, snapshot.repo_type, snapshot.revision, patterns, quiet)
    trust.verify(snapshot, names)
