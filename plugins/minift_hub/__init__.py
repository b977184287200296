"""The Hugging Face Hub: datasets and models by name, and pushing a model.

    names.py      which repository a name means, older short names too
    client.py     huggingface_hub: its server, cache and errors
    snapshot.py   a commit of a repository, and the list of its files
    trust.py      what may be read: names, sizes, hashes
    download.py   files of a snapshot, checked before and verified after
    models.py     which files a model needs
    describing.py what a dataset's card says of it: configurations, features
    datasets.py   which files a dataset's configuration has
    card.py       a run as a model card
    publish.py    a model to the Hub, in one commit
    push.py       `minift push`

A file imports only from those above it.

`huggingface_hub` is only imported where a name is looked up, and no name that is a path or belongs
to another plugin leads there: these finders are asked last.
"""

from minift import hookimpl


@hookimpl(trylast=True)
def minift_find_dataset(path, name, revision, data_files, data_dir):
    from minift_hub.names import DATASETS, repository

    repo = repository(path, DATASETS)
    if repo is None:
        return None
    from minift_hub.datasets import find

    return find(repo, name, revision, data_files, str(data_dir or "").strip("/"))


@hookimpl(trylast=True)
def minift_find_checkpoint(name, revision, component):
    from minift_hub.names import MODELS, repository

    repo = repository(name, MODELS)
    if repo is None:
        return None
    from minift_hub.models import find

    return find(repo, revision, component)


@hookimpl(trylast=True)
def minift_publish(folder, repo, message, private):
    from minift_hub.publish import publish

    return publish(folder, repo, message, private)


@hookimpl
def minift_register_commands():
    from minift_hub import push

    return {"push": push}
