"""Every resolution on real structures: names, masses, bonds, and what is refused."""

import mdtraj
import numpy as np
import pytest
import yaml

from ase_cg import CGCalculator, CGModel, InputError, PriorSet, Resolution, read_beads
from ase_cg.beads.atoms import read_topology
from ase_cg.beads.residues import PARENTS
from ase_cg.beads.resolution import RESOLUTIONS
from ase_cg.models.model import ModelCard

# Experimental structure and PSF of each fast folder, and where the simulated sequence differs from the crystal's.
FOLDERS = {
    "a3d": ("a3d_2a3d", {}),
    "bba": ("bba_1fme", {}),
    "bbl": ("bbl_2wxc", {}),
    "cln": ("chignolin_cln025", {}),
    "homeodomain": ("homeodomain_1enh", {}),
    "lambda": ("lambda_1lmb", {}),
    "ntl9": ("ntl9_2hba", {}),
    "proteinb": ("proteinb_1prb", {"LYS": ("ILE", "VAL")}),
    "proteing": ("proteing_1mi0", {"ASN": ("ALA",), "ALA": ("ASP",), "ASP": ("ALA",)}),
    "trp": ("trpcage_2jof", {}),
    "villin": ("villin_2f4k", {}),
    "ww": ("wwdomain_1pin", {}),
}


@pytest.mark.parametrize("name", [*FOLDERS, "ubiquitin"])
def test_calpha_beads_of_every_fast_folder_agree_with_its_psf(name, shared):
    folder = shared / "fast_folders"
    mutations = {}
    if name == "ubiquitin":
        pdb, psf = folder / "ubiquitin" / "ubiquitin_1ubq.pdb", folder / "ubiquitin" / "ubiquitin_1ubq.psf"
    else:
        pdb = folder / "experimental_structures" / f"{FOLDERS[name][0]}.pdb"
        psf, mutations = folder / "topology" / f"{name}.psf", FOLDERS[name][1]
    atoms = read_beads(pdb, "calpha")
    ours, published = read_topology(pdb, "calpha"), read_topology(psf, "calpha")
    assert ours.bonds == published.bonds
    assert len(atoms) == published.n_beads
    for bead, theirs in zip(ours.names, published.names, strict=True):
        # The PSF names the protonation of histidines, which a crystal does not show.
        assert bead in {theirs, PARENTS.get(theirs)} or theirs in mutations.get(bead, ())
    lengths = np.linalg.norm(np.diff(atoms.positions, axis=0), axis=1)
    assert ((lengths > 2.7) & (lengths < 4.2)).all()
    assert atoms.get_masses() == pytest.approx(12.011, abs=1e-3)


@pytest.mark.parametrize("resolution", ["calpha", "calpha_cbeta", "backbone", "heavy", "residue_com"])
def test_every_named_resolution_runs_under_a_calculator(resolution, shared):
    pdb = shared / "fast_folders" / "experimental_structures" / "villin_2f4k.pdb"
    atoms = read_beads(pdb, resolution)
    topology = read_topology(pdb, resolution)
    vocabulary = tuple(sorted(set(topology.names)))
    frames = atoms.positions + 0.05 * np.random.default_rng(0).standard_normal((50, len(atoms), 3))
    priors = PriorSet.fit_positions(frames, topology, ("bonds", "angles"), vocabulary=vocabulary, kT=0.026)
    model = CGModel(vocabulary, priors, ModelCard(300.0, resolution, (topology,)))
    beads = read_beads(pdb, model)
    beads.calc = CGCalculator(model, dtype="float64")
    assert np.isfinite(beads.get_potential_energy())
    assert beads.get_forces().sum(0) == pytest.approx(np.zeros(3), abs=1e-9)


def test_the_named_resolutions_of_chignolin(shared):
    pdb = shared / "chignolin_ca_forces" / "chignolin_cln025.pdb"
    beads = {name: read_topology(pdb, name) for name in RESOLUTIONS}
    # 10 residues, one of them glycine without CB; 93 heavy atoms; a chain without rings has one bond less than beads.
    assert {name: topology.n_beads for name, topology in beads.items()} == {
        "calpha": 10,
        "calpha_cbeta": 19,
        "backbone": 49,
        "heavy": 93,
        "residue_com": 10,
    }
    assert [len(beads[name].bonds) for name in ("calpha", "calpha_cbeta", "backbone", "residue_com")] == [9, 18, 48, 9]
    assert len(beads["heavy"].bonds) == 93 - 1 + 6  # six rings: three TYR, one PRO, two of TRP
    assert "GLY:CB" not in beads["backbone"].names
    assert beads["calpha_cbeta"].names[:4] == ("TYR:CA", "TYR:CB", "TYR:CA", "TYR:CB")


def test_a_centre_of_mass_is_weighted_by_mass_and_carries_it(example_data):
    atoms = read_beads(example_data / "ala2.pdb", "residue_com")
    structure = mdtraj.load(str(example_data / "ala2.pdb"))
    for bead, residue in enumerate(structure.topology.residues):
        indices = [atom.index for atom in residue.atoms]
        masses = np.array([atom.element.mass for atom in residue.atoms])
        assert atoms.positions[bead] == pytest.approx(10 * masses @ structure.xyz[0, indices] / masses.sum(), abs=1e-5)
        assert atoms.get_masses()[bead] == pytest.approx(masses.sum())
    assert list(atoms.arrays["bead_name"]) == ["ACE", "ALA", "NME"]


def test_caps_give_their_share_of_the_backbone_and_no_calpha(example_data):
    backbone = read_topology(example_data / "ala2.pdb", "backbone")
    assert backbone.names == ("ACE:C", "ACE:O", "ALA:N", "ALA:CA", "ALA:CB", "ALA:C", "ALA:O", "NME:N")
    assert len(backbone.bonds) == 7
    assert read_topology(example_data / "ala2.pdb", "calpha").names == ("ALA",)
    assert read_topology(example_data / "ala2.pdb", "heavy").n_beads == 10


def test_termini_are_named_apart_on_request_but_not_beside_a_cap(shared, example_data):
    pdb = shared / "chignolin_ca_forces" / "chignolin_cln025.pdb"
    names = read_topology(pdb, {"name": "calpha", "termini": True}).names
    assert names[:2] == ("NTYR", "TYR")
    assert names[-2:] == ("TRP", "CTYR")
    assert read_topology(example_data / "ala2.pdb", {"name": "calpha", "termini": True}).names == ("ALA",)


def test_groups_come_from_a_yaml_file_with_selections(example_data, tmp_path):
    groups = {
        "beads": [
            {"name": "{residue}:HEAVY", "selection": "not element H", "per": "residue"},
            {"name": "H", "selection": "resname ALA and element H", "weights": "equal"},
        ],
    }
    (tmp_path / "groups.yaml").write_text(yaml.safe_dump(groups))
    atoms = read_beads(example_data / "ala2.pdb", str(tmp_path / "groups.yaml"))
    assert list(atoms.arrays["bead_name"]) == ["ACE:HEAVY", "ALA:HEAVY", "H", "NME:HEAVY"]
    structure = mdtraj.load(str(example_data / "ala2.pdb"))
    hydrogens = structure.topology.select("resname ALA and element H")
    assert atoms.positions[2] == pytest.approx(structure.xyz[0, hydrogens].mean(0) * 10, abs=1e-5)
    assert atoms.get_masses()[2] == pytest.approx(1.008 * len(hydrogens), abs=1e-3)
    topology = read_topology(example_data / "ala2.pdb", tmp_path / "groups.yaml")
    assert topology.bonds == ((0, 1), (1, 2), (1, 3))
    stated = read_topology(example_data / "ala2.pdb", groups | {"bonds": [[0, 3]]})
    assert stated.bonds == ((0, 3),)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"beads": [{"name": "X", "selection": "name QQ"}]}, "'name QQ' of bead 'X' matches no atom"),
        ({"beads": [{"name": "X", "selection": "nmae == and"}]}, "cannot be read"),
        (
            {"beads": [{"name": "A", "selection": "name CA"}, {"name": "B", "selection": "resname ALA"}]},
            "beads 'A' and 'B' overlap: both hold atom ALA2:CA",
        ),
        ({"beads": [{"name": "A", "select": "name CA"}]}, "beads.0.select is no key of a resolution"),
        ({"beads": [{"name": "A"}]}, "beads.0.selection is missing"),
        ({"name": "calpha", "graph": 3}, "exactly one of"),
        ({}, "exactly one of"),
        ({"atoms": ["ALA:CA"], "bonds": [[0, 1]]}, "'bonds' go with 'beads'"),
        ("graph:x", "says no number of beads"),
        ("graph:0", "says no number of beads"),
        ("calpa", "did you mean 'calpha'"),
        ("none.yaml", "does not exist"),
    ],
)
def test_wrong_resolutions_are_one_sentence(spec, message, example_data):
    with pytest.raises(InputError, match=message) as error:
        read_beads(example_data / "ala2.pdb", spec)
    assert "\n" not in str(error.value)


def test_resolutions_survive_their_short_form():
    for spec in (
        "calpha",
        "graph:20",
        ("ALA:N", "ALA:CA"),
        {"name": "backbone", "termini": True},
        {"beads": [{"name": "A", "selection": "name CA", "per": "residue"}], "residues": {"X": ""}},
    ):
        resolution = Resolution.of(spec)
        assert Resolution.of(resolution.spec) == resolution


def test_more_types_than_atomic_numbers_still_find_their_molecule(shared, tmp_path):
    from ase.io import read

    pdb = shared / "fast_folders" / "ubiquitin" / "ubiquitin_1ubq.pdb"
    topology = read_topology(pdb, "heavy")
    vocabulary = tuple(sorted(set(topology.names)))
    assert len(vocabulary) > 118
    frames = np.random.default_rng(0).standard_normal((60, topology.n_beads, 3))
    priors = PriorSet.fit_positions(frames, topology, ("bonds",), vocabulary=vocabulary, kT=0.026)
    model = CGModel(vocabulary, priors, ModelCard(300.0, "heavy", (topology,)))
    atoms = read_beads(pdb, model)
    atoms.calc = CGCalculator(model)
    energy = atoms.get_potential_energy()
    atoms.write(tmp_path / "a.traj")
    again = read(tmp_path / "a.traj")
    assert "bead_type" not in again.arrays
    again.calc = CGCalculator(model)
    assert again.get_potential_energy() == pytest.approx(energy, rel=1e-6)
