"""Beads as ordinary ASE Atoms."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from ase_cg.beads.mapping import Resolution, bead_map
from ase_cg.beads.residues import RESIDUES
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError, reason
from ase_cg.files import existing_file
from ase_cg.keys import BEAD_NAME, BEAD_TYPE, CHAINS, RESIDUE_NUMBERS

if TYPE_CHECKING:
    from ase_cg.models.model import CGModel

MAX_TYPES = 118  # atomic numbers that every ASE file format can hold


def standard_vocabulary(names: Sequence[str]) -> tuple[str, ...]:
    """Return the vocabulary that beads get when no model says otherwise.

    With one bead per residue it is the fixed list of residues, so that numbers mean the same in every file;
    otherwise the sorted names that occur.

    Raises
    ------
    InputError
        If there are more than 118 names.
    """
    if set(names) <= set(RESIDUES):
        return RESIDUES
    vocabulary = tuple(sorted(set(names)))
    if len(vocabulary) > MAX_TYPES:
        raise InputError(f"{len(vocabulary)} bead types do not fit into the {MAX_TYPES} atomic numbers of ASE")
    return vocabulary


def bead_types(names: Sequence[str], vocabulary: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the index of each name in the vocabulary, shape (N,).

    Raises
    ------
    InputError
        If a name is not in the vocabulary, naming it.
    """
    index = {name: i for i, name in enumerate(vocabulary)}
    unknown = sorted(set(names) - set(index))
    if unknown:
        raise InputError(
            f"bead {unknown[0]!r} is not in the vocabulary of the model, which knows {', '.join(vocabulary)}"
        )
    return np.array([index[name] for name in names], dtype=np.int64)


def beads_to_atoms(topology: BeadTopology, positions: ArrayLike, vocabulary: Sequence[str] | None = None) -> Atoms:
    """Make ASE Atoms of beads.

    Parameters
    ----------
    topology : BeadTopology
        Of N beads.
    positions : array_like, shape (N, 3)
        In Å.
    vocabulary : sequence of str, optional
        Bead names in the order of the model's types; by default :func:`standard_vocabulary`.

    Returns
    -------
    ase.Atoms
        ``numbers`` are 1 + type index; arrays ``bead_type``, ``bead_name``, ``residuenumbers``, ``chain``;
        masses in amu.
    """
    chosen = standard_vocabulary(topology.names) if vocabulary is None else tuple(vocabulary)
    types = bead_types(topology.names, chosen)
    atoms = Atoms(numbers=1 + types, positions=np.asarray(positions, dtype=float), masses=topology.masses)
    atoms.set_array(BEAD_TYPE.name, types)
    atoms.set_array(BEAD_NAME.name, np.array(topology.names))
    atoms.set_array(RESIDUE_NUMBERS.name, np.array(topology.residue_numbers))
    atoms.set_array(CHAINS.name, np.array(topology.chains))
    return atoms


def read_topology(path: str | os.PathLike[str], resolution: Resolution) -> BeadTopology:
    """Read the beads of a structure file that MDTraj knows (PDB, mmCIF, …) without their positions."""
    return bead_map(read_structure(path).topology, resolution).topology


def read_structure(path: str | os.PathLike[str]) -> Any:
    """Read a structure file with MDTraj.

    Raises
    ------
    InputError
        If the file is missing, empty, or no structure.
    """
    import mdtraj

    found = existing_file(path, "structure")
    try:
        structure = mdtraj.load(str(found))
    except Exception as error:
        # MDTraj raises whatever its many parsers meet; the user needs the file's name and the reason.
        raise InputError(f"{found} cannot be read as a structure: {reason(error)}") from error
    if structure.n_frames == 0 or structure.n_atoms == 0:
        raise InputError(f"{found} holds no atoms")
    return structure


def read_beads(
    path: str | os.PathLike[str],
    resolution: "Resolution | CGModel",
    vocabulary: Sequence[str] | None = None,
) -> Atoms:
    """Read a structure as beads, ready for a calculator.

    Parameters
    ----------
    path : path
        PDB, mmCIF or any other structure file of MDTraj; the first frame is taken.
    resolution : str, sequence of str, or CGModel
        As in :func:`ase_cg.beads.mapping.bead_map`; a model stands for its own resolution and vocabulary.
    vocabulary : sequence of str, optional
        Bead names in the order of the model's types.

    Returns
    -------
    ase.Atoms
        See :func:`beads_to_atoms`.

    Raises
    ------
    InputError
        If the file cannot be read, or its residues or atoms do not fit the resolution.

    Examples
    --------
    >>> atoms = read_beads("chignolin.pdb", "calpha")  # doctest: +SKIP
    """
    if not isinstance(resolution, str) and not isinstance(resolution, Sequence):
        model = resolution
        if not hasattr(model, "card"):
            raise InputError(f"a resolution is a name, a list of atoms or a CGModel, not {model!r}")
        resolution, vocabulary = model.card.resolution, model.vocabulary
    structure = read_structure(path)
    mapped = bead_map(structure.topology, resolution)
    positions = mapped.apply(structure.xyz[:1].astype(float))[0] * 10.0  # MDTraj is in nm by definition
    if not np.isfinite(positions).all():
        raise InputError(f"{path} holds positions that are no numbers")
    return beads_to_atoms(mapped.topology, positions, vocabulary)
