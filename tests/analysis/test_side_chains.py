"""Side chains on a rebuilt backbone: what PDBFixer is given, what becomes of it, and that residues are natural."""

import sys
from types import SimpleNamespace

import mdtraj
import numpy as np
import pytest

from ase_cg import InputError, map_trajectory
from ase_cg.analysis.peptide_planes import place
from ase_cg.analysis.side_chains import (
    check_side_chains,
    natural_branches,
    with_beta_carbons,
    with_hydrogens_opposite,
)
from ase_cg.analysis.write_atoms import write_atoms
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset_writer import create_dataset


def handedness(atoms, residues, *names):
    """Of every residue (x₁ − x₄) × (x₂ − x₄) · (x₃ − x₄) of four atoms, in Å³: shape (F, residues)."""
    places = [[next(a.index for a in r.atoms if a.name == name) for name in names] for r in residues]
    x = atoms[:, np.array(places)]
    one, other, third = (x[:, :, i] - x[:, :, 3] for i in range(3))
    return np.einsum("fri,fri->fr", np.cross(one, other), third)


def test_beta_carbons_are_where_experiment_has_them(shared):
    found = mdtraj.load(str(shared / "fast_folders" / "experimental_structures" / "villin_2f4k.pdb"))[0]
    backbone = found.atom_slice(found.topology.select("name N CA C O"))
    made, atoms = with_beta_carbons(backbone.topology, 10 * backbone.xyz.astype(float))
    assert "HIS" in {r.name for r in made.residues}
    pairs = [
        (atoms[0, a.index], 10 * found.xyz[0, b.index])
        for r, other in zip(made.residues, found.topology.residues, strict=True)
        for a in r.atoms
        for b in other.atoms
        if a.name == b.name == "CB"
    ]
    distances = [np.linalg.norm(one - other) for one, other in pairs]
    assert len(pairs) == sum(r.name != "GLY" for r in found.topology.residues)
    assert max(distances) < 0.4
    assert np.mean(distances) < 0.15


def test_unnatural_branches_change_places(shared):
    name = "lambda_1lmb"
    found = mdtraj.load(str(shared / "fast_folders" / "experimental_structures" / f"{name}.pdb"))[0]
    kept = {"THR": ("OG1", "CG2"), "ILE": ("CG1", "CG2")}
    x = 10 * found.xyz[0].astype(float)
    topology = found.topology.to_openmm()
    assert np.array_equal(natural_branches(topology, x), x)
    swapped = x.copy()
    for residue in found.topology.residues:
        if residue.name in kept:
            one, other = (next(a.index for a in residue.atoms if a.name == n) for n in kept[residue.name])
            swapped[[one, other]] = x[[other, one]]
    mended = natural_branches(topology, swapped)
    heavy = [a.index for a in found.topology.atoms if a.element.symbol != "H" and a.name != "CD1"]
    assert not np.array_equal(swapped[heavy], x[heavy])
    assert np.array_equal(mended[heavy], x[heavy])
    ends = [(r.atom("CG1").index, r.atom("CD1").index) for r in found.topology.residues if r.name == "ILE"]
    assert all(np.linalg.norm(mended[i] - mended[j]) == pytest.approx(1.53) for i, j in ends)


def test_hydrogens_among_the_heavy_neighbours_are_put_opposite(shared):
    found = mdtraj.load(str(shared / "chignolin_all_atom" / "traj_1.pdb"))[0]
    x = 10 * found.xyz[0].astype(float)
    alphas = [a.index for a in found.topology.atoms if a.name == "HA"]
    centres = [next(b.index for b in found.topology.atom(i).residue.atoms if b.name == "CA") for i in alphas]
    wrong = x.copy()
    wrong[alphas] = 2 * x[centres] - x[alphas]
    topology = found.topology.to_openmm()
    mended = with_hydrogens_opposite(topology, wrong)
    assert np.linalg.norm(mended[alphas] - x[alphas], axis=1).max() < 0.25
    assert np.array_equal(mended, with_hydrogens_opposite(topology, x))
    moved = {found.topology.atom(i).name for i in np.flatnonzero((mended != wrong).any(1))}
    assert moved == {"HA", "HB"}  # threonine's


@pytest.fixture
def chignolin_alphas(shared, tmp_path):
    folder = shared / "chignolin_all_atom"
    options = {"topology": folder / "traj_1.pdb", "resolution": "calpha", "temperature": 300, "quiet": True}
    return map_trajectory(folder / "traj_1.dcd", tmp_path / "r.h5", **options)


class StandIn:
    """PDBFixer as far as it is used; it adds what there is to add to alanines, the last oxygen."""

    calls: tuple = ()

    def __init__(self, pdbfile):
        from openmm import app

        read = app.PDBFile(pdbfile)
        self.topology, self.positions = read.topology, read.positions
        self.missingResidues = None
        StandIn.calls += ("read",)

    def findMissingAtoms(self):  # noqa: N802 - as PDBFixer names it
        assert self.missingResidues == {}
        StandIn.calls += ("find",)

    def addMissingAtoms(self, seed):  # noqa: N802 - the same
        from openmm import app, unit

        StandIn.calls += (f"add with seed {seed}",)
        *_, last = self.topology.residues()
        oxygen = self.topology.addAtom("OXT", app.element.oxygen, last)
        atoms = {atom.name: atom for atom in last.atoms()}
        self.topology.addBond(atoms["C"], oxygen)
        x = np.array(self.positions.value_in_unit(unit.angstrom))
        o, ca, c = (x[[atoms[name].index]] for name in ("O", "CA", "C"))
        self.positions = np.concatenate([x, place(o, ca, c, 1.25, np.radians(117), np.pi)]) * unit.angstrom


@pytest.fixture
def alanines(tmp_path):
    """A dataset of three frames of five Cα in an extended chain, one of them a glycine."""
    names = ("ALA", "ALA", "GLY", "ALA", "ALA")
    bonds = tuple((i, i + 1) for i in range(4))
    topology = BeadTopology(names, names, (3, 4, 5, 6, 7), (0,) * 5, (12.0,) * 5, bonds)
    x = np.zeros((3, 5, 3))
    x[:, :, 0], x[:, 1::2, 1] = 3.3 * np.arange(5), 1.9
    with (
        create_dataset(tmp_path / "a.h5") as dataset,
        dataset.molecule("m", topology, temperature=300.0, resolution="calpha") as molecule,
    ):
        molecule.append(x)
    return tmp_path / "a.h5", x


@pytest.mark.parametrize("minimize", [False, True])
def test_side_chains_are_those_of_the_tool_on_the_backbone_as_it_stands(alanines, tmp_path, monkeypatch, minimize):
    """With a stand-in for PDBFixer, which is given backbone and CB, and whose atoms are then protonated and relaxed."""
    monkeypatch.setitem(sys.modules, "pdbfixer", SimpleNamespace(PDBFixer=StandIn))
    monkeypatch.setattr(StandIn, "calls", ())
    path, x = alanines
    energies = write_atoms(path, tmp_path / "s.pdb", side_chains=True, minimize=minimize, quiet=True)
    assert StandIn.calls == ("read", "find", "add with seed 1") * 3
    found = mdtraj.load(str(tmp_path / "s.pdb"))
    assert found.n_frames == 3
    assert [r.name for r in found.topology.residues] == ["ALA", "ALA", "GLY", "ALA", "ALA"]
    assert [r.n_atoms for r in found.topology.residues] == [12, 10, 7, 10, 11]
    atoms = 10 * found.xyz.astype(float)
    assert atoms[:, found.topology.select("name CA")] == pytest.approx(x, abs=2e-3)
    alanine = [r for r in found.topology.residues if r.name == "ALA"]
    assert handedness(atoms, alanine, "N", "C", "CB", "CA") == pytest.approx(np.full((3, 4), 2.5), abs=0.4)
    if not minimize:
        assert energies is None
        plain = tmp_path / "b.pdb"
        write_atoms(path, plain, minimize=False, quiet=True)
        places = found.topology.select("name N CA C O")
        assert atoms[:, places] == pytest.approx(10 * mdtraj.load(str(plain)).xyz, abs=2e-3)
    else:
        assert energies == pytest.approx(np.full(3, energies[0]), abs=0.1)  # three times the same frame


def test_without_the_tool_or_with_a_residue_it_does_not_know_no_work_is_done(alanines, shared, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pdbfixer", None)
    with pytest.raises(InputError, match=r"side chains need PDBFixer, .* with --structure"):
        write_atoms(alanines[0], tmp_path / "s.pdb", side_chains=True, quiet=True)
    monkeypatch.setitem(sys.modules, "pdbfixer", SimpleNamespace(PDBFixer=StandIn))
    check_side_chains(["HID", "CYX", "GLY"])
    with pytest.raises(InputError, match="PDBFixer knows no residue NLE; give an all-atom structure"):
        check_side_chains(["ALA", "NLE"])
    assert not (tmp_path / "s.pdb").exists()


def test_side_chains_of_pdbfixer_are_whole_and_natural(chignolin_alphas, shared, tmp_path):
    pytest.importorskip("pdbfixer", reason="PDBFixer is not installed")
    energies = write_atoms(chignolin_alphas, tmp_path / "s.xtc", frames=3, side_chains=True, quiet=True)
    found = mdtraj.load(str(tmp_path / "s.xtc"), top=str(tmp_path / "s.pdb"))
    published = mdtraj.load(str(shared / "chignolin_all_atom" / "traj_1.pdb")).topology
    heavy = [{a.name for a in r.atoms if a.element.symbol != "H"} for r in found.topology.residues]
    assert heavy[:-1] == [{a.name for a in r.atoms if a.element.symbol != "H"} for r in published.residues][:-1]
    atoms = 10 * found.xyz.astype(float)
    with_side_chain = [r for r in found.topology.residues if r.name != "GLY"]
    assert handedness(atoms, with_side_chain, "N", "C", "CB", "CA").min() > 1.5
    assert handedness(atoms, with_side_chain, "N", "CB", "HA", "CA").min() > 1.5
    threonines = [r for r in found.topology.residues if r.name == "THR"]
    assert handedness(atoms, threonines, "OG1", "CG2", "CA", "CB").min() > 1.5
    assert np.median(energies) < -300  # a frame whose side chains clash may be 100 above
