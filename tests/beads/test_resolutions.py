"""Every resolution on real and made structures: names, masses, bonds, and what is refused."""

import mdtraj
import numpy as np
import pytest
import yaml

from ase_cg import CGCalculator, CGModel, InputError, PriorSet, Resolution, read_beads
from ase_cg.beads.atoms import read_topology
from ase_cg.beads.mapping import bead_map
from ase_cg.beads.residues import PARENTS, RESIDUES
from ase_cg.beads.resolution import RESOLUTIONS
from ase_cg.beads.structure import read_structure
from ase_cg.models.model import ModelCard
from tests.beads.made import write_peptides

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


def test_disulfides_bond_two_chains_at_every_resolution(tmp_path):
    path = write_peptides(tmp_path / "two.pdb", [["ALA", "CYS", "ALA"], ["GLY", "CYS", "GLY"]])
    calpha = read_topology(path, "calpha")
    assert calpha.names == ("ALA", "CYX", "ALA", "GLY", "CYX", "GLY")
    assert calpha.chains == (0, 0, 0, 1, 1, 1)
    assert calpha.bonds == ((0, 1), (1, 2), (1, 4), (3, 4), (4, 5))
    for resolution, ends in (
        ("calpha_cbeta", ("CYX:CB", "CYX:CB")),
        ("heavy", ("CYX:SG", "CYX:SG")),
        ("residue_com", ("CYX", "CYX")),
    ):
        topology = read_topology(path, resolution)
        across = [(i, j) for i, j in topology.bonds if topology.chains[i] != topology.chains[j]]
        assert [(topology.names[i], topology.names[j]) for i, j in across] == [ends]
    reduced = write_peptides(tmp_path / "one.pdb", [["ALA", "CYS", "ALA"]])
    assert read_topology(reduced, "calpha").names == ("ALA", "CYS", "ALA")


def test_no_bond_is_made_across_missing_residues(tmp_path):
    path = write_peptides(tmp_path / "gap.pdb", [["ALA", "GLY", "ALA", "GLY"]], numbers=[1, 2, 9, 10])
    with pytest.warns(UserWarning, match="between GLY 2 and ALA 9"):
        topology = read_topology(path, "calpha")
    assert topology.bonds == ((0, 1), (2, 3))
    assert topology.residue_numbers == (1, 2, 9, 10)


def test_files_of_calpha_atoms_alone_are_chains(shared, tmp_path):
    pdb = shared / "fast_folders" / "ubiquitin" / "ubiquitin_1ubq.pdb"
    structure = mdtraj.load(str(pdb))
    structure.atom_slice(structure.topology.select("name CA and protein")).save(str(tmp_path / "ca.pdb"))
    assert read_topology(tmp_path / "ca.pdb", "calpha").bonds == read_topology(pdb, "calpha").bonds


def test_protonation_states_keep_their_names_and_their_bonds(shared, tmp_path):
    pdb = shared / "fast_folders" / "experimental_structures" / "villin_2f4k.pdb"
    text = pdb.read_text()
    for name in ("HID", "HIE", "HIP", "HSD"):
        (tmp_path / f"{name}.pdb").write_text(text.replace("HIS", name))
        for resolution in ("calpha", "heavy"):
            named, plain = read_topology(tmp_path / f"{name}.pdb", resolution), read_topology(pdb, resolution)
            assert named.bonds == plain.bonds
            assert sum(residue == {"HSD": "HID"}.get(name, name) for residue in named.residue_names) > 0
    nle = read_topology(pdb, "heavy")
    ends = {frozenset((nle.names[i], nle.names[j])) for i, j in nle.bonds}
    assert {frozenset(pair) for pair in [("NLE:CB", "NLE:CG"), ("NLE:CG", "NLE:CD"), ("NLE:CD", "NLE:CE")]} <= ends


def test_mmcif_gives_the_same_beads_as_pdb(tmp_path):
    path = write_peptides(tmp_path / "a.pdb", [["ALA", "CYS", "GLY"], ["GLY", "CYS", "GLY"]])
    structure = mdtraj.load(str(path))
    rows = []
    for atom in structure.topology.atoms:
        x, y, z = structure.xyz[0, atom.index] * 10
        residue = atom.residue
        rows.append(
            f"ATOM {atom.index + 1} {atom.element.symbol} {atom.name} . {residue.name} {'AB'[residue.chain.index]} "
            f"{residue.chain.index + 1} {residue.resSeq} ? {x:.3f} {y:.3f} {z:.3f} 1.0 0.0 ? {residue.resSeq} "
            f"{residue.name} {'AB'[residue.chain.index]} {atom.name} 1"
        )
    columns = [
        *("group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id"),
        *("label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy"),
        *("B_iso_or_equiv", "pdbx_formal_charge", "auth_seq_id", "auth_comp_id", "auth_asym_id", "auth_atom_id"),
        "pdbx_PDB_model_num",
    ]
    header = "".join(f"_atom_site.{column}\n" for column in columns)
    (tmp_path / "a.cif").write_text("data_x\nloop_\n" + header + "\n".join(rows) + "\n#\n")
    ours, theirs = read_topology(tmp_path / "a.cif", "calpha_cbeta"), read_topology(path, "calpha_cbeta")
    assert ours == theirs


def test_a_psf_takes_its_positions_from_another_file(shared):
    folder = shared / "fast_folders"
    psf, start = folder / "topology" / "cln.psf", folder / "starts" / "cln_kcenters_32clusters_coords.xtc"
    atoms = read_beads(psf, "calpha", positions=start)
    topology = read_structure(psf).topology
    assert atoms.positions == pytest.approx(mdtraj.load(str(start), top=topology).xyz[0] * 10, abs=1e-4)
    with pytest.raises(InputError, match="holds no positions; give the file"):
        read_beads(psf, "calpha")
    with pytest.raises(InputError, match=r"villin.* cannot be read with a topology of 10 atoms"):
        read_beads(psf, "calpha", positions=folder / "starts" / "villin_kcenters_32clusters_coords.xtc")


def test_damaged_psf_files_are_one_sentence(shared, tmp_path):
    lines = (shared / "fast_folders" / "topology" / "cln.psf").read_text().splitlines(keepends=True)
    for count, message in ((8, "claims 10 atoms"), (19, "truncated"), (1, "no section !NATOM")):
        (tmp_path / "x.psf").write_text("".join(lines[:count]))
        with pytest.raises(InputError, match=message):
            read_topology(tmp_path / "x.psf", "calpha")
    (tmp_path / "x.psf").write_text("ATOM\n")
    with pytest.raises(InputError, match="no PSF file"):
        read_topology(tmp_path / "x.psf", "calpha")


def test_an_unknown_residue_is_named_with_how_to_declare_it(tmp_path):
    path = write_peptides(tmp_path / "x.pdb", [["ALA", "SEP", "GLY"]])
    for resolution in RESOLUTIONS:
        with pytest.raises(InputError, match=r"residue SEP 2 of chain 0 .* --residue SEP=SER"):
            read_beads(path, resolution)
    assert read_topology(path, {"name": "calpha", "residues": {"SEP": "SER"}}).names == ("ALA", "SER", "GLY")
    assert list(read_beads(path, "calpha", residues={"SEP": "SEP"}).arrays["bead_name"]) == ["ALA", "SEP", "GLY"]
    left_out = read_topology(path, {"name": "calpha", "residues": {"SEP": ""}})
    assert left_out.names == ("ALA", "GLY")
    assert read_topology(path, {"name": "heavy", "residues": {"SEP": "SER"}}).bonds == (
        *((0, 1), (1, 2), (1, 4), (2, 3), (2, 5), (5, 6), (6, 7), (6, 9)),
        *((7, 8), (7, 10), (10, 11), (11, 12), (12, 13)),
    )


def test_a_residue_that_lacks_a_bead_atom_is_named(tmp_path):
    path = write_peptides(tmp_path / "x.pdb", [["ALA", "GLY"]])
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "CB" not in line))
    with pytest.raises(InputError, match="residue ALA 1 of chain 0 has no atom CB"):
        read_beads(path, "calpha_cbeta")


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


def test_exclusions_are_the_pairs_within_so_many_bonds(shared):
    topology = read_topology(shared / "chignolin_ca_forces" / "chignolin_cln025.pdb", "calpha")
    assert topology.exclusions(1) == topology.bonds
    assert topology.exclusions(3) == tuple((i, j) for i in range(10) for j in range(i + 1, min(i + 4, 10)))


def test_standard_residues_keep_their_place_in_the_vocabulary():
    assert RESIDUES[:20] == tuple(sorted(RESIDUES[:20], key=RESIDUES.index))
    assert len(set(RESIDUES)) == len(RESIDUES)


def test_gro_files_and_ambers_names_of_terminal_residues(tmp_path):
    path = write_peptides(tmp_path / "a.pdb", [["ALA", "GLY", "ALA"]])
    structure = mdtraj.load(str(path))
    for residue, name in zip(structure.topology.residues, ("NALA", "GLY", "CALA"), strict=True):
        residue.name = name
    structure.save_gro(str(tmp_path / "a.gro"))
    for resolution in ("calpha", "heavy"):
        ours, theirs = read_topology(tmp_path / "a.gro", resolution), read_topology(path, resolution)
        assert (ours.names, ours.bonds) == (theirs.names, theirs.bonds)


def test_residues_of_one_number_are_told_apart(tmp_path):
    path = write_peptides(tmp_path / "a.pdb", [["ALA", "ALA", "GLY"]])
    text = path.read_text()
    path.write_text(text.replace("ALA A   2 ", "ALA A   1A"))
    topology = read_topology(path, "calpha_cbeta")
    assert topology.residue_numbers[:4] == (1, 1, 1, 1)
    assert topology.residues == ((0, 1), (2, 3), (4,))
    assert [atom.name for atom in topology.to_mdtraj().atoms] == ["CA", "CB", "CA", "CB", "CA"]


def test_a_polymer_without_bonds_in_its_file_is_one_molecule(tmp_path):
    pytest.importorskip("pymetis")
    path = _polymer(tmp_path / "polymer.h5", units=6, molecules=1)
    mdtraj.load(str(path)).save(str(tmp_path / "polymer.pdb"))
    lines = [line for line in (tmp_path / "polymer.pdb").read_text().splitlines(keepends=True) if "CONECT" not in line]
    (tmp_path / "polymer.pdb").write_text("".join(lines))
    assert read_topology(tmp_path / "polymer.pdb", "graph:3").bonds == ((0, 1), (1, 2))


def test_empty_structures_say_so(tmp_path):
    (tmp_path / "e.pdb").write_text("HEADER\nEND\n")
    with pytest.raises(InputError, match=r"e\.pdb (holds no atoms|cannot be read)"):
        read_beads(tmp_path / "e.pdb", "calpha")
