"""A force map of the user's own, from a file."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_cg.errors import InputError, reason
from ase_cg.files import existing_file


def read_force_map(path: Path, n_beads: int, n_atoms: int, mapped_atoms: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the force map in a ``.npy`` file, for the atoms that are read.

    Parameters
    ----------
    path : Path
        A matrix of shape (N, n_atoms), or (N, n) for the n atoms besides water and ions.
    n_beads, n_atoms : int
        N, and the number of atoms of the topology.
    mapped_atoms : ndarray of int, shape (n,)
        Which of them are read.

    Returns
    -------
    ndarray, shape (N, n)

    Raises
    ------
    InputError
        If the file is missing or holds something else, or a bead takes forces of atoms that are not read.
    """
    existing_file(path, "force map")
    try:
        found = np.load(path, allow_pickle=False)
        matrix = np.asarray(found, dtype=float)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"force map {path} is no .npy file with a matrix of numbers: {reason(error)}") from error
    shapes = {(n_beads, n_atoms), (n_beads, len(mapped_atoms))}
    if matrix.shape not in shapes:
        expected = " or ".join(str(shape) for shape in sorted(shapes, reverse=True))
        raise InputError(f"force map {path} has the shape {matrix.shape}, not {expected}: beads × atoms")
    if not np.isfinite(matrix).all():
        raise InputError(f"force map {path} holds values that are no numbers")
    if matrix.shape[1] == len(mapped_atoms):
        return matrix
    left_out = np.setdiff1d(np.flatnonzero(matrix.any(axis=0)), mapped_atoms)
    if len(left_out):
        raise InputError(
            f"force map {path} takes forces of atom {left_out[0]} (counted from 0), which is water or an ion and not "
            "read; set its column to zero"
        )
    return matrix[:, mapped_atoms]
