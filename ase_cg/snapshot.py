"""What of Atoms a result depends on, in a form that is compared in a few microseconds."""

from typing import Any

from ase import Atoms

from ase_cg.keys import BEAD_NAME, BEAD_TYPE


def fixed_state(beads: Atoms) -> tuple[Any, ...]:
    """Return all but the positions that a result depends on, to be compared with ``==``.

    As bytes: NumPy takes longer to compare a small array than to copy it.
    """
    arrays = beads.arrays
    types, names = arrays.get(BEAD_TYPE.name), arrays.get(BEAD_NAME.name)
    return (
        arrays["numbers"].tobytes(),
        beads.cell.array.tobytes(),
        beads.pbc.tobytes(),
        None if types is None else types.tobytes(),
        None if names is None else names.tobytes(),
    )
