"""What every reader gives: some frames of a trajectory at a time, in the units of its file."""

from typing import Any, NamedTuple

from numpy.typing import NDArray

CHUNK_FRAMES = 1000
CHUNK_BYTES = 48 * 2**20  # of positions in memory at a time; forces and copies come on top

POSITION_NAMES = ("coordinates", "coords", "positions", "xyz")
FORCE_NAMES = ("forces", "force", "Fs")
CELL_NAMES = ("cell", "cells", "box", "unitcell_vectors")


class Frames(NamedTuple):
    """Some consecutive frames.

    Attributes
    ----------
    positions : ndarray, shape (F, n, 3)
    forces : ndarray of shape (F, n, 3), or None
    cells : ndarray of shape (F, 3, 3), or None
        Rows are cell vectors, in the unit of the positions.
    length_unit, force_unit : str or None
        Units that the file declares or that its format defines; None where the user has to say.
    """

    positions: NDArray[Any]
    forces: NDArray[Any] | None = None
    cells: NDArray[Any] | None = None
    length_unit: str | None = None
    force_unit: str | None = None


def chunk_frames(n_atoms: int) -> int:
    """Return how many frames to read at a time."""
    return max(1, min(CHUNK_FRAMES, CHUNK_BYTES // (12 * max(n_atoms, 1))))
