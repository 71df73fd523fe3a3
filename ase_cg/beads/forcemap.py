r"""Force maps: how atomistic forces become forces on beads.

A force map W (N × n) is valid for a map C of the positions if W Cᵀ = I and if atoms that rigid constraints tie together
have the same coefficient, unless all of a group's are zero for the bead (Ciccotti, Kapral & Vanden-Eijnden 2005;
Krämer et al., J. Phys. Chem. Lett. 14, 3970 (2023)). Its mapped forces then have the mean force as their average; maps
differ in the variance around it.

===============  ===============================================================================
``slice``        the force on the bead's own atom; biased where that atom has rigid bonds
``constraint_sum``  the sum of the forces on all atoms tied to the bead's own
``optimal``      the map of least mean square, from the second moments of the forces
a ``.npy`` file  any other valid map
===============  ===============================================================================
"""

import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_cg.beads.constraints import checked_groups
from ase_cg.errors import InputError

ForceMapName = Literal["slice", "constraint_sum", "optimal"]
FORCE_MAPS = ("slice", "constraint_sum", "optimal")
TINY_RIDGE = 1e-9  # of the mean square force: decides what few frames leave undetermined
VALID = 1e-8  # largest deviation of W Cᵀ from the identity
VALID_OF_OTHERS = 1e-5  # of maps from files, which may be in single precision
MAX_ATOMS = 4000  # their second moments take 0.13 GB, and there are several tables of them


def slice_force_map(coordinate_map: ArrayLike) -> NDArray[np.float64]:
    """Return the map that gives each bead the force on its own atom, shape (N, n).

    Parameters
    ----------
    coordinate_map : array_like, shape (N, n)

    Raises
    ------
    InputError
        If a bead mixes several atoms.
    """
    matrix = _coordinate_map(coordinate_map)
    if not np.array_equal(matrix, matrix != 0):
        raise InputError(
            "the slice force map needs beads that are single atoms; use 'constraint_sum' or 'optimal' for beads of "
            "several"
        )
    return matrix.copy()


def constraint_sum_force_map(
    coordinate_map: ArrayLike, constraint_groups: Sequence[Sequence[int]] = ()
) -> NDArray[np.float64]:
    """Return the map that sums the forces on a bead's atoms and on all atoms tied to them, shape (N, n).

    Parameters
    ----------
    coordinate_map : array_like, shape (N, n)
    constraint_groups : sequence of sequences of int

    Raises
    ------
    InputError
        If constraints tie the atoms of two beads together.
    """
    matrix = _coordinate_map(coordinate_map)
    tying = tying_matrix(constraint_groups, matrix.shape[1])
    summed = (((matrix != 0).astype(float) @ tying) > 0).astype(float) @ tying.T
    _check_valid(summed, matrix, "the constraint sum")
    return np.asarray(summed)


def optimal_force_map(
    forces: ArrayLike,
    coordinate_map: ArrayLike,
    constraint_groups: Sequence[Sequence[int]] = (),
    ridge: float = 0.0,
) -> NDArray[np.float64]:
    """Return the valid force map whose mapped forces have the least mean square, shape (N, n).

    Minimises Σ‖W F‖² + λ‖W‖² over frames and dimensions under W Cᵀ = I, with one coefficient for all atoms of a
    constraint group (Krämer et al. 2023), by solving its Karush–Kuhn–Tucker equations directly.

    Parameters
    ----------
    forces : array_like, shape (F, n, 3)
        On all atoms, in any unit.
    coordinate_map : array_like, shape (N, n)
        From atom to bead positions.
    constraint_groups : sequence of sequences of int
        Atoms tied by rigid constraints; groups that share an atom are joined.
    ridge : float
        λ, in the unit of the forces squared: the larger, the closer the coefficients are to zero. It helps where there
        are few frames.

    Raises
    ------
    InputError
        If shapes do not fit, values are not finite, or no such map exists or is unique.
    """
    matrix = _coordinate_map(coordinate_map)
    array = np.asarray(forces, dtype=float)
    if array.ndim != 3 or array.shape[1:] != (matrix.shape[1], 3):
        raise InputError(f"forces of shape {array.shape} do not fit a map from {matrix.shape[1]} atoms")
    if not np.isfinite(array).all():
        raise InputError("forces hold values that are no numbers")
    moments = ForceMoments(matrix.shape[1])
    moments.add(array)
    return moments.tied(constraint_groups).optimal_map(matrix, ridge)


def check_force_map(
    force_map: NDArray[np.float64], coordinate_map: NDArray[np.float64], constraint_groups: Sequence[Sequence[int]] = ()
) -> None:
    """Refuse a force map that is not valid.

    Parameters
    ----------
    force_map, coordinate_map : ndarray, shape (N, n)
    constraint_groups : sequence of sequences of int

    Raises
    ------
    InputError
        If W Cᵀ is not the identity, or atoms that are tied together have different coefficients.
    """
    deviation = _deviation(force_map, coordinate_map)
    if deviation.max() > VALID_OF_OTHERS:
        first, second = np.unravel_index(int(deviation.argmax()), deviation.shape)
        raise InputError(
            f"the force map is not valid: W Cᵀ differs from the identity by {deviation.max():.2g} at beads {first} and "
            f"{second} (counted from 0); a bead takes the whole force on its own atoms, and none of that on another's"
        )
    for group in checked_groups(constraint_groups, force_map.shape[1]):
        tied = force_map[:, list(group)]
        spread = np.ptp(tied, axis=1)
        if spread.max() > VALID_OF_OTHERS:
            bead = int(spread.argmax())
            low, high = (group[int(place)] for place in (tied[bead].argmin(), tied[bead].argmax()))
            raise InputError(
                f"the force map is not valid: rigid bonds tie atoms {min(low, high)} and {max(low, high)} (counted "
                f"from 0) together, which have different coefficients for bead {bead}; give them the same, or say by "
                "--constraints that the bonds were flexible"
            )


class ForceMoments:
    """Second moments ⟨F Fᵀ⟩ of the forces on n atoms, summed over frames and dimensions as they come.

    Parameters
    ----------
    n_atoms : int

    Raises
    ------
    InputError
        If there are more than 4000 atoms.
    """

    def __init__(self, n_atoms: int) -> None:
        if n_atoms > MAX_ATOMS:
            raise InputError(
                f"the optimal force map of {n_atoms} atoms would need {8e-9 * n_atoms**2:.1f} GB for each table of "
                f"their second moments (the limit is {MAX_ATOMS} atoms); use the force map 'constraint_sum'"
            )
        self._upper = np.zeros((n_atoms, n_atoms), order="F")
        self.n_frames = 0

    def add(self, forces: NDArray[np.float64]) -> None:
        """Add frames, shape (F, n, 3)."""
        from scipy.linalg.blas import dsyrk

        rows = forces.transpose(0, 2, 1).reshape(-1, forces.shape[1])
        # Only the upper triangle: half the work of a product.
        self._upper = dsyrk(1.0, rows.T, beta=1.0, c=self._upper, overwrite_c=True)
        self.n_frames += len(forces)

    def tied(self, constraint_groups: Sequence[Sequence[int]] = ()) -> "TiedMoments":
        """Return the moments of the sums over constraint groups."""
        tying = tying_matrix(constraint_groups, len(self._upper))
        half = tying.T @ (tying.T @ self._upper).T  # of the upper triangle, with its diagonal
        diagonal = tying.T @ (tying * np.diag(self._upper)[:, None])
        return TiedMoments(tying, half + half.T - diagonal.toarray(), self.n_frames)


class TiedMoments(NamedTuple):
    """Second moments of the forces on m constraint groups; an atom without constraints is a group of its own.

    Attributes
    ----------
    tying : sparse array, shape (n, m)
        1 where an atom belongs to a group.
    sum : ndarray, shape (m, m)
        Summed over frames and dimensions.
    n_frames : int
    """

    tying: Any
    sum: NDArray[np.float64]
    n_frames: int

    def __add__(self, other: "TiedMoments") -> "TiedMoments":  # type: ignore[override] # not that of tuples
        return TiedMoments(self.tying, self.sum + other.sum, self.n_frames + other.n_frames)

    def root_mean_square(self, force_map: NDArray[np.float64]) -> float:
        """Return the root mean square of a component of the mapped forces; the map is constant on groups."""
        if self.n_frames == 0:
            return float("nan")
        sizes = np.asarray(self.tying.sum(axis=0)).ravel()
        by_group = force_map @ self.tying / sizes
        total = float(np.einsum("bi,bi->", by_group @ self.sum, by_group))
        return float(np.sqrt(max(total, 0.0) / (3 * self.n_frames * len(force_map))))

    def optimal_map(self, coordinate_map: ArrayLike, ridge: float = 0.0) -> NDArray[np.float64]:
        """Return the map of least mean square, shape (N, n); see :func:`optimal_force_map`."""
        matrix = _coordinate_map(coordinate_map)
        if not (ridge >= 0 and np.isfinite(ridge)):
            raise InputError(f"the ridge must be zero or positive, not {ridge}")
        n_beads, n_groups = len(matrix), len(self.sum)
        constraints = matrix @ self.tying
        # One unit for both blocks of the equations, or the smaller drowns in the rounding of the larger.
        scale = max(float(np.trace(self.sum)) / n_groups, ridge) or 1.0
        system = np.zeros((n_groups + n_beads, n_groups + n_beads))
        system[:n_groups, :n_groups] = self.sum / scale
        system[range(n_groups), range(n_groups)] += ridge / scale * np.asarray(self.tying.sum(axis=0)).ravel()
        system[:n_groups, n_groups:], system[n_groups:, :n_groups] = constraints.T, constraints
        wanted = np.vstack([np.zeros((n_groups, n_beads)), np.eye(n_beads)])
        solution = _solve(system, wanted)
        found = np.asarray((self.tying @ solution[:n_groups]).T)
        _check_valid(found, matrix, "the optimal force map")
        return found


def _solve(system: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve symmetric equations; the solution of least norm where few frames leave some of it undetermined."""
    from scipy import linalg

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", linalg.LinAlgWarning)
            return np.asarray(linalg.solve(system, wanted, assume_a="sym"))
    except (linalg.LinAlgError, linalg.LinAlgWarning):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", linalg.LinAlgWarning)
            free = len(system) - wanted.shape[1]
            return np.asarray(linalg.solve(system + TINY_RIDGE * np.diag(np.arange(len(system)) < free), wanted))
    except (linalg.LinAlgError, linalg.LinAlgWarning):
        return np.asarray(linalg.lstsq(system, wanted, lapack_driver="gelsy", check_finite=False)[0])


def tying_matrix(constraint_groups: Sequence[Sequence[int]], n_atoms: int) -> Any:
    """Return G (n × m, sparse): 1 where an atom belongs to a group; one without constraints is a group of its own."""
    from scipy.sparse import csr_array

    owner = np.arange(n_atoms)
    for group in checked_groups(constraint_groups, n_atoms):
        owner[list(group)] = group[0]
    _, column = np.unique(owner, return_inverse=True)
    return csr_array((np.ones(n_atoms), (np.arange(n_atoms), column)), shape=(n_atoms, int(column.max()) + 1))


def validity(force_map: NDArray[np.float64], coordinate_map: NDArray[np.float64]) -> float:
    """Return the largest deviation of W Cᵀ from the identity."""
    return float(_deviation(force_map, coordinate_map).max())


def _deviation(force_map: NDArray[np.float64], coordinate_map: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs(force_map @ coordinate_map.T - np.eye(len(force_map)))


def _coordinate_map(coordinate_map: ArrayLike) -> NDArray[np.float64]:
    matrix = np.asarray(coordinate_map, dtype=float)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise InputError(f"a map from atoms to beads is a matrix of numbers, not an array of shape {matrix.shape}")
    return matrix


def _check_valid(force_map: NDArray[np.float64], matrix: NDArray[np.float64], what: str) -> None:
    deviation = _deviation(force_map, matrix)
    if not deviation.max() < VALID:
        between = deviation - np.diag(np.diag(deviation))
        first, second = np.unravel_index(int(between.argmax()), deviation.shape)
        if between.max() < VALID:
            bead = int(np.diag(deviation).argmax())
            raise InputError(f"{what} does not exist: the atoms of bead {bead} do not determine it")
        raise InputError(
            f"{what} does not exist: rigid constraints tie atoms of beads {min(first, second)} and "
            f"{max(first, second)} (counted from 0) together; choose beads that are not, or other constraints"
        )
