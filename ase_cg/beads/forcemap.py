"""Force maps: how atomistic forces become forces on beads."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.mapping import BeadMap
from ase_cg.errors import InputError


def slice_force_map(bead_map: BeadMap) -> NDArray[np.float64]:
    """Return the map that gives each bead the force on its own atom, shape (N, n).

    It is valid (W Cᵀ = I) only where every bead is one atom, and unbiased only where no rigid constraint ties
    that atom to others.

    Raises
    ------
    InputError
        If a bead mixes several atoms.
    """
    if bead_map.atoms is None:
        raise InputError("the slice force map needs beads that are single atoms")
    return bead_map.matrix.copy()


FORCE_MAPS: dict[str, Callable[[BeadMap], NDArray[Any]]] = {"slice": slice_force_map}
