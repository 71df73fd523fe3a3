"""Histograms and free-energy surfaces."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_cg.errors import InputError

MARGIN = 0.1


@dataclass(frozen=True)
class Histogram:
    """Weights of frames on one grid, counted for several trajectories apart, so that they can be resampled.

    Parameters
    ----------
    counts : ndarray, shape (T, bins) or (T, features, bins)
        Of each of T trajectories, or blocks of them; a two-dimensional grid is flattened.
    """

    counts: NDArray[np.float64]

    def probabilities(self, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return the probability of each bin, shape (bins,) or (features, bins), trajectories weighted by (T,)."""
        total = self.counts.sum(0) if weights is None else np.tensordot(weights, self.counts, axes=1)
        sums = total.sum(-1, keepdims=True)
        if not (sums > 0).all():
            raise InputError("no frame falls on the grid")
        return np.asarray(total / sums)


@dataclass(frozen=True)
class Plane:
    """Two coordinates and their grid.

    Parameters
    ----------
    name : str
        ``ramachandran``, ``tica`` or ``pca``.
    labels : tuple of (str, str)
        Of the axes, with units.
    x_edges, y_edges : ndarray, shape (bins + 1,)
    """

    name: str
    labels: tuple[str, str]
    x_edges: NDArray[np.float64]
    y_edges: NDArray[np.float64]

    @classmethod
    def ramachandran(cls, bins: int) -> "Plane":
        """Return the plane of φ and ψ in radians, −π … π."""
        edges = np.linspace(-np.pi, np.pi, bins + 1)
        return cls("ramachandran", ("φ", "ψ"), edges, edges)

    @classmethod
    def around(cls, name: str, labels: tuple[str, str], points: NDArray[np.float64], bins: int) -> "Plane":
        """Return the plane that holds all points (F, 2) with a margin of a tenth to every side."""
        low, high = points.min(0), points.max(0)
        margin = MARGIN * np.where(high > low, high - low, 1.0)
        edges = [np.linspace(a, b, bins + 1) for a, b in zip(low - margin, high + margin, strict=True)]
        return cls(name, labels, edges[0], edges[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Number of bins along each axis."""
        return len(self.x_edges) - 1, len(self.y_edges) - 1

    def count(self, points: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return the weights of points (F, 2) in the flattened grid, and at the end of all that lie outside."""
        inside = np.histogram2d(points[:, 0], points[:, 1], bins=[self.x_edges, self.y_edges], weights=weights)[0]
        total = float(len(points)) if weights is None else float(weights.sum())
        return np.append(inside.ravel(), max(0.0, total - inside.sum()))

    def surface(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the free energy in kT on the grid, shape (x bins, y bins), of what :meth:`count` gave."""
        return free_energy(probabilities[:-1].reshape(self.shape))


def free_energy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return −ln p in kT with its minimum at 0; infinite where p is 0. Any shape."""
    with np.errstate(divide="ignore"):
        surface = -np.log(probabilities)
    return np.asarray(surface - surface.min())
