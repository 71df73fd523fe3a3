"""Dihedrals as a cosine series."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.data.graph import BeadGraph
from ase_cg.models.priors.base import BondedPrior
from ase_cg.models.priors.geometry import dihedral_angles, dihedral_cosine_and_sine

BINS = 72  # of the histogram


class Dihedrals(BondedPrior):
    """Σ_n k_n (1 + cos(nφ − γ_n)) over bonded chains of four, n = 1 … order: k in eV, γ in rad."""

    name = "dihedrals"
    width = 4
    parameter_names = ("amplitudes", "phases")
    scaled = ("amplitudes",)
    amplitudes: Tensor
    phases: Tensor

    @classmethod
    def members(cls, graph: BeadGraph) -> Tensor:
        """Return the chains of four, shape (4, d)."""
        return graph.dihedrals

    @classmethod
    def internal_coordinate(cls, graph: BeadGraph) -> Tensor:
        """Return dihedral angles in rad, shape (d,)."""
        return dihedral_angles(graph)

    @classmethod
    def fit_one(cls, samples: NDArray[np.float64], kT: float, options: Any) -> dict[str, Any]:
        """Return the series nearest to −kT ln p(φ), each bin of the histogram weighted by its population."""
        counts, edges = np.histogram(samples, bins=BINS, range=(-np.pi, np.pi))
        seen = counts > 0
        phi = (0.5 * (edges[1:] + edges[:-1]))[seen]
        weight = np.sqrt(counts[seen] / counts.sum())
        n = np.arange(1, options.order + 1)
        # A little of a ridge: where few bins are populated, the series is not determined by them.
        rows = [np.ones_like(phi), *np.cos(np.outer(n, phi)), *np.sin(np.outer(n, phi))]
        design = np.stack(rows, axis=1) * weight[:, None]
        ridge = 1e-4 * np.eye(design.shape[1])
        ridge[0, 0] = 0.0
        free_energy = -kT * np.log(counts[seen] / counts.sum())
        series = np.linalg.solve(design.T @ design + ridge, design.T @ (weight * free_energy))
        a, b = series[1 : options.order + 1], series[options.order + 1 :]
        return {"amplitudes": np.hypot(a, b), "phases": np.arctan2(b, a)}

    def tuple_energies(self, graph: BeadGraph, rows: Tensor) -> Tensor:
        """Return the energy of each dihedral in eV, shape (d,)."""
        cosine, sine = dihedral_cosine_and_sine(graph)
        k, gamma = self.amplitudes[rows], self.phases[rows]
        a, b = k * torch.cos(gamma), k * torch.sin(gamma)
        energy, cos_n, sin_n = k.sum(-1), cosine, sine
        for n in range(k.shape[-1]):
            energy = energy + a[:, n] * cos_n + b[:, n] * sin_n
            cos_n, sin_n = cos_n * cosine - sin_n * sine, sin_n * cosine + cos_n * sine
        return energy
