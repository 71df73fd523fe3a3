"""Minimisation of many conformations at once."""

import torch
from torch import Tensor

from ase_cg.dynamics.integrators import EnergyAndForces

MAX_STEPS = 1000
TOLERANCE = 0.5  # eV/Å, largest force on a bead; thermal forces of bonds are as large
LONGEST_MOVE = 0.1  # Å a step and bead
FIRST_STEP, LARGEST_STEP = 0.05, 0.5  # of the pseudo-time, for unit masses
GROWTH, SHRINKING, MIXING, MIXING_DECAY, PATIENCE = 1.1, 0.5, 0.1, 0.99, 5


def minimize(energy_and_forces: EnergyAndForces, positions: Tensor, max_steps: int = MAX_STEPS) -> Tensor:
    """Relax R conformations by FIRE, each with a step length of its own.

    It stops when the forces on all beads are below 0.5 eV/Å: the aim is a start that dynamics can take over.
    Source: Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006).

    Parameters
    ----------
    energy_and_forces : callable
        See :class:`ase_cg.dynamics.integrators.Integrator`.
    positions : Tensor, shape (R, N, 3)
        In Å.
    max_steps : int

    Returns
    -------
    Tensor, shape (R, N, 3)
        In Å.
    """
    x = _apart(positions)
    v = torch.zeros_like(x)
    step = torch.full((len(x), 1, 1), FIRST_STEP, dtype=x.dtype, device=x.device)
    mixing = torch.full_like(step, MIXING)
    downhill = torch.zeros_like(step)
    for _ in range(max_steps):
        f = energy_and_forces(x)[1].clone()
        if bool((torch.linalg.vector_norm(f, dim=2) < TOLERANCE).all()):
            break
        power = (f * v).sum((1, 2), keepdim=True)
        falling = power > 0
        downhill = torch.where(falling, downhill + 1, 0.0)
        hurry = falling & (downhill > PATIENCE)
        step = torch.where(hurry, (GROWTH * step).clamp_max(LARGEST_STEP), torch.where(falling, step, SHRINKING * step))
        mixing = torch.where(hurry, MIXING_DECAY * mixing, torch.where(falling, mixing, MIXING))
        speed, force = (torch.sqrt((t * t).sum((1, 2), keepdim=True)) for t in (v, f))
        steered = (1 - mixing) * v + mixing * speed * f / force.clamp_min(1e-12)
        v = torch.where(falling, steered, 0.0) + step * f
        move = step * v
        longest = torch.linalg.vector_norm(move, dim=2, keepdim=True).amax(1, keepdim=True)
        short = (LONGEST_MOVE / longest.clamp_min(1e-12)).clamp_max(1.0)
        x, v = x + short * move, short * v
    return x


def _apart(positions: Tensor) -> Tensor:
    """Move beads by a hundredth of an Å: two at the same place have no direction to leave it in."""
    source = torch.Generator().manual_seed(0)
    shift = torch.randn(positions.shape[1:], generator=source, dtype=positions.dtype)
    return positions + 0.01 * shift.to(positions.device)
