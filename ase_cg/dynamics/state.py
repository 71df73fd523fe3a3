"""Where all replicas are."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class State(NamedTuple):
    """R replicas of N beads at one time.

    Attributes
    ----------
    positions, velocities, forces : Tensor, shape (R, N, 3)
        In Å, Å per ASE time unit, and eV/Å.
    energies : Tensor, shape (R,)
        In eV.
    """

    positions: Tensor
    velocities: Tensor
    forces: Tensor
    energies: Tensor

    def copied(self) -> "State":
        """Return the same values in memory of their own."""
        return State(*(tensor.clone() for tensor in self))

    def rows_from(self, other: "State", rows: Tensor) -> "State":
        """Return the state with some rows, (R,) bool, of another state."""
        wide = rows[:, None, None]
        return State(
            torch.where(wide, other.positions, self.positions),
            torch.where(wide, other.velocities, self.velocities),
            torch.where(wide, other.forces, self.forces),
            torch.where(rows, other.energies, self.energies),
        )


def on_host(tensor: Tensor) -> NDArray[np.float64]:
    """Return a tensor as an array of its own, on the host."""
    return np.array(tensor.cpu().numpy())
