"""Structure files of every format: residues, chains, bonds and gaps, and what is refused."""

import mdtraj
import pytest

from ase_cg import InputError, read_beads
from ase_cg.beads.atoms import read_topology
from ase_cg.beads.resolution import RESOLUTIONS
from ase_cg.beads.structure import read_structure
from tests.beads.made import write_peptides


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


def test_gro_files_and_ambers_names_of_terminal_residues(tmp_path):
    path = write_peptides(tmp_path / "a.pdb", [["ALA", "GLY", "ALA"]])
    structure = mdtraj.load(str(path))
    for residue, name in zip(structure.topology.residues, ("NALA", "GLY", "CALA"), strict=True):
        residue.name = name
    structure.save_gro(str(tmp_path / "a.gro"))
    for resolution in ("calpha", "heavy"):
        ours, theirs = read_topology(tmp_path / "a.gro", resolution), read_topology(path, resolution)
        assert (ours.names, ours.bonds) == (theirs.names, theirs.bonds)


def test_files_of_calpha_atoms_alone_are_chains(shared, tmp_path):
    pdb = shared / "fast_folders" / "ubiquitin" / "ubiquitin_1ubq.pdb"
    structure = mdtraj.load(str(pdb))
    structure.atom_slice(structure.topology.select("name CA and protein")).save(str(tmp_path / "ca.pdb"))
    assert read_topology(tmp_path / "ca.pdb", "calpha").bonds == read_topology(pdb, "calpha").bonds


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


def test_residues_of_one_number_are_told_apart(tmp_path):
    path = write_peptides(tmp_path / "a.pdb", [["ALA", "ALA", "GLY"]])
    text = path.read_text()
    path.write_text(text.replace("ALA A   2 ", "ALA A   1A"))
    topology = read_topology(path, "calpha_cbeta")
    assert topology.residue_numbers[:4] == (1, 1, 1, 1)
    assert topology.residues == ((0, 1), (2, 3), (4,))
    assert [atom.name for atom in topology.to_mdtraj().atoms] == ["CA", "CB", "CA", "CB", "CA"]


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


def test_empty_structures_say_so(tmp_path):
    (tmp_path / "e.pdb").write_text("HEADER\nEND\n")
    with pytest.raises(InputError, match=r"e\.pdb (holds no atoms|cannot be read)"):
        read_beads(tmp_path / "e.pdb", "calpha")
