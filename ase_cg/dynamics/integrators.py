"""Langevin integration on [replica, bead] tensors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ForceFunction = Callable[[Tensor], Tensor]


@dataclass
class LangevinState:
    """Positions, velocities and forces of R replicas of N beads.

    Attributes
    ----------
    positions : Tensor, shape (R, N, 3)
        In Å.
    velocities : Tensor, shape (R, N, 3)
        In Å per ASE time unit.
    forces : Tensor, shape (R, N, 3)
        At `positions`, in eV/Å.
    """

    positions: Tensor
    velocities: Tensor
    forces: Tensor


@dataclass(frozen=True)
class BAOAB:
    """The BAOAB splitting of Langevin dynamics, one force evaluation a step.

    ======  ==========================================================
    B       v ← v + (Δt/2) F/m
    A       x ← x + (Δt/2) v
    O       v ← c v + √(1 − c²) √(kT/m) ξ,  c = exp(−γΔt)  (exact)
    A, B    as above, with the force at the new positions
    ======  ==========================================================

    Source: Leimkuhler and Matthews, J. Chem. Phys. 138, 174102 (2013). For a harmonic potential its
    configurational distribution is exact at any stable step.

    Parameters
    ----------
    time_step : float
        Δt in ASE time units.
    masses : Tensor, shape (N, 1)
        In amu.
    kT : Tensor, shape (R, 1, 1)
        In eV.
    friction : Tensor, shape (R, 1, 1)
        γ in inverse ASE time units; 0 gives velocity Verlet.
    """

    time_step: float
    masses: Tensor
    kT: Tensor
    friction: Tensor

    def step(self, state: LangevinState, noise: Tensor, force: ForceFunction) -> None:
        """Advance a state by one step in place; `noise` is standard normal, (R, N, 3)."""
        half = 0.5 * self.time_step
        decay = torch.exp(-self.friction * self.time_step)
        thermal = torch.sqrt((1 - decay * decay) * self.kT / self.masses)
        velocities = state.velocities + half * state.forces / self.masses
        positions = state.positions + half * velocities
        velocities = decay * velocities + thermal * noise
        state.positions = positions + half * velocities
        state.forces = force(state.positions)
        state.velocities = velocities + half * state.forces / self.masses
