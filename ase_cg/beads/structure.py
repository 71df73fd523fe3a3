"""Structures: the atoms and bonds of a molecule as a file gives them, with what the readers leave out."""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.psf import read_psf
from ase_cg.beads.residues import CAPS, PARENTS, RESIDUES, WATER_AND_IONS, canonical_name
from ase_cg.data.cells import reduction_of
from ase_cg.errors import InputError, reason
from ase_cg.files import existing_file
from ase_cg.mdtraj_hdf5 import SUFFIXES, load_trajectory, refuse_unpickling
from ase_cg.shipped import shipped_or_given

NM = 10.0  # Å; MDTraj's coordinates are in nm by definition
DISULFIDE = 2.5  # Å, longest S–S distance that is taken for a bond; it is 2.05
LONGEST_PEPTIDE_BOND = 2.5  # Å; one longer is a gap in the chain
COVALENT = 1.25  # of the sum of the covalent radii, longest distance taken for a bond

_TOPOLOGY_ONLY = {".prmtop", ".parm7", ".psf"}
_WITH_FRAMES = {".pdb"}
_RENAMED_BY_READER = {".pdb", ".ent"}


Distances = Callable[[Sequence[Any], Sequence[Any]], NDArray[np.float64]]


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
    MDTraj has no template for, finds disulfides in mmCIF and GRO files too, and bonds no residues across a gap. The
    structures that come with ase-cg are found by name (``chignolin_folded``).

    Raises
    ------
    InputError
        If the file is missing, empty, or no structure.
    """
    found = existing_file(shipped_or_given(path, ".pdb"), "structure")
    loaded, templated = _load(found)
    if isinstance(loaded, Structure):
        return loaded
    if loaded.n_frames == 0 or loaded.n_atoms == 0:
        raise InputError(f"{found} holds no atoms")
    topology, positions = loaded.topology, loaded.xyz[0].astype(float) * NM
    if np.isfinite(positions).all():
        cell = None if loaded.unitcell_vectors is None else loaded.unitcell_vectors[0].astype(float) * NM
        _complete_bonds(topology, positions, cell, templated, found)
    return Structure(topology, positions)


def _load(path: Path) -> tuple[Any, set[int]]:
    """Return what MDTraj reads, or a structure without positions, and the residues that MDTraj could bond itself."""
    import mdtraj

    suffix = path.suffix.lower()
    refuse_unpickling(path)
    try:
        if suffix == ".psf":
            return Structure(_with_own_names(read_psf(path)), None), set()
        if suffix in _TOPOLOGY_ONLY:
            return Structure(_with_own_names(mdtraj.load_topology(str(path))), None), set()
        with warnings.catch_warnings():
            # MDTraj warns of cells that are placeholders and of elements it guesses; neither matters here.
            warnings.simplefilter("ignore")
            first = {"frame": 0} if suffix in _WITH_FRAMES else {}
            if suffix in SUFFIXES:
                loaded = load_trajectory(path, first_frame_only=True)
            else:
                loaded = mdtraj.load(str(path), **first)
            named = loaded.topology
            if suffix in _RENAMED_BY_READER or path.name.lower().endswith(".pdb.gz"):
                named = mdtraj.load(str(path), standard_names=False, **first).topology
        templated = {residue.index for residue in loaded.topology.residues if has_template(residue)}
        for residue, original in zip(loaded.topology.residues, named.residues, strict=True):
            residue.name = _own_name(original.name, residue.name)
    except InputError:
        raise
    except IndexError as error:
        raise InputError(f"{path} holds no atoms") from error
    except Exception as error:
        # MDTraj raises whatever its many parsers meet; the user needs the file's name and the reason.
        raise InputError(f"{path} cannot be read as a structure: {reason(error)}") from error
    return loaded, templated


def _own_name(original: str, read: str) -> str:
    """Return the name of a residue: the file's own where we know it, otherwise what MDTraj made of it."""
    name = canonical_name(original)
    return name if name in RESIDUES or name in CAPS else read


def _with_own_names(topology: Any) -> Any:
    for residue in topology.residues:
        residue.name = _own_name(residue.name, residue.name)
    return topology


def _complete_bonds(
    topology: Any,
    positions: NDArray[np.float64],
    cell: NDArray[np.float64] | None,
    templated: set[int],
    path: Path,
) -> None:
    if cell is not None:  # in a skewed cell rounding finds the nearest image between reduced vectors only
        cell = reduction_of(cell) @ cell
    inverse = None if cell is None else np.linalg.pinv(cell)

    def distances(first: Sequence[Any], second: Sequence[Any]) -> NDArray[np.float64]:
        """Return the distances in Å between all atoms of two groups, to the nearest image."""
        a, b = (positions[[atom.index for atom in group]] for group in (first, second))
        vectors = b[None] - a[:, None]
        if cell is not None and inverse is not None:
            vectors = vectors - np.round(vectors @ inverse) @ cell
        return np.asarray(np.linalg.norm(vectors, axis=-1))

    _bond_the_unbonded(topology, distances)
    _bond_residues(topology, distances, templated)
    _bond_disulfides(topology, distances)
    _open_gaps(topology, distances, path)


def _touching(first: Sequence[Any], second: Sequence[Any], distances: Distances) -> NDArray[np.bool_]:
    """Return which atoms of two groups are near enough for a bond; two hydrogens never are."""
    from ase.data import atomic_numbers, covalent_radii

    a, b = (np.array([covalent_radii[atomic_numbers.get(_symbol(x), 0)] for x in group]) for group in (first, second))
    hydrogen = [np.array([_symbol(x) == "H" for x in group]) for group in (first, second)]
    near = distances(first, second) < COVALENT * (a[:, None] + b)
    return np.asarray(near & ~(hydrogen[0][:, None] & hydrogen[1]))


def _bond_the_unbonded(topology: Any, distances: Distances) -> None:
    """Bond atoms for which MDTraj has no template to those of their residue that they touch."""
    bonded = {atom.index for bond in topology.bonds for atom in bond}
    for residue in topology.residues:
        atoms = list(residue.atoms)
        lonely = [i for i, atom in enumerate(atoms) if atom.index not in bonded]
        if residue.name in WATER_AND_IONS or not lonely or len(atoms) < 2:
            continue
        touching = _touching([atoms[i] for i in lonely], atoms, distances)
        for row, i in enumerate(lonely):
            for j in np.flatnonzero(touching[row]):
                # Pairs of two unbonded atoms are met twice; the later partner takes them.
                if j != i and (atoms[j].index in bonded or j < i):
                    topology.add_bond(atoms[j], atoms[i])


def _symbol(atom: Any) -> str:
    return "X" if atom.element is None else str(atom.element.symbol)


def _bond_residues(topology: Any, distances: Distances, templated: set[int]) -> None:
    """Bond neighbouring residues that the reader left apart because it has no template for one of them."""
    joined = {frozenset((first.residue.index, second.residue.index)) for first, second in topology.bonds}
    for chain in topology.chains:
        for before, residue in pairwise(chain.residues):
            if residue.name in WATER_AND_IONS or before.name in WATER_AND_IONS:
                continue
            both = before.index in templated and residue.index in templated
            if both or frozenset((before.index, residue.index)) in joined:
                continue
            ends, starts = list(before.atoms), list(residue.atoms)
            for i, j in np.argwhere(_touching(ends, starts, distances)):
                topology.add_bond(ends[i], starts[j])


def has_template(residue: Any) -> bool:
    """Whether MDTraj bonds residues of this name by itself."""
    from mdtraj import Topology

    if not Topology._standardBonds:  # noqa: SLF001 - the only place where MDTraj says so
        Topology().create_standard_bonds()  # fills it, as the first structure read would
    return residue.name in Topology._standardBonds  # noqa: SLF001


def _bond_disulfides(topology: Any, distances: Distances) -> None:
    """Bond sulphur atoms that touch, and name their residues CYX."""
    bonded = {frozenset((first.index, second.index)) for first, second in topology.bonds}
    sulfurs = [atom for atom in topology.atoms if atom.name == "SG" and PARENTS.get(atom.residue.name, "CYS") == "CYS"]
    for place, first in enumerate(sulfurs):
        for second in sulfurs[:place]:
            if distances([first], [second])[0, 0] < DISULFIDE:
                if frozenset((first.index, second.index)) not in bonded:
                    topology.add_bond(second, first)
                first.residue.name = second.residue.name = "CYX"


def _open_gaps(topology: Any, distances: Distances, path: Path) -> None:
    """Drop peptide bonds across residues that are missing from the file."""
    kept, gaps = [], []
    for bond in topology.bonds:
        first, second = bond
        between = first.residue.index != second.residue.index
        if between and distances([first], [second])[0, 0] > LONGEST_PEPTIDE_BOND:
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
