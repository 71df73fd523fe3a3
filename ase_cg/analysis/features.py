"""Internal coordinates of frames."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.topology import BeadTopology

Frames = NDArray[Any]


def bond_lengths(frames: Frames, bonds: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Return bond lengths of frames (F, N, 3): shape (F, b), in the frames' unit."""
    i, j = np.array(bonds, dtype=int).reshape(-1, 2).T
    return np.asarray(np.linalg.norm(frames[:, j].astype(float) - frames[:, i], axis=-1))


def dihedral_angles(frames: Frames, quadruples: Sequence[tuple[int, int, int, int]]) -> NDArray[np.float64]:
    """Return dihedral angles of frames (F, N, 3) in radians, −π … π by the IUPAC sign: shape (F, d)."""
    i, j, k, m = np.array(quadruples, dtype=int).reshape(-1, 4).T
    x = frames.astype(float)
    before, middle, after = x[:, j] - x[:, i], x[:, k] - x[:, j], x[:, m] - x[:, k]
    first, second = np.cross(before, middle), np.cross(middle, after)
    sine = (np.cross(first, second) * middle).sum(-1) / np.linalg.norm(middle, axis=-1)
    return np.asarray(np.arctan2(sine, (first * second).sum(-1)))


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


def inverted_fraction(frames: Frames, topology: BeadTopology) -> float | None:
    """Return the fraction of L residues that have become D, over frames (F, N, 3) and residues, or None without CB.

    A network that sees distances only cannot tell the two apart; the priors must hold them.
    """
    signs = []
    for residue in range(len(topology.residues)):
        n, ca, c, cb = (topology.find(residue, atom) for atom in ("N", "CA", "C", "CB"))
        if n is not None and ca is not None and c is not None and cb is not None:
            x = frames.astype(float) - frames[:, ca][:, None]
            signs.append(np.einsum("fx,fx->f", np.cross(x[:, n], x[:, c]), x[:, cb]) < 0)
    return float(np.mean(signs)) if signs else None
