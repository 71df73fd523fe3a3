"""Side chains and hydrogens on a rebuilt backbone, by PDBFixer where it is installed."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.errors import InputError

NANOMETER = 10.0  # Å
PH = 7.0


def add_side_chains(topology: Any, frames: NDArray[np.float64]) -> tuple[Any, NDArray[np.float64]]:
    """Complete the residues of a backbone; the atoms that are there stay where they are.

    Parameters
    ----------
    topology : mdtraj.Topology
        With the names of the residues.
    frames : ndarray, shape (F, n, 3)
        In Å.

    Returns
    -------
    topology : mdtraj.Topology
    frames : ndarray, shape (F, m, 3)
        In Å.

    Raises
    ------
    InputError
        If PDBFixer is not installed, or it does not know a residue.
    """
    try:
        import pdbfixer
    except ImportError as error:
        raise InputError(
            "side chains need PDBFixer, which is not installed (`conda install -c conda-forge pdbfixer`); or give an "
            "all-atom structure of the molecule with --structure"
        ) from error
    import mdtraj
    from openmm import app, unit

    found: Any = None
    completed = []
    for x in frames:
        text = io.StringIO()
        app.PDBFile.writeFile(topology.to_openmm(), (x / NANOMETER) * unit.nanometer, text, keepIds=True)
        text.seek(0)
        fixer = pdbfixer.PDBFixer(pdbfile=text)
        fixer.missingResidues = {}  # none is looked for: the chain is as the beads say
        fixer.findMissingAtoms()
        fixer.addMissingAtoms(seed=1)
        fixer.addMissingHydrogens(PH)
        made = mdtraj.Topology.from_openmm(fixer.topology)
        if found is not None and [str(atom) for atom in made.atoms] != [str(atom) for atom in found.atoms]:
            raise InputError("PDBFixer gave different hydrogens to different frames; rebuild with --structure instead")
        found = made
        completed.append(np.array(fixer.positions.value_in_unit(unit.angstrom)))
    return found, np.stack(completed)
