"""A saved model to the Hub, in one commit: the model, its tokenizer and a card, nothing else.

Checkpoints, records and run.json stay here: they name paths and commands of this machine.
"""

import json
from pathlib import Path

from minift.errors import MissingFileError
from minift.files import local_path
from minift_hub.card import card_of
from minift_hub.client import api, library, translate_errors
from minift_hub.models import TOKENIZER, WEIGHTS

PRIVATE = ("name_or_path", "_name_or_path")  # where a model was loaded from, in files of others


def publish(folder: Path | str, repo: str, message: str | None, private: bool) -> str:
    """Answer `minift_publish`: upload, and return the commit's address.

    Raises:
        MissingFileError: the folder holds no model.
        HubError: there is no token, or it does not allow this.
    """
    folder = local_path(folder)
    missing = [name for name in ("config.json", WEIGHTS) if not (folder / name).is_file()]
    if missing:
        got = f"no {' and no '.join(missing)}"
        expected = "the folder of a finished run, or of save_pretrained"
        raise MissingFileError(f"{folder} holds no saved model", got=got, expected=expected)
    hub, adding = api(), library().CommitOperationAdd
    with translate_errors(f"model {repo!r}"):
        created = hub.create_repo(repo, private=private or None, exist_ok=True)
        full_name = created.repo_id  # with the namespace of the account, if none was given
        files: dict[str, bytes | str] = {"README.md": card_of(folder, full_name).encode()}
        for name in (*TOKENIZER, WEIGHTS):
            if (folder / name).is_file():
                files[name] = content(folder / name)
        commit = hub.create_commit(
            full_name,
            [adding(path_in_repo=name, path_or_fileobj=data) for name, data in files.items()],
            commit_message=message or "A model trained with minift",
        )
    return str(commit.commit_url)


def content(path: Path) -> bytes | str:
    """Return a file's path, or a JSON file's content without what it says of this machine."""
    if not path.name.endswith("config.json"):
        return str(path)
    config = json.loads(path.read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key not in PRIVATE}
    return json.dumps(config, indent=2, ensure_ascii=False).encode()
