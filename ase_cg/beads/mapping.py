"""From atoms to beads: named resolutions, explicit atoms, and the linear map they define."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.residues import CAPS, RESIDUES, WATER_AND_IONS
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError

Resolution = str | Sequence[str]
"""``"calpha"``, or the atoms that become beads: ``["ACE:C", "ALA:N", "ALA2:CA", ...]``."""

RESOLUTIONS = ("calpha",)


@dataclass(frozen=True)
class BeadMap:
    """Linear map from atoms to beads.

    Parameters
    ----------
    matrix : ndarray, shape (N, n)
        Bead positions are ``matrix @ atom_positions``; rows sum to 1.
    topology : BeadTopology
    resolution : str or tuple of str
        What the map was made from.

    Raises
    ------
    InputError
        If the rows do not sum to 1 or their number is not that of the beads.
    """

    matrix: NDArray[np.float64]
    topology: BeadTopology
    resolution: str | tuple[str, ...]

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or len(self.matrix) != self.topology.n_beads:
            raise InputError(f"a map to {self.topology.n_beads} beads cannot have shape {self.matrix.shape}")
        if not np.allclose(self.matrix.sum(1), 1.0, atol=1e-12):
            raise InputError("the weights of each bead's atoms must sum to 1")

    @property
    def n_atoms(self) -> int:
        """Number of atoms the map takes."""
        return int(self.matrix.shape[1])

    @cached_property
    def atoms(self) -> NDArray[np.int64] | None:
        """The atom that each bead is, or None where a bead mixes several."""
        if not np.array_equal(np.count_nonzero(self.matrix, axis=1), np.ones(len(self.matrix), dtype=int)):
            return None
        return np.asarray(self.matrix.argmax(1))

    def apply(self, positions: NDArray[Any]) -> NDArray[Any]:
        """Map atom positions (F, n, 3) to bead positions (F, N, 3), in the same unit."""
        if self.atoms is not None:
            return np.asarray(positions[:, self.atoms])
        return np.asarray(np.einsum("bn,fnx->fbx", self.matrix, positions))


def bead_map(topology: Any, resolution: Resolution) -> BeadMap:
    """Make the map of a resolution for an all-atom topology.

    Parameters
    ----------
    topology : mdtraj.Topology
    resolution : str or sequence of str
        ``"calpha"``: one bead per residue at its CA, named like the residue. A sequence names the atoms that
        become beads, in their order, as ``RES:ATOM`` (``ALA:CA``), with the residue's number where that is not
        unique (``ALA2:CA``).

    Raises
    ------
    InputError
        If the resolution, a residue or an atom is not known, or a name fits several atoms.
    """
    if isinstance(resolution, str):
        if resolution not in RESOLUTIONS:
            raise InputError(
                f"unknown resolution {resolution!r}; known are {', '.join(RESOLUTIONS)}, or a list of atoms "
                "such as ALA:N,ALA:CA,ALA:C"
            )
        atoms = _calpha_atoms(topology)
        names = [atom.residue.name for atom in atoms]
        kept: str | tuple[str, ...] = resolution
    else:
        atoms = [_named_atom(topology, name) for name in resolution]
        names = [f"{atom.residue.name}:{atom.name}" for atom in atoms]
        kept = tuple(resolution)
        if len({atom.index for atom in atoms}) < len(atoms):
            raise InputError("an atom is listed twice among the beads")
    if not atoms:
        raise InputError(f"no atom of the topology becomes a bead at resolution {resolution!r}")
    matrix = np.zeros((len(atoms), topology.n_atoms))
    matrix[range(len(atoms)), [atom.index for atom in atoms]] = 1.0
    return BeadMap(matrix, _bead_topology(topology, atoms, names), kept)


def _calpha_atoms(topology: Any) -> list[Any]:
    atoms = []
    for residue in topology.residues:
        if residue.name in WATER_AND_IONS or residue.name in CAPS:
            continue
        if residue.name not in RESIDUES:
            raise InputError(f"residue {residue.name} {residue.resSeq} is not known at resolution 'calpha'")
        found = [atom for atom in residue.atoms if atom.name == "CA"]
        if not found:
            raise InputError(f"residue {residue.name} {residue.resSeq} has no atom CA")
        atoms.append(found[0])
    return atoms


def _named_atom(topology: Any, name: str) -> Any:
    """Return the one atom that ``RES:ATOM`` or ``RES<number>:ATOM`` names."""
    if not isinstance(name, str):
        raise InputError(f"{name!r} does not name an atom; write RES:ATOM, such as ALA:CA")
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


def _bead_topology(topology: Any, atoms: list[Any], names: list[str]) -> BeadTopology:
    return BeadTopology(
        names=tuple(names),
        residue_names=tuple(atom.residue.name for atom in atoms),
        residue_numbers=tuple(int(atom.residue.resSeq) for atom in atoms),
        chains=tuple(int(atom.residue.chain.index) for atom in atoms),
        masses=tuple(float(atom.element.mass) for atom in atoms),
        bonds=_contracted_bonds(topology, atoms),
    )


def _missing_backbone_bonds(topology: Any) -> list[tuple[Any, Any]]:
    """Return the backbone bonds of known residues for which the structure's reader had no template (NLE, ASH, …).

    Their N–CA and CA–C, and the peptide bonds with neighbours of the same chain whose number is the next.
    """
    bonded = {frozenset((first.index, second.index)) for first, second in topology.bonds}
    wanted: list[tuple[Any, Any]] = []
    for chain in topology.chains:
        last: Any = None
        last_number = 0
        for residue in chain.residues:
            backbone = {atom.name: atom for atom in residue.atoms if atom.name in {"N", "CA", "C"}}
            if residue.name not in RESIDUES or len(backbone) < 3:
                last = backbone.get("C") if residue.name in CAPS else None
            else:
                wanted += [(backbone["N"], backbone["CA"]), (backbone["CA"], backbone["C"])]
                if last is not None and residue.resSeq == last_number + 1:
                    wanted.append((last, backbone["N"]))
                last = backbone["C"]
            last_number = residue.resSeq
    return [pair for pair in wanted if frozenset((pair[0].index, pair[1].index)) not in bonded]


def _contracted_bonds(topology: Any, atoms: list[Any]) -> tuple[tuple[int, int], ...]:
    """Bonds between beads: atoms bonded directly, or through at most two backbone atoms that are no beads.

    The second rule joins the CA atoms of neighbouring residues (through C and N) and no others.
    """
    bead_of = {atom.index: bead for bead, atom in enumerate(atoms)}
    neighbors: dict[int, list[Any]] = {atom.index: [] for atom in topology.atoms}
    for first, second in [*topology.bonds, *_missing_backbone_bonds(topology)]:
        neighbors[first.index].append(second)
        neighbors[second.index].append(first)
    bonds: set[tuple[int, int]] = set()
    for bead, atom in enumerate(atoms):
        frontier, seen = [atom], {atom.index}
        for _ in range(3):
            reached = [other for at in frontier for other in neighbors[at.index] if other.index not in seen]
            seen.update(other.index for other in reached)
            ends = [bead_of[other.index] for other in reached if other.index in bead_of]
            bonds.update((min(bead, end), max(bead, end)) for end in ends)
            frontier = [at for at in reached if at.index not in bead_of and at.name in {"N", "CA", "C"}]
    return tuple(sorted(bonds))
