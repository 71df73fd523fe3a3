"""Seeds of random numbers: whole numbers of 64 bits, every one of them another."""

import operator
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator

from ase_cg.errors import InputError

SEEDS = 2**64  # how many there are
TORCH_BITS = 2**32  # what PyTorch's generator on a processor looks at


def checked_seed(seed: Any) -> int:
    """Return a seed as it was given.

    Raises
    ------
    InputError
        If it is no whole number from 0 to 2⁶⁴ − 1. Numbers with a decimal point are none: above 2⁵³ they would be
        rounded to another seed.
    """
    try:
        whole = operator.index(seed)
    except TypeError:
        whole = -1
    if isinstance(seed, bool | np.bool_) or not 0 <= whole < SEEDS:
        raise InputError(f"a seed is a whole number from 0 to 2⁶⁴ − 1, and must not be negative, not {seed!r}")
    return whole


def torch_seed(seed: int) -> int:
    """Return what to give to :meth:`torch.Generator.manual_seed` so that other seeds give other numbers.

    PyTorch takes 64 bits and, on a processor, uses the lower half: seeds that differ by 2³² would be one.
    """
    seed = checked_seed(seed)
    return seed if seed < TORCH_BITS else int(np.random.SeedSequence(seed).generate_state(1)[0])


Seed = Annotated[int, BeforeValidator(checked_seed)]
"""A seed in a section of settings."""
