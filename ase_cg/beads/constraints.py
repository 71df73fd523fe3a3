"""Groups of atoms that rigid constraints tie together, from the topology or from the data."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.errors import InputError

Groups = tuple[tuple[int, ...], ...]

RIGID_BELOW = 0.01  # relative spread of a distance; a bond that vibrates has 0.015 or more, XTC's rounding makes 0.004
MIN_FRAMES = 100  # below, a vibrating bond may pass for a rigid one
NEAR = 2.5  # Å; atoms farther apart are not tied by one constraint
HOPELESS = 3.0  # times the limit; pairs that vary so much in the first frames are not looked at any more
NUMBERS_AT_ONCE = 3_000_000  # coordinates of pairs in memory


def hydrogen_groups(topology: Any) -> Groups:
    """Return each heavy atom with the hydrogens bonded to it, as constraints on bonds to hydrogen tie them.

    Parameters
    ----------
    topology : mdtraj.Topology
    """
    pairs = [
        (first.index, second.index)
        for first, second in topology.bonds
        if "H" in {_symbol(first), _symbol(second)} and _symbol(first) != _symbol(second)
    ]
    return connected(pairs, topology.n_atoms)


def _symbol(atom: Any) -> str:
    return "X" if atom.element is None else str(atom.element.symbol)


def connected(pairs: Iterable[tuple[int, int]], n_atoms: int) -> Groups:
    """Return the connected components of more than one atom, sorted."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array(list(pairs), dtype=int).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n_atoms, n_atoms))
    _, label = connected_components(graph, directed=False)
    members: dict[int, list[int]] = {}
    for atom in np.unique(ends):
        members.setdefault(int(label[atom]), []).append(int(atom))
    return tuple(sorted(tuple(group) for group in members.values()))


def checked_groups(groups: Sequence[Sequence[int]], n_atoms: int) -> Groups:
    """Return groups with those that share an atom joined.

    Raises
    ------
    InputError
        If a group names an atom that is not there.
    """
    for group in groups:
        wrong = [atom for atom in group if not 0 <= int(atom) < n_atoms]
        if wrong:
            raise InputError(f"a constraint group names atom {wrong[0]}, but there are {n_atoms} atoms, counted from 0")
    return connected([(int(a), int(b)) for group in groups for a, b in pairwise(group)], n_atoms)


class RigidPairs:
    """Finds pairs of atoms whose distance does not change, frame by frame.

    Candidates are the atoms nearer than 2.5 Å in the first frame; only the mean and the spread of their distances are
    kept. Pairs tied by a chain of rigid pairs belong to one group.
    """

    def __init__(self) -> None:
        self.n_frames = 0
        self._pairs: NDArray[np.int64] | None = None
        self._n_atoms = 0

    def add(self, positions: NDArray[np.float64]) -> None:
        """Take frames into account: positions in Å, shape (F, n, 3), molecules whole."""
        if self._pairs is None:
            from scipy.spatial import KDTree

            self._n_atoms = positions.shape[1]
            self._pairs = KDTree(positions[0]).query_pairs(NEAR, output_type="ndarray")
            self._first = self._distances(positions[:1])[0]
            self._sum = np.zeros(len(self._pairs))
            self._sum_of_squares = np.zeros(len(self._pairs))
        start = 0
        while start < len(positions):
            stop = start + max(1, NUMBERS_AT_ONCE // (3 * len(self._pairs) + 1))
            # Deviations from the first frame: squares of small numbers lose no digits.
            deviations = self._distances(positions[start:stop]) - self._first
            self._sum += deviations.sum(0)
            self._sum_of_squares += (deviations**2).sum(0)
            self.n_frames += len(deviations)
            start = stop
            if self.n_frames >= MIN_FRAMES:
                self._keep(self._relative_spread() < HOPELESS * RIGID_BELOW)

    def _keep(self, pairs: NDArray[np.bool_]) -> None:
        if not pairs.all() and self._pairs is not None:
            self._pairs, self._first = self._pairs[pairs], self._first[pairs]
            self._sum, self._sum_of_squares = self._sum[pairs], self._sum_of_squares[pairs]

    def _distances(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        i, j = np.asarray(self._pairs).T
        return np.asarray(np.linalg.norm(positions[:, i] - positions[:, j], axis=-1))

    def _relative_spread(self) -> NDArray[np.float64]:
        mean = self._sum / self.n_frames
        spread = np.sqrt(np.maximum(self._sum_of_squares / self.n_frames - mean**2, 0.0))
        return np.asarray(spread / (self._first + mean))

    def groups(self) -> Groups:
        """Return the groups of atoms tied together.

        Raises
        ------
        InputError
            If fewer than 100 frames were seen.
        """
        if self._pairs is None or self.n_frames < MIN_FRAMES:
            raise InputError(
                f"rigid bonds cannot be told from {self.n_frames} frames, {MIN_FRAMES} are needed; say what was "
                "constrained with --constraints hbonds or none"
            )
        rigid = self._relative_spread() < RIGID_BELOW
        return connected([(int(i), int(j)) for i, j in self._pairs[rigid]], self._n_atoms)
