"""Restricted bending: angles that never become straight, so that dihedrals stay defined."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.data.graph import BeadGraph
from ase_cg.models.priors.base import BondedPrior
from ase_cg.models.priors.geometry import angle_cosines, bond_angles

SMALL_SINE = 1e-6  # of sin² θ


class RestrictedBending(BondedPrior):
    """k (cos θ − cos θ₀)²/sin² θ over bonded triples: k in eV.

    Near θ₀ it is k (θ − θ₀)², and it diverges towards 0 and π (Bulacu et al., J. Chem. Theory Comput. 9, 3282 (2013)).
    """

    name = "restricted_bending"
    width = 3
    parameter_names = ("stiffness", "equilibrium")
    stiffness: Tensor
    equilibrium: Tensor

    @classmethod
    def members(cls, graph: BeadGraph) -> Tensor:
        """Return the triples, shape (3, a), the vertex in the middle."""
        return graph.angles

    @classmethod
    def internal_coordinate(cls, graph: BeadGraph) -> Tensor:
        """Return angles in rad, shape (a,)."""
        return bond_angles(graph)

    @classmethod
    def fit_one(cls, samples: NDArray[np.float64], kT: float, options: Any) -> dict[str, Any]:
        """Return k = kT/(2 var θ) and θ₀ = mean θ."""
        del options
        return {"stiffness": kT / (2 * samples.var()), "equilibrium": samples.mean()}

    def tuple_energies(self, graph: BeadGraph, rows: Tensor) -> Tensor:
        """Return the energy of each angle in eV, shape (a,)."""
        cosine = angle_cosines(graph)
        deviation = cosine - torch.cos(self.equilibrium[rows])
        energies: Tensor = self.stiffness[rows] * deviation**2 / (1 - cosine**2).clamp_min(SMALL_SINE)
        return energies
