"""From beads back to atoms."""

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.peptide_planes import C_N, C_N_CA, C_O, CA_C, CA_C_N, CA_C_O, N_CA, place, rebuild_backbone
from ase_cg.analysis.template import Template
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError

Floats = NDArray[np.float64]
BACKBONE = ("N", "CA", "C", "O")
N_H, CA_H = 1.01, 1.09  # Å
TETRAHEDRAL = np.radians(109.5)


@dataclass(frozen=True)
class Backmapping:
    """How the beads of a molecule become atoms.

    Parameters
    ----------
    topology : mdtraj.Topology
        Of n atoms.
    held : ndarray, shape (N,)
        The atom that each bead is.
    chains : tuple of tuple of int
        The beads of each chain whose backbone is rebuilt from Cα; empty where the beads alone place the rest.
    template : Template
    residues : tuple of str
        Of each bead, for the backbone.
    """

    topology: Any
    held: NDArray[np.int64]
    chains: tuple[tuple[int, ...], ...]
    template: Template
    residues: tuple[str, ...]

    @property
    def is_stand_in(self) -> bool:
        """Whether glycines stand for the residues: only the heavy atoms of the backbone are real then."""
        return bool(self.chains) and all(residue.name == "GLY" for residue in self.topology.residues)

    def backbone(self, atoms: Floats) -> tuple[Any, Floats]:
        """Return topology and positions (F, 4N, 3) of the backbone alone, under the names of the residues."""
        kept = [atom.index for atom in self.topology.atoms if atom.name in BACKBONE]
        topology = self.topology.subset(kept)
        order = [bead for chain in self.chains for bead in chain]
        for residue, bead in zip(topology.residues, order, strict=True):
            residue.name = self.residues[bead]
        return topology, atoms[:, kept]

    def build(self, frames: NDArray[Any]) -> Floats:
        """Return all atoms (F, n, 3) in Å of frames of beads (F, N, 3) in Å; beads stay where they are."""
        x = frames.astype(float)
        if not self.chains:
            return self.template.build(x)
        known = [
            rebuild_backbone(x[:, list(chain)], tuple(self.residues[bead] for bead in chain)).reshape(len(x), -1, 3)
            for chain in self.chains
        ]
        return self.template.build(np.concatenate(known, axis=1))


def backmapping(
    topology: BeadTopology, resolution: Any, structure: str | os.PathLike[str] | None = None
) -> Backmapping:
    """Find out how to rebuild the atoms of a molecule.

    With an all-atom structure all its atoms are rebuilt: from beads that are single atoms, and for Cα beads after the
    backbone; side chains and hydrogens as in the structure. Without one Cα beads give a backbone of glycines.

    Parameters
    ----------
    topology : BeadTopology
    resolution : as in the dataset
    structure : path, optional
        All-atom structure of the molecule, hydrogens included where energies are wanted.

    Raises
    ------
    InputError
        If the beads are not atoms, or no structure is given and they are not one Cα a residue.
    """
    alphas = all(":" not in name or name.endswith(":CA") for name in topology.names)
    if structure is None:
        if not alphas:
            raise InputError(
                "only Cα beads become a backbone by themselves; give an all-atom structure of the molecule "
                "(--structure all_atom.pdb)"
            )
        return _glycines(topology)
    return _from_structure(topology, resolution, Path(structure), alphas=alphas)


def _chains(topology: BeadTopology) -> tuple[tuple[int, ...], ...]:
    """Return the beads of each stretch of residues that bonds join."""
    stretches: list[list[int]] = []
    for bead in range(topology.n_beads):
        if stretches and (stretches[-1][-1], bead) in topology.bonds:
            stretches[-1].append(bead)
        else:
            stretches.append([bead])
    return tuple(tuple(stretch) for stretch in stretches)


def _from_structure(topology: BeadTopology, resolution: Any, path: Path, *, alphas: bool) -> Backmapping:
    from ase_cg.analysis.same_beads import order_of_beads
    from ase_cg.beads.mapping import bead_map
    from ase_cg.beads.structure import read_structure

    structure = read_structure(path)
    try:
        mapped = bead_map(structure.topology, resolution)
    except InputError as error:
        raise InputError(f"the structure {path} cannot be used: {error}") from error
    order = order_of_beads(mapped.topology, topology, str(path), "the data")
    if structure.positions is None:
        raise InputError(f"{path} holds no positions; give a structure that does")
    if mapped.atoms is None:
        raise InputError("beads that stand for several atoms cannot be turned back into atoms")
    chains = _chains(topology) if alphas else ()
    held = mapped.atoms[order]
    known = tuple(int(i) for i in held)
    if chains:
        residues = [structure.topology.atom(i).residue for i in known]
        known = tuple(_named(residue, name, path) for residue in residues for name in BACKBONE)
    template = Template.of(structure.topology, structure.positions, known)
    return Backmapping(structure.topology, held, chains, template, topology.residue_names)


def _named(residue: Any, name: str, path: Path) -> int:
    for atom in residue.atoms:
        if atom.name == name or (name == "O" and atom.name in {"O1", "OT1"}):
            return int(atom.index)
    raise InputError(f"residue {residue} in {path} has no atom {name}")


def _glycines(topology: BeadTopology) -> Backmapping:
    """Return the backmapping to chains of glycine, whose template is built from ideal geometry."""
    import mdtraj

    chains = _chains(topology)
    made = mdtraj.Topology()
    known: list[int] = []
    positions: list[Floats] = []
    for number, chain in enumerate(chains):
        backbone = _extended(len(chain)) + np.array([0.0, 0.0, 50.0 * number])
        added = made.add_chain()
        before = None
        for place_in_chain, bead in enumerate(chain):
            residue = made.add_residue("GLY", added, resSeq=topology.residue_numbers[bead])
            ends = place_in_chain == 0, place_in_chain == len(chain) - 1
            atoms = {}
            for name, x in _glycine_atoms(backbone, place_in_chain, *ends).items():
                element = mdtraj.element.Element.getBySymbol(name[0])
                atoms[name] = made.add_atom(name, element, residue)
                positions.append(x)
            known += [atoms[name].index for name in BACKBONE]
            _bond_glycine(made, atoms, before)
            before = atoms["C"]
    template = Template.of(made, np.stack(positions), tuple(known))
    held = np.array(known[1 :: len(BACKBONE)], dtype=np.int64)
    return Backmapping(made, held, chains, template, topology.residue_names)


def _bond_glycine(made: Any, atoms: dict[str, Any], before: Any) -> None:
    for one, other in pairwise(BACKBONE):
        made.add_bond(atoms[one], atoms[other])
    for name, atom in atoms.items():
        if name.startswith("H"):
            made.add_bond(atoms["CA" if name.startswith("HA") else "N"], atom)
    if "OXT" in atoms:
        made.add_bond(atoms["C"], atoms["OXT"])
    if before is not None:
        made.add_bond(before, atoms["N"])


def _extended(n: int) -> Floats:
    """Return N, Cα, C and O of an extended chain of n residues: shape (n, 4, 3)."""
    x: list[Floats] = [np.zeros((1, 3)), np.array([[N_CA, 0.0, 0.0]])]
    x.append(place(np.array([[0.0, 1.0, 0.0]]), x[0], x[1], CA_C, np.radians(111.0), 0.0))
    steps = ((C_N, CA_C_N), (N_CA, C_N_CA), (CA_C, np.radians(111.0)))
    for number in range(3 * (n - 1)):
        x.append(place(x[-3], x[-2], x[-1], *steps[number % 3], np.pi))
    heavy = np.concatenate(x).reshape(n, 3, 3)
    following = [heavy[i + 1, 0] if i + 1 < n else _last_nitrogen(heavy[i]) for i in range(n)]
    oxygens = [
        place(nitrogen[None], heavy[i, 1][None], heavy[i, 2][None], C_O, CA_C_O, np.pi)
        for i, nitrogen in enumerate(following)
    ]
    return np.concatenate([heavy, np.concatenate(oxygens)[:, None]], axis=1)


def _last_nitrogen(residue: Floats) -> Floats:
    """Return where the nitrogen of one residue more would be."""
    n, ca, c = (residue[i][None] for i in range(3))
    return np.asarray(place(n, ca, c, C_N, CA_C_N, np.pi)[0])


def _glycine_atoms(chain: Floats, number: int, first: bool, last: bool) -> dict[str, Floats]:
    """Return all atoms of one glycine of a chain (n, 4, 3), by name."""
    n, ca, c, o = (chain[number, i][None] for i in range(4))
    atoms = dict(zip(BACKBONE, (n, ca, c, o), strict=True))
    if first:
        atoms |= {f"H{k + 1}": place(c, ca, n, N_H, TETRAHEDRAL, np.radians(60 + 120 * k)) for k in range(3)}
    else:
        before = chain[number - 1, 2][None]
        atoms["H"] = place(before, ca, n, N_H, np.radians(119), np.pi)
    atoms |= {
        name: place(n, c, ca, CA_H, TETRAHEDRAL, np.radians(turn)) for name, turn in (("HA2", 120), ("HA3", -120))
    }
    if last:
        atoms["OXT"] = place(o, ca, c, C_O, np.radians(117), np.pi)
    return {name: x[0] for name, x in atoms.items()}
