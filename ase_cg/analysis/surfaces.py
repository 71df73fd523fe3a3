"""Histograms and free-energy surfaces."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_cg.errors import InputError

MARGIN = 0.1
RMSD_AND_SIZE = "rmsd_radius_of_gyration"
RMSD_AND_SIZE_AXES = ("rmsd", "radius_of_gyration")
SURFACES = {
    "ramachandran": "(φ, ψ), all residues pooled",
    "tica": "the two slowest time-lagged independent components of the reference",
    "pca": "the first two principal components of the reference",
    RMSD_AND_SIZE: "RMSD from the native structure and radius of gyration",
}
"""What the axes of each surface are, in words, by its name."""
NEEDS = {
    "ramachandran": "residues with the beads C, N, CA, C, N of φ and ψ",
    "tica": "a reference whose frames are a time series, and a lag above 0",
    "pca": "a lag of 0, or a reference whose frames are no time series",
    RMSD_AND_SIZE: "a native structure",
}
"""What an analysis must have for each surface, in words, by its name."""


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
        One of :data:`SURFACES`.
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
        edges = np.stack([self.x_edges[[0, -1]], self.y_edges[[0, -1]]], axis=1)
        beyond = ((points < edges[0]) | (points > edges[1])).any(1)
        # Not what is missing in the sum: its rounding error would count as a bin that was visited.
        return np.append(inside.ravel(), beyond.sum() if weights is None else weights[beyond].sum())

    def surface(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the free energy in kT on the grid, shape (x bins, y bins), of what :meth:`count` gave."""
        return free_energy(probabilities[:-1].reshape(self.shape))


def check_surface(name: str | None, *, lag: int, native: bool) -> None:
    """Check that there is a surface of this name, as far as that can be told before any frame is read.

    Raises
    ------
    InputError
        If there is none; what there is and what each needs is listed.
    """
    if name is None:
        return
    if name not in NEEDS:
        listed = "; ".join(f"{known} (needs {need})" for known, need in NEEDS.items())
        raise InputError(f"there is no surface {name!r}; choose one of {listed}")
    if (name == RMSD_AND_SIZE and not native) or (name == "tica" and lag == 0):
        raise InputError(missing_surface(name))


def missing_surface(name: str, there: Iterable[str] = ()) -> str:
    """Return the sentence that an analysis has no surface of a name, and which it has."""
    listed = ", ".join(there)
    option = {RMSD_AND_SIZE: " (--native)", "tica": " (--lag)", "pca": " (--lag 0)"}.get(name, "")
    return f"the surface {name} needs {NEEDS[name]}{option}" + (f"; here there are {listed}" if listed else "")


def free_energy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return −ln p in kT with its minimum at 0; infinite where p is 0. Any shape."""
    with np.errstate(divide="ignore"):
        surface = -np.log(probabilities)
    return np.asarray(surface - surface.min())
