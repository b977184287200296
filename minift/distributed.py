"""Several processes that train together: which of them this one is, and how they add up numbers.

torchrun (or `notebook_launcher`) starts them, on one machine or several, and tells each in its
environment who it is. They meet when a model is prepared. Each computes its own rows of an update;
the sums of their losses, counts and gradients then go around once, so that all of them take the
same step. Nothing else is exchanged, and only tensors are: torch's collectives for objects would
open pickles.

A process that dies breaks the connections to the others, whose next exchange fails. That ends them
too, with a message; torchrun reports the first failure, and may start all of them again.
"""

import atexit
import contextlib
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from minift.errors import DeviceError

if TYPE_CHECKING:
    from torch import Tensor

    SumOf = Callable[[list[Tensor]], Tensor]

TABLE = 8192  # rows that make a tensor a table of embeddings: no other layer has as many


def rank() -> int:
    """The number of this process, of all."""
    return int(os.environ.get("RANK", 0))


def local_rank() -> int:
    """Its number of those on this machine, which says which accelerator it takes."""
    return int(os.environ.get("LOCAL_RANK", 0))


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def restarted() -> bool:
    """Whether torchrun started this process in the place of one that failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def join() -> None:
    """Meet the others, if there are any. Called again, it does nothing."""
    import torch.distributed as dist

    if world_size() > 1 and not dist.is_initialized():
        with failures_explained():
            store, *_ = next(dist.rendezvous("env://"))
            # Each kind of memory has its own way to others, torch's default for it.
            dist.init_process_group(store=agreed(store), rank=rank(), world_size=world_size())
        atexit.register(leave)


def agreed(store: Any) -> Any:
    """A part of torchrun's store that belongs to these processes alone.

    It lives on when processes are started again, with the addresses of those that are gone. So
    process 0 makes up a name, and the others go by a name only if somebody answers under it.
    """
    import torch.distributed as dist

    own = uuid.uuid4().hex
    if rank() == 0:
        store.set("minift", own)
        for other in range(1, world_size()):
            store.set(f"{own}/answer/{other}", store.get(f"{own}/ask/{other}"))
        return dist.PrefixStore(own, store)
    while True:
        name = store.get("minift").decode()
        store.set(f"{name}/ask/{rank()}", own)
        with contextlib.suppress(RuntimeError):  # nobody answers: it was an earlier one's name
            store.wait([f"{name}/answer/{rank()}"], timedelta(seconds=1))
            if store.get(f"{name}/answer/{rank()}").decode() == own:
                return dist.PrefixStore(name, store)
        time.sleep(0.05)


def leave() -> None:
    """Part from the others when Python ends, as long as it is whole.

    A thread of torch's may still hold the last tensor that went around. Once Python has gone it
    cannot let go of it, and aborts a process that had done all its work (pytorch#179291). After an
    error the others may wait for this process in an exchange, so that parting would wait for them.
    """
    import torch.distributed as dist

    if dist.is_initialized() and not hasattr(sys, "last_value"):
        dist.destroy_process_group()


def all_reduce(value: "Tensor") -> "Tensor":
    """The sum over all processes, in the memory of `value`."""
    import torch.distributed as dist

    with failures_explained():
        dist.all_reduce(value)
    return value


def add_up(tensors: "Sequence[Tensor]", all_reduce_flat: "SumOf") -> "Sequence[Tensor]":
    """Make of each tensor its sum over all processes.

    They travel as one: to line them up takes less time than a hundred exchanges wait for one
    another. What comes back is not copied once more: the tensors take over its memory.

    Args:
        tensors: of the same shapes in all processes.
        all_reduce_flat: a Device's, which adds up.

    Returns:
        what there is in the sums beside zeros: of a table of embeddings only some rows.
    """
    import torch

    rows = [touched(tensor, all_reduce_flat) if is_table(tensor) else ... for tensor in tensors]
    parts = [tensor[some] for tensor, some in zip(tensors, rows, strict=True)]
    flat = all_reduce_flat([part.flatten() for part in parts])
    sums = torch._utils._unflatten_dense_tensors(flat, parts)
    for tensor, some, total in zip(tensors, rows, sums, strict=True):
        if some is ...:
            tensor.data = total.to(tensor.dtype)
        else:
            tensor[some] = total
    return sums


def is_table(tensor: "Tensor") -> bool:
    """Whether it may be the gradient of a table of embeddings in host memory."""
    return tensor.is_cpu and tensor.dim() == 2 and len(tensor) > TABLE


def touched(table: "Tensor", all_reduce_flat: "SumOf") -> "Tensor":
    """Which of its rows are not zero in some process; of most, all are zero in all.

    A batch has some hundred tokens of a vocabulary of thirty thousand, and the table is half of a
    small model: the zeros would take as long as everything else.
    """
    import torch

    here = table.contiguous().view(torch.uint8).amax(1) > 0  # byte by byte is fastest
    return all_reduce_flat([here.int()]).nonzero()[:, 0]


def share(tensors: "Sequence[Tensor]") -> None:
    """Make of each tensor, in place, what it is in process 0."""
    import torch.distributed as dist

    with failures_explained():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def gather(value: "Tensor") -> "Tensor":
    """The rows of all processes, in the order of their numbers; each may have another number."""
    import torch
    import torch.distributed as dist

    value = value if value.dim() else value[None]
    lengths = [torch.zeros(1, dtype=torch.int64, device=value.device) for _ in range(world_size())]
    with failures_explained():
        dist.all_gather(lengths, lengths[0].new_tensor([len(value)]))
        padded = value.new_zeros(max(map(int, lengths)), *value.shape[1:])
        padded[: len(value)] = value
        blocks = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(blocks, padded)
    return torch.cat([block[: int(size)] for block, size in zip(blocks, lengths, strict=True)])


def barrier() -> None:
    """Wait for the others."""
    import torch.distributed as dist

    with failures_explained():
        dist.barrier()


@contextlib.contextmanager
def failures_explained() -> Iterator[None]:
    """The others' end is seen as a broken connection."""
    try:
        yield
    except RuntimeError as error:
        raise DeviceError(
            f"process {rank()} of {world_size()} lost the others",
            got=str(error).strip().splitlines()[0][:200],
            expected="all processes, taking the same steps",
            do="look for the first error of another process; torchrun --max-restarts N starts "
            "them again, and they go on from the newest checkpoint",
        ) from error
