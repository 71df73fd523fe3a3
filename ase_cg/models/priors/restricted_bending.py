"""Restricted bending: angles that never become straight, so that dihedrals stay defined."""

import torch
from torch import Tensor

from ase_cg.data.graph import BeadGraph
from ase_cg.models.priors.geometry import angle_cosines
from ase_cg.models.priors.harmonic import HarmonicAngles

SMALL_SINE = 1e-6  # of sin² θ


class RestrictedBending(HarmonicAngles):
    """k (cos θ − cos θ₀)²/sin² θ over bonded triples: k in eV.

    Near θ₀ it is the harmonic k (θ − θ₀)², and is fitted as such; it diverges towards 0 and π. Source: Bulacu et al.,
    J. Chem. Theory Comput. 9, 3282 (2013).
    """

    name = "restricted_bending"

    def tuple_energies(self, graph: BeadGraph, rows: Tensor) -> Tensor:
        """Return the energy of each angle in eV, shape (a,)."""
        cosine = angle_cosines(graph)
        deviation = cosine - torch.cos(self.equilibrium[rows])
        energies: Tensor = self.stiffness[rows] * deviation**2 / (1 - cosine**2).clamp_min(SMALL_SINE)
        return energies
