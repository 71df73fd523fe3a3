"""Harmonic bonds and angles, fitted from mean and variance."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.data.graph import BeadGraph
from ase_cg.models.priors.base import BondedPrior
from ase_cg.models.priors.geometry import angle_cosines, bond_angles, bond_lengths


class HarmonicPrior(BondedPrior):
    """Σ k (q − q₀)² over bonded tuples, with k and q₀ for each sequence of bead types.

    Parameters
    ----------
    types : Tensor, shape (p, width)
        See :class:`ase_cg.models.priors.base.BondedPrior`.
    stiffness : Tensor, shape (p,)
        k in eV per squared unit of q.
    equilibrium : Tensor, shape (p,)
        q₀.
    n_types : int
        Size of the vocabulary.
    directed : bool
        Whether a sequence and its reverse differ.
    """

    parameter_names = ("stiffness", "equilibrium")
    stiffness: Tensor
    equilibrium: Tensor

    def __init__(
        self, types: Tensor, stiffness: Tensor, equilibrium: Tensor, n_types: int, *, directed: bool = False
    ) -> None:
        super().__init__(types, {"stiffness": stiffness, "equilibrium": equilibrium}, n_types, directed=directed)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], n_types: int) -> Self:
        """Make the term from its types and parameters."""
        return cls(tensors["types"], tensors["stiffness"], tensors["equilibrium"], n_types, **settings)

    @classmethod
    def fit_one(cls, samples: NDArray[np.float64], kT: float, options: Any) -> dict[str, Any]:
        """Return k = kT/(2 var q) and q₀ = mean q."""
        del options
        return {"stiffness": kT / (2 * samples.var()), "equilibrium": samples.mean()}

    def tuple_energies(self, graph: BeadGraph, rows: Tensor) -> Tensor:
        """Return k (q − q₀)² in eV, shape (m,)."""
        deviation = self.internal_coordinate(graph) - self.equilibrium[rows]
        return self.stiffness[rows] * deviation * deviation


class HarmonicBonds(HarmonicPrior):
    """k (r − r₀)² over bonds: k in eV/Å², r in Å."""

    name = "bonds"
    width = 2

    @classmethod
    def members(cls, graph: BeadGraph) -> Tensor:
        """Return the bonds, shape (2, b)."""
        return graph.bonds

    @classmethod
    def internal_coordinate(cls, graph: BeadGraph) -> Tensor:
        """Return bond lengths in Å, shape (b,)."""
        return bond_lengths(graph)


class HarmonicAngles(HarmonicPrior):
    """k (θ − θ₀)² over bonded triples: k in eV/rad², θ in rad."""

    name = "angles"
    width = 3

    @classmethod
    def members(cls, graph: BeadGraph) -> Tensor:
        """Return the triples, shape (3, a), the vertex in the middle."""
        return graph.angles

    @classmethod
    def internal_coordinate(cls, graph: BeadGraph) -> Tensor:
        """Return angles in rad, shape (a,)."""
        return bond_angles(graph)


class CosineAngles(HarmonicAngles):
    """k (cos θ − cos θ₀)² over bonded triples: k in eV; smooth where the three beads lie on a line."""

    name = "cosine_angles"

    @classmethod
    def internal_coordinate(cls, graph: BeadGraph) -> Tensor:
        """Return cosines of angles, shape (a,)."""
        return angle_cosines(graph)
