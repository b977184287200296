"""What a model by its name costs beside the client alone: `make bench-hub`.

A model of 90 MB, from a server on loopback into an empty cache: `huggingface_hub`'s own
`snapshot_download` of the same files, and minift's finder, which also looks at sizes first and
verifies every byte. They take turns; the medians are compared: at the speed of a line of 1 Gbit/s,
and as fast as memory gives it, where client, server and hash share the processors. That is the
worst that there can be, above all where other programs compute at the same time.

    python tests/benchmarks/bench_hub.py [--pairs 5] [--megabytes 90]
"""

import argparse
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

for name in ("TELEMETRY", "XET", "PROGRESS_BARS"):  # read when the library is imported
    os.environ[f"HF_HUB_DISABLE_{name}"] = "1"
NAME = "bench/model"


def make_model(folder: Path, megabytes: int) -> None:
    """A file of random bytes in place of the weights: nobody opens it."""
    import tiny

    tiny.make_model(folder)
    with (folder / "model.safetensors").open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1_000_000))


def time_client() -> float:
    from huggingface_hub import snapshot_download

    start = time.perf_counter()
    allowed = ["config.json", "tokenizer*.json", "model.safetensors"]
    snapshot_download(
        NAME,
        allow_patterns=allowed,
        endpoint=os.environ["HF_ENDPOINT"],
        cache_dir=os.path.join(os.environ["HF_HOME"], "hub"),
    )
    return time.perf_counter() - start


def time_minift() -> float:
    from minift_hub.models import find

    start = time.perf_counter()
    find(NAME, None, "model")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=90)
    args = parser.parse_args()
    for rate, line in ((125, "1 Gbit/s"), (0, "no limit")):
        print(f"{line}:")
        compare(args, rate)


def compare(args: argparse.Namespace, rate: int) -> None:
    times: dict[str, list[float]] = {"client": [], "minift": []}
    with tempfile.TemporaryDirectory() as scratch, serving(Path(scratch), args.megabytes, rate):
        for i in range(2 * args.pairs + 2):
            which, work = [("client", time_client), ("minift", time_minift)][i % 2]
            os.environ["HF_HOME"] = str(Path(scratch) / f"cache-{i}")
            seconds = work()
            shutil.rmtree(os.environ["HF_HOME"])
            if i > 1:  # the first of each loads modules
                times[which].append(seconds)
    client, ours = (statistics.median(times[name]) for name in ("client", "minift"))
    for name, found in times.items():
        said = " ".join(f"{seconds:.3f}" for seconds in found)
        print(f"{name}: {statistics.median(found):.3f} s (of {said})")
    print(f"{args.megabytes} MB: minift / huggingface_hub alone = {ours / client:.3f}")


@contextlib.contextmanager
def serving(folder: Path, megabytes: int, rate: int) -> Iterator[None]:
    """A server in a process of its own, as HF_ENDPOINT."""
    make_model(folder / "models" / NAME, megabytes)
    command = [sys.executable, "-u", str(ROOT / "fake_hub.py"), str(folder), str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        lines = iter(server.stdout.readline, "")
        os.environ["HF_ENDPOINT"] = next(
            re.findall(r"http://\S+", s)[0] for s in lines if "http" in s
        )
        try:
            yield
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
