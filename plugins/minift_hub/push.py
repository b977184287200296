"""`minift push RUN NAME`: upload a model with the hook `minift_publish`, whoever answers it."""

from argparse import ArgumentParser, Namespace

from minift.errors import PluginError
from minift.files import local_path
from minift.plugins import default_manager

help = "upload a run's model, with a card made from the run"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="the folder of a finished run")
    parser.add_argument("repo", metavar="NAME", help="namespace/name on the Hub")
    parser.add_argument("--private", action="store_true", help="for your eyes only, if new")
    parser.add_argument("--message", help="what is recorded of the change")


def run(args: Namespace) -> int:
    folder, publish = local_path(args.run_folder), default_manager().hook.minift_publish
    options = {"message": args.message, "private": args.private}
    address = publish(folder=folder, repo=args.repo, **options)
    if address is None:
        raise PluginError("no plugin publishes models (hook minift_publish)")
    print(address)
    return 0
