"""Distributed data-parallel training: one process for each device, started by PyTorch's elastic launcher.

Each process computes a shard of every batch, and gradients are averaged before each step, so all processes hold the
same weights. Only the main process prints and writes files. Results depend on the number of processes.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn.parallel import DistributedDataParallel

from cxr.core.errors import InputError

Value = TypeVar("Value")
RESUME_HINT = "run the command again to resume from the last finished epoch"


@dataclass(frozen=True)
class DistContext:
    """The rank of this process and the number of processes, with the operations between them.

    With a world size of 1, the operations return their arguments unchanged.
    """

    rank: int
    world_size: int

    @property
    def is_main_process(self) -> bool:
        """True in the process that prints and writes files."""
        return self.rank == 0

    def shard(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this process's contiguous part of `items`; the sizes of the parts differ by at most one."""
        return np.array_split(items, self.world_size)[self.rank]

    def wrap_ddp(self, network: nn.Module) -> nn.Module:
        """Return the network with gradients that are averaged over all processes in each backward pass."""
        if self.world_size == 1:
            return network
        # Buffers are averaged once per epoch by `all_reduce_buffers`: sending them in every step would be slower.
        return DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)

    def all_reduce(self, tensor: Tensor) -> None:
        """Replace `tensor` in place by its sum over all processes."""
        if self.world_size > 1:
            distributed.all_reduce(tensor)

    def all_reduce_buffers(self, network: nn.Module) -> None:
        """Replace each floating-point buffer, such as running statistics, by its mean over all processes."""
        if self.world_size > 1:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    distributed.all_reduce(buffer)
                    buffer.div_(self.world_size)

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, concatenated in the order of their ranks."""
        if self.world_size == 1:
            return rows
        parts: list[Any] = [None] * self.world_size
        distributed.all_gather_object(parts, rows.cpu())
        return torch.cat(parts).to(rows.device)

    def broadcast(self, value: Value) -> Value:
        """Return the `value` of the main process."""
        if self.world_size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]


SINGLE = DistContext(0, 1)


def is_launched() -> bool:
    """Return True if this process was started by `launch` or by `torchrun`."""
    return "RANK" in os.environ


@contextmanager
def init_distributed(devices: int) -> Iterator[DistContext]:
    """Join the process group, or yield `SINGLE` if this process was not launched as part of one.

    Raises:
        InputError: if the number of processes is not `devices`, or another process ends early.
    """
    if not is_launched():
        yield SINGLE
        return
    dist = DistContext(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if dist.world_size != devices:
        raise InputError(
            f"torchrun started {dist.world_size} processes, but devices is {devices} in params.yaml; make them equal"
        )
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield dist
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            first_line = str(error).partition("\n")[0]
            raise InputError(f"process {dist.rank} lost the connection to the others ({first_line})") from None
        raise
    finally:
        distributed.destroy_process_group()


def launch(devices: int, module: str) -> None:
    """Run `python -m module` in one process for each of `devices` on this machine, and wait until all have ended.

    Raises:
        InputError: if there are too few GPUs, or a process is killed; the other processes are stopped.
        SystemExit: if a process fails; it has printed its error message.
    """
    gpus = torch.cuda.device_count()
    if 0 < gpus < devices:
        raise InputError(
            f"devices is {devices}, but this machine has {gpus}: lower devices, or start the training on several "
            "machines with torchrun (docs/gpus.md)"
        )
    # The launcher logs failures for developers; the messages below are for users.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        1, 1, devices, run_id="train", rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0
    )
    try:
        elastic_launch(config, sys.executable)("-m", module)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            sys.exit(failure.exitcode)
        name = signal.Signals(-failure.exitcode).name
        raise InputError(
            f"process {rank} of {devices} was killed ({name}); the others were stopped: {RESUME_HINT}"
        ) from None
    except SignalException as error:
        raise InputError(f"stopped by {error.sigval.name}: {RESUME_HINT}") from None
