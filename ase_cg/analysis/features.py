"""Internal coordinates of frames."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.topology import BeadTopology

Frames = NDArray[Any]
MIN_ALPHAS = 4  # a fold needs a dihedral


def bond_lengths(frames: Frames, bonds: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Return bond lengths of frames (F, N, 3): shape (F, b), in the frames' unit."""
    i, j = np.array(bonds, dtype=int).reshape(-1, 2).T
    return np.asarray(np.linalg.norm(frames[:, j].astype(float) - frames[:, i], axis=-1))


def pair_distances(frames: Frames, pairs: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Return distances between beads of frames (F, N, 3): shape (F, p), in the frames' unit."""
    return bond_lengths(frames, pairs)


def bond_angles(frames: Frames, triples: Sequence[tuple[int, int, int]]) -> NDArray[np.float64]:
    """Return angles i–j–k of frames (F, N, 3) in radians, 0 … π: shape (F, a)."""
    i, j, k = np.array(triples, dtype=int).reshape(-1, 3).T
    x = frames.astype(float)
    first, second = x[:, i] - x[:, j], x[:, k] - x[:, j]
    sine = np.linalg.norm(np.cross(first, second), axis=-1)
    return np.asarray(np.arctan2(sine, (first * second).sum(-1)))


def dihedral_angles(frames: Frames, quadruples: Sequence[tuple[int, int, int, int]]) -> NDArray[np.float64]:
    """Return dihedral angles of frames (F, N, 3) in radians, −π … π by the IUPAC sign: shape (F, d)."""
    i, j, k, m = np.array(quadruples, dtype=int).reshape(-1, 4).T
    x = frames.astype(float)
    before, middle, after = x[:, j] - x[:, i], x[:, k] - x[:, j], x[:, m] - x[:, k]
    first, second = np.cross(before, middle), np.cross(middle, after)
    sine = (np.cross(first, second) * middle).sum(-1) / np.linalg.norm(middle, axis=-1)
    return np.asarray(np.arctan2(sine, (first * second).sum(-1)))


def radius_of_gyration(frames: Frames, masses: Sequence[float]) -> NDArray[np.float64]:
    """Return the mass-weighted radius of gyration of frames (F, N, 3): shape (F,), in the frames' unit."""
    w = np.asarray(masses, dtype=float) / np.sum(masses)
    x = frames.astype(float)
    centred = x - np.einsum("n,fnx->fx", w, x)[:, None]
    return np.asarray(np.sqrt(np.einsum("n,fnx,fnx->f", w, centred, centred)))


def end_to_end_distance(frames: Frames, ends: tuple[int, int]) -> NDArray[np.float64]:
    """Return the distance between the two end beads of frames (F, N, 3): shape (F,), in the frames' unit."""
    return pair_distances(frames, [ends])[:, 0]


def contact_map(
    frames: Frames, cutoff: float, beads: Sequence[int] | None = None, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return how often two beads are nearer than a cutoff, over frames (F, N, 3): shape (n, n), 0 … 1.

    Parameters
    ----------
    frames : ndarray, shape (F, N, 3)
    cutoff : float
        In the frames' unit.
    beads : sequence of int, optional
        The n beads of the map; by default all.
    weights : ndarray, shape (F,), optional
        Of the frames.
    """
    x = frames.astype(float) if beads is None else frames[:, list(beads)].astype(float)
    n = x.shape[1]
    found = np.eye(n)
    for bead in range(n - 1):  # not all pairs at once, which of large molecules would take memory
        near = np.linalg.norm(x[:, bead + 1 :] - x[:, bead, None], axis=-1) < cutoff
        found[bead, bead + 1 :] = found[bead + 1 :, bead] = np.average(near, axis=0, weights=weights)
    return found


def representative_beads(topology: BeadTopology) -> list[int]:
    """Return the beads that stand for the fold: the Cα beads where at least four residues have one, otherwise all.

    A bead that is a whole residue counts as its Cα.
    """
    alphas = [bead for bead, name in enumerate(topology.names) if ":" not in name or name.partition(":")[2] == "CA"]
    return alphas if len(alphas) >= MIN_ALPHAS else list(range(topology.n_beads))


def ramachandran_beads(
    topology: BeadTopology,
) -> list[tuple[tuple[int, int, int, int], tuple[int, int, int, int]]]:
    """Return the beads of φ (C N CA C) and ψ (N CA C N) of every residue that has both."""
    found = []
    for residue in range(len(topology.residues)):
        beads = [
            topology.find(residue + offset, atom)
            for offset, atom in ((-1, "C"), (0, "N"), (0, "CA"), (0, "C"), (1, "N"))
        ]
        if None not in beads:
            c_before, n, ca, c, n_after = (bead for bead in beads if bead is not None)
            found.append(((c_before, n, ca, c), (n, ca, c, n_after)))
    return found


def ramachandran_angles(frames: Frames, topology: BeadTopology) -> NDArray[np.float64] | None:
    """Return φ and ψ in radians of frames (F, N, 3), all residues pooled: (F·residues, 2), or None without any."""
    beads = ramachandran_beads(topology)
    if not beads:
        return None
    return np.concatenate([dihedral_angles(frames, pair) for pair in beads])


def inverted_fraction(
    frames: Frames, topology: BeadTopology, weights: NDArray[np.float64] | None = None
) -> float | None:
    """Return the fraction of L residues that have become D, over frames (F, N, 3) and residues, or None without CB.

    A network that sees distances only cannot tell the two apart; the priors must hold them. Frames count by their
    weights (F,), which are not all 0.
    """
    signs = []
    for residue in range(len(topology.residues)):
        n, ca, c, cb = (topology.find(residue, atom) for atom in ("N", "CA", "C", "CB"))
        if n is not None and ca is not None and c is not None and cb is not None:
            x = frames.astype(float) - frames[:, ca][:, None]
            signs.append(np.einsum("fx,fx->f", np.cross(x[:, n], x[:, c]), x[:, cb]) < 0)
    return float(np.average(np.mean(signs, axis=0), weights=weights)) if signs else None
