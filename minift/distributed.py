"""Data-parallel training: the rank of this process, and the collectives that training needs.

torchrun (or `notebook_launcher`) starts the processes, on one machine or several, and tells each
its rank in the environment. They connect when a model is prepared. Each computes its own rows of an
update; the sums of their losses, counts and gradients are then reduced once, so that all of them
take the same step. Only tensors are exchanged: torch's collectives for objects would open pickles.

A process that dies breaks the connections to the others, so that their next collective fails. That
ends them too, with a message; torchrun reports the first failure, and may start all of them again.
"""

import atexit
import contextlib
import os
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from minift.errors import DeviceError

if TYPE_CHECKING:
    from torch import Tensor


def rank() -> int:
    """Return the number of this process among all of them."""
    return int(os.environ.get("RANK", 0))


def local_rank() -> int:
    """Return its number among those of this machine, which decides which accelerator it takes."""
    return int(os.environ.get("LOCAL_RANK", 0))


def world_size() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def restarted() -> bool:
    """Tell whether torchrun started this process in the place of one that failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def init_process_group() -> None:
    """Connect to the other processes, if there are any. Called again, it does nothing."""
    import torch.distributed as dist

    if world_size() > 1 and not dist.is_initialized():
        with explain_failures():
            store, *_ = next(dist.rendezvous("env://"))
            # No backend is named: torch takes its default one for each type of memory.
            dist.init_process_group(store=new_store(store), rank=rank(), world_size=world_size())
        atexit.register(destroy_process_group)


def new_store(store: Any) -> Any:
    """Return a part of torchrun's store that only the processes of this start use.

    The store survives a restart, with the addresses of processes that are gone. So rank 0 makes up
    a prefix, and the others accept a prefix only if rank 0 answers under it.
    """
    import torch.distributed as dist

    token = uuid.uuid4().hex
    if rank() == 0:
        store.set("minift", token)
        for other in range(1, world_size()):
            store.set(f"{token}/answer/{other}", store.get(f"{token}/ask/{other}"))
        return dist.PrefixStore(token, store)
    while True:
        prefix = store.get("minift").decode()
        store.set(f"{prefix}/ask/{rank()}", token)
        with contextlib.suppress(RuntimeError):  # no answer: the prefix is from an earlier start
            store.wait([f"{prefix}/answer/{rank()}"], timedelta(seconds=1))
            if store.get(f"{prefix}/answer/{rank()}").decode() == token:
                return dist.PrefixStore(prefix, store)
        time.sleep(0.05)


def destroy_process_group() -> None:
    """Disconnect when Python ends, while the interpreter still works.

    A thread of torch's may still hold the last tensor that was exchanged. After the interpreter has
    ended it cannot free that, and aborts a process that had done all its work (pytorch#179291).
    After an error it is left out: the others may be in a collective, and would be waited for.
    """
    import torch.distributed as dist

    if dist.is_initialized() and not hasattr(sys, "last_value"):
        dist.destroy_process_group()


def all_reduce(value: "Tensor") -> "Tensor":
    """Sum a tensor over all ranks, in place, and return it."""
    import torch.distributed as dist

    with explain_failures():
        dist.all_reduce(value)
    return value


def broadcast(tensors: "Sequence[Tensor]") -> None:
    """Overwrite each tensor with the one of rank 0."""
    import torch.distributed as dist

    with explain_failures():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def all_gather(value: "Tensor") -> "Tensor":
    """Concatenate the tensors of all ranks along dimension 0, where their sizes may differ."""
    import torch
    import torch.distributed as dist

    value = value if value.dim() else value[None]
    lengths = [torch.zeros(1, dtype=torch.int64, device=value.device) for _ in range(world_size())]
    with explain_failures():
        dist.all_gather(lengths, lengths[0].new_tensor([len(value)]))
        padded = value.new_zeros(max(map(int, lengths)), *value.shape[1:])
        padded[: len(value)] = value
        blocks = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(blocks, padded)
    return torch.cat([block[: int(size)] for block, size in zip(blocks, lengths, strict=True)])


def barrier() -> None:
    """Wait until all ranks are here."""
    import torch.distributed as dist

    with explain_failures():
        dist.barrier()


@contextlib.contextmanager
def explain_failures() -> Iterator[None]:
    """Turn the broken connection that another rank's end leaves into a DeviceError."""
    try:
        yield
    except RuntimeError as error:
        what, got = f"process {rank()} of {world_size()} lost the others", str(error).strip()
        do = "look for the first error of another process; torchrun --max-restarts N resumes"
        raise DeviceError(what, got=got.partition("\n")[0][:200], do=do) from error
