"""Processes on one machine add up numbers in memory that all of them see.

torch sends them through sockets, where the kernel copies each number four times and each exchange
wakes two threads a process. Here each process writes into a region of its own, and reads those of
all:

    region 0   written by process 0 ─┐
    region 1   written by process 1 ─┴─ each process sums over the regions, in this order

A byte from each to each says "written", and another "read"; they go through pipes, so that whoever
waits learns at once that a process has died. Neither memory nor pipes have a name in any folder:
others open them by way of /proc, and nothing can stay behind, however the processes end.
"""

import os
import select
import sys
from typing import TYPE_CHECKING

from minift import distributed

if TYPE_CHECKING:
    from torch import Tensor, nn

PATIENCE = 1800  # seconds that a process waits for the others, as torch's collectives do


def is_possible() -> bool:
    """Whether all processes are on this machine, as torchrun says, and it is Linux."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 0))
    return hasattr(os, "memfd_create") and here == distributed.world_size() > 1


def numbers_of(model: "nn.Module") -> int:
    """How many numbers travel at once: its gradients, and of tables the rows of a large batch."""
    return sum(
        distributed.TABLE * p.shape[1] if distributed.is_table(p) else p.numel()
        for p in model.parameters()
    )


class Board:
    """A block of memory with a region for each process. All of them make it at the same time.

    Attributes:
        size: numbers in a region, of four bytes each; 0 if some process cannot have the block.
        regions: (processes, size), fp32.
        readers: where the byte of each process arrives, this one's own too.
        writers: where this one's go.
    """

    def __init__(self, size: int) -> None:
        import torch

        rank, count = distributed.rank(), distributed.world_size()
        memory, pipes = os.memfd_create("minift"), [os.pipe() for _ in range(count)]
        os.ftruncate(memory, 4 * count * size)  # as memory goes: taken when it is written to
        mine = [memory, *(into for _, into in pipes)]
        offers = distributed.gather(torch.tensor([[os.getpid(), *mine]])).tolist()
        self.size, refused = size, 0
        self.readers = [os.fdopen(out, "rb", 0) for out, _ in pipes]
        try:
            ways = [f"/proc/{pid}/fd/{into[rank]}" for pid, _, *into in offers]
            self.writers = [os.fdopen(os.open(way, os.O_WRONLY), "wb", 0) for way in ways]
            way = f"/proc/{offers[0][0]}/fd/{offers[0][1]}"  # process 0's memory is everybody's
            self.regions = torch.from_file(way, shared=True, size=count * size).view(count, size)
        except (OSError, RuntimeError) as error:
            print(f"cpu: process {rank} cannot share memory: {error}", file=sys.stderr)
            refused = 1
        if distributed.all_reduce(torch.tensor(refused)):  # also: all have opened what they can
            self.size = 0
        else:
            self.regions.zero_()  # the kernel gives the pages now rather than in the first step
        distributed.barrier()
        for descriptor in mine:
            os.close(descriptor)

    def takes(self, parts: "list[Tensor]") -> bool:
        """Whether these vectors fit, which is the same in all processes."""
        one_type = len({part.dtype for part in parts}) == 1 and parts[0].element_size() == 4
        return one_type and 0 < sum(map(len, parts)) <= self.size

    def all_reduce_flat(self, parts: "list[Tensor]") -> "Tensor":
        """Vectors of one type, one behind the other, summed over the processes."""
        import torch

        regions = self.regions.view(parts[0].dtype)[:, : sum(map(len, parts))]
        torch.cat(parts, out=regions[distributed.rank()])
        self.wait()  # until all have written
        total = regions[0] + regions[1]  # regions.sum(0) takes twice as long
        for region in regions[2:]:
            total += region
        self.wait()  # until all have read
        return total

    def wait(self) -> None:
        """Until all processes are here."""
        with distributed.failures_explained():
            try:
                for writer in self.writers:
                    writer.write(b".")
                for reader in self.readers:
                    if not select.select([reader], [], [], PATIENCE)[0] or not reader.read(1):
                        raise RuntimeError("a process has ended, or does not answer")
            except OSError as error:
                raise RuntimeError(f"a process has ended: {error}") from error
