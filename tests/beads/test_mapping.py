"""Beads of real and made structures: names, bonds, masses, positions, and what is refused."""

import mdtraj
import numpy as np
import pytest

from ase_cg import read_beads
from ase_cg.beads.atoms import read_topology, standard_vocabulary
from ase_cg.beads.mapping import BeadMap, bead_map
from ase_cg.beads.residues import RESIDUES
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError
from tests.conftest import ALA2_ATOMS, ALA2_BONDS


def test_alanine_dipeptide_beads_and_bonds(example_data):
    atoms = read_beads(example_data / "ala2.pdb", ALA2_ATOMS)
    topology = bead_map(mdtraj.load(str(example_data / "ala2.pdb")).topology, ALA2_ATOMS).topology
    assert topology.bonds == ALA2_BONDS
    assert topology.angles == ((0, 1, 2), (1, 2, 3), (1, 2, 4), (3, 2, 4), (2, 4, 5))
    assert topology.dihedrals == ((0, 1, 2, 3), (0, 1, 2, 4), (1, 2, 4, 5), (3, 2, 4, 5))
    assert list(atoms.arrays["bead_name"]) == list(ALA2_ATOMS)
    assert atoms.get_masses() == pytest.approx([12.011, 14.007, 12.011, 12.011, 12.011, 14.007], abs=1e-3)
    assert (atoms.numbers == 1 + atoms.arrays["bead_type"]).all()
    structure = mdtraj.load(str(example_data / "ala2.pdb"))
    wanted = structure.xyz[0, structure.topology.select("name CA")] * 10
    assert atoms.positions[2] == pytest.approx(wanted[0], abs=1e-6)


def test_chignolin_calpha_is_a_chain_with_residue_names(shared):
    atoms = read_beads(shared / "chignolin_ca_forces" / "chignolin_cln025.pdb", "calpha")
    assert list(atoms.arrays["bead_name"]) == ["TYR", "TYR", "ASP", "PRO", "GLU", "THR", "GLY", "THR", "TRP", "TYR"]
    structure = mdtraj.load(str(shared / "chignolin_ca_forces" / "chignolin_cln025.pdb"))
    assert bead_map(structure.topology, "calpha").topology.bonds == tuple((i, i + 1) for i in range(9))


def test_numbers_of_residue_beads_mean_the_same_in_every_file():
    assert standard_vocabulary(["GLY"]) == standard_vocabulary(["TYR", "TRP"]) == RESIDUES
    assert RESIDUES[:3] == ("ALA", "ARG", "ASN")
    assert len(set(RESIDUES)) == len(RESIDUES)


def test_a_map_is_linear_and_its_rows_sum_to_one():
    topology = BeadTopology(("A", "A"), ("A", "A"), (1, 2), (0, 0), (1.0, 1.0), ((0, 1),))
    matrix = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    positions = np.random.default_rng(0).standard_normal((4, 3, 3))
    mapped = BeadMap(matrix, topology, "calpha").apply(positions)
    assert mapped == pytest.approx(np.stack([positions[:, :2].mean(1), positions[:, 2]], 1))
    with pytest.raises(InputError, match="sum to 1"):
        BeadMap(2 * matrix, topology, "calpha")


def _peptide(*residues: str, chains: int = 1) -> mdtraj.Topology:
    topology = mdtraj.Topology()
    for _ in range(chains):
        chain, last = topology.add_chain(), None
        for number, name in enumerate(residues, 1):
            residue = topology.add_residue(name, chain, resSeq=number)
            atoms = [topology.add_atom(a, mdtraj.element.Element.getBySymbol(a[0]), residue) for a in ("N", "CA", "C")]
            topology.add_bond(atoms[0], atoms[1])
            topology.add_bond(atoms[1], atoms[2])
            if last is not None:
                topology.add_bond(last, atoms[0])
            last = atoms[2]
    return topology


def test_chains_are_not_bonded_to_each_other():
    topology = bead_map(_peptide("ALA", "GLY", chains=2), "calpha").topology
    assert topology.bonds == ((0, 1), (2, 3))
    assert topology.chains == (0, 0, 1, 1)


def test_an_unknown_residue_is_named():
    with pytest.raises(InputError, match="XYZ 2"):
        bead_map(_peptide("ALA", "XYZ"), "calpha")


def test_unknown_resolution_and_atoms_are_named():
    with pytest.raises(InputError, match="calfa"):
        bead_map(_peptide("ALA"), "calfa")
    with pytest.raises(InputError, match="ALA:CX"):
        bead_map(_peptide("ALA"), ["ALA:CX"])
    with pytest.raises(InputError, match="fits 2 atoms; say which residue, such as 'ALA1:CA'"):
        bead_map(_peptide("ALA", "ALA"), ["ALA:CA"])
    with pytest.raises(InputError, match="RES:ATOM"):
        bead_map(_peptide("ALA"), ["CA"])
    with pytest.raises(InputError, match="twice"):
        bead_map(_peptide("ALA"), ["ALA:CA", "ALA1:CA"])


def test_a_residue_number_picks_one_of_several():
    topology = bead_map(_peptide("ALA", "ALA"), ["ALA1:CA", "ALA2:CA"]).topology
    assert topology.names == ("ALA:CA", "ALA:CA")
    assert topology.bonds == ((0, 1),)


def test_missing_empty_and_broken_structures_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_beads(tmp_path / "none.pdb", "calpha")
    broken = tmp_path / "broken.pdb"
    broken.write_text("ATOM  nonsense\n")
    with pytest.raises(InputError, match=r"broken\.pdb"):
        read_beads(broken, "calpha")
    (tmp_path / "x.unknown").write_text("")
    with pytest.raises(InputError, match="cannot be read as a structure"):
        read_beads(tmp_path / "x.unknown", "calpha")


def test_a_topology_survives_its_dictionary(ala2):
    assert BeadTopology.from_dict(ala2.to_dict()) == ala2
    with pytest.raises(InputError, match="not a bead topology"):
        BeadTopology.from_dict({"names": []})


def test_impossible_topologies_are_refused():
    with pytest.raises(InputError, match="lower index first"):
        BeadTopology(("A", "A"), ("A", "A"), (1, 2), (0, 0), (1.0, 1.0), ((1, 0),))
    with pytest.raises(InputError, match="masses"):
        BeadTopology(("A", "A"), ("A", "A"), (1, 2), (0, 0), (1.0,), ())
    with pytest.raises(InputError, match="positive mass"):
        BeadTopology(("A",), ("A",), (1,), (0,), (0.0,), ())


@pytest.mark.parametrize("name", ["NLE", "ASH", "GLH", "LYN", "MSE", "CYM"])
def test_residues_without_a_template_keep_their_bonds(name, shared, tmp_path):
    lines = (shared / "chignolin_ca_forces" / "chignolin_cln025.pdb").read_text().splitlines(keepends=True)
    renamed = "".join(line.replace("THR", name) for line in lines if line.startswith(("ATOM", "HETATM", "TER", "END")))
    (tmp_path / "x.pdb").write_text(renamed)
    topology = bead_map(mdtraj.load(str(tmp_path / "x.pdb")).topology, "calpha").topology
    assert topology.names.count(name) == 2
    assert topology.bonds == tuple((i, i + 1) for i in range(9))


def test_a_resolution_of_the_wrong_kind_is_one_sentence(example_data):
    for wrong in (None, 3, object()):
        with pytest.raises(InputError, match="a resolution is a name"):
            read_beads(example_data / "ala2.pdb", wrong)
    with pytest.raises(InputError, match="does not name an atom"):
        read_beads(example_data / "ala2.pdb", [1, 2])


def test_exclusions_are_the_pairs_within_so_many_bonds(shared):
    topology = read_topology(shared / "chignolin_ca_forces" / "chignolin_cln025.pdb", "calpha")
    assert topology.exclusions(1) == topology.bonds
    assert topology.exclusions(3) == tuple((i, j) for i in range(10) for j in range(i + 1, min(i + 4, 10)))
