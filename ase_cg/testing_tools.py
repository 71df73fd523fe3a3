"""Molecules and comparisons for :mod:`ase_cg.testing`."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from ase_cg.data.graph import BeadGraph, all_pairs
from ase_cg.models.base import Backbone, energy_and_forces

N_BEADS = 8
ROUNDING = 1e-9  # what sums in another order may change in float64, relative to energies and forces


def one_molecule(
    positions: Sequence[Sequence[float]] | Tensor, types: Sequence[int], n_types: int | None = None
) -> BeadGraph:
    """Return one molecule with all pairs and no bonds, in float64."""
    kinds = torch.tensor(types)
    n = len(kinds)
    return BeadGraph(
        positions=torch.as_tensor(positions, dtype=torch.float64),
        bead_type=kinds if n_types is None else kinds % n_types,
        molecule=torch.zeros(n, dtype=torch.long),
        n_molecules=1,
        edges=all_pairs(n),
        bonds=torch.zeros(2, 0, dtype=torch.long),
        angles=torch.zeros(3, 0, dtype=torch.long),
        dihedrals=torch.zeros(4, 0, dtype=torch.long),
    )


def helix(backbone: Backbone, n_types: int, n: int = N_BEADS, seed: int = 0) -> BeadGraph:
    """Return a shaken helix: neighbours a quarter of the cutoff apart, its ends a little more than the cutoff."""
    turn = torch.arange(n, dtype=torch.float64)
    helix = torch.stack([torch.cos(1.7 * turn), torch.sin(1.7 * turn), turn], dim=1)
    noise = torch.randn(n, 3, dtype=torch.float64, generator=seeded(seed))
    return one_molecule(0.15 * backbone.cutoff * (helix + 0.1 * noise), list(range(n)), n_types)


def pair(distance: float, n_types: int, *, third: bool = False) -> BeadGraph:
    """Return two beads that far apart, perhaps with a third between them; the pair is the first edge."""
    positions = [[0.0, 0.0, 0.0], [0.6 * distance, 0.0, 0.8 * distance]]
    if third:
        positions.append([0.4 * distance, 0.2 * distance, 0.3 * distance])
    return one_molecule(positions, list(range(len(positions))), n_types)


def seeded(seed: int) -> torch.Generator:
    """Return random numbers of their own."""
    return torch.Generator().manual_seed(seed)


def double_copy(backbone: Backbone) -> Backbone:
    """Return a copy in float64, for evaluation."""
    return copy.deepcopy(backbone).double().eval()


def compare(
    network: Backbone,
    graph: BeadGraph,
    other: BeadGraph,
    change: str,
    matrix: Tensor | None = None,
    order: Tensor | None = None,
    tolerance: float = ROUNDING,
) -> None:
    """Require that a change leaves the energy as it is, and turns or reorders the forces with the beads."""
    energy, forces = energy_and_forces(network, graph)
    changed, changed_forces = energy_and_forces(network, other)
    size = network.bead_energies(graph).detach().abs().sum()
    require_close(changed, energy, size, tolerance, f"{change} changes the energy")
    expected = forces if matrix is None else forces @ matrix
    expected = expected if order is None else expected[order]
    require_close(changed_forces, expected, forces, tolerance, f"{change} does not change the forces alike")


def require_close(found: Tensor, expected: Tensor, scale: Tensor, tolerance: float, sentence: str) -> None:
    """Require that a quantity is what it must be, to a tolerance relative to the largest value of `scale`."""
    size = float(scale.abs().max()) or 1.0
    error = float((found - expected).abs().max()) / size
    require(error <= tolerance, f"{sentence}: off by {error:.1e} of {size:.2g}, where {tolerance:.0e} is allowed")


def require(condition: bool, sentence: str) -> None:
    """Raise AssertionError with a sentence unless a condition holds."""
    if not condition:
        raise AssertionError(sentence)
