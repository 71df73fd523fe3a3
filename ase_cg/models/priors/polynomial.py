"""Angles as polynomials."""

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.data.graph import BeadGraph
from ase_cg.models.priors.base import BondedPrior
from ase_cg.models.priors.geometry import angle_cosines, bond_angles

BINS = 60  # of the histogram
EMPTY = 0.5  # counts of a bin without any
POPULATED = 0.001  # of the frames: quantiles at both ends between which the data live
GRID = 721  # angles from 0 to π at which the energy is looked at


class PolynomialAngles(BondedPrior):
    """c + Σ_n k_n (θ − θ₀)ⁿ over bonded triples, n = 1 … degree: c in eV, k_n in eV/radⁿ, θ in rad.

    Source of the form: mlcg (github ClementiGroup/mlcg), ``QuarticRawAngles``, which has θ₀ = 0.
    """

    name = "polynomial_angles"
    width = 3
    parameter_names = ("constant", "coefficients", "origin")
    scaled = ("constant", "coefficients")
    whole: ClassVar[tuple[float, float]] = (0.0, np.pi)
    constant: Tensor
    coefficients: Tensor
    origin: Tensor

    @classmethod
    def members(cls, graph: BeadGraph) -> Tensor:
        """Return the triples, shape (3, a), the vertex in the middle."""
        return graph.angles

    @classmethod
    def internal_coordinate(cls, graph: BeadGraph) -> Tensor:
        """Return angles in rad, shape (a,)."""
        return bond_angles(graph)

    @classmethod
    def measure(cls, q: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the density of q where there is no energy: sin θ."""
        return np.sin(q)

    @classmethod
    def fit_one(cls, samples: NDArray[np.float64], kT: float, options: Any) -> dict[str, Any]:
        """Return the polynomial nearest to −kT ln(p(q)/measure), each bin of the histogram weighted by its population.

        Empty bins count as half a sample. The degree is lowered, the other coefficients being zero, until the lowest
        energy of all angles is where the data live; the constant makes it zero there.
        """
        counts, edges = np.histogram(samples, bins=BINS, range=cls.whole)
        q = 0.5 * (edges[1:] + edges[:-1])
        filled = np.maximum(counts, EMPTY)
        energy = -kT * np.log(filled / cls.measure(q))
        origin = float(samples.mean())
        low, high = np.quantile(samples, [POPULATED, 1 - POPULATED])
        grid = np.linspace(*cls.whole, GRID)
        inside = (grid >= low) & (grid <= high)
        for degree in range(options.degree, 0, -1):
            polynomial = np.polynomial.Polynomial.fit(q - origin, energy, degree, w=np.sqrt(filled)).convert()
            values = polynomial(grid - origin)
            if values[inside].min(initial=np.inf) <= values.min():
                break
        found = np.zeros(options.degree + 1)
        found[: len(polynomial.coef)] = polynomial.coef
        return {"constant": found[0] - values.min(), "coefficients": found[1:], "origin": origin}

    def tuple_energies(self, graph: BeadGraph, rows: Tensor) -> Tensor:
        """Return the energy of each angle in eV, shape (a,)."""
        q = self.internal_coordinate(graph) - self.origin[rows]
        coefficients = self.coefficients[rows]
        energy = torch.zeros_like(q)
        for n in reversed(range(coefficients.shape[-1])):
            energy = (energy + coefficients[:, n]) * q
        return energy + self.constant[rows]


class PolynomialCosineAngles(PolynomialAngles):
    """c + Σ_n k_n (cos θ − q₀)ⁿ over bonded triples: c and k_n in eV; smooth where the three beads lie on a line.

    Source of the form: mlcg (github ClementiGroup/mlcg), ``QuarticAngles``, which has q₀ = 0.
    """

    name = "polynomial_cosine_angles"
    whole: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    @classmethod
    def internal_coordinate(cls, graph: BeadGraph) -> Tensor:
        """Return cosines of angles, shape (a,)."""
        return angle_cosines(graph)

    @classmethod
    def measure(cls, q: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the density of cos θ where there is no energy, which is even."""
        return np.ones_like(q)
