"""Periodic cells: which are valid, and the nearest image of a vector in any of them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.errors import InputError

LETTERS = "abc"
FLAT = (
    1e-6  # volume relative to that of a rectangular cell with as long vectors, below which vectors are not independent
)
OFFSETS = torch.cartesian_prod(*[torch.tensor([0.0, -1.0, 1.0])] * 3)  # (27, 3); no offset first


def check_cell(cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> None:
    """Check that a cell (3, 3), rows its vectors in Å, has an independent vector along each periodic direction.

    Raises
    ------
    InputError
        If it does not.
    """
    missing = [LETTERS[axis] for axis in range(3) if pbc[axis] and not np.linalg.norm(cell[axis]) > 0]
    if not np.isfinite(cell[pbc]).all():
        raise InputError("a cell vector along a periodic direction is NaN or infinite; give the cell in Å")
    if missing:
        raise InputError(
            f"the beads are periodic along {', '.join(missing)}, but there the cell has no vector: set the cell "
            "(atoms.cell = …, in Å), or make them not periodic (atoms.pbc = False)"
        )
    rows = cell[pbc]
    lengths = np.linalg.norm(rows, axis=1)
    volume = np.sqrt(max(0.0, float(np.linalg.det(rows @ rows.T))))
    if not volume > FLAT * lengths.prod():
        raise InputError("the vectors of the periodic cell lie in one plane or line; give independent ones, in Å")


def reduction_of(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the whole-numbered matrix H (3, 3) that makes the Minkowski-reduced cell H @ cell (ASE).

    The reduced cell has the shortest vectors that span the same lattice. Zero rows, of directions that are not
    periodic, stay.
    """
    from ase.geometry import minkowski_reduce

    periodic = np.linalg.norm(cell, axis=1) > 0
    if not periodic.any():
        return np.eye(3)
    _, operation = minkowski_reduce(cell, pbc=periodic)
    return np.asarray(operation, dtype=float)


def shortest_lattice_vector(cell: NDArray[np.float64]) -> float:
    """Return the length of the shortest vector in Å from a point to one of its images; infinite without a period."""
    lengths = np.linalg.norm(reduction_of(cell) @ cell, axis=1)
    return float(lengths[lengths > 0].min(initial=np.inf))


def nearest_images(vectors: Tensor, cell: Tensor, reduction: Tensor) -> Tensor:
    """Return the cell images S for which ``vector + S @ cell`` is shortest, shape (m, 3).

    Rounding fractional coordinates finds the shortest vector in rectangular cells only; here they are rounded in the
    reduced cell, and the 26 neighbours of that image are tried as well, which is exact (Nguyen and Stehlé, ACM Trans.
    Algorithms 5, 46 (2009)).

    Parameters
    ----------
    vectors : Tensor, shape (m, 3)
    cell, reduction : Tensor, shape (m, 3, 3)
        Of each vector; zero rows of the cell where there is no period.
    """
    reduced = reduction @ cell
    # Zero rows have zero columns in the pseudo-inverse: no image is taken along them.
    rounded = torch.round(torch.einsum("ex,exs->es", vectors, torch.linalg.pinv(reduced)))
    rest = vectors - torch.einsum("es,esx->ex", rounded, reduced)
    periodic = (reduced != 0).any(-1).to(vectors.dtype)
    tried = OFFSETS.to(vectors)[None] * periodic[:, None]
    squared = ((rest[:, None] + tried @ reduced) ** 2).sum(-1)
    # Of equally near images the one that rounding found.
    squared[:, 0] *= 1 - 1e-6
    best = torch.take_along_dim(tried, squared.argmin(1)[:, None, None], 1)[:, 0]
    return torch.einsum("es,est->et", best - rounded, reduction)
