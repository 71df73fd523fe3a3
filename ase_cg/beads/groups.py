"""The groups of atoms that become beads."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.residues import CAPS, known_name, left_out
from ase_cg.beads.resolution import BeadSelection, Resolution
from ase_cg.errors import InputError, reason


class AtomGroup(NamedTuple):
    """The atoms of one bead.

    Attributes
    ----------
    name : str
        Of the bead.
    atoms : list of mdtraj atoms
    weights : ndarray, shape (n of the group,)
        Of the atoms in the bead's position; they sum to 1.
    """

    name: str
    atoms: Sequence[Any]
    weights: NDArray[np.float64]

    @property
    def mass(self) -> float:
        """Sum of the atoms' masses in amu."""
        return float(sum(atom_mass(atom) for atom in self.atoms))


def atom_mass(atom: Any) -> float:
    """Return the mass of an atom in amu, that of carbon where the element is not known."""
    mass = 0.0 if atom.element is None else float(atom.element.mass)
    return mass or 12.011


def center_of_mass(name: str, atoms: Sequence[Any]) -> AtomGroup:
    """Make a bead at the centre of mass of atoms."""
    masses = np.array([atom_mass(atom) for atom in atoms])
    return AtomGroup(name, atoms, masses / masses.sum())


def groups_of(topology: Any, resolution: Resolution) -> list[AtomGroup]:
    """Return the atoms of each bead, in the order of the beads.

    Raises
    ------
    InputError
        See :func:`ase_cg.beads.mapping.bead_map`.
    """
    if resolution.atoms:
        return _listed_atoms(topology, resolution.atoms)
    if resolution.beads:
        return _selected(topology, resolution.beads)
    if resolution.graph is not None:
        from ase_cg.beads.partition import partition

        return partition(topology, resolution.graph, resolution.residues)
    return _by_residue(topology, resolution)


def _is_heavy(atom: Any) -> bool:
    return atom.element is None or atom.element.symbol not in {"H", "D", "VS"}


def _calpha(residue: Any, name: str) -> list[str]:
    del residue
    return [] if name in CAPS else ["CA"]


def _calpha_cbeta(residue: Any, name: str) -> list[str]:
    del residue
    return [] if name in CAPS else ["CA"] if name == "GLY" else ["CA", "CB"]


def _backbone(residue: Any, name: str) -> list[str]:
    del residue
    if name in CAPS:  # what a cap has of a backbone: the carbonyl of ACE, the nitrogen of NME
        return ["C", "O"] if name == "ACE" else ["N"]
    return ["N", "CA", "C", "O"] if name == "GLY" else ["N", "CA", "CB", "C", "O"]


def _heavy(residue: Any, name: str) -> list[str]:
    del name
    return [atom.name for atom in residue.atoms if _is_heavy(atom)]


_WANTED: dict[str, Callable[[Any, str], list[str]]] = {
    "calpha": _calpha,
    "calpha_cbeta": _calpha_cbeta,
    "backbone": _backbone,
    "heavy": _heavy,
}


def _by_residue(topology: Any, resolution: Resolution) -> list[AtomGroup]:
    kind, declared = str(resolution.name), resolution.residues
    groups: list[AtomGroup] = []
    for chain in topology.chains:
        residues = [residue for residue in chain.residues if not left_out(residue, declared)]
        names = [known_name(residue, kind, declared) for residue in residues]
        for place, (residue, name) in enumerate(zip(residues, names, strict=True)):
            # An N in front of the first residue of a chain, a C in front of the last, as AMBER has it.
            ends = ""
            if resolution.termini and name not in CAPS:
                ends = ("N" if place == 0 else "") + ("C" if place == len(residues) - 1 else "")
            groups += _residue_groups(residue, name, ends + name, kind)
    return groups


def _residue_groups(residue: Any, name: str, shown: str, kind: str) -> list[AtomGroup]:
    if kind == "residue_com":
        return [center_of_mass(shown, list(residue.atoms))]
    atoms = {atom.name: atom for atom in residue.atoms}
    wanted = _WANTED[kind](residue, name)
    missing = [atom for atom in wanted if atom not in atoms]
    if missing:
        raise InputError(
            f"residue {residue.name} {residue.resSeq} of chain {residue.chain.index} has no atom {missing[0]}, which "
            f"resolution {kind!r} makes a bead; add the missing atoms to the structure, or leave the residue out"
        )
    chosen = sorted((atoms[atom] for atom in wanted), key=lambda atom: int(atom.index))
    return [AtomGroup(shown if kind == "calpha" else f"{shown}:{atom.name}", [atom], np.ones(1)) for atom in chosen]


def _listed_atoms(topology: Any, names: Sequence[str]) -> list[AtomGroup]:
    atoms = [_named_atom(topology, name) for name in names]
    if len({atom.index for atom in atoms}) < len(atoms):
        raise InputError("an atom is listed twice among the beads")
    return [AtomGroup(f"{atom.residue.name}:{atom.name}", [atom], np.ones(1)) for atom in atoms]


def _named_atom(topology: Any, name: str) -> Any:
    """Return the one atom that ``RES:ATOM`` or ``RES<number>:ATOM`` names."""
    residue_part, colon, atom_name = name.partition(":")
    if not colon or not residue_part or not atom_name:
        raise InputError(f"{name!r} does not name an atom; write RES:ATOM, such as ALA:CA")
    numbered = re.fullmatch(r"(.+?)(-?\d+)", residue_part)

    def fits(atom: Any) -> bool:
        residue = atom.residue
        by_number = numbered is not None and (residue.name, residue.resSeq) == (numbered[1], int(numbered[2]))
        return atom.name == atom_name and (residue.name == residue_part or by_number)

    found = [atom for atom in topology.atoms if fits(atom)]
    if not found:
        raise InputError(f"atom {name!r}, named as a bead, is not in the topology of {topology.n_atoms} atoms")
    if len(found) > 1:
        example = f"{found[0].residue.name}{found[0].residue.resSeq}:{atom_name}"
        raise InputError(f"{name!r} fits {len(found)} atoms; say which residue, such as {example!r}")
    return found[0]


def _selected(topology: Any, beads: Sequence[BeadSelection]) -> list[AtomGroup]:
    """Make the beads of selections, along the chain: by residue of their first atom, then as listed."""
    owner: dict[int, str] = {}
    placed: list[tuple[int, int, AtomGroup]] = []
    for place, bead in enumerate(beads):
        for atoms in _matches(topology, bead):
            name = bead.name.replace("{residue}", atoms[0].residue.name)
            for atom in atoms:
                if atom.index in owner:
                    raise InputError(
                        f"selections of beads {owner[atom.index]!r} and {name!r} overlap: both hold atom "
                        f"{atom.residue.name}{atom.residue.resSeq}:{atom.name}"
                    )
                owner[atom.index] = name
            equal = AtomGroup(name, atoms, np.full(len(atoms), 1 / len(atoms)))
            group = equal if bead.weights == "equal" else center_of_mass(name, atoms)
            placed.append((atoms[0].residue.index, place, group))
    return [group for _, _, group in sorted(placed, key=lambda entry: entry[:2])]


def _matches(topology: Any, bead: BeadSelection) -> list[list[Any]]:
    """Return the atoms of each bead that a selection makes."""
    try:
        indices = topology.select(bead.selection)
    except Exception as error:
        # MDTraj's parser raises many kinds of errors for a selection it cannot read.
        raise InputError(
            f"selection {bead.selection!r} of bead {bead.name!r} cannot be read: {reason(error)}"
        ) from error
    if len(indices) == 0:
        raise InputError(f"selection {bead.selection!r} of bead {bead.name!r} matches no atom")
    atoms = [topology.atom(int(index)) for index in indices]
    if bead.per is None:
        return [atoms]
    by_residue: dict[int, list[Any]] = {}
    for atom in atoms:
        by_residue.setdefault(atom.residue.index, []).append(atom)
    return list(by_residue.values())
