"""Several processes that train one model together, as torchrun or SLURM started them."""

import torch


def process_rank() -> int:
    """Return the number of this process among those that train together; 0 where it is alone."""
    return torch.distributed.get_rank() if _together() else 0


def process_count() -> int:
    """Return how many processes train together."""
    return torch.distributed.get_world_size() if _together() else 1


def own_rows(count: int) -> slice:
    """Return which of so many frames of a batch are those of this process: every process takes its turn."""
    return slice(process_rank(), count, process_count())


def _together() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
