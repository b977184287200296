"""A saved model to the Hub, in one commit: the model, its tokenizer and a card, nothing else.

Checkpoints, records and run.json stay here: they name paths and commands of this machine.
"""

import json
from pathlib import Path

from minift.errors import MissingFileError
from minift_hub.card import card_of
from minift_hub.download import endpoint, imported, told
from minift_hub.models import TOKENIZER, WEIGHTS

PRIVATE = ("name_or_path", "_name_or_path")  # where a model was loaded from, in files of others


def publish(folder: Path | str, repo: str, message: str | None, private: bool) -> str:
    """The answer to `minift_publish`: the commit's address.

    Raises:
        MissingFileError: the folder holds no model.
        HubError: there is no token, or it does not allow this.
    """
    folder = Path(folder)
    needed = [name for name in ("config.json", WEIGHTS) if not (folder / name).is_file()]
    if needed:
        raise MissingFileError(
            f"{folder} holds no saved model",
            got=f"no {' and no '.join(needed)}",
            expected="the folder of a finished run, or of save_pretrained",
        )
    api = imported().HfApi(endpoint=endpoint())
    with told(f"model {repo!r}"):
        made = api.create_repo(repo, private=private or None, exist_ok=True)
        whole = made.repo_id  # with the namespace of the account, if none was given
        card = card_of(folder, whole)
        files: dict[str, bytes | str] = {"README.md": card.encode()}
        for name in (*TOKENIZER, WEIGHTS):
            if (folder / name).is_file():
                files[name] = content(folder / name)
        adding = imported().CommitOperationAdd
        done = api.create_commit(
            whole,
            [adding(path_in_repo=name, path_or_fileobj=data) for name, data in files.items()],
            commit_message=message or "A model trained with minift",
        )
    return str(done.commit_url)


def content(path: Path) -> bytes | str:
    """A file's path, or a JSON file's content without what it says of this machine."""
    if not path.name.endswith("config.json"):
        return str(path)
    said = json.loads(path.read_text(encoding="utf-8"))
    said = {key: value for key, value in said.items() if key not in PRIVATE}
    return json.dumps(said, indent=2, ensure_ascii=False).encode()
