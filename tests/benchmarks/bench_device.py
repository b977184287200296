"""What several processes and the Device object cost.

    make bench-device        ARGS="--pairs 7 --steps 24" changes it

On the rows of bench_train.py (MRPC's with MINIFT_MRPC, else the demo's headlines), MiniLM,
fp32, processes of one thread:

    processes   two that train together (torchrun) against two that know nothing of each other, side
                by side: rows in a second, at batch 8 and 16 in each; alternating pairs
    device      a step that computes next to nothing, through a Device and by torch's own calls

Nothing is asserted: machines differ.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_train import EQUAL, minift_trainer, write_files

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
CALLS = 2000


def train(files: Path, steps: int, size: int) -> None:
    """In a process of its own: some steps, and how long they took."""
    import torch

    torch.set_num_threads(1)
    settings = {**EQUAL, "per_device_train_batch_size": size, "precision": "fp32", "device": "cpu"}
    trainer, _ = minift_trainer(files, output_dir=None, max_steps=steps, seed=1, **settings)
    seconds = trainer.train().metrics["train_runtime"]
    rank = os.environ.get("RANK", "0")
    print(json.dumps({"rank": rank, "rows": steps * size / seconds}), flush=True)


def rows_a_second(files: Path, steps: int, size: int, together: bool) -> float:
    """Of two processes in sum."""
    child = [__file__, "--child", str(files), str(size), "--steps", str(steps)]
    commands = [[*TORCHRUN, *child]] if together else [[sys.executable, *child]] * 2
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MINIFT_CACHE": str(files / "minift")}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        for command in commands
    ]
    found = []
    for process in running:
        out, error = process.communicate()
        if process.returncode:
            sys.exit(error.decode())
        found += map(json.loads, re.findall(r"{.*?}", out.decode()))  # two may share a line
    assert len(found) == 2, found
    return sum(one["rows"] for one in found)


def compare_processes(files: Path, pairs: int, steps: int) -> None:
    for size in (8, 16):
        rows_a_second(files, 2, size, together=True)  # fills the cache
        found = [
            [rows_a_second(files, steps, size, together) for together in (True, False)]
            for _ in range(pairs)
        ]
        together, apart = (statistics.median(pair[i] for pair in found) for i in (0, 1))
        ratios = sorted(a / b for a, b in found)
        print(
            f"2 processes, batch {size:2}    together {together:6.1f} rows/s  apart {apart:6.1f}  "
            f"{statistics.median(ratios):.1%} ({ratios[0]:.1%} to {ratios[-1]:.1%})",
            flush=True,
        )


def compare_calls() -> None:
    """Forward, backward, clipping and AdamW of one weight: with a Device between, and without."""
    import torch

    from minift import AdamW
    from minift.device import choose_device
    from minift.plugins import default_manager

    torch.set_num_threads(1)
    device = choose_device("cpu", default_manager())
    batch = {"x": torch.ones(4, 1)}
    one = torch.ones(())

    def made() -> tuple[Any, Any]:
        model = torch.nn.Linear(1, 1)
        return model, AdamW(model.parameters(), lr=1e-3)

    model, optimizer = made()
    model = device.prepare(model)

    def through_device() -> None:
        device.seed(1)
        (given,) = device.batches([batch])
        with device.autocast("fp32"):
            loss = model(given["x"]).sum()
        device.backward(loss)
        sums = device.all_reduce(torch.stack([loss.detach(), one]))
        device.clip_grad_norm(optimizer, 1.0, sums[1])
        device.step(optimizer, sums[0] * 0)
        optimizer.zero_grad()

    bare, own = made()

    def by_torch() -> None:
        loss = bare(batch["x"]).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bare.parameters(), 1.0)
        own.step()
        own.zero_grad()

    def milliseconds(step: Any) -> float:
        started = time.perf_counter()
        for _ in range(CALLS):
            step()
        return (time.perf_counter() - started) / CALLS * 1e3

    found = [[milliseconds(step) for step in (through_device, by_torch)] for _ in range(6)][1:]
    with_it, without = (statistics.median(pair[i] for pair in found) for i in (0, 1))
    costs = sorted(a - b for a, b in found)
    print(
        f"device, a step           with {with_it:.3f} ms  without {without:.3f} ms  "
        f"costs {statistics.median(costs):.3f} ms ({costs[0]:.3f} to {costs[-1]:.3f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps of a run")
    parser.add_argument("--pairs", type=int, default=5, help="measurements of each")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        train(Path(args.child[0]), args.steps, int(args.child[1]))
        return
    compare_calls()
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        compare_processes(Path(folder), args.pairs, args.steps)


if __name__ == "__main__":
    main()
