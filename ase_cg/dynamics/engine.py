"""What the two engines share: how a simulation is advanced, looked at, saved and continued."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ase_cg.errors import SimulationError
from ase_cg.keys import MAX_FORCE


class Engine(Protocol):
    """Something that advances R replicas of N beads."""

    @property
    def positions(self) -> NDArray[np.float64]:
        """Current positions in Å, shape (R, N, 3)."""

    @property
    def velocities(self) -> NDArray[np.float64]:
        """Current velocities in Å per ASE time unit, shape (R, N, 3)."""

    def step(self, n_steps: int) -> None:
        """Advance all replicas by some time steps."""

    def save_state(self) -> tuple[dict[str, NDArray[Any]], str]:
        """Return arrays and a text from which :meth:`load_state` continues bit by bit."""

    def load_state(self, arrays: dict[str, NDArray[Any]], text: str) -> None:
        """Continue from a saved state."""


def check_finite(
    positions: NDArray[np.float64],
    forces: NDArray[np.float64],
    names: tuple[str, ...],
    step: int,
    last_good: NDArray[np.float64],
    last_step: int,
) -> None:
    """Raise :class:`SimulationError` if a position or a force (R, N, 3) is not finite, or a force is beyond sense.

    It names replica, bead and step, and carries the last good frame.
    """
    bad = np.argwhere(~np.isfinite(positions).all(-1) | ~(np.abs(forces) <= MAX_FORCE).all(-1))
    if len(bad):
        replica, bead = (int(i) for i in bad[0])
        raise SimulationError(
            f"the simulation left the model's range: replica {replica}, bead {bead} ({names[bead]}) has no finite "
            f"position, or a force beyond {MAX_FORCE:g} eV/Å, at step {step}; the last good frame is step {last_step}; "
            "a smaller time step or more data may help",
            last_good,
        )
