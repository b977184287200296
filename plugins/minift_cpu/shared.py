"""An all-reduce for processes on one machine, in shared memory.

torch's sends numbers through sockets, where the kernel copies each four times and each exchange
wakes two threads a process. Here each process writes into a region of its own, and reads those of
all:

    region 0   written by process 0 ─┐
    region 1   written by process 1 ─┴─ each process sums over the regions, in this order

Each sends each a byte for "written", and another for "read". They go through pipes, so that a
process that waits notices at once when another has died. Neither the memory nor the pipes have a
name in any folder: others open them through /proc, so nothing can stay behind, however the
processes end.
"""

import os
import select
import sys
from typing import TYPE_CHECKING

from minift import distributed

if TYPE_CHECKING:
    from torch import Tensor

TIMEOUT = 1800  # seconds that a process waits for the others, as torch's collectives do


def is_possible() -> bool:
    """Return True on Linux if all processes are on this machine, according to torchrun."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 0))
    return hasattr(os, "memfd_create") and local == distributed.world_size() > 1


class SharedSum:
    """Shared memory with a region for each process. All processes build it at the same time.

    Attributes:
        size: numbers in a region, of four bytes each; 0 if some process cannot open the memory.
        regions: (processes, size), fp32.
        readers: pipes that bring a byte from each process, from this one too.
        writers: pipes that take one to each.
    """

    def __init__(self, size: int) -> None:
        import torch

        rank, count = distributed.rank(), distributed.world_size()
        memory, pipes = os.memfd_create("minift"), [os.pipe() for _ in range(count)]
        os.ftruncate(memory, 4 * count * size)  # allocated only when it is written to
        offered = [memory, *(write_end for _, write_end in pipes)]
        offers = distributed.all_gather(torch.tensor([[os.getpid(), *offered]])).tolist()
        self.size, failed = size, 0
        self.readers = [os.fdopen(read_end, "rb", 0) for read_end, _ in pipes]
        try:
            paths = [f"/proc/{pid}/fd/{write_ends[rank]}" for pid, _, *write_ends in offers]
            self.writers = [os.fdopen(os.open(path, os.O_WRONLY), "wb", 0) for path in paths]
            path = f"/proc/{offers[0][0]}/fd/{offers[0][1]}"  # all use the memory of process 0
            self.regions = torch.from_file(path, shared=True, size=count * size).view(count, size)
        except (OSError, RuntimeError) as error:
            print(f"cpu: process {rank} cannot share memory: {error}", file=sys.stderr)
            failed = 1
        if distributed.all_reduce(torch.tensor(failed)):  # by now all have opened what they can
            self.size = 0
        else:
            self.regions.zero_()  # the kernel allocates pages now rather than in the first step
        distributed.barrier()
        for descriptor in offered:
            os.close(descriptor)

    def fits(self, tensors: "list[Tensor]") -> bool:
        """Return True if these vectors fit; the answer is the same in all processes."""
        one_type = len({x.dtype for x in tensors}) == 1 and tensors[0].element_size() == 4
        return one_type and 0 < sum(map(len, tensors)) <= self.size

    def all_reduce_flat(self, tensors: "list[Tensor]") -> "Tensor":
        """Concatenate vectors of one type and sum the result over the processes."""
        import torch

        regions = self.regions.view(tensors[0].dtype)[:, : sum(map(len, tensors))]
        torch.cat(tensors, out=regions[distributed.rank()])
        self.wait()  # until all have written
        total = regions[0] + regions[1]  # regions.sum(0) takes twice as long
        for region in regions[2:]:
            total += region
        self.wait()  # until all have read
        return total

    def wait(self) -> None:
        """Wait until all processes have called this."""
        with distributed.explain_failures():
            try:
                for writer in self.writers:
                    writer.write(b".")
                for reader in self.readers:
                    if not select.select([reader], [], [], TIMEOUT)[0] or not reader.read(1):
                        raise RuntimeError("a process has ended, or does not answer")
            except OSError as error:
                raise RuntimeError(f"a process has ended: {error}") from error
