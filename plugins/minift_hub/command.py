"""`minift push RUN NAME`, `minift hub search TEXT`, `minift hub card NAME`."""

from argparse import ArgumentParser, Namespace
from typing import Any

from minift.errors import MissingFileError, PluginError
from minift_hub.names import DATASETS, MODELS, repository

SHOWN = 20
WIDTH = 120


class Push:
    """The command, as `minift_register_commands` wants it."""

    help = "upload a run's model, with a card made from the run"

    @staticmethod
    def configure(parser: ArgumentParser) -> None:
        parser.add_argument("run_folder", metavar="RUN", help="the folder of a finished run")
        parser.add_argument("repo", metavar="NAME", help="namespace/name on the Hub")
        parser.add_argument("--private", action="store_true", help="for your eyes only, if new")
        parser.add_argument("--message", help="what is recorded of the change")

    @staticmethod
    def run(args: Namespace) -> int:
        from pathlib import Path

        from minift.plugins import default_manager

        address = default_manager().hook.minift_publish(
            folder=Path(args.run_folder),
            repo=args.repo,
            message=args.message,
            private=args.private,
        )
        if address is None:
            raise PluginError("no plugin publishes models (hook minift_publish)")
        print(address)
        return 0


class Hub:
    """The command, as `minift_register_commands` wants it."""

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
        if args.action == "search":
            return run_search(args)
        return run_card(args)


def run_search(args: Namespace) -> int:
    from minift_hub.download import endpoint, imported, told

    api, kind = imported().HfApi(endpoint=endpoint()), "dataset" if args.datasets else "model"
    with told(f"search for {args.text!r}"):
        ask = api.list_datasets if args.datasets else api.list_models
        found = list(ask(search=args.text, sort="downloads", limit=SHOWN))
    for one in found:
        say(f"{one.downloads or 0:>13,}  {one.id}  {' '.join(one.tags or [])}"[:WIDTH])
    print(f"{len(found)} {kind}s" + (", the most downloaded" if len(found) == SHOWN else ""))
    return 0 if found else 1


def say(text: str) -> None:
    """Print what comes from the Hub, without what would command a terminal."""
    from minift_hub.download import clean

    print(clean(text))


def run_card(args: Namespace) -> int:
    from minift_hub.download import endpoint, imported, in_units, look_up, told

    kind, short = ("dataset", DATASETS) if args.dataset else ("model", MODELS)
    try:
        repo = repository(args.name, short) or args.name
        snapshot = look_up(repo, kind, None)
    except MissingFileError as error:
        other = "without --dataset a model" if args.dataset else "with --dataset a dataset"
        error.do = f"{error.do or 'check the name'}; {other} is meant"
        raise
    with told(f"{kind} {repo!r}"):
        info = imported().HfApi(endpoint=endpoint()).repo_info(repo, repo_type=kind)
    size = sum(entry.size for entry in snapshot.files.values())
    print(f"{kind} {repo} at {snapshot.revision}")
    print(f"{len(snapshot.files)} files, {in_units(size)}; {info.downloads or 0:,} downloads")
    say(f"tags: {', '.join(info.tags or ['none'])}")
    if kind == "model":
        show_model(snapshot)
    else:
        show_dataset(snapshot)
    return 0


def show_model(snapshot: Any) -> None:
    """Its kind and classes, and what it would be loaded from."""
    from minift_hub.download import in_units
    from minift_hub.models import find, weight_files
    from minift_hub.trust import read_json

    find(snapshot.repo, snapshot.revision, "config")
    said = read_json(snapshot, "config.json")
    say(f"type: {said.get('model_type')}")
    classes = said.get("id2label")
    names = classes.values() if isinstance(classes, dict) else ["not said"]
    say(f"classes: {', '.join(map(str, names))}")
    weights = sum(snapshot.files[name].size for name in weight_files(snapshot))
    print(f"weights: {in_units(weights)} of safetensors")


def show_dataset(snapshot: Any) -> None:
    """Configurations, splits with their rows, columns and classes, as far as the card says them."""
    from minift_hub.datasets import CONVERTED, has_script
    from minift_hub.describing import describe, features_of, listed

    description = describe(snapshot)
    if has_script(snapshot):
        print(f"it has a Python script, which is never run; what the Hub made of it: {CONVERTED}")
    for name in dict.fromkeys([*description.configs, *description.infos]):
        said = (description.infos.get(name) or {}).get("splits")
        splits = said.values() if isinstance(said, dict) else listed(said)
        known = [one for one in splits if isinstance(one, dict)]
        counts = [f"{one.get('name')} {one.get('num_examples', '?')}" for one in known]
        say(f"configuration {name}: {', '.join(counts) or 'rows not said'}")
        for column, feature in (features_of(description, name) or {}).items():
            names = getattr(feature, "names", None)
            say(f"    {column}: {', '.join(names) if names else repr(feature)}")
