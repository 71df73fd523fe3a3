"""Several processes that train one model together, as torchrun or SLURM started them."""

import datetime as dt
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch

from ase_cg.errors import InputError, reason

T = TypeVar("T")
# While the first process simulates for validation, the others wait for it: longer than the 30 minutes of gloo.
LONGEST_WAIT = dt.timedelta(days=1)


class Launch(NamedTuple):
    """Processes that were started together.

    Attributes
    ----------
    environment : lightning.fabric.plugins.environments.ClusterEnvironment
        Tells Lightning which of them this one is.
    processes_a_node, nodes : int
    """

    environment: Any
    processes_a_node: int
    nodes: int


def find_launch() -> Launch | None:
    """Return how torchrun or ``srun`` started this process with others, or None where it is alone.

    Raises
    ------
    InputError
        If ``srun`` was given options that do not go together.
    """
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if TorchElasticEnvironment.detect():
        count, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        return Launch(TorchElasticEnvironment(), local, count // local) if count > 1 else None
    # Set for tasks that srun starts; a script that runs beside them has the number of tasks of the job only.
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1 and SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", os.environ.get("SLURM_NNODES", "1")))
        try:
            return Launch(SLURMEnvironment(auto_requeue=False), tasks // nodes, nodes)
        except RuntimeError as error:  # which srun options do not go together
            raise InputError(reason(error)) from error
    return None


@contextmanager
def training_together(device: torch.device) -> Iterator[Launch | None]:
    """Connect the processes that were started together, if there are several, within this block."""
    launch = find_launch()
    if launch is None or _together():
        yield launch
        return
    environment = launch.environment
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        init_method=f"tcp://{environment.main_address}:{environment.main_port}" if _by_slurm(environment) else "env://",
        rank=environment.global_rank(),
        world_size=environment.world_size(),
        timeout=LONGEST_WAIT,
    )
    try:
        yield launch
    finally:
        torch.distributed.destroy_process_group()


def process_rank() -> int:
    """Return the number of this process among those that train together; 0 where it is alone."""
    return torch.distributed.get_rank() if _together() else 0


def process_count() -> int:
    """Return how many processes train together."""
    return torch.distributed.get_world_size() if _together() else 1


def own_rows(count: int) -> slice:
    """Return which of so many frames of a batch are those of this process: every process takes its turn."""
    return slice(process_rank(), count, process_count())


def on_first_process(work: Callable[[], T]) -> T:
    """Do something on the first process only, and return there and on all others what it returned.

    Raises
    ------
    InputError
        On all processes, if the first met one.
    """
    if process_count() == 1:
        return work()
    found: list[Any] = [None, None]
    if process_rank() == 0:
        try:
            found[0] = work()
        except InputError as error:
            found[1] = str(error)
    torch.distributed.broadcast_object_list(found, src=0)
    if found[1] is not None:
        raise InputError(found[1])
    result: T = found[0]
    return result


def wait_for_all() -> None:
    """Wait until all processes that train together are here."""
    if process_count() > 1:
        torch.distributed.barrier()


def _together() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _by_slurm(environment: Any) -> bool:
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    return isinstance(environment, SLURMEnvironment)
