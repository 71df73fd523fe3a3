"""Periodic cells: which are valid, and the nearest image of a vector in any of them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.errors import InputError

LETTERS = "abc"
FLAT = 1e-6  # volume relative to that of a rectangular cell with as long vectors: below it vectors are dependent
OFFSETS = torch.cartesian_prod(*[torch.tensor([0.0, -1.0, 1.0])] * 3)  # (27, 3); no offset first


def check_cell(cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> None:
    """Check that a cell (3, 3), rows its vectors in Å, has an independent vector along each periodic direction.

    Raises
    ------
    InputError
        If it does not.
    """
    if not np.isfinite(cell[pbc]).all():
        raise InputError("a cell vector along a periodic direction is NaN or infinite; give the cell in Å")
    missing = [LETTERS[axis] for axis in range(3) if pbc[axis] and not cell[axis].any()]
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


def nearest_images(vectors: Tensor, cells: Tensor, reductions: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cell images S for which ``vector + S @ cell`` is shortest, and by how much the next one is longer.

    Rounding fractional coordinates finds the shortest vector in rectangular cells only; here they are rounded in the
    reduced cell, and the 26 neighbours of that image are tried as well, which is exact (Nguyen and Stehlé, ACM Trans.
    Algorithms 5, 46 (2009)).

    Parameters
    ----------
    vectors : Tensor, shape (m, 3)
    cells, reductions : Tensor, shape (k, 3, 3)
        Zero rows of a cell where there is no period.
    which : Tensor, shape (m,)
        Cell of each vector.

    Returns
    -------
    images : Tensor, shape (m, 3)
    margins : Tensor, shape (m,)
        In Å; infinite without a period.
    """
    reduced = reductions @ cells
    # Zero rows have zero columns in the pseudo-inverse: no image is taken along them.
    rounded = torch.round(torch.einsum("ex,exs->es", vectors, torch.linalg.pinv(reduced)[which]))
    rest = vectors - torch.einsum("es,esx->ex", rounded, reduced[which])
    offsets = OFFSETS.to(vectors)
    still = (reduced == 0).all(-1).to(vectors.dtype)
    elsewhere = (offsets.abs() @ still.T > 0).T[which]  # along a direction without a period
    squared = ((rest[:, None] + (offsets @ reduced)[which]) ** 2).sum(-1).masked_fill(elsewhere, torch.inf)
    # Of equally near images the one that rounding found.
    best = torch.where(squared[:, 0] * (1 - 1e-6) <= squared.amin(1), 0, squared.argmin(1))
    shortest, second = torch.topk(squared, 2, dim=1, largest=False).values.sqrt().unbind(1)
    return torch.einsum("es,est->et", offsets[best] - rounded, reductions[which]), second - shortest
