"""Atoms from beads: near the atoms that were there, beads untouched, energies that tell good frames from bad."""

import mdtraj
import numpy as np
import pytest

from ase_cg import Dataset, InputError, map_trajectory
from ase_cg.analysis import analyze
from ase_cg.analysis.backmap import backmapping
from ase_cg.analysis.backmap_energy import BackmapEnergies, Minimizer
from ase_cg.analysis.bead_frames import frames_at, spread_frames
from ase_cg.analysis.peptide_planes import place, rebuild_backbone
from ase_cg.analysis.sources import open_source
from ase_cg.analysis.write_atoms import write_atoms
from ase_cg.beads.structure import read_structure
from ase_cg.data.dataset_writer import create_dataset

BACKBONE = ("N", "CA", "C", "O")


def backbone_of(trajectory):
    """Positions (F, residues, 4, 3) in Å and names of residues."""
    residues = list(trajectory.topology.residues)
    atoms = [[next(a.index for a in r.atoms if a.name == name) for name in BACKBONE] for r in residues]
    return 10 * trajectory.xyz[:, np.array(atoms)].astype(float), tuple(r.name for r in residues)


def test_atoms_are_placed_by_distance_angle_and_dihedral():
    a, b, c = (np.array([[x, y, z]], dtype=float) for x, y, z in ((0, 0, 0), (1.5, 0, 0), (2, 1.4, 0)))
    x = place(a, b, c, 1.3, np.radians(110), np.radians(-70))
    made = mdtraj.Trajectory(np.concatenate([a, b, c, x])[None] / 10, None)
    assert np.degrees(mdtraj.compute_dihedrals(made, [[0, 1, 2, 3]])[0, 0]) == pytest.approx(-70, abs=1e-3)
    assert np.degrees(mdtraj.compute_angles(made, [[1, 2, 3]])[0, 0]) == pytest.approx(110, abs=1e-3)
    assert np.linalg.norm(x - c) == pytest.approx(1.3)


@pytest.mark.parametrize("name", ["villin_2f4k", "proteing_1mi0", "trpcage_2jof"])
def test_the_backbone_of_experimental_structures_is_found_again(shared, name):
    native = mdtraj.load(str(shared / "fast_folders" / "experimental_structures" / f"{name}.pdb"))[0]
    x, residues = backbone_of(native)
    built = rebuild_backbone(x[:, :, 1], residues)
    assert np.array_equal(built[:, :, 1], x[:, :, 1])
    errors = np.linalg.norm(built - x, axis=-1)[0, 1:-1]
    assert np.median(errors, axis=0) == pytest.approx([0, 0, 0, 0], abs=0.35)
    assert np.sqrt((errors**2).mean()) < 0.4
    lengths = np.linalg.norm(built[:, 1:, 0] - built[:, :-1, 2], axis=-1)
    assert lengths == pytest.approx(np.full(lengths.shape, 1.33), abs=0.2)


def test_a_moving_chain_is_rebuilt_frame_by_frame(shared):
    folder = shared / "chignolin_all_atom"
    moving = mdtraj.load(str(folder / "traj_0.dcd"), top=str(folder / "traj_0.pdb"))[::40]
    x, residues = backbone_of(moving)
    errors = np.linalg.norm(rebuild_backbone(x[:, :, 1], residues) - x, axis=-1)[:, 1:-1]
    assert np.median(errors[..., [0, 2, 3]]) < 0.3
    assert np.sqrt((errors**2).mean()) < 0.6
    with pytest.raises(InputError, match="at least three Cα"):
        rebuild_backbone(x[:, :2, 1], residues[:2])


def test_chains_on_a_line_and_cis_peptides_are_rebuilt():
    straight = np.zeros((1, 5, 3))
    straight[0, :, 0] = 3.8 * np.arange(5)
    cis = straight.copy()
    cis[0, 3:, 0] -= 0.85
    for alphas in (straight, cis):
        built = rebuild_backbone(alphas, ("ALA",) * 5)
        assert np.isfinite(built).all()
        assert np.linalg.norm(built[0, 1:, 0] - built[0, :-1, 2], axis=-1) == pytest.approx(np.full(4, 1.33), abs=0.1)
    n, ca, c = (built[0, i, j] for i, j in ((3, 0), (3, 1), (2, 2)))  # of the peptide between Cα 2.95 Å apart
    before = built[0, 2, 1]
    planar = mdtraj.Trajectory(np.stack([before, c, n, ca])[None] / 10, None)
    assert abs(mdtraj.compute_dihedrals(planar, [[0, 1, 2, 3]])[0, 0]) < 0.2


@pytest.fixture(scope="module")
def dipeptide(example_data):
    return open_source(example_data / "ala2_reference.h5", "reference")


def resolution_of(source):
    with Dataset.open(source.path) as dataset:
        return dataset.only_molecule().resolution


def test_all_atoms_of_the_dipeptide_are_rebuilt_and_relaxed_around_the_beads(dipeptide, example_data):
    frames = spread_frames(dipeptide, 6)
    mapped = backmapping(dipeptide.topology, resolution_of(dipeptide), example_data / "ala2.pdb")
    minimizer = Minimizer(mapped)
    atoms, energies = minimizer.minimized(frames)
    assert atoms.shape == (6, 22, 3)
    assert atoms[:, mapped.held] == pytest.approx(frames, abs=1e-5)
    template = read_structure(example_data / "ala2.pdb")
    for one, other in template.topology.bonds:
        known = np.linalg.norm(template.positions[one.index] - template.positions[other.index])
        found = np.linalg.norm(atoms[:, one.index] - atoms[:, other.index], axis=-1)
        assert found == pytest.approx(np.full(6, known), abs=0.15)
    shaken = frames + 0.1 * np.random.default_rng(0).standard_normal(frames.shape)
    assert minimizer.minimized(shaken)[1].mean() > energies.mean() + 20
    rebuilt = mapped.build(template.positions[mapped.held][None])
    assert rebuilt[0] == pytest.approx(template.positions, abs=1e-6)


def test_energies_of_backbones_tell_a_sample_of_the_reference_from_noise(shared, tmp_path):
    folder = shared / "chignolin_all_atom"
    options = {"topology": folder / "traj_0.pdb", "resolution": "calpha", "temperature": 300, "quiet": True}
    reference = map_trajectory([folder / "traj_0.dcd", folder / "traj_2.dcd"], tmp_path / "r.h5", **options)
    other = map_trajectory(folder / "traj_1.dcd", tmp_path / "o.h5", **options)
    with Dataset.open(other) as dataset:
        molecule = dataset.only_molecule()
        x = molecule.coordinates()
    noisy = tmp_path / "noisy.h5"
    with (
        create_dataset(noisy) as dataset,
        dataset.molecule("m", molecule.topology, temperature=300.0, resolution="calpha") as written,
    ):
        written.append(x + 0.15 * np.random.default_rng(0).standard_normal(x.shape))
    found = analyze({"good": other, "noisy": noisy}, reference, tmp_path / "out", bins=20, lag=0, backmap=5, quiet=True)
    summary = found.to_dict()["backmapping_kcal_per_mol"]
    assert summary["reference"]["above_reference"] == 0
    assert abs(summary["good"]["above_reference"]) < 4 * summary["good"]["above_reference_error"]
    assert summary["noisy"]["above_reference"] > 15
    assert summary["noisy"]["above_reference"] == pytest.approx(summary["noisy"]["wasserstein"], rel=0.01)
    assert "Backmapping" in (tmp_path / "out" / "report.html").read_text()


def test_atoms_are_written_for_others_to_read(dipeptide, example_data, tmp_path):
    structure = example_data / "ala2.pdb"
    energies = write_atoms(dipeptide.path, tmp_path / "all.xtc", structure=structure, frames=3, quiet=True)
    assert energies.shape == (3,)
    loaded = mdtraj.load(str(tmp_path / "all.xtc"), top=str(tmp_path / "all.pdb"))
    assert loaded.xyz.shape == (3, 22, 3)
    beads = [0, 1, 2]
    assert len(frames_at(dipeptide, np.array(beads))) == 3
    with pytest.raises(InputError, match="exists already"):
        write_atoms(dipeptide.path, tmp_path / "all.xtc", structure=structure, frames=3, quiet=True)
    with pytest.raises(InputError, match="give an all-atom structure"):
        write_atoms(dipeptide.path, tmp_path / "x.pdb", frames=3, quiet=True)
    with pytest.raises(InputError, match=r"must end in \.pdb or \.xtc"):
        write_atoms(dipeptide.path, tmp_path / "x.dcd", frames=3, quiet=True)
    with pytest.raises(InputError, match="side chains come with the structure"):
        write_atoms(dipeptide.path, tmp_path / "x.pdb", structure=structure, side_chains=True, quiet=True)
    assert not (tmp_path / "x.pdb").exists()


def test_a_backbone_has_the_names_of_its_residues(shared, tmp_path):
    folder = shared / "chignolin_all_atom"
    path = map_trajectory(
        folder / "traj_1.dcd",
        tmp_path / "r.h5",
        topology=folder / "traj_1.pdb",
        resolution="calpha",
        temperature=300,
        quiet=True,
    )
    write_atoms(path, tmp_path / "backbone.pdb", frames=2, minimize=False, quiet=True)
    loaded = mdtraj.load(str(tmp_path / "backbone.pdb"))
    assert [r.name for r in loaded.topology.residues][:4] == ["TYR", "TYR", "ASP", "PRO"]
    assert [a.name for a in loaded.topology.residue(0).atoms] == list(BACKBONE)
    phi = np.degrees(mdtraj.compute_phi(loaded)[1])
    assert (phi < 0).mean() > 0.8  # as in L residues


def test_summary_by_hand():
    summary = BackmapEnergies({"reference": np.array([1.0, 3.0]), "model": np.array([2.0, 6.0])}).summary()
    assert summary["model"]["above_reference"] == 2
    assert summary["model"]["wasserstein"] == 2
    assert summary["reference"]["mean_error"] == pytest.approx(1.0)
