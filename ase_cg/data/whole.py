"""Molecules that a periodic box has cut into pieces are put together again."""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray


class WholeMolecules:
    """Moves atoms by cell vectors so that bonded atoms lie next to each other, and chains next to the first.

    Forces do not change when atoms move by cell vectors.

    Parameters
    ----------
    topology : mdtraj.Topology
        Of the whole system.
    atoms : ndarray of int
        The atoms that are given, in order.
    """

    def __init__(self, topology: Any, atoms: NDArray[np.int64]) -> None:
        place = {int(atom): i for i, atom in enumerate(atoms)}
        neighbors: list[list[int]] = [[] for _ in atoms]
        for first, second in topology.bonds:
            i, j = place.get(first.index), place.get(second.index)
            if i is not None and j is not None:
                neighbors[i].append(j)
                neighbors[j].append(i)
        chain = [topology.atom(int(atom)).residue.chain.index for atom in atoms]
        self._tree, self._pieces = _spanning_tree(neighbors, chain)

    def __call__(self, positions: NDArray[np.float64], cells: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return positions in Å, shape (F, n, 3), of whole molecules; `cells` has shape (F, 3, 3)."""
        inverse: NDArray[Any] = np.linalg.pinv(cells)
        child, parent = self._tree.T
        steps = -np.round((positions[:, child] - positions[:, parent]) @ inverse)
        whole = positions
        if steps.any():
            images = np.zeros_like(positions)
            for bond, (atom, before) in enumerate(self._tree):  # parents come before their children
                images[:, atom] = images[:, before] + steps[:, bond]
            whole = positions + images @ cells
        return self._together(whole, cells, inverse)

    def _together(
        self, positions: NDArray[np.float64], cells: NDArray[np.float64], inverse: NDArray[Any]
    ) -> NDArray[np.float64]:
        """Move each further piece to the image nearest to the first."""
        if len(self._pieces) < 2:
            return positions
        centers = np.stack([positions[:, piece].mean(1) for piece in self._pieces], axis=1)
        images = -np.round((centers - centers[:, :1]) @ inverse)
        if not images.any():
            return positions
        moved = positions.copy()
        shifts = images @ cells
        for number, piece in enumerate(self._pieces):
            moved[:, piece] += shifts[:, number, None]
        return moved


def _spanning_tree(neighbors: list[list[int]], chain: list[int]) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Return bonds (child, parent) in an order in which parents come first, and the pieces that bonds hold together.

    A chain of which no bond is known (CA atoms alone, say) is held together in the order of its atoms.
    """
    bonded_chains = {chain[atom] for atom, others in enumerate(neighbors) if others}
    order: list[tuple[int, int]] = []
    owner = [-1] * len(neighbors)
    pieces: list[list[int]] = []
    for start in range(len(neighbors)):
        if owner[start] >= 0:
            continue
        follows = start > 0 and chain[start] == chain[start - 1] and chain[start] not in bonded_chains
        if follows:
            order.append((start, start - 1))
        else:
            pieces.append([])
        owner[start] = owner[start - 1] if follows else len(pieces) - 1
        pieces[owner[start]].append(start)
        queue = deque([start])
        while queue:
            atom = queue.popleft()
            for other in neighbors[atom]:
                if owner[other] < 0:
                    owner[other] = owner[start]
                    pieces[owner[start]].append(other)
                    order.append((other, atom))
                    queue.append(other)
    return np.array(order, dtype=np.int64).reshape(-1, 2), [np.array(sorted(piece)) for piece in pieces]
