"""How far the distributions of a simulation are from those of reference frames."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.features import bond_lengths, dihedral_angles, ramachandran_angles, ramachandran_beads
from ase_cg.analysis.metrics import jensen_shannon, wasserstein
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError
from ase_cg.training.training_settings import ValidationSimulationSection

BOND_BIN = 0.0005  # Å; much finer than the distances that are reported
Frames = NDArray[Any]


@dataclass(frozen=True)
class Reference:
    """Frames that simulations start from and are compared with, of one molecule.

    Parameters
    ----------
    topology : BeadTopology
    frames : ndarray, shape (F, N, 3)
        In Å.
    weights : ndarray of shape (F,), or None
    """

    topology: BeadTopology
    frames: Frames
    weights: NDArray[np.float64] | None


@dataclass(frozen=True)
class Features:
    """What distributions are compared of.

    Parameters
    ----------
    surface : bool
        φ and ψ jointly, of all residues together.
    dihedrals, pairs : list of tuple of int
        Beads of each.
    """

    surface: bool
    dihedrals: list[tuple[int, int, int, int]]
    pairs: list[tuple[int, int]]


def features(topology: BeadTopology, settings: ValidationSimulationSection) -> Features:
    """Return what is compared: what the settings name; else φ and ψ, or where beads have none the far pairs.

    Raises
    ------
    InputError
        If a bead is named that the molecule lacks, or nothing can be compared.
    """
    named = [*(settings.dihedrals or []), *(settings.pairs or [])]
    for beads in named:
        if max(beads) >= topology.n_beads or len(set(beads)) < len(beads):
            raise InputError(
                f"validation_simulation: beads {list(beads)} are not different beads of 0 to {topology.n_beads - 1}"
            )
    if named:
        return Features(surface=False, dihedrals=settings.dihedrals or [], pairs=settings.pairs or [])
    if ramachandran_beads(topology):
        return Features(surface=True, dihedrals=[], pairs=[])
    near = {*topology.bonds, *((i, k) for i, _, k in topology.angles)}
    near |= {(j, i) for i, j in near}
    pairs = [(i, j) for j in range(topology.n_beads) for i in range(j) if (i, j) not in near]
    pairs = pairs or [(i, j) for j in range(topology.n_beads) for i in range(j)]
    if not pairs:
        raise InputError("validation_simulation: a molecule of one bead has nothing to compare")
    return Features(surface=False, dihedrals=[], pairs=pairs)


def distances(frames: Frames, reference: Reference, compared: Features, bins: int) -> tuple[float, float]:
    """Return the mean Jensen–Shannon divergence of the features in nats, and the mean bond Wasserstein distance in Å.

    Distances of pairs are counted on the range of the reference, what lies outside in its first and last bin.
    """
    divergences = []
    if compared.surface:
        angles = [ramachandran_angles(x, reference.topology) for x in (frames, reference.frames)]
        divergences.append(jensen_shannon(*_surfaces(angles, reference.weights, bins)))
    circle = np.linspace(-np.pi, np.pi, bins + 1)
    for values, target in _columns(dihedral_angles, compared.dihedrals, frames, reference.frames):
        divergences.append(jensen_shannon(_counted(values, circle), _counted(target, circle, reference.weights)))
    for values, target in _columns(bond_lengths, compared.pairs, frames, reference.frames):
        edges = np.linspace(target.min(), target.max(), bins + 1)
        divergences.append(jensen_shannon(_counted(values, edges), _counted(target, edges, reference.weights)))
    lengths = []
    for values, target in _columns(bond_lengths, reference.topology.bonds, frames, reference.frames):
        low, high = min(values.min(), target.min()), max(values.max(), target.max())
        edges = low + BOND_BIN * np.arange(int((high - low) / BOND_BIN) + 2)
        lengths.append(wasserstein(_counted(values, edges), _counted(target, edges, reference.weights), BOND_BIN))
    return float(np.mean(divergences)), float(np.mean(lengths)) if lengths else 0.0


def _columns(function: Any, beads: Any, frames: Frames, reference: Frames) -> Iterator[tuple[Frames, Frames]]:
    """Give the values of one dihedral or distance after the other, in both."""
    if len(beads):
        yield from zip(function(frames, beads).T, function(reference, beads).T, strict=True)


def _counted(values: Frames, edges: Frames, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges, weights=weights)[0]
    return np.asarray(counts / counts.sum())


def _surfaces(angles: list[Any], weights: NDArray[np.float64] | None, bins: int) -> list[NDArray[np.float64]]:
    edges = np.linspace(-np.pi, np.pi, bins + 1)
    found = []
    for values, each in zip(angles, (None, weights), strict=True):
        repeated = None if each is None else np.tile(each, len(values) // len(each))
        counts = np.histogram2d(values[:, 0], values[:, 1], bins=[edges, edges], weights=repeated)[0].ravel()
        found.append(counts / counts.sum())
    return found
