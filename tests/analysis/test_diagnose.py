"""Suspicious data are told, sound ones are not."""

import json
import re

import numpy as np
import pytest

from ase_cg import Dataset, InputError
from ase_cg.analysis.describe import describe
from ase_cg.analysis.diagnose import diagnose, virial_ratio
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.units import KCAL_PER_MOL, thermal_energy

N = 4
STIFFNESS = 2.0  # eV/Å²
CHAIN = BeadTopology(("ALA",) * N, ("ALA",) * N, (1, 2, 3, 4), (0,) * N, (12.0,) * N, ((0, 1), (1, 2), (2, 3)))


def _frames(count=40_000, seed=0):
    """Boltzmann samples of beads on springs to fixed places, and their forces."""
    rng = np.random.default_rng(seed)
    rest = np.array([[3.8 * i, 0.3 * i**2, 0] for i in range(N)])
    shift = np.sqrt(thermal_energy(300.0) / STIFFNESS) * rng.standard_normal((count, N, 3))
    return rest + shift, -STIFFNESS * shift


def _diagnosis(tmp_path, x, f=None, *, weights=None, force_map="slice", resolution="calpha"):
    path = tmp_path / "d.h5"
    with (
        create_dataset(path, overwrite=True) as dataset,
        dataset.molecule(
            "m",
            CHAIN,
            temperature=300.0,
            resolution=resolution,
            force_map=None if f is None else force_map,
            weighted=weights is not None,
        ) as molecule,
    ):
        molecule.append(x, f, weights)
    with Dataset.open(path) as dataset:
        return diagnose(dataset.only_molecule())


def test_sound_data_are_described_without_a_warning(tmp_path):
    x, f = _frames()
    found = _diagnosis(tmp_path, x, f)
    assert found.warnings == []
    assert abs(found.virial_ratio - 1) < 4 * found.virial_error
    assert found.virial_error < 0.06
    assert found.force_rms["ALA"] == pytest.approx(np.sqrt(thermal_energy(300.0) * STIFFNESS) / KCAL_PER_MOL, rel=0.02)
    assert found.bonds["ALA–ALA"]["mean"] == pytest.approx(np.linalg.norm(np.diff(x, axis=1), axis=-1).mean())
    assert found.effective_frames == 40_000


@pytest.mark.parametrize(
    ("x_factor", "f_factor", "message"),
    [
        (0.1, 1, "10 times too short: is the unit of length right"),
        (10, 1, "10 times too long: is the unit of length right"),
        (1, 4.184, r"too large by about 4.184, as between kJ and kcal"),
        (1, 1 / 4.184, r"too small by about 4.184"),
        (1, 23.06, r"too large by about 23.06, as between kcal/mol and eV"),
        (1, 1 / 23.06, r"too small by about 23.06"),
        (1, 10, r"too large by about 10, as between nm and Å"),
        (1, 0.1, r"too small by about 10"),
        (1, -1, "wrong sign"),
        (1, 1.6, "forces of single atoms are biased"),
    ],
)
def test_wrong_units_are_found(x_factor, f_factor, message, tmp_path):
    x, f = _frames()
    found = _diagnosis(tmp_path, x * x_factor, f * f_factor)
    assert any(re.search(message, warning) for warning in found.warnings), found.warnings


def test_broken_bonds_copies_drift_and_distance_are_found(tmp_path):
    x, f = _frames()
    torn = x.copy()
    torn[7, 3] += 9.0
    assert "0.00% of frames have bonds outside 2–6 Å" in _diagnosis(tmp_path, torn).warnings[0]
    copied = np.concatenate([x, x[100:130]])
    assert "30 of 40030 frames are copies" in _diagnosis(tmp_path, copied).warnings[0]
    pulled = f + np.array([0.05, 0, 0])
    assert any("a net force of" in warning for warning in _diagnosis(tmp_path, x, pulled).warnings)
    assert "from the origin" in _diagnosis(tmp_path, x + 5000).warnings[0]


def test_weights_say_how_many_frames_they_are_worth(tmp_path):
    x, _ = _frames(100)
    weights = np.zeros(100)
    weights[:25] = 2.0
    assert _diagnosis(tmp_path, x, weights=weights).effective_frames == pytest.approx(25)


def test_published_slice_forces_are_told_to_be_biased(shared):
    """The figure of the data's README: ⟨x·F⟩/27 = −1.93 ± 0.15 kcal/mol at 350 K."""
    folder = shared / "chignolin_ca_forces"
    x = np.load(folder / "chignolin_ca_coords.npy").astype(float)
    f = np.load(folder / "chignolin_ca_forces.npy").astype(float) * KCAL_PER_MOL
    ratio, error = virial_ratio(x, f, 350.0)
    kT = thermal_energy(350.0) / KCAL_PER_MOL
    assert ratio * kT == pytest.approx(1.93, abs=0.02)
    assert error * kT == pytest.approx(0.15, abs=0.05)


def test_folders_and_files_are_described(dataset_file, model_file, tmp_path):
    assert describe(dataset_file)["kind"] == "dataset"
    assert describe(model_file)["kind"] == "model"
    json.dumps(describe(dataset_file))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no training, simulation or run"):
        describe(tmp_path / "empty")


def test_a_wrong_unit_of_length_is_found_at_every_resolution(shared, tmp_path):
    import mdtraj

    from ase_cg import map_trajectory

    folder = shared / "chignolin_all_atom"
    frames = mdtraj.load(str(folder / "traj_1.dcd"), top=str(folder / "traj_1.pdb"))[:60]
    for factor, message in ((1.0, None), (10.0, "10 times too long"), (0.1, "10 times too short")):
        np.savez(tmp_path / "x.npz", coords=frames.xyz * 10 * factor)
        for resolution in ("calpha", "calpha_cbeta", "backbone", "heavy", "residue_com"):
            path = map_trajectory(
                tmp_path / "x.npz",
                tmp_path / "d.h5",
                topology=folder / "traj_1.pdb",
                resolution=resolution,
                temperature=300,
                length_unit="Å",
                overwrite=True,
                quiet=True,
            )
            with Dataset.open(path) as dataset:
                warnings = diagnose(dataset.only_molecule()).warnings
            assert (warnings == []) if message is None else (message in warnings[0]), (resolution, warnings)


def test_frames_of_no_weight_have_no_say(tmp_path):
    x, f = _frames(20_000)
    weights = np.repeat([1.0, 0.0], 10_000)
    x[10_000:] *= 3
    found = _diagnosis(tmp_path, x, -10 * f, weights=weights)
    assert found.bonds["ALA–ALA"]["max"] < 6
    assert found.virial_ratio < 0
