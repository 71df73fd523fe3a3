"""From atoms to beads: the linear map of a resolution for a molecule."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ase_cg.beads.bonds import bead_bonds
from ase_cg.beads.groups import AtomGroup, groups_of
from ase_cg.beads.residues import canonical_name, left_out
from ase_cg.beads.resolution import Resolution, ResolutionSpec
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError


@dataclass(frozen=True)
class BeadMap:
    """Linear map from atoms to beads.

    Parameters
    ----------
    matrix : sparse or dense array, shape (N, n)
        Bead positions are ``matrix @ atom_positions``; rows sum to 1. It is kept sparse.
    topology : BeadTopology
    resolution : str, tuple of str, or dict
        What the map was made from.

    Raises
    ------
    InputError
        If the rows do not sum to 1 or their number is not that of the beads.
    """

    matrix: Any
    topology: BeadTopology
    resolution: str | tuple[str, ...] | dict[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", csr_array(self.matrix))
        if self.matrix.ndim != 2 or self.matrix.shape[0] != self.topology.n_beads:
            raise InputError(f"a map to {self.topology.n_beads} beads cannot have shape {self.matrix.shape}")
        if not np.allclose(self.matrix.sum(axis=1), 1.0, atol=1e-12):
            raise InputError("the weights of each bead's atoms must sum to 1")

    @property
    def n_atoms(self) -> int:
        """Number of atoms the map takes."""
        return int(self.matrix.shape[1])

    @cached_property
    def atoms(self) -> NDArray[np.int64] | None:
        """The atom that each bead is, or None where a bead mixes several."""
        if not np.array_equal(np.diff(self.matrix.indptr), np.ones(self.topology.n_beads, dtype=int)):
            return None
        return np.asarray(self.matrix.indices, dtype=np.int64)

    @cached_property
    def dense(self) -> NDArray[np.float64]:
        """The map as an array, shape (N, n)."""
        return np.asarray(self.matrix.toarray(), dtype=np.float64)

    def apply(self, positions: NDArray[Any]) -> NDArray[Any]:
        """Map atom positions (F, n, 3) to bead positions (F, N, 3), in the same unit."""
        if self.atoms is not None:
            return np.asarray(positions[:, self.atoms])
        return linear_map(self.dense, positions)

    def restricted(self, atoms: NDArray[np.int64]) -> "BeadMap":
        """Return the map of a part of the atoms, which must hold all that belong to beads."""
        return BeadMap(self.matrix[:, atoms], self.topology, self.resolution)


def linear_map(matrix: NDArray[Any], vectors: NDArray[Any]) -> NDArray[Any]:
    """Map vectors on atoms (F, n, 3) to vectors on beads (F, N, 3) with a matrix (N, n)."""
    return np.asarray(np.tensordot(vectors, matrix, axes=(1, 1)).transpose(0, 2, 1))


def bead_map(topology: Any, resolution: ResolutionSpec | Resolution) -> BeadMap:
    """Make the map of a resolution for an all-atom topology.

    Parameters
    ----------
    topology : mdtraj.Topology
        Best as :func:`ase_cg.beads.structure.read_structure` gives it.
    resolution : str, sequence of str, mapping, path, or Resolution
        As in :meth:`ase_cg.beads.resolution.Resolution.of`.

    Raises
    ------
    InputError
        If the resolution, a residue or an atom is not known, a name fits several atoms, or a selection is empty or
        overlaps another.
    """
    chosen = Resolution.of(resolution)
    groups = groups_of(topology, chosen)
    if not groups:
        raise InputError(f"no atom of the topology becomes a bead at resolution '{chosen}'")
    rows = np.repeat(np.arange(len(groups)), [len(group.atoms) for group in groups])
    columns = np.array([atom.index for group in groups for atom in group.atoms])
    weights = np.concatenate([group.weights for group in groups])
    matrix = csr_array((weights, (rows, columns)), shape=(len(groups), topology.n_atoms))
    return BeadMap(matrix, _bead_topology(topology, groups, chosen), chosen.spec)


def molecule_atoms(topology: Any, mapped: BeadMap) -> NDArray[np.int64]:
    """Return the atoms that matter to the beads, sorted: all but water and ions, and those that are beads."""
    declared = Resolution.of(mapped.resolution).residues
    kept = [atom.index for atom in topology.atoms if not left_out(atom.residue, declared)]
    return np.unique(np.concatenate([np.array(kept, dtype=np.int64), mapped.matrix.indices.astype(np.int64)]))


def _bead_topology(topology: Any, groups: Sequence[AtomGroup], resolution: Resolution) -> BeadTopology:
    residues = [group.atoms[0].residue for group in groups]
    bead_of = {atom.index: bead for bead, group in enumerate(groups) for atom in group.atoms}
    names = [canonical_name(residue.name, resolution.residues) for residue in topology.residues]
    bonds = resolution.bonds
    if bonds is None:
        bonds = bead_bonds(topology, bead_of, names)
    return BeadTopology(
        names=tuple(group.name for group in groups),
        residue_names=tuple(names[residue.index] or residue.name for residue in residues),
        residue_numbers=tuple(int(residue.resSeq) for residue in residues),
        chains=tuple(int(residue.chain.index) for residue in residues),
        masses=tuple(group.mass for group in groups),
        bonds=tuple(sorted({(min(bond), max(bond)) for bond in bonds})),
    )
