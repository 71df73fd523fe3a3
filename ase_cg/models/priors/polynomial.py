"""Angles as polynomials."""

import math
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.polynomial import Legendre
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.data.graph import BeadGraph
from ase_cg.models.priors.base import BondedPrior
from ase_cg.models.priors.geometry import angle_cosines, bond_angles

BINS = 60  # of the histogram
POPULATED = 0.001  # of the frames: quantiles at both ends between which the data live
SLOPE = 1e-6  # relative; what the solver leaves of a slope that should not be negative
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

        Of all polynomials that do not fall towards the ends of the range of q, outside the data: what the data never
        showed must be no basin. The constant makes the lowest energy zero.
        """
        low, high = np.quantile(samples, [POPULATED, 1 - POPULATED])
        counts, edges = np.histogram(samples, bins=BINS, range=(low, high))
        q, seen = 0.5 * (edges[1:] + edges[:-1]), counts > 0
        energy = -kT * np.log(counts[seen] / cls.measure(q[seen]))
        outside = np.linspace(*cls.whole, GRID)
        outside = outside[(outside < low) | (outside > high)]
        polynomial = _rising(q[seen], energy / kT, np.sqrt(counts[seen]), outside, (low, high), options.degree)
        origin = float(samples.mean())
        shifted = np.zeros(options.degree + 1)
        # As a series in q − q₀: its derivatives there, divided by n!.
        for n in range(options.degree + 1):
            shifted[n] = kT * polynomial.deriv(n)(origin) / math.factorial(n)
        lowest = kT * polynomial(np.linspace(low, high, GRID)).min()
        return {"constant": shifted[0] - lowest, "coefficients": shifted[1:], "origin": origin}

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


def _rising(
    q: NDArray[np.float64],
    energy: NDArray[np.float64],
    weight: NDArray[np.float64],
    outside: NDArray[np.float64],
    window: tuple[float, float],
    degree: int,
) -> Legendre:
    """Return the series of least squares that rises away from a window at all points outside it."""
    from scipy.optimize import minimize

    basis = [Legendre.basis(n, domain=window) for n in range(degree + 1)]
    design = np.stack([one(q) for one in basis], axis=1) * weight[:, None] / weight.max()
    target = energy * weight / weight.max()
    away = np.where(outside > 0.5 * sum(window), 1.0, -1.0)
    slopes = np.stack([one.deriv()(outside) for one in basis], axis=1) * away[:, None]
    slopes /= np.abs(slopes).max(axis=1, keepdims=True)  # far from the window they are of any size
    free = np.linalg.lstsq(design, target, rcond=None)[0]
    if (slopes @ free >= 0).all():
        return Legendre(free, domain=window)
    normal, right = design.T @ design, design.T @ target
    # A parabola about the middle of the window rises everywhere.
    start = np.zeros(degree + 1)
    start[2] = 1.0
    found = minimize(
        lambda c: 0.5 * c @ normal @ c - right @ c,
        start,
        jac=lambda c: normal @ c - right,
        constraints={"type": "ineq", "fun": lambda c: slopes @ c, "jac": lambda _: slopes},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-10},
    )
    if found.success and (slopes @ found.x > -SLOPE).all():
        return Legendre(found.x, domain=window)
    # A lower degree is always possible: of two, an open parabola.
    return Legendre(start, domain=window) if degree == 2 else _rising(q, energy, weight, outside, window, degree - 1)
