"""The demo: fine-tune real weights on real texts, from packages alone.

Three things come with it: the command `minift demo`, the dataset `headlines` (does this headline
belong to this article?), and the model `all-MiniLM-L6-v2`, found in an installed package. So the
names work wherever names do: `load_dataset("headlines")`, `minift train --model all-MiniLM-L6-v2`.
"""

from minift import hookimpl
from minift_demo.names import MODEL, TASK


@hookimpl
def minift_register_commands():
    from minift_demo import command

    return {"demo": command}


@hookimpl
def minift_register_tasks():
    from minift.tasks import Task

    columns, label_names = ["sentence1", "sentence2"], ["not_match", "match"]
    return {TASK: Task(columns=columns, label_names=label_names, metrics=["accuracy", "f1"])}


@hookimpl
def minift_find_dataset(path):
    if path != TASK:
        return None
    from minift.data.cache import cache_root
    from minift.data.file_formats import DatasetFiles
    from minift_demo import headlines

    folder = headlines.prepare(cache_root() / "demo" / TASK)
    files = {split: [folder / f"{split}.parquet"] for split in headlines.SPLITS}
    return DatasetFiles(files, source=f"package {headlines.CORPUS}")


@hookimpl
def minift_find_checkpoint(name):
    if name.removeprefix("sentence-transformers/") != MODEL:
        return None
    from minift_demo import headlines

    return headlines.weights_folder()
