"""Molecules that a periodic box has cut into pieces are put together again."""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ase_cg.data.cells import reduction_of

NEIGHBORS = np.array(list(product((-1, 0, 1), repeat=3)), dtype=float)


class WholeMolecules:
    """Moves particles by cell vectors so that bonded ones lie next to each other, and pieces next to the first.

    Forces do not change when particles move by cell vectors.

    Parameters
    ----------
    bonds : iterable of (int, int)
    chains : sequence of int
        Chain of each of the n particles. A chain without any bond is held together in the order of its particles.
    pieces_together : bool
        Move each further piece (what bonds hold together) to its image nearest to the first.
    """

    def __init__(
        self, bonds: Iterable[tuple[int, int]], chains: Sequence[int], *, pieces_together: bool = True
    ) -> None:
        neighbors: list[list[int]] = [[] for _ in chains]
        for i, j in bonds:
            neighbors[i].append(j)
            neighbors[j].append(i)
        self._tree, self._pieces = _spanning_tree(neighbors, chains)
        self._pieces_together = pieces_together

    @classmethod
    def of_atoms(cls, topology: Any, atoms: NDArray[np.int64], *, pieces_together: bool = True) -> Self:
        """Make it for some atoms, in order, of an :class:`mdtraj.Topology`."""
        place = {int(atom): i for i, atom in enumerate(atoms)}
        bonds = [
            (place[first.index], place[second.index])
            for first, second in topology.bonds
            if first.index in place and second.index in place
        ]
        chains = [topology.atom(int(atom)).residue.chain.index for atom in atoms]
        return cls(bonds, chains, pieces_together=pieces_together)

    def __call__(self, positions: NDArray[np.float64], cells: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return positions in Å, shape (F, n, 3), of whole molecules.

        Rows of `cells`, shape (F, 3, 3), are cell vectors; zero along directions that are not periodic.
        """
        inverse: NDArray[Any] = np.linalg.pinv(cells)
        child, parent = self._tree.T
        steps = _nearest(positions[:, child] - positions[:, parent], cells)
        whole = positions
        if steps.any():
            images = np.zeros_like(positions)
            for bond, (atom, before) in enumerate(self._tree):  # parents come before their children
                images[:, atom] = images[:, before] + steps[:, bond]
            whole = positions + images @ cells
        return self._together(whole, cells, inverse) if self._pieces_together else whole

    def _together(
        self, positions: NDArray[np.float64], cells: NDArray[np.float64], inverse: NDArray[Any]
    ) -> NDArray[np.float64]:
        """Move each further piece to the image nearest to the first."""
        if len(self._pieces) < 2:
            return positions
        centers = np.stack([positions[:, piece].mean(1) for piece in self._pieces], axis=1)
        from_first = centers - centers[:, :1]
        images = -np.round(from_first @ inverse)
        # In skewed cells the nearest image may be a neighbour of the one that rounding finds.
        candidates = images[:, :, None] + NEIGHBORS
        distances = ((from_first[:, :, None] + candidates @ cells[:, None]) ** 2).sum(-1)
        # Of equally near ones the piece stays where it is, as it does along directions that are not periodic.
        distances = distances + 1e-9 * (candidates**2).sum(-1)
        best = distances.argmin(-1)
        shifts = np.take_along_axis(candidates, best[:, :, None, None], axis=2)[:, :, 0] @ cells
        if not shifts.any():
            return positions
        moved = positions.copy()
        for number, piece in enumerate(self._pieces):
            moved[:, piece] += shifts[:, number, None]
        return moved


def _nearest(vectors: NDArray[np.float64], cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the images S for which ``vectors + S @ cells`` are shortest, both (F, m, 3), of cells (F, 3, 3)."""
    # Cells of one trajectory differ little: what reduces the first one reduces all of them, or nearly.
    reduction = reduction_of(cells[0].astype(float))
    reduced = reduction @ cells
    images = -np.round(vectors @ np.linalg.pinv(reduced))
    rest = vectors + images @ reduced
    lengths = np.linalg.norm(reduced, axis=-1)
    shortest = np.where(lengths > 0, lengths, np.inf).min(-1)
    # Nothing is nearer than half of the shortest vector of the lattice; beyond, a neighbouring image may be.
    frame, bond = np.nonzero((rest**2).sum(-1) > (shortest[:, None] / 2) ** 2)
    if len(frame):
        others = rest[frame, bond][:, None] + NEIGHBORS @ reduced[frame]
        distances = (others**2).sum(-1) + 1e-9 * (NEIGHBORS**2).sum(-1)
        images[frame, bond] += NEIGHBORS[distances.argmin(1)]
    return np.asarray(images @ reduction)


def _spanning_tree(
    neighbors: list[list[int]], chain: Sequence[int]
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Return bonds (child, parent) in an order in which parents come first, and the pieces that bonds hold together."""
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
