"""Polymers divided into beads by their bond graph."""

import mdtraj
import numpy as np
import pytest

from ase_cg import InputError
from ase_cg.beads.atoms import read_topology
from ase_cg.beads.mapping import bead_map
from ase_cg.beads.structure import read_structure


def _polymer(path, units: int, molecules: int):
    """Write chains of CH2–CH2–O units with hydrogens as a PDB with its bonds."""
    from mdtraj.core.element import Element

    topology = mdtraj.Topology()
    positions = []
    for molecule in range(molecules):
        chain = topology.add_chain()
        last = None
        for unit in range(units):
            residue = topology.add_residue("PEO", chain)
            heavy = []
            for name in ("C1", "C2", "O"):
                atom = topology.add_atom(name, Element.getBySymbol(name[0]), residue)
                positions.append([0.15 * (3 * unit + len(heavy)), 0.0, molecule])
                if last is not None:
                    topology.add_bond(last, atom)
                last = atom
                heavy.append(atom)
            for number, carbon in enumerate(heavy[:2]):
                for side in (1, -1):
                    name = f"H{number}{side > 0:d}"
                    hydrogen = topology.add_atom(name, Element.getBySymbol("H"), residue)
                    positions.append([0.15 * (3 * unit + number), 0.1 * side, molecule])
                    topology.add_bond(carbon, hydrogen)
    mdtraj.Trajectory(np.array(positions)[None], topology).save(str(path))
    return path


def test_a_polymer_is_divided_into_connected_beads_of_like_mass(tmp_path):
    pytest.importorskip("pymetis")
    path = _polymer(tmp_path / "polymer.h5", units=20, molecules=2)
    structure = read_structure(path)
    mapped = bead_map(structure.topology, "graph:10")
    topology = mapped.topology
    assert topology.n_beads == 20
    # A linear molecule cut into connected pieces is a chain, and both molecules are cut alike.
    assert topology.bonds == tuple((i, i + 1) for i in range(19) if i != 9)
    assert topology.names[:10] == topology.names[10:]
    assert max(topology.masses) < 1.3 * min(topology.masses)
    assert sum(topology.masses) == pytest.approx(2 * 20 * (2 * 12.011 + 15.999 + 4 * 1.008), rel=1e-4)
    owner = mapped.matrix.toarray().argmax(0)
    for first, second in structure.topology.bonds:
        if second.element.symbol == "H":
            assert owner[first.index] == owner[second.index]
    with pytest.raises(InputError, match="60 heavy atoms for 61 beads"):
        bead_map(structure.topology, "graph:61")


def test_a_polymer_without_bonds_in_its_file_is_one_molecule(tmp_path):
    pytest.importorskip("pymetis")
    path = _polymer(tmp_path / "polymer.h5", units=6, molecules=1)
    mdtraj.load(str(path)).save(str(tmp_path / "polymer.pdb"))
    lines = [line for line in (tmp_path / "polymer.pdb").read_text().splitlines(keepends=True) if "CONECT" not in line]
    (tmp_path / "polymer.pdb").write_text("".join(lines))
    assert read_topology(tmp_path / "polymer.pdb", "graph:3").bonds == ((0, 1), (1, 2))
