"""Checks of starting conformations: overlapping beads, broken chains."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError
from ase_cg.models.model import CGModel
from ase_cg.models.priors.harmonic import HarmonicBonds

OVERLAP = 0.5  # of a typical bond; two beads that are not bonded never come as near
SHORTEST = 0.5  # Å; no two beads are nearer, bonded or not
BROKEN = 2.0  # times the length that the model gives a bond
BROKEN_WITHOUT_PRIOR = 3.0  # times the typical length of the molecule's bonds


def check_conformations(
    model: CGModel, topology: BeadTopology, positions: NDArray[np.float64], labels: Sequence[str], advice: str
) -> None:
    """Look for beads that overlap and chains that are broken.

    Parameters
    ----------
    model : CGModel
        Its bond prior, if it has one, says how long bonds are.
    topology : BeadTopology
        Of N beads.
    positions : ndarray, shape (R, N, 3)
        In Å.
    labels : sequence of str
        What each of the R is called: ``frame 12 of start.h5 (replica 3)``.
    advice : str
        Ends the sentence.

    Raises
    ------
    InputError
        Naming the conformation, the beads and their distance.
    """
    names = topology.names
    pairs = np.array(topology.bonds, dtype=int).reshape(-1, 2)
    lengths = np.linalg.norm(positions[:, pairs[:, 1]] - positions[:, pairs[:, 0]], axis=-1)
    typical = float(np.median(lengths)) if lengths.size else 0.0
    bonded = set(topology.bonds)
    i, j = np.triu_indices(topology.n_beads, 1)
    apart = np.array([(a, b) not in bonded for a, b in zip(i.tolist(), j.tolist(), strict=True)], dtype=bool)
    nearest = np.where(apart, max(OVERLAP * typical, SHORTEST), SHORTEST)
    longest = _longest_bonds(model, topology, typical)
    for label, x, bonds in zip(labels, positions, lengths, strict=True):
        distances = np.linalg.norm(x[j] - x[i], axis=-1)
        if (distances < nearest).any():
            pair = int(np.argmin(distances / nearest))
            a, b = int(i[pair]), int(j[pair])
            raise InputError(
                f"{label}: beads {a} ({names[a]}) and {b} ({names[b]}) overlap, {distances[pair]:.2f} Å apart; {advice}"
            )
        if (bonds > longest).any():
            bond = int(np.argmax(bonds / longest))
            a, b = topology.bonds[bond]
            raise InputError(
                f"{label}: the chain is broken between beads {a} ({names[a]}) and {b} ({names[b]}), "
                f"{bonds[bond]:.1f} Å apart; {advice}"
            )


def _longest_bonds(model: CGModel, topology: BeadTopology, typical: float) -> NDArray[np.float64]:
    """Return the length in Å beyond which each bond is broken, shape (B,)."""
    prior = dict(model.priors.terms.items()).get("bonds")
    if not isinstance(prior, HarmonicBonds):
        return np.full(len(topology.bonds), BROKEN_WITHOUT_PRIOR * typical)
    return BROKEN * np.asarray(prior.of_members(model.graph(topology))["equilibrium"].double().cpu())
