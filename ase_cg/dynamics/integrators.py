"""Integrators: one time step as a pure function of [replica, bead] tensors."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from ase_cg.errors import InputError, hint

EnergyAndForces = Callable[[Tensor], tuple[Tensor, Tensor]]
Advanced = tuple[Tensor, Tensor, Tensor, Tensor]
IntegratorName = Literal["langevin", "overdamped", "verlet"]


class Integrator(Protocol):
    """A rule that advances R replicas of N beads by one time step.

    It changes nothing in place, reads no value on the host and takes no decision that depends on the data, so that
    a whole step can be traced into one graph. What differs among replicas are tensors of shape (R, 1, 1).
    """

    @property
    def reach(self) -> Tensor:
        """Time in ASE time units whose product with the fastest frequency ω must stay below 2; shape (R, 1, 1)."""

    def advance(
        self, positions: Tensor, velocities: Tensor, forces: Tensor, noise: Tensor, energy_and_forces: EnergyAndForces
    ) -> Advanced:
        """Return positions, velocities, forces and energies one step later.

        Parameters
        ----------
        positions, velocities, forces : Tensor, shape (R, N, 3)
            In Å, Å per ASE time unit, and eV/Å, in double precision; the forces are those at `positions`.
        noise : Tensor, shape (R, N, 3)
            Standard normal numbers.
        energy_and_forces : callable
            Gives energies (R,) in eV and forces (R, N, 3) at positions; called once.
        """


@dataclass(frozen=True)
class BAOAB:
    """The BAOAB splitting of Langevin dynamics, one force evaluation a step.

    ======  ==========================================================
    B       v ← v + (Δt/2) F/m
    A       x ← x + (Δt/2) v
    O       v ← c v + √(1 − c²) √(kT/m) ξ,  c = exp(−γΔt)  (exact)
    A, B    as above, with the force at the new positions
    ======  ==========================================================

    In a harmonic well of frequency ω it is stable for ωΔt < 2; then ⟨x²⟩ = kT/(mω²) is exact, positions and
    velocities after a step are uncorrelated, and m⟨v²⟩ = kT (1 − (ωΔt)²/4): the thermometer reads low.
    Source: Leimkuhler and Matthews, J. Chem. Phys. 138, 174102 (2013).

    Parameters
    ----------
    time_step : float
        Δt in ASE time units.
    masses : Tensor, shape (N, 1)
        In amu.
    kT : Tensor, shape (R, 1, 1)
        In eV.
    friction : Tensor, shape (R, 1, 1)
        γ in inverse ASE time units.
    """

    time_step: float
    masses: Tensor
    kT: Tensor
    friction: Tensor
    # Constants of the step, made once: (N, 1), (R, 1, 1), (R, N, 1).
    _kick: Tensor = field(init=False, repr=False)
    _decay: Tensor = field(init=False, repr=False)
    _thermal: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        decay = torch.exp(-self.friction * self.time_step)
        object.__setattr__(self, "_kick", 0.5 * self.time_step / self.masses)
        object.__setattr__(self, "_decay", decay)
        object.__setattr__(self, "_thermal", torch.sqrt((1 - decay * decay) * self.kT / self.masses))

    @property
    def reach(self) -> Tensor:
        """The time step, shape (R, 1, 1)."""
        return torch.full_like(self.kT, self.time_step)

    def advance(
        self, positions: Tensor, velocities: Tensor, forces: Tensor, noise: Tensor, energy_and_forces: EnergyAndForces
    ) -> Advanced:
        """Return positions, velocities, forces and energies one step later; see :class:`Integrator`."""
        kicked = velocities + self._kick * forces
        turned = self._decay * kicked + self._thermal * noise
        moved = positions + 0.5 * self.time_step * (kicked + turned)
        energies, new_forces = energy_and_forces(moved)
        return moved, turned + self._kick * new_forces, new_forces, energies


@dataclass(frozen=True)
class OverdampedLangevin:
    """Brownian dynamics by the scheme of Leimkuhler and Matthews, one force evaluation a step.

    x ← x + Δt F/(mγ) + √(kT Δt/(2mγ)) (ξₙ + ξₙ₊₁): each random vector serves in two steps, which makes averages over
    positions exact to second order in Δt (those of a harmonic well exactly) at the cost of the Euler scheme.
    It is the limit of BAOAB for infinite friction, with h = √(2Δt/γ) in the place of its time step: what stands here
    for velocities is BAOAB's, √(kT/m) ξₙ + (h/2) F/m. They carry ξₙ to the next step, are uncorrelated with the
    positions in a harmonic well, and say nothing about the speed of the beads. Stable for ωh < 2.
    Source: Leimkuhler and Matthews, Appl. Math. Res. eXpress 2013, 34 (2013).

    Parameters
    ----------
    time_step, masses, kT, friction
        As in :class:`BAOAB`; the friction must be positive.
    """

    time_step: float
    masses: Tensor
    kT: Tensor
    friction: Tensor
    # Constants of the step, made once: (R, 1, 1), (R, N, 1), (R, N, 1).
    _half: Tensor = field(init=False, repr=False)
    _kick: Tensor = field(init=False, repr=False)
    _thermal: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        half = 0.5 * torch.sqrt(2 * self.time_step / self.friction)
        object.__setattr__(self, "_half", half)
        object.__setattr__(self, "_kick", half / self.masses)
        object.__setattr__(self, "_thermal", torch.sqrt(self.kT / self.masses))

    @property
    def reach(self) -> Tensor:
        """The time h = √(2Δt/γ), shape (R, 1, 1)."""
        return 2 * self._half

    def advance(
        self, positions: Tensor, velocities: Tensor, forces: Tensor, noise: Tensor, energy_and_forces: EnergyAndForces
    ) -> Advanced:
        """Return positions, velocities, forces and energies one step later; see :class:`Integrator`."""
        thermal = self._thermal * noise
        moved = positions + self._half * (velocities + self._kick * forces + thermal)
        energies, new_forces = energy_and_forces(moved)
        return moved, thermal + self._kick * new_forces, new_forces, energies


@dataclass(frozen=True)
class VelocityVerlet:
    """Velocity Verlet at constant energy: reversible, its energy error of second order in Δt; needs no noise.

    Parameters
    ----------
    time_step, masses, kT
        As in :class:`BAOAB`; kT is that of the starting velocities.
    """

    time_step: float
    masses: Tensor
    kT: Tensor
    _kick: Tensor = field(init=False, repr=False)  # constant of the step, (N, 1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_kick", 0.5 * self.time_step / self.masses)

    @property
    def reach(self) -> Tensor:
        """The time step, shape (R, 1, 1)."""
        return torch.full_like(self.kT, self.time_step)

    def advance(
        self, positions: Tensor, velocities: Tensor, forces: Tensor, noise: Tensor, energy_and_forces: EnergyAndForces
    ) -> Advanced:
        """Return positions, velocities, forces and energies one step later; see :class:`Integrator`."""
        del noise
        kicked = velocities + self._kick * forces
        moved = positions + self.time_step * kicked
        energies, new_forces = energy_and_forces(moved)
        return moved, kicked + self._kick * new_forces, new_forces, energies


def make_integrator(name: str, time_step: float, masses: Tensor, kT: Tensor, friction: Tensor) -> Integrator:
    """Make an integrator by its name: ``langevin``, ``overdamped`` or ``verlet``.

    Raises
    ------
    InputError
        If the name is another, or overdamped dynamics lack friction.
    """
    check_integrator(name)
    if name == "verlet":
        return VelocityVerlet(time_step, masses, kT)
    if name == "langevin":
        return BAOAB(time_step, masses, kT, friction)
    if not bool((friction > 0).all()):
        raise InputError("overdamped dynamics need a positive friction")
    return OverdampedLangevin(time_step, masses, kT, friction)


def check_integrator(name: str) -> None:
    """Raise :class:`InputError` if no integrator has this name."""
    known = get_args(IntegratorName)
    if name not in known:
        raise InputError(f"unknown integrator {name!r}; {hint(name, known)}")
