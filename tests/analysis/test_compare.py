"""Comparison: a model that is the reference is at the floor, one that is not is told apart."""

import json

import mdtraj
import numpy as np
import pytest

from ase_cg import analyze
from ase_cg.analysis.features import bond_lengths, dihedral_angles, inverted_fraction, ramachandran_angles
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.dynamics.trajectory import read_simulation, write_trajectory
from ase_cg.errors import InputError
from tests.conftest import ALA2_ATOMS


def _write_simulation(folder, frames, topology):
    """Write frames (R, F, N, 3) as a finished simulation."""
    folder.mkdir()
    for replica, x in enumerate(frames):
        write_trajectory(folder / f"replica_{replica:03d}.h5", x.astype(np.float32), np.arange(len(x)) * 1.0, topology)
    (folder / "simulation.json").write_text(json.dumps({"replicas": len(frames)}))


@pytest.fixture
def shaken(ala2_positions):
    """Frames around the example conformation: shape (replicas, frames, 6, 3)."""

    def make(replicas: int, frames: int, seed: int, std: float = 0.15) -> np.ndarray:
        return ala2_positions + std * np.random.default_rng(seed).standard_normal((replicas, frames, 6, 3))

    return make


@pytest.fixture
def reference(shaken, ala2, tmp_path):
    path = tmp_path / "reference.h5"
    with (
        create_dataset(path) as dataset,
        dataset.molecule("ala2", ala2, temperature=300.0, resolution=ALA2_ATOMS) as molecule,
    ):
        for frames in shaken(10, 400, 0):
            molecule.next_trajectory()
            molecule.append(frames)
    return path


def test_a_sample_of_the_reference_is_at_the_floor_and_another_density_is_not(reference, shaken, ala2, tmp_path):
    _write_simulation(tmp_path / "same", shaken(10, 200, 1), ala2)
    _write_simulation(tmp_path / "other", shaken(10, 200, 2, std=0.3), ala2)
    out = tmp_path / "out"
    options = {"prior_simulation": tmp_path / "other", "discard": 0.0, "quiet": True}
    comparison = analyze(tmp_path / "same", reference, out, bins=20, **options)
    model, prior, floor = (comparison.rows[name] for name in ("model", "prior", "floor"))
    for name in ("jensen_shannon_nats", "pmf_error_kT", "bond_wasserstein_A"):
        assert model[name]["value"] < 2 * floor[name]["value"]
        assert prior[name]["value"] > 2 * model[name]["plug_in"]
        for row in (model, prior):
            low, high = row[name]["interval"]
            assert low <= row[name]["value"] < high
            assert row[name]["value"] < row[name]["plug_in"]
        assert model[name]["interval"][0] == 0 < prior[name]["interval"][0]
    assert comparison.model.inverted == pytest.approx(0.0, abs=0.01)
    data = json.loads((out / "metrics.json").read_text())
    assert data["rows"]["model"]["jensen_shannon_nats"]["value"] == model["jensen_shannon_nats"]["value"]
    assert data["frames"] == {"reference": 4000, "model": 2000, "prior": 2000}
    assert (out / "table.md").read_text().count("\n") == 5
    for name in ("ramachandran.png", "bonds.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_dihedrals_and_bonds_are_mdtrajs(shaken, ala2, example_data):
    frames = shaken(1, 50, 0)[0]
    trajectory = mdtraj.Trajectory(frames / 10, ala2.to_mdtraj())
    assert dihedral_angles(frames, [(0, 1, 2, 4), (1, 2, 4, 5)]) == pytest.approx(
        mdtraj.compute_dihedrals(trajectory, [[0, 1, 2, 4], [1, 2, 4, 5]]), abs=1e-4
    )
    assert bond_lengths(frames, ala2.bonds) == pytest.approx(
        mdtraj.compute_distances(trajectory, ala2.bonds) * 10, abs=1e-4
    )
    angles = ramachandran_angles(frames, ala2)
    phi, psi = (f(trajectory)[1][:, 0] for f in (mdtraj.compute_phi, mdtraj.compute_psi))
    assert angles == pytest.approx(np.stack([phi, psi], 1), abs=1e-4)


def test_a_mirror_image_counts_as_inverted(ala2_positions, ala2):
    both = np.stack([ala2_positions, -ala2_positions])
    assert inverted_fraction(both, ala2) == 0.5
    assert inverted_fraction(both[:1], ala2) == 0.0


def test_trajectories_are_read_by_mdtraj_with_times_and_names(shaken, ala2, tmp_path):
    frames = shaken(2, 5, 0)
    _write_simulation(tmp_path / "s", frames, ala2)
    loaded = mdtraj.load(str(tmp_path / "s" / "replica_001.h5"))
    assert loaded.xyz == pytest.approx(frames[1] / 10, abs=1e-6)
    assert loaded.time.tolist() == [0, 1, 2, 3, 4]
    assert [f"{a.residue.name}:{a.name}" for a in loaded.topology.atoms] == list(ALA2_ATOMS)
    assert {(a.index, b.index) for a, b in loaded.topology.bonds} == set(ala2.bonds)
    assert read_simulation(tmp_path / "s")[0] == pytest.approx(frames, abs=1e-5)


def test_bad_input_is_one_sentence(reference, shaken, ala2, tmp_path):
    _write_simulation(tmp_path / "good", shaken(2, 50, 1), ala2)
    with pytest.raises(InputError, match="holds no simulation"):
        analyze(tmp_path, reference, tmp_path / "o", quiet=True)
    with pytest.raises(InputError, match="does not exist"):
        analyze(tmp_path / "good", tmp_path / "none.h5", tmp_path / "o", quiet=True)
    with pytest.raises(InputError, match="discard"):
        analyze(tmp_path / "good", reference, tmp_path / "o", discard=1.0, quiet=True)
    with pytest.raises(InputError, match="bins"):
        analyze(tmp_path / "good", reference, tmp_path / "o", bins=1, quiet=True)
    path = tmp_path / "good" / "replica_001.h5"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"replica_001\.h5 is truncated"):
        analyze(tmp_path / "good", reference, tmp_path / "o", quiet=True)
    path.unlink()
    with pytest.raises(InputError, match="not finished"):
        analyze(tmp_path / "good", reference, tmp_path / "o", quiet=True)
    assert not (tmp_path / "o").exists()
