"""Side chains and hydrogens on a rebuilt backbone, by PDBFixer where it is installed."""

import io
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.peptide_planes import place
from ase_cg.beads.residues import PARENTS, RESIDUES
from ase_cg.errors import InputError

Floats = NDArray[np.float64]
NANOMETER = 10.0  # Å
PH = 7.0
CH = 1.09
CA_CB, C_CA_CB = 1.53, np.radians(110.1)
N_C_CA_CB = np.radians(121.0)  # of an L residue; D has the opposite sign
COMPLETED = frozenset(RESIDUES) - frozenset(PARENTS)
PROTONATED = frozenset(PARENTS) - {"NLE", "MSE"}  # a residue in another protonation state, or bound to another
BRANCHES = {"THR": ("OG1", "CG2"), "ILE": ("CG1", "CG2")}
"""The two branches of a CB that is a stereocentre."""


def check_side_chains(residues: Iterable[str]) -> None:
    """Check that side chains can be added to residues of these names.

    Raises
    ------
    InputError
        If PDBFixer is not installed, or does not know one.
    """
    try:
        import pdbfixer  # noqa: F401
    except ImportError as error:
        raise InputError(
            "side chains need PDBFixer, which is not installed (`python -m pip install pdbfixer`); or give an all-atom "
            "structure of the molecule with --structure"
        ) from error
    unknown = sorted({_plain(name) for name in residues} - COMPLETED)
    if unknown:
        raise InputError(
            f"PDBFixer knows no residue {unknown[0]}; give an all-atom structure of the molecule with --structure"
        )


def _plain(residue: str) -> str:
    """Return the name that PDBFixer knows: HIS whatever its protonation."""
    return PARENTS[residue] if residue in PROTONATED else residue


def add_side_chains(topology: Any, frames: Floats) -> tuple[Any, Floats]:
    """Complete the residues of a backbone; the atoms that are there stay where they are.

    Parameters
    ----------
    topology : mdtraj.Topology
        N, CA, C and O of each residue, with the names of the residues.
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
        As :func:`check_side_chains`.
    """
    check_side_chains(residue.name for residue in topology.residues)
    import mdtraj
    import pdbfixer
    from openmm import app, unit

    partial, positions = with_beta_carbons(topology, frames)
    variants: list[str | None] | None = None  # protonation, which all frames have as the first
    completed = []
    for x in positions:
        text = io.StringIO()
        app.PDBFile.writeFile(partial.to_openmm(), (x / NANOMETER) * unit.nanometer, text, keepIds=True)
        text.seek(0)
        fixer = pdbfixer.PDBFixer(pdbfile=text)
        fixer.missingResidues = {}  # none is looked for: the chain is as the beads say
        fixer.findMissingAtoms()
        fixer.addMissingAtoms(seed=1)
        heavy = natural_branches(fixer.topology, np.array(fixer.positions.value_in_unit(unit.angstrom)))
        modeller = app.Modeller(fixer.topology, heavy * unit.angstrom)
        with _seeded():
            variants = modeller.addHydrogens(pH=PH, variants=variants)
        atoms = np.array(modeller.positions.value_in_unit(unit.angstrom))
        completed.append(with_hydrogens_opposite(modeller.topology, atoms))
    return mdtraj.Topology.from_openmm(modeller.topology), np.stack(completed)


def with_beta_carbons(topology: Any, frames: Floats) -> tuple[Any, Floats]:
    """Return a backbone with the CB that make its residues L, all but glycines.

    PDBFixer relaxes what it adds with soft atoms, which would let half of the residues become D.

    Parameters
    ----------
    topology : mdtraj.Topology
        N, CA, C and O of each residue.
    frames : ndarray, shape (F, n, 3)
        In Å.

    Returns
    -------
    topology : mdtraj.Topology
        Residues are named as PDBFixer knows them: HIS whatever its protonation.
    frames : ndarray, shape (F, m, 3)
        In Å.
    """
    import mdtraj

    made = mdtraj.Topology()
    columns: list[Floats] = []
    for chain in topology.chains:
        added = made.add_chain()
        for residue in chain.residues:
            name = _plain(residue.name)
            copy = made.add_residue(name, added, resSeq=residue.resSeq)
            atoms = {atom.name: frames[:, atom.index] for atom in residue.atoms}
            if name != "GLY":
                atoms["CB"] = place(atoms["N"], atoms["C"], atoms["CA"], CA_CB, C_CA_CB, N_C_CA_CB)
            for atom, x in atoms.items():
                made.add_atom(atom, mdtraj.element.Element.getBySymbol(atom[0]), copy)
                columns.append(x)
    return made, np.stack(columns, axis=1)


@contextmanager
def _seeded() -> Iterator[None]:
    """Make the same hydrogens every time: OpenMM puts them at random places first, by Python's own random numbers."""
    state = random.getstate()
    random.seed(1)
    try:
        yield
    finally:
        random.setstate(state)


def with_hydrogens_opposite(topology: Any, x: Floats) -> Floats:
    """Return positions (m, 3) in Å with the hydrogen of each atom of three heavy neighbours opposite to these.

    OpenMM finds the places of hydrogens by a minimisation from random ones, and may leave one among the heavy
    neighbours: the next minimisation then turns the centre over sometimes, an L residue into a D one at its HA.

    Parameters
    ----------
    topology : openmm.app.Topology
        Of m atoms.
    x : ndarray, shape (m, 3)
        In Å.
    """
    neighbours: dict[int, list[Any]] = {atom.index: [] for atom in topology.atoms()}
    for one, other in topology.bonds():
        neighbours[one.index].append(other)
        neighbours[other.index].append(one)
    found = x.copy()
    for centre, bound in neighbours.items():
        hydrogens = [atom.index for atom in bound if atom.element.symbol == "H"]
        heavy = [atom.index for atom in bound if atom.element.symbol != "H"]
        if len(hydrogens) == 1 and len(heavy) == 3:
            towards = x[heavy] - x[centre]
            away = -(towards / np.linalg.norm(towards, axis=1, keepdims=True)).sum(0)
            found[hydrogens] = x[centre] + CH * away / np.linalg.norm(away)
    return found


def natural_branches(topology: Any, x: Floats) -> Floats:
    """Return positions (m, 3) in Å in which every CB of threonine and isoleucine is as in nature.

    Where it is not its two branches change places; bond lengths are then for the minimisation to mend.

    Parameters
    ----------
    topology : openmm.app.Topology
        Of m atoms.
    x : ndarray, shape (m, 3)
        In Å.
    """
    found = x.copy()
    for residue in topology.residues():
        if residue.name not in BRANCHES:
            continue
        at = {atom.name: atom.index for atom in residue.atoms()}
        one, other = (at[name] for name in BRANCHES[residue.name])
        first, second, alpha = (x[i] - x[at["CB"]] for i in (one, other, at["CA"]))
        if np.cross(first, second) @ alpha > 0:
            continue
        found[[one, other]] = x[[other, one]]
        if "CD1" in at:
            a, b, c = (found[[at[name]]] for name in ("CA", "CB", "CG1"))
            found[at["CD1"]] = place(a, b, c, CA_CB, np.radians(113.5), np.pi)[0]
    return found
