"""What of a comparison is in doubt."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.ensembles import Ensemble
from ase_cg.analysis.surfaces import Plane

FRAMES_A_BIN = 5  # frames in a filled bin, on average, below which a surface is mostly noise


def doubts(ensembles: Mapping[str, Ensemble], plane: Plane | None, coordinate: str) -> Iterator[str]:
    """Say which ensembles are not converged, and where frames are too few for the grid, one sentence each.

    Parameters
    ----------
    ensembles : mapping of str to Ensemble
    plane : Plane or None
        Of the free-energy surface that stands in the table.
    coordinate : str
        Name of the coordinate whose sampling is judged.
    """
    for name, ensemble in ensembles.items():
        judged = ensemble.convergence
        if judged is not None and not judged.converged:
            yield (
                f"{name} is not converged in {coordinate}: {' and '.join(judged.doubts)}; its figures may change with "
                "more sampling"
            )
        if plane is None:
            continue
        counts = ensemble.surfaces[plane.name].counts.sum(0)[:-1].reshape(plane.shape)
        filled = int((counts > 0).sum())
        if ensemble.frames < FRAMES_A_BIN * filled:
            yield (
                f"{name} has too few frames for the grid of {plane.shape[0]} × {plane.shape[1]}, {ensemble.frames} in "
                f"{filled} filled bins: PMF errors are mostly noise (compare the floor); --bins "
                f"{_bins_that_fill(counts, ensemble.frames)} would suit"
            )


def _bins_that_fill(counts: NDArray[np.float64], frames: int) -> int:
    """Return the finest grid, of those that join whole bins, whose filled bins hold enough frames on average."""
    for joined in range(2, len(counts) // 2):
        n = len(counts) // joined
        coarse = counts[: n * joined, : n * joined].reshape(n, joined, n, joined).sum((1, 3))
        if frames >= FRAMES_A_BIN * int((coarse > 0).sum()):
            return n
    return 2
