"""Beads as ordinary ASE Atoms."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from ase_cg.beads.mapping import bead_map
from ase_cg.beads.residues import CAPS, PARENTS, RESIDUES
from ase_cg.beads.resolution import Resolution, ResolutionSpec
from ase_cg.beads.structure import NM, read_structure
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError, reason
from ase_cg.files import existing_file
from ase_cg.keys import BEAD_NAME, BEAD_TYPE, CHAINS, RESIDUE_NUMBERS
from ase_cg.mdtraj_hdf5 import SUFFIXES, TrajectoryFile, refuse_unpickling

if TYPE_CHECKING:
    from ase_cg.models.model import CGModel

MAX_NUMBER = 118  # largest atomic number that every ASE file format can hold


def standard_vocabulary(names: Sequence[str]) -> tuple[str, ...]:
    """Return the vocabulary that beads get when no model says otherwise.

    With one bead per residue it is the fixed list of residues (and of caps, where there are any), so that numbers mean
    the same in every file; otherwise the sorted names that occur.
    """
    for fixed in (RESIDUES, (*RESIDUES, *CAPS)):
        if set(names) <= set(fixed):
            return fixed
    return tuple(sorted(set(names)))


def bead_numbers(types: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the atomic numbers that stand for types: 1 + type, beginning again after 118."""
    return 1 + types % MAX_NUMBER


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
        residue = unknown[0].partition(":")[0]
        parent = PARENTS.get(residue, "")
        known = {name.partition(":")[0] for name in index}
        advice = f"; read {residue} as {parent} with residues={{'{residue}': '{parent}'}}" if parent in known else ""
        raise InputError(
            f"bead {unknown[0]!r} is not in the vocabulary of the model, which knows {', '.join(vocabulary)}{advice}"
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
        ``numbers`` are 1 + type index (beginning again after 118); arrays ``bead_type``, ``bead_name``,
        ``residuenumbers``, ``chain``; masses in amu.
    """
    chosen = standard_vocabulary(topology.names) if vocabulary is None else tuple(vocabulary)
    types = bead_types(topology.names, chosen)
    atoms = Atoms(numbers=bead_numbers(types), positions=np.asarray(positions, dtype=float), masses=topology.masses)
    atoms.set_array(BEAD_TYPE.name, types)
    atoms.set_array(BEAD_NAME.name, np.array(topology.names))
    atoms.set_array(RESIDUE_NUMBERS.name, np.array(topology.residue_numbers))
    atoms.set_array(CHAINS.name, np.array(topology.chains))
    return atoms


def read_topology(path: str | os.PathLike[str], resolution: ResolutionSpec | Resolution) -> BeadTopology:
    """Read the beads of a structure file (PDB, mmCIF, PSF, …) without their positions."""
    return bead_map(read_structure(path).topology, resolution).topology


def read_beads(
    path: str | os.PathLike[str],
    resolution: "ResolutionSpec | Resolution | CGModel",
    vocabulary: Sequence[str] | None = None,
    *,
    positions: str | os.PathLike[str] | None = None,
    residues: Mapping[str, str] | None = None,
) -> Atoms:
    """Read a structure as beads, ready for a calculator.

    Parameters
    ----------
    path : path
        PDB, mmCIF, PSF or any other structure file of MDTraj; the first frame is taken.
    resolution : str, sequence of str, mapping, path, or CGModel
        As in :meth:`ase_cg.beads.resolution.Resolution.of`; a model stands for its own resolution and vocabulary.
    vocabulary : sequence of str, optional
        Bead names in the order of the model's types.
    positions : path, optional
        File of MDTraj (PDB, DCD, XTC, …) whose first frame has the positions, of the atoms or already of the beads. A
        PSF or prmtop needs it.
    residues : mapping of str to str, optional
        What residues count as that are not known (``{"SEP": "SER"}``); ``{"LIG": ""}`` leaves one out.

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
    model: Any = resolution if hasattr(resolution, "card") else None
    if model is not None:
        vocabulary = model.vocabulary
    chosen = Resolution.of(resolution if model is None else model.card.resolution)  # type: ignore[arg-type]
    if residues:
        chosen = chosen.model_copy(update={"residues": {**chosen.residues, **residues}})
    topology, beads = read_bead_positions(path, chosen, positions)
    if model is not None:
        model.check_beads(topology.names)
    return beads_to_atoms(topology, beads, vocabulary)


def read_bead_positions(
    path: str | os.PathLike[str],
    resolution: ResolutionSpec | Resolution,
    positions: str | os.PathLike[str] | None = None,
) -> tuple[BeadTopology, NDArray[np.float64]]:
    """Read the beads of a structure file and their positions in Å, shape (N, 3); see :func:`read_beads`."""
    structure = read_structure(path)
    mapped = bead_map(structure.topology, resolution)
    found = structure.positions if positions is None else _read_positions(Path(positions), structure.topology)
    if found is None:
        raise InputError(f"{path} holds no positions; give the file that does, such as positions='start.pdb'")
    if len(found) == mapped.n_atoms:
        beads = mapped.apply(found[None])[0]
    elif len(found) == mapped.topology.n_beads:
        beads = found
    else:
        raise InputError(f"{positions} has {len(found)} atoms, but {path} has {mapped.n_atoms}")
    if not np.isfinite(beads).all():
        raise InputError(f"{positions or path} holds positions that are no numbers")
    return mapped.topology, beads


def _read_positions(path: Path, topology: Any) -> NDArray[np.float64]:
    """Return the positions in Å of the first frame of a file, shape (atoms, 3)."""
    import mdtraj

    existing_file(path, "file of positions")
    refuse_unpickling(path)
    if path.suffix.lower() in SUFFIXES:
        with TrajectoryFile(path) as file:
            if not file.n_frames:
                raise InputError(f"{path} holds no frames")
            return np.asarray(file.positions(slice(0, 1))[0], dtype=float)
    try:
        loaded = mdtraj.load_frame(str(path), 0, top=topology)
    except Exception as error:
        # MDTraj raises whatever its many parsers meet; the user needs the file's name and the reason.
        raise InputError(
            f"{path} cannot be read with a topology of {topology.n_atoms} atoms: {reason(error)}"
        ) from error
    return np.asarray(loaded.xyz[0].astype(float) * NM)
