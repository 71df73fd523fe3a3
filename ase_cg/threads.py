"""How many CPU threads a piece of work is worth."""

from collections.abc import Iterator
from contextlib import contextmanager

# Measured with SchNet's defaults on two cores: 1920 edges take 34 ms with one thread and 24 ms with two, but 100 to
# 1000 ms with two where another process wants a core, because threads wait for each other by spinning.
EDGES_PER_THREAD = 4096


@contextmanager
def threads_for(edges: int) -> Iterator[None]:
    """Let PyTorch use as many threads as a batch of so many edges is worth, within this block only.

    Never more than it is set to use.
    """
    import torch

    before = torch.get_num_threads()
    worth = max(1, min(before, edges // EDGES_PER_THREAD))
    if worth == before:  # a call of PyTorch's costs a microsecond, and the calculator comes here at every step
        yield
        return
    torch.set_num_threads(worth)
    try:
        yield
    finally:
        torch.set_num_threads(before)
