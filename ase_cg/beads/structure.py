"""Structures: the atoms and bonds of a molecule as a file gives them, with what the readers leave out."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.psf import read_psf
from ase_cg.beads.residues import CAPS, PARENTS, RESIDUES, WATER_AND_IONS, canonical_name
from ase_cg.errors import InputError, reason
from ase_cg.files import existing_file

NM = 10.0  # Å; MDTraj's coordinates are in nm by definition
DISULFIDE = 2.5  # Å, longest S–S distance that is taken for a bond; it is 2.05
LONGEST_PEPTIDE_BOND = 2.5  # Å; one longer is a gap in the chain
COVALENT = 1.25  # of the sum of the covalent radii, longest distance taken for a bond

_TOPOLOGY_ONLY = {".prmtop", ".parm7", ".psf"}
_WITH_FRAMES = {".pdb", ".h5", ".hdf5", ".gro"}
_RENAMED_BY_READER = {".pdb", ".ent"}


@dataclass(frozen=True)
class Structure:
    """Atoms of a structure file.

    Attributes
    ----------
    topology : mdtraj.Topology
        Residues carry the names that ase-cg uses (HID, CYX, …), and bonds are complete.
    positions : ndarray of shape (n, 3), or None
        In Å; None where the file holds none (PSF, prmtop).
    """

    topology: Any
    positions: NDArray[np.float64] | None


def read_structure(path: str | os.PathLike[str]) -> Structure:
    """Read a structure file: PDB, mmCIF, GRO, PSF, prmtop, or anything else of MDTraj that names its atoms.

    Other than MDTraj alone it keeps the names of protonation states (HID, HIE, HIP, CYX, ASH, …), bonds residues that
    MDTraj has no template for, finds disulfides in mmCIF and GRO files too, and bonds no residues across a gap.

    Raises
    ------
    InputError
        If the file is missing, empty, or no structure.
    """
    found = existing_file(path, "structure")
    loaded = _load(found)
    if isinstance(loaded, Structure):
        return loaded
    if loaded.n_frames == 0 or loaded.n_atoms == 0:
        raise InputError(f"{found} holds no atoms")
    topology, positions = loaded.topology, loaded.xyz[0].astype(float) * NM
    if np.isfinite(positions).all():
        cell = None if loaded.unitcell_vectors is None else loaded.unitcell_vectors[0].astype(float) * NM
        _complete_bonds(topology, positions, cell, found)
    return Structure(topology, positions)


def _load(path: Path) -> Any:
    """Return what MDTraj reads, or a structure without positions."""
    import mdtraj

    suffix = path.suffix.lower()
    try:
        if suffix == ".psf":
            return Structure(_with_own_names(read_psf(path)), None)
        if suffix in _TOPOLOGY_ONLY:
            return Structure(_with_own_names(mdtraj.load_topology(str(path))), None)
        with warnings.catch_warnings():
            # MDTraj warns of cells that are placeholders and of elements it guesses; neither matters here.
            warnings.simplefilter("ignore")
            first = {"frame": 0} if suffix in _WITH_FRAMES else {}
            loaded = mdtraj.load(str(path), **first)
            named = loaded.topology
            if suffix in _RENAMED_BY_READER or path.name.lower().endswith(".pdb.gz"):
                named = mdtraj.load(str(path), standard_names=False, **first).topology
        for residue, original in zip(loaded.topology.residues, named.residues, strict=True):
            residue.name = _own_name(original.name, residue.name)
    except InputError:
        raise
    except Exception as error:
        # MDTraj raises whatever its many parsers meet; the user needs the file's name and the reason.
        raise InputError(f"{path} cannot be read as a structure: {reason(error)}") from error
    return loaded


def _own_name(original: str, read: str) -> str:
    """Return the name of a residue: the file's own where we know it, otherwise what MDTraj made of it."""
    name = canonical_name(original)
    return name if name in RESIDUES or name in CAPS else read


def _with_own_names(topology: Any) -> Any:
    for residue in topology.residues:
        residue.name = _own_name(residue.name, residue.name)
    return topology


def _complete_bonds(
    topology: Any, positions: NDArray[np.float64], cell: NDArray[np.float64] | None, path: Path
) -> None:
    def distance(first: Any, second: Any) -> float:
        vector = positions[second.index] - positions[first.index]
        if cell is not None:
            vector = vector - np.round(vector @ np.linalg.pinv(cell)) @ cell
        return float(np.linalg.norm(vector))

    _bond_the_unbonded(topology, distance)
    _bond_residues(topology, distance)
    _bond_disulfides(topology, distance)
    _open_gaps(topology, distance, path)


def _bond_the_unbonded(topology: Any, distance: Any) -> None:
    """Bond atoms for which MDTraj has no template to those of their residue that they touch."""
    from ase.data import atomic_numbers, covalent_radii

    def radius(atom: Any) -> float:
        return float(covalent_radii[atomic_numbers.get(_symbol(atom), 0)])

    bonded = {atom.index for bond in topology.bonds for atom in bond}
    for residue in topology.residues:
        if residue.name in WATER_AND_IONS or all(atom.index in bonded for atom in residue.atoms):
            continue
        atoms = list(residue.atoms)
        for place, atom in enumerate(atoms):
            if atom.index in bonded:
                continue
            # Pairs of two unbonded atoms are met twice; the later partner takes them.
            partners = [other for i, other in enumerate(atoms) if i != place and (other.index in bonded or i < place)]
            for other in partners:
                both_hydrogen = _symbol(atom) == _symbol(other) == "H"
                if not both_hydrogen and distance(atom, other) < COVALENT * (radius(atom) + radius(other)):
                    topology.add_bond(other, atom)


def _symbol(atom: Any) -> str:
    return "X" if atom.element is None else str(atom.element.symbol)


def _bond_residues(topology: Any, distance: Any) -> None:
    """Add peptide bonds that are missing because a residue has no template."""
    bonded = {frozenset((first.index, second.index)) for first, second in topology.bonds}
    known = {*RESIDUES, *CAPS, *PARENTS}
    for chain in topology.chains:
        last: Any = None
        for residue in chain.residues:
            atoms = {atom.name: atom for atom in residue.atoms}
            start = atoms.get("N")
            # Residues that nobody knows are bonded too: whether they may stay is decided later.
            if last is not None and start is not None and frozenset((last.index, start.index)) not in bonded:
                near = distance(last, start) < 1.7
                if near or (residue.name in known and distance(last, start) < LONGEST_PEPTIDE_BOND):
                    topology.add_bond(last, start)
            last = atoms.get("C")


def _bond_disulfides(topology: Any, distance: Any) -> None:
    """Bond sulphur atoms that touch, and name their residues CYX."""
    bonded = {frozenset((first.index, second.index)) for first, second in topology.bonds}
    sulfurs = [atom for atom in topology.atoms if atom.name == "SG" and PARENTS.get(atom.residue.name, "CYS") == "CYS"]
    for place, first in enumerate(sulfurs):
        for second in sulfurs[:place]:
            if distance(first, second) < DISULFIDE:
                if frozenset((first.index, second.index)) not in bonded:
                    topology.add_bond(second, first)
                first.residue.name = second.residue.name = "CYX"


def _open_gaps(topology: Any, distance: Any, path: Path) -> None:
    """Drop peptide bonds across residues that are missing from the file."""
    kept, gaps = [], []
    for bond in topology.bonds:
        first, second = bond
        if first.residue.index != second.residue.index and distance(first, second) > LONGEST_PEPTIDE_BOND:
            gaps.append((first.residue, second.residue))
        else:
            kept.append(bond)
    if gaps:
        topology._bonds = kept  # noqa: SLF001 - MDTraj has no way to remove a bond
        before, after = gaps[0]
        warnings.warn(
            f"{path} has {len(gaps)} gap(s) in its chains, the first between {before.name} {before.resSeq} and "
            f"{after.name} {after.resSeq}; no bond is made across",
            UserWarning,
            stacklevel=4,
        )
