"""Histograms and free-energy surfaces."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_cg.errors import InputError


@dataclass(frozen=True)
class Histogram:
    """Counts of several trajectories on one grid, kept apart so that they can be resampled.

    Parameters
    ----------
    counts : ndarray, shape (T, bins)
        Of each of T trajectories; a two-dimensional grid is flattened.
    """

    counts: NDArray[np.float64]

    def probabilities(self, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return the probability of each bin, shape (bins,), trajectories weighted by `weights` (T,)."""
        total = self.counts.sum(0) if weights is None else weights @ self.counts
        if not total.sum() > 0:
            raise InputError("no frame falls on the grid")
        return np.asarray(total / total.sum())


def ramachandran_histogram(angles: list[NDArray[np.float64]], bins: int) -> Histogram:
    """Count (φ, ψ) in radians, one array (F, 2) a trajectory, on `bins` × `bins` over −π … π."""
    edges = np.linspace(-np.pi, np.pi, bins + 1)
    counts = [np.histogram2d(a[:, 0], a[:, 1], bins=[edges, edges])[0].ravel() for a in angles]
    return Histogram(np.stack(counts))


def free_energy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return −ln p in kT with its minimum at 0; infinite where p is 0. Any shape."""
    with np.errstate(divide="ignore"):
        surface = -np.log(probabilities)
    return np.asarray(surface - surface.min())
