"""Balanced partitions of the bond graph: beads for polymers and other molecules without residues."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ase_cg.beads.groups import AtomGroup, atom_mass, center_of_mass
from ase_cg.beads.residues import left_out
from ase_cg.errors import InputError

METIS_SEED = 1  # any fixed one: the same molecule is divided in the same way on every machine


def partition(topology: Any, beads: int, declared: Mapping[str, str] | None = None) -> list[AtomGroup]:
    """Divide each molecule into beads of like mass, cutting as few bonds as possible.

    Hydrogens stay with the atom they are bonded to, so that rigid bonds to hydrogen never join two beads. Molecules
    with the same atoms and bonds are divided in the same way. A bead is named by its formula (``C4H8O2``).

    Parameters
    ----------
    topology : mdtraj.Topology
    beads : int
        Of each molecule.
    declared : mapping of str to str, optional
        Residues to leave out are mapped to ''.

    Raises
    ------
    InputError
        If pymetis is not installed, or a molecule has fewer heavy atoms than beads.
    """
    divided: dict[tuple[Any, ...], list[list[int]]] = {}
    groups: list[AtomGroup] = []
    for molecule in topology.find_molecules():
        atoms = sorted((atom for atom in molecule if not left_out(atom.residue, declared)), key=lambda a: int(a.index))
        if not atoms:
            continue
        place = {atom.index: i for i, atom in enumerate(atoms)}
        bonds = sorted(
            (min(place[first.index], place[second.index]), max(place[first.index], place[second.index]))
            for first, second in topology.bonds
            if first.index in place and second.index in place
        )
        key = (tuple(_symbol(atom) for atom in atoms), tuple(bonds))
        if key not in divided:
            divided[key] = _divide(atoms, bonds, beads)
        for members in divided[key]:
            chosen = [atoms[i] for i in members]
            groups.append(center_of_mass(_formula(chosen), chosen))
    return groups


def _divide(atoms: Sequence[Any], bonds: Sequence[tuple[int, int]], beads: int) -> list[list[int]]:
    """Return the places of the atoms of each bead, beads in the order of their first atom."""
    heavy = [i for i, atom in enumerate(atoms) if _symbol(atom) != "H"]
    owner = {i: i for i in heavy}
    for first, second in bonds:
        for hydrogen, other in ((first, second), (second, first)):
            if hydrogen not in owner and other in owner:
                owner[hydrogen] = other
    if len(owner) < len(atoms) or len(heavy) < beads:
        what = f"{len(heavy)} heavy atoms for {beads} beads" if len(heavy) < beads else "hydrogens without bonds"
        raise InputError(
            f"the molecule of residue {atoms[0].residue.name} {atoms[0].residue.resSeq} cannot be divided: it has "
            f"{what}"
        )
    vertex = {i: v for v, i in enumerate(heavy)}
    adjacency: list[list[int]] = [[] for _ in heavy]
    for first, second in bonds:
        a, b = vertex[owner[first]], vertex[owner[second]]
        if a != b:
            adjacency[a].append(b)
            adjacency[b].append(a)
    masses = [0.0] * len(heavy)
    for i, atom in enumerate(atoms):
        masses[vertex[owner[i]]] += atom_mass(atom)
    parts = _metis(beads, adjacency, [round(mass) for mass in masses])
    members: list[list[int]] = [[] for _ in range(beads)]
    for i in range(len(atoms)):
        members[parts[vertex[owner[i]]]].append(i)
    if any(not found for found in members):
        raise InputError(
            f"the molecule of residue {atoms[0].residue.name} {atoms[0].residue.resSeq} cannot be divided into "
            f"{beads} connected beads; ask for fewer"
        )
    return sorted(members)


def _metis(beads: int, adjacency: Sequence[Sequence[int]], weights: Sequence[int]) -> Sequence[int]:
    if beads == 1:
        return [0] * len(adjacency)
    try:
        import pymetis
    except ModuleNotFoundError as error:
        raise InputError(
            "the resolution 'graph' needs pymetis, which is not installed; pip install 'ase-cg[polymers]'"
        ) from error
    options = pymetis.Options(contig=1, seed=METIS_SEED)
    _, parts = pymetis.part_graph(beads, adjacency=adjacency, vweights=weights, recursive=False, options=options)
    return [int(part) for part in parts]


def _symbol(atom: Any) -> str:
    return "X" if atom.element is None else str(atom.element.symbol)


def _formula(atoms: Sequence[Any]) -> str:
    """Return a formula in Hill's order: carbon, hydrogen, then by name."""
    counts = Counter(_symbol(atom) for atom in atoms)
    order = sorted(counts, key=lambda symbol: ({"C": 0, "H": 1}.get(symbol, 2), symbol))
    return "".join(f"{symbol}{counts[symbol] if counts[symbol] > 1 else ''}" for symbol in order)
