"""Several processes, one a device, that train one network together, by PyTorch's own engine.

Each has a share of every batch; gradients are averaged before each step, so all hold the same network. Only the first
one prints and writes. Which bits come out depends on their number, and not on what else the machine does.
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

Anything = TypeVar("Anything")
RESUME_HINT = "run again, and training goes on from its last finished epoch"


@dataclass(frozen=True)
class DistContext:
    """This process's number among those that train together, and how many they are."""

    rank: int
    count: int

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def share(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process's part of `items`: the parts' sizes differ by one at most."""
        return np.array_split(items, self.count)[self.rank]

    def together(self, network: nn.Module) -> nn.Module:
        """The network, its gradients averaged over all processes in each backward pass."""
        if self.count == 1:
            return network
        # Running statistics differ until `average_buffers`: sending them before every step would cost a wait each.
        return DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)

    def add_up(self, tensor: Tensor) -> None:
        """Replace `tensor` by its sum over all processes."""
        if self.count > 1:
            distributed.all_reduce(tensor)

    def average_buffers(self, network: nn.Module) -> None:
        """Replace the running statistics by their mean over all processes: each has seen its own images."""
        if self.count > 1:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    distributed.all_reduce(buffer)
                    buffer.div_(self.count)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in the order of their numbers, on every one of them."""
        if self.count == 1:
            return rows
        parts: list[Any] = [None] * self.count
        distributed.all_gather_object(parts, rows.cpu())
        return torch.cat(parts).to(rows.device)

    def from_first(self, value: Anything) -> Anything:
        """What `value` is in the first process."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]


SINGLE = DistContext(0, 1)


def is_launched() -> bool:
    """Whether this process is one of several that were started together, by `start` or by `torchrun`."""
    return "RANK" in os.environ


@contextmanager
def init_distributed(devices: int) -> Iterator[DistContext]:
    """Meet the other processes, if there are any.

    Raises:
        InputError: where they are not as many as `devices`, or when one of them ends early.
    """
    if not is_launched():
        yield SINGLE
        return
    processes = DistContext(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if processes.count != devices:
        raise InputError(f"torchrun started {processes.count} processes, but devices is {devices} in params.yaml")
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield processes
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            said = str(error).partition("\n")[0]
            raise InputError(f"process {processes.rank} lost the others ({said})") from None
        raise
    finally:
        distributed.destroy_process_group()


def launch(devices: int, module: str) -> None:
    """Run `python -m module` once for each of `devices` on this machine, and wait until all have ended.

    Raises:
        InputError: where there are too few GPUs, or when one of the processes is killed; the others are stopped then.
        SystemExit: when one of them fails, which then has said why.
    """
    gpus = torch.cuda.device_count()
    if 0 < gpus < devices:
        raise InputError(
            f"devices is {devices}, and this machine has {gpus}: lower devices, or start the training on all machines "
            f"with torchrun (README.md, Several GPUs)"
        )
    # What PyTorch logs of a failure is for its developers; the messages below say it.
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
