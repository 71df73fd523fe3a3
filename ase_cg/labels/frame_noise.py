"""Random numbers that belong to frames: the same in whatever batch, process or device a frame is met."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014): a counter that moves on by
# GAMMA, and a mixing function of 64 bits whose outputs pass the usual batteries of tests.
GAMMA = 0x9E3779B97F4A7C15
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS = (30, 27, 31)
LOW = 0xFFFFFFFF


class FrameNoise:
    """Standard normal numbers for each frame of a batch, drawn on the device that the frames are on.

    They are a function of the key, the frame's number, and how many were drawn before; nothing else.

    Parameters
    ----------
    key : sequence of int
        Not negative; such as a seed, an epoch and a molecule.
    frames : Tensor of int64, shape (B,)
        Number of each frame.
    """

    def __init__(self, key: Sequence[int], frames: Tensor) -> None:
        start = int(np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0])
        # Sums and products of 64-bit integers wrap around as those of unsigned ones do.
        self._streams = _mixed(frames * _signed(GAMMA) + _signed(start))
        self._drawn = 0

    def normal(self, like: Tensor) -> Tensor:
        """Draw numbers of the shape (B, …) and dtype of a tensor; each call gives others."""
        per_frame = math.prod(like.shape[1:])
        pairs = (per_frame + 1) // 2
        counter = torch.arange(self._drawn + 1, self._drawn + pairs + 1, device=like.device)
        self._drawn += pairs
        bits = _mixed(self._streams[:, None] + counter * _signed(GAMMA))
        # Box and Muller: each 64 bits give two uniform numbers, and those two normal ones.
        radius = (((_shifted(bits, 32).double() + 0.5) * 2.0**-32).log() * -2).sqrt()
        angle = (bits & LOW).double() * (2 * math.pi * 2.0**-32)
        values = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :per_frame]
        return values.reshape(like.shape).to(like.dtype)


def _mixed(bits: Tensor) -> Tensor:
    for shift, factor in zip(SHIFTS, FACTORS, strict=False):
        bits = (bits ^ _shifted(bits, shift)) * _signed(factor)
    return bits ^ _shifted(bits, SHIFTS[-1])


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Shift to the right as unsigned integers are, which PyTorch does not offer for 64 bits."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def _signed(value: int) -> int:
    """Return the signed integer of the same 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value
