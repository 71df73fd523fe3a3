"""Which pairs of beads may interact: all of them while they are few, a neighbour list beyond and with a cell."""

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.errors import InputError
from ase_cg.keys import COINCIDENT

FEW = 40  # beads, whose pairs are looked at faster than a tree is built
ALL_PAIRS_LIMIT = 300  # beads; above it a list is shorter than all pairs


class NeighborList:
    """Half neighbour list with a skin: made again only when a bead has moved by half the skin.

    Parameters
    ----------
    cutoff : float
        In Å.
    skin : float
        In Å.
    """

    def __init__(self, cutoff: float, skin: float = 1.0) -> None:
        self.cutoff = cutoff
        self.skin = skin
        self._positions: NDArray[np.float64] | None = None
        self._cell: NDArray[np.float64] | None = None
        self._pbc: NDArray[np.bool_] | None = None
        self._edges: tuple[Tensor, Tensor] | None = None

    def edges(
        self, positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]
    ) -> tuple[Tensor, Tensor]:
        """Return edges (2, e), each pair of images once, and their cell images (e, 3)."""
        if self._edges is None or self._moved(positions, cell, pbc):
            self._edges = half_neighbor_list(positions, cell, pbc, self.cutoff + self.skin)
            self._positions, self._cell, self._pbc = positions.copy(), cell.copy(), pbc.copy()
        return self._edges

    def _moved(self, positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> bool:
        if self._positions is None or self._positions.shape != positions.shape:
            return True
        if not np.array_equal(self._cell, cell) or not np.array_equal(self._pbc, pbc):  # type: ignore[arg-type]
            return True
        return bool(((positions - self._positions) ** 2).sum(1).max(initial=0.0) > (self.skin / 2) ** 2)


def half_neighbor_list(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_], cutoff: float
) -> tuple[Tensor, Tensor]:
    """Return all pairs of (images of) beads closer than `cutoff`, each once: edges (2, e) and cell images (e, 3).

    Raises
    ------
    InputError
        If the cutoff is not finite.
    """
    from ase.neighborlist import primitive_neighbor_list

    check_cutoff(cutoff)
    first, second, image = primitive_neighbor_list("ijS", pbc, cell, positions, cutoff, self_interaction=False)
    # ASE gives each pair in both directions; a bead and its own image are told apart by the image's sign.
    leading = np.sign(image @ np.array([9e12, 3e6, 1.0]))
    once = (first < second) | ((first == second) & (leading > 0))
    edges = torch.from_numpy(np.stack([first[once], second[once]]).astype(np.int64))
    return edges, torch.from_numpy(image[once].astype(float))


def check_cutoff(cutoff: float) -> None:
    """Check that the cutoff of a periodic system is finite.

    Raises
    ------
    InputError
        If it is not.
    """
    if not math.isfinite(cutoff):
        raise InputError(
            "a term of the model has no cutoff, so that in a periodic cell each bead would meet all images of all "
            "beads; use model.with_cutoff(12.0) instead, whose repulsion ends smoothly at 12 Å (for published TorchMD "
            "networks `ase-cg import-torchmdnet --repulsion-cutoff 12`), or beads that are not periodic "
            "(atoms.pbc = False)"
        )


def coincident_pair(positions: NDArray[np.float64]) -> tuple[int, int] | None:
    """Return two beads that are nearer to each other than 0.01 Å, or None; positions (N, 3) in Å, not periodic."""
    n = len(positions)
    if n > FEW:
        from scipy.spatial import cKDTree

        found = cKDTree(positions).query_pairs(COINCIDENT)
        return min(found) if found else None
    i, j = _pairs(n)
    vectors = positions[i] - positions[j]
    near = np.einsum("px,px->p", vectors, vectors) < COINCIDENT**2
    if not near.any():
        return None
    first = int(near.argmax())
    return int(i[first]), int(j[first])


@lru_cache(maxsize=16)
def _pairs(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.triu_indices(n, 1)
