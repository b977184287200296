"""`minift push RUN NAME`, `minift hub search TEXT`, `minift hub card NAME`."""

from argparse import ArgumentParser, Namespace
from typing import Any

from rich import filesize

from minift.errors import MissingFileError, PluginError
from minift.files import local_path
from minift.plugins import default_manager
from minift_hub.client import api, clean, translate_errors
from minift_hub.names import DATASETS, MODELS, repository
from minift_hub.snapshot import look_up

MOST_RESULTS = 20
WIDTH = 120


class Push:
    """The command `minift push`."""

    help = "upload a run's model, with a card made from the run"

    @staticmethod
    def configure(parser: ArgumentParser) -> None:
        parser.add_argument("run_folder", metavar="RUN", help="the folder of a finished run")
        parser.add_argument("repo", metavar="NAME", help="namespace/name on the Hub")
        parser.add_argument("--private", action="store_true", help="for your eyes only, if new")
        parser.add_argument("--message", help="what is recorded of the change")

    @staticmethod
    def run(args: Namespace) -> int:
        folder, publish = local_path(args.run_folder), default_manager().hook.minift_publish
        options = {"message": args.message, "private": args.private}
        address = publish(folder=folder, repo=args.repo, **options)
        if address is None:
            raise PluginError("no plugin publishes models (hook minift_publish)")
        print(address)
        return 0


class Hub:
    """The command `minift hub`."""

    help = "look for models and datasets on the Hub"

    @staticmethod
    def configure(parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        text = "names that hold a text, the most downloaded first"
        search = actions.add_parser("search", help=text, description=text)
        search.add_argument("text", metavar="TEXT")
        search.add_argument("--datasets", action="store_true", help="datasets instead of models")
        text = "what a repository says of itself: tags, classes, sizes, configurations"
        card = actions.add_parser("card", help=text, description=text)
        card.add_argument("name", metavar="NAME")
        card.add_argument("--dataset", action="store_true", help="a dataset instead of a model")

    @staticmethod
    def run(args: Namespace) -> int:
        return run_search(args) if args.action == "search" else run_card(args)


def run_search(args: Namespace) -> int:
    """Print repositories whose names hold the text; the exit code is 1 if there are none."""
    with translate_errors(f"search for {args.text!r}"):
        list_repos = api().list_datasets if args.datasets else api().list_models
        found = list(list_repos(search=args.text, sort="downloads", limit=MOST_RESULTS))
    for repo in found:
        print_clean(f"{repo.downloads or 0:>13,}  {repo.id}  {' '.join(repo.tags or [])}"[:WIDTH])
    repo_type = "dataset" if args.datasets else "model"
    more = ", the most downloaded" if len(found) == MOST_RESULTS else ""
    print(f"{len(found)} {repo_type}s{more}")
    return 0 if found else 1


def print_clean(text: str) -> None:
    """Print what comes from the Hub, without what would command a terminal."""
    print(clean(text))


def run_card(args: Namespace) -> int:
    """Print what is known of a repository."""
    repo_type, short_names = ("dataset", DATASETS) if args.dataset else ("model", MODELS)
    try:
        repo = repository(args.name, short_names) or args.name
        snapshot = look_up(repo, repo_type, None)
    except MissingFileError as error:
        other = "without --dataset a model" if args.dataset else "with --dataset a dataset"
        error.do = f"{error.do or 'check the name'}; {other} is meant"
        raise
    with translate_errors(f"{repo_type} {repo!r}"):
        info = api().repo_info(repo, repo_type=repo_type)
    size = filesize.decimal(sum(entry.size for entry in snapshot.files.values()))
    print(f"{repo_type} {repo} at {snapshot.revision}")
    print(f"{len(snapshot.files)} files, {size}; {info.downloads or 0:,} downloads")
    print_clean(f"tags: {', '.join(info.tags or ['none'])}")
    if repo_type == "model":
        print_model(snapshot)
    else:
        print_dataset(snapshot)
    return 0


def print_model(snapshot: Any) -> None:
    """Print a model's type and classes, and the size of its weights."""
    from minift_hub.models import find, weight_files
    from minift_hub.trust import read_json

    find(snapshot.repo, snapshot.revision, "config")
    config = read_json(snapshot, "config.json")
    print_clean(f"type: {config.get('model_type')}")
    id2label = config.get("id2label")
    names = id2label.values() if isinstance(id2label, dict) else ["not said"]
    print_clean(f"classes: {', '.join(map(str, names))}")
    weights = sum(snapshot.files[name].size for name in weight_files(snapshot))
    print(f"weights: {filesize.decimal(weights)} of safetensors")


def print_dataset(snapshot: Any) -> None:
    """Print configurations, their splits, columns and classes, as far as the card has them."""
    from minift_hub.datasets import CONVERTED, has_script
    from minift_hub.describing import as_list, describe, features_of

    description = describe(snapshot)
    if has_script(snapshot):
        print(f"it has a Python script, which is never run; what the Hub made of it: {CONVERTED}")
    for name in dict.fromkeys([*description.configs, *description.infos]):
        splits = description.infos.get(name, {}).get("splits")
        entries = splits.values() if isinstance(splits, dict) else as_list(splits)
        entries = [entry for entry in entries if isinstance(entry, dict)]
        counts = [f"{entry.get('name')} {entry.get('num_examples', '?')}" for entry in entries]
        print_clean(f"configuration {name}: {', '.join(counts) or 'rows not said'}")
        for column, feature in (features_of(description, name) or {}).items():
            names = getattr(feature, "names", None)
            print_clean(f"    {column}: {', '.join(names) if names else repr(feature)}")
