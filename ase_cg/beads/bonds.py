"""Bonds between beads, from the bonds between atoms."""

from collections.abc import Mapping, Sequence
from typing import Any

from ase_cg.beads.residues import CAPS, RESIDUES
from ase_cg.beads.structure import has_template

BACKBONE = frozenset({"N", "CA", "C"})
LONGEST_PATH = 3  # bonds between atoms: from CA through C and N to the next CA


def bead_bonds(topology: Any, bead_of: Mapping[int, int], names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return the bonds between beads, each once, lower index first.

    Two beads are bonded if atoms of theirs are, directly or through at most two backbone atoms that belong to no bead;
    the second rule joins the CA atoms of neighbouring residues (through C and N) and no others. A disulfide bonds the
    beads that stand for its two residues' side chains.

    Parameters
    ----------
    topology : mdtraj.Topology
    bead_of : mapping of int to int
        The bead of each atom that belongs to one.
    names : sequence of str
        Name used for each residue, '' where it is left out.
    """
    neighbors: dict[int, list[Any]] = {atom.index: [] for atom in topology.atoms}
    for first, second in [*topology.bonds, *_missing_bonds(topology, names)]:
        neighbors[first.index].append(second)
        neighbors[second.index].append(first)
    bonds: set[tuple[int, int]] = set()
    for atom in topology.atoms:
        if atom.index not in bead_of:
            continue
        bead = bead_of[atom.index]
        for end in _reached(atom, neighbors, bead_of):
            if end != bead:
                bonds.add((min(bead, end), max(bead, end)))
    return tuple(sorted(bonds | _disulfides(topology, bead_of)))


def _reached(atom: Any, neighbors: Mapping[int, list[Any]], bead_of: Mapping[int, int]) -> list[int]:
    """Return the beads at the end of the paths from an atom."""
    ends: list[int] = []
    frontier, seen = [atom], {atom.index}
    for _ in range(LONGEST_PATH):
        reached = [other for at in frontier for other in neighbors[at.index] if other.index not in seen]
        seen.update(other.index for other in reached)
        ends += [bead_of[other.index] for other in reached if other.index in bead_of]
        frontier = [at for at in reached if at.index not in bead_of and at.name in BACKBONE]
    return ends


def _missing_bonds(topology: Any, names: Sequence[str]) -> list[tuple[Any, Any]]:
    """Return backbone bonds that a structure should have and has not.

    Residues for which the reader had no template get their N–CA and CA–C, and the peptide bonds with neighbours of the
    same chain whose number is the next; in files of CA atoms alone those are bonded to each other. Residues with any
    bond to a neighbour are left as they are.
    """
    bonded = {frozenset((first.index, second.index)) for first, second in topology.bonds}
    joined = {
        frozenset((first.residue.index, second.residue.index))
        for first, second in topology.bonds
        if first.residue.index != second.residue.index
    }
    wanted: list[tuple[Any, Any]] = []
    for chain in topology.chains:
        last: Any = None
        for residue in chain.residues:
            backbone = {atom.name: atom for atom in residue.atoms if atom.name in BACKBONE}
            if names[residue.index] == "" or (names[residue.index] not in {*RESIDUES, *CAPS} and len(backbone) < 3):
                last = None
                continue
            if len(backbone) == 3:
                wanted += [(backbone["N"], backbone["CA"]), (backbone["CA"], backbone["C"])]
            # The reader bonds all peptides it knows; where it left one open, there is a gap.
            no_template = (last is not None and not has_template(last[0])) or not has_template(residue)
            follows = last is not None and residue.resSeq == last[0].resSeq + 1
            if follows and frozenset((last[0].index, residue.index)) not in joined:
                start, end = backbone.get("N"), last[1].get("C")
                if start is not None and end is not None:
                    wanted += [(end, start)] if no_template else []
                elif set(backbone) == set(last[1]) == {"CA"}:
                    wanted.append((last[1]["CA"], backbone["CA"]))
            last = (residue, backbone)
    return [pair for pair in wanted if frozenset((pair[0].index, pair[1].index)) not in bonded]


def _disulfides(topology: Any, bead_of: Mapping[int, int]) -> set[tuple[int, int]]:
    found = set()
    for first, second in topology.bonds:
        if first.name == second.name == "SG" and first.residue.index != second.residue.index:
            ends = [_side_chain_bead(atom.residue, bead_of) for atom in (first, second)]
            one, other = ends
            if one is not None and other is not None and one != other:
                found.add((min(one, other), max(one, other)))
    return found


def _side_chain_bead(residue: Any, bead_of: Mapping[int, int]) -> int | None:
    """Return the bead that stands for the end of a cysteine's side chain."""
    atoms = {atom.name: atom.index for atom in residue.atoms}
    for name in ("SG", "CB", "CA"):
        if name in atoms and atoms[name] in bead_of:
            return bead_of[atoms[name]]
    return None
