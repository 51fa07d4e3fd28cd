"""Which of how many processes this one is, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b

import torch
from torch import Tensor, distributed

from snowmelt.base.errors import SnowmeltError


@dataclass(frozen=True)
class World:
    """This process's place: rank 0 ... size - 1."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def agree(self, numbers: list[float], device: torch.device) -> list[float]:
        """Rank 0's numbers, on every rank: the clock and the user's signals are one process's to read."""
        if self.size == 1:
            return numbers
        shared = torch.tensor(numbers, dtype=torch.float64).to(device if device.type == "cuda" else "cpu")
        distributed.broadcast(shared, src=0)
        result: list[float] = shared.tolist()
        return result

    def require_alike(self, fingerprint: str, device: torch.device) -> None:
        """Raise SnowmeltError where rank 0 has found other images, or holds out others of them."""
        own = float(int.from_bytes(blake2b(fingerprint.encode(), digest_size=6).digest(), "big"))
        if self.agree([own], device) != [own]:
            raise SnowmeltError(
                f"Process {self.rank} holds out other images than process 0: the first of them has found more room for "
                "them in cache and memory, or the data set makes other pictures each time.",
                "Make room on the disk of the cache (snowmelt data cache), or the pictures the same each time.",
            )

    def sum(self, tensor: Tensor) -> None:
        """Add up a tensor over all ranks, in place."""
        if self.size > 1:
            distributed.all_reduce(tensor)

    def wait(self) -> None:
        """Until every rank is here."""
        if self.size > 1:
            distributed.barrier()


def local_rank() -> int:
    """This process's place on its own machine, as `torchrun` says it; 0 where there is one process."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def joined_world(device: torch.device) -> Iterator[World]:
    """The processes that `torchrun` or `accelerate launch` started; a world of one where neither did.

    device  where this one trains: GPUs talk by NCCL, processors by Gloo; a GPU is the current one meanwhile
    """
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            yield World()
            return
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(hours=2))
        try:
            yield World(distributed.get_rank(), distributed.get_world_size())
        finally:
            distributed.destroy_process_group()
