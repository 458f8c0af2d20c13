"""Train one network in several processes, started by `torchrun` and connected by gloo or NCCL.

    data parallel   each process holds the whole network; gradients are summed once per step, after
                    accumulation, in one transfer of the trained parameters
    sharded         `fully_shard` (FSDP2, Zhao et al. 2023, 2304.11277): each process holds its part
                    of all weights, the frozen vocabulary included, and gathers a layer only while
                    it computes

Both compute the same numbers as one process.
"""

from __future__ import annotations

import atexit
import copy
import gc
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from idiolect.nn.network import Network

__all__ = ["Workers", "all_blocks", "without_weights"]


def _leave() -> None:
    """Leave the process group before the interpreter exits.

    The threads of a group may hold Python objects. If one still runs when the interpreter exits, it
    aborts the process, although all work is done.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
    gc.collect()


@dataclass(frozen=True)
class Workers:
    """The processes of a run, and the rank of this one."""

    rank: int = 0
    """Number of this process, from 0."""
    count: int = 1
    """Number of processes."""

    @classmethod
    def join(cls, device: torch.device) -> Workers:
        """Join the other processes that `torchrun` started, if any.

        Args:
            device: The device of this process; GPUs are joined by NCCL, CPUs by gloo.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        if not dist.is_initialized():
            if device.type == "cuda":
                torch.cuda.set_device(device)
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            atexit.register(_leave)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """Return the slice of a step's rows that this process reads."""
        return slice(self.rank * rows // self.count, (self.rank + 1) * rows // self.count)

    def sum(self, *numbers: float, device: torch.device) -> list[float]:
        """Add numbers over all processes."""
        if self.count == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        summed: list[float] = total.tolist()
        return summed

    def sum_in_place(self, tensor: Tensor) -> None:
        """Add a tensor over all processes."""
        if self.count > 1:
            dist.all_reduce(tensor)

    def wait(self) -> None:
        """Wait for all processes (a barrier)."""
        if self.count > 1:
            dist.barrier()

    def shard(self, step: nn.Module) -> None:
        """Divide the weights of a module and its blocks among the processes, in place."""
        from torch.distributed.fsdp import fully_shard  # its import takes seconds

        for block in all_blocks(step):
            fully_shard(block)
        fully_shard(step)

    def gradient_scale(self, parameters: Iterable[nn.Parameter]) -> float:
        """Return the factor on a process's loss that makes the combined gradient the sum.

        Sharded gradients are averaged by `fully_shard`; others are summed by `sum_gradients`.
        """
        return float(self.count) if any(map(_is_sharded, parameters)) else 1.0

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of all processes in one transfer, unless sharding has done it."""
        if self.count == 1:
            return
        plain = [p for p in parameters if not _is_sharded(p)]
        if not plain:
            return
        for parameter in plain:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            elif parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()
        grads = [p.grad for p in plain if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        for grad, part in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    @staticmethod
    def gather(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return whole tensors on the CPU, the same in each process."""
        return {
            name: (t.full_tensor() if _is_sharded(t) else t).detach().cpu()  # type: ignore[attr-defined]
            for name, t in tensors.items()
        }

    @staticmethod
    def scatter(whole: Tensor, like: Tensor) -> Tensor:
        """Distribute a whole tensor in the same way as another one."""
        whole = whole.to(device=like.device, dtype=like.dtype)
        if not _is_sharded(like):
            return whole
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(like, DTensor)
        return distribute_tensor(whole, like.device_mesh, like.placements)


def _is_sharded(tensor: Tensor) -> bool:
    """Return whether it is a `DTensor`, without importing that class, which takes seconds."""
    return hasattr(tensor, "device_mesh")


def all_blocks(module: nn.Module) -> list[nn.Module]:
    """Return the blocks of every network in a module."""
    networks = [part for part in module.modules() if isinstance(part, Network)]
    return [block for network in networks for block in network.blocks]


def without_weights(network: Network) -> Network:
    """Return a copy with weights on the "meta" device, the target for gathering a sharded one."""
    memo: dict[int, object] = {
        id(p): nn.Parameter(p.detach().to("meta"), requires_grad=p.requires_grad)
        for p in network.parameters()
    }
    return copy.deepcopy(network, memo)
