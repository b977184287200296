"""The files of a repository that a model, its tokenizer or its configuration needs: no others."""

from minift.errors import ModelError
from minift.plugins import ResolvedCheckpoint
from minift_hub import trust
from minift_hub.client import clean
from minift_hub.download import fetch
from minift_hub.snapshot import Snapshot, look_up

CONFIG = ("config.json",)
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")
TOKENIZER = (*CONFIG, *SETTINGS, *VOCABULARIES)
SMALL_FILES = {"config": CONFIG, "tokenizer": TOKENIZER, "model": TOKENIZER}
VOCABULARY_BYTES = 100_000_000

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".pkl")


def find(repo: str, revision: str | None, component: str) -> ResolvedCheckpoint:
    """Answer `minift_find_checkpoint`: download what the component needs."""
    snapshot = look_up(repo, "model", revision)
    small = [name for name in SMALL_FILES[component] if name in snapshot.files]
    if not {"config.json", "tokenizer.json"} & set(small):
        got = snapshot.some_files() or "an empty repository"
        expected = "config.json, model.safetensors and tokenizer.json"
        raise ModelError(f"{repo} is no model that minift can load", got=got, expected=expected)
    for name in small:
        limit = VOCABULARY_BYTES if name in VOCABULARIES else trust.SMALL
        trust.check_size(snapshot, name, limit)
    weights = weight_files(snapshot) if component == "model" else []
    fetch(snapshot, small + weights)
    if "config.json" in small:
        trust.read_json(snapshot, "config.json")
    return ResolvedCheckpoint(snapshot.folder, repo, snapshot.revision)


def weight_files(snapshot: Snapshot) -> list[str]:
    """List the safetensors file, or the index and the shards that it names.

    Raises:
        ModelError: there are no safetensors, or the index names what they are not.
        MissingFileError: the index names what is not beside it.
    """
    from minift.models.weights import shard_names  # here, as it imports torch

    if WEIGHTS in snapshot.files:
        return [WEIGHTS]
    if WEIGHTS_INDEX in snapshot.files:
        trust.check_size(snapshot, WEIGHTS_INDEX)
        fetch(snapshot, [WEIGHTS_INDEX])
        index = trust.read_json(snapshot, WEIGHTS_INDEX)
        source = f"{WEIGHTS_INDEX} of {snapshot.repo}"
        return [WEIGHTS_INDEX, *shard_names(index, snapshot.files, source)]
    got, do = "no weights", "check the name"
    if pickles := sorted(name for name in snapshot.files if name.endswith(PICKLES)):
        got = f"{clean(', '.join(pickles[:6]))}, which can run any code when opened"
        do = "look for a converted copy among the pull requests on its page, and pass it as "
        do += 'revision="refs/pr/NUMBER"'
    what = f"{snapshot.repo} has no weights as safetensors"
    raise ModelError(what, got=got, expected=f"{WEIGHTS}, or shards with an index", do=do)
