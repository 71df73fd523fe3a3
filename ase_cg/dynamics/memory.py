"""What to say when the GPU has no room for so many replicas."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ase_cg.errors import InputError

SPARE = 0.9  # of the free memory may be used: allocators leave gaps


def replicas_that_fit(peak: Callable[[int], int], free: int) -> int:
    """Estimate how many replicas fit into `free` bytes.

    Parameters
    ----------
    peak : callable
        Gives the bytes in use at the worst moment of an evaluation with so many replicas.
    free : int
    """
    few, more = peak(1), peak(5)
    each = max((more - few) / 4, 1.0)
    return max(0, int((SPARE * free - (few - each)) // each))


@contextmanager
def out_of_memory_explained(
    n_replicas: int, n_beads: int, device: torch.device, evaluate: Callable[[int], object]
) -> Iterator[None]:
    """Turn PyTorch's error into a sentence that says how many replicas fit; `evaluate` tries with so many.

    Raises
    ------
    InputError
        Where the block runs out of the GPU's memory.
    """
    failed = False
    try:
        yield
    except torch.OutOfMemoryError:
        failed = True
    if not failed:
        return
    # Only now does nothing hold the tensors of the failed evaluation any more.
    try:
        fitting = _estimate(device, evaluate)
    except torch.OutOfMemoryError:
        fitting = 0
    advice = f"about {fitting} fit; run fewer at once" if fitting else "not even one fits; use --device cpu"
    raise InputError(f"the GPU has no memory for {n_replicas} replicas of {n_beads} beads: {advice}")


def _estimate(device: torch.device, evaluate: Callable[[int], object]) -> int:
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)

    def peak(replicas: int) -> int:
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        evaluate(replicas)
        return torch.cuda.max_memory_allocated(device) - before

    return replicas_that_fit(peak, free)
