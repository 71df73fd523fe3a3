"""Random numbers of a simulation: each a function of a seed, a number and a place, of nothing else."""

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.seeds import checked_seed

NUMBERS_PER_BLOCK = 12288  # of a replica: 100 kB, 0.1 ms to draw

Use = Literal["noise", "velocities", "exchanges", "starts"]
_USES: dict[Use, int] = {"noise": 0, "velocities": 1, "exchanges": 2, "starts": 3}


def random_key(seed: int, number: int = 0) -> NDArray[np.uint64]:
    """Return the key of a family of random numbers, shape (2,): another for every seed and replica number.

    Raises
    ------
    InputError
        If the seed is no whole number from 0 to 2⁶⁴ − 1.
    """
    seed = checked_seed(seed)
    return np.random.SeedSequence(seed, spawn_key=(number,)).generate_state(2, np.uint64).astype(np.uint64)


def generator(key: NDArray[np.uint64], use: Use, place: int = 0) -> np.random.Generator:
    """Return the generator of the numbers for one use at one place (a block of steps, an exchange).

    Philox counts instead of carrying a state: any place is reached at once, in any order.
    Source: Salmon et al., SC11 (2011).
    """
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, _USES[use], place]))


class NoiseBlocks:
    """Standard normal numbers for the steps of R replicas of N beads, drawn in blocks, the next in the background.

    The numbers of a step depend on the replica's key and the step only.

    Parameters
    ----------
    keys : sequence of ndarray
        One for each replica, of :func:`random_key`.
    n_beads : int
    device : torch.device
    """

    def __init__(self, keys: Sequence[NDArray[np.uint64]], n_beads: int, device: torch.device) -> None:
        self.keys = list(keys)
        self.steps_per_block = max(1, NUMBERS_PER_BLOCK // (3 * n_beads))
        self._shape = (self.steps_per_block, n_beads, 3)
        self._device = device
        self._block: tuple[int, Tensor] | None = None
        self._next: tuple[int, Future[Tensor]] | None = None
        self._executor: ThreadPoolExecutor | None = None

    def steps(self, first: int, n_steps: int) -> Sequence[Tensor]:
        """Return the noise of some steps of one block, each (R, N, 3): `n_steps`, or as many as the block has left."""
        number, row = divmod(first, self.steps_per_block)
        return self._get(number)[row : row + n_steps].unbind(0)

    def _get(self, number: int) -> Tensor:
        if self._block is None or self._block[0] != number:
            waiting = self._next is not None and self._next[0] == number
            host = self._next[1].result() if waiting and self._next else self._draw(number)
            self._block = (number, host.to(self._device, non_blocking=True))
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, thread_name_prefix="ase-cg-noise")
            self._next = (number + 1, self._executor.submit(self._draw, number + 1))
        return self._block[1]

    def _draw(self, number: int) -> Tensor:
        count = self._shape[0] * self._shape[1] * 3
        drawn = torch.empty(len(self.keys), count + count % 2)
        bits = np.random.Philox()
        state: Any = bits.state
        for key, out in zip(self.keys, drawn, strict=True):
            # The counter of `generator`, without making one for every replica.
            state["state"] = {"counter": np.array([0, 0, _USES["noise"], number], np.uint64), "key": key}
            state |= {"buffer_pos": 4, "has_uint32": 0}
            bits.state = state
            box_muller(torch.from_numpy(bits.random_raw(len(out) // 2).view(np.int32)), out)
        rows = drawn[:, :count].reshape(len(drawn), *self._shape).transpose(0, 1)
        block = rows.to(torch.float64, memory_format=torch.contiguous_format)
        return block.pin_memory() if self._device.type == "cuda" else block


def box_muller(bits: Tensor, out: Tensor) -> None:
    """Turn random bits, int32 of shape (n,) with n even, into standard normal numbers `out`, float32 of shape (n,).

    One replica at a time: how PyTorch rounds must not depend on how many there are. The largest number is 6.7.
    Source: Box and Muller, Ann. Math. Stat. 29, 610 (1958).
    """
    half = len(out) // 2
    radius = (bits[:half] & 0x7FFFFFFF).float().add_(0.5).mul_(2.0**-31)
    radius.log_().mul_(-2).sqrt_()
    angle = bits[half:].float().mul_(math.pi * 2.0**-31)
    torch.mul(radius, torch.cos(angle), out=out[:half])
    torch.mul(radius, angle.sin_(), out=out[half:])
