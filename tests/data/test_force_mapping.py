"""The force map of a trajectory: the default, its report, solvent, and too few frames."""

import numpy as np
import pytest

from ase_cg import Dataset, map_trajectory
from ase_cg.units import KCAL_PER_MOL


def test_the_optimal_map_is_the_default_and_reports_its_residuals(shared, tmp_path):
    folder = shared / "ala2_all_atom_forces"
    path = map_trajectory(
        folder / "ala2_all_atom.npz",
        tmp_path / "d.h5",
        topology=folder / "ala2_all_atom.pdb",
        resolution=("ACE:C", "ALA:N", "ALA:CA", "ALA:C", "NME:N"),
        temperature=300,
        length_unit="Å",
        force_unit="kcal/mol/Å",
        quiet=True,
    )
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        report = molecule.force_map_report
        assert molecule.force_map == "optimal"
        assert len(report["constraint_groups"]) == 6
        assert report["constraints"] == "detect"
        # The published 20.73 is fitted on the first half; here quarters are fitted and evaluated in turn.
        assert report["rms_held_out"] == pytest.approx(20.73, abs=0.4)
        assert report["rms_in_sample"] < report["rms_held_out"] < report["rms_constraint_sum"]
        assert report["rms_constraint_sum"] == pytest.approx(26.05, abs=0.05)
        assert report["validity"] < 1e-10
        stored = molecule.forces().astype(float) / KCAL_PER_MOL
        assert np.sqrt((stored**2).mean()) == pytest.approx(report["rms"], rel=1e-5)


def test_solvent_is_left_out_of_the_force_map(all_atom, wet, tmp_path, example_data):
    """Water around the molecule changes neither beads nor forces: its atoms have no share in them."""
    trajectory, options = wet
    options |= {"force_map": "optimal", "constraints": "hbonds"}
    np.savez(tmp_path / "dry.npz", positions=all_atom[0], forces=all_atom[1])
    dry_options = options | {"topology": example_data / "ala2.pdb"}
    without = map_trajectory(tmp_path / "dry.npz", tmp_path / "dry.h5", **dry_options)
    made = map_trajectory(trajectory, tmp_path / "wet.h5", **options)
    with Dataset.open(without) as one, Dataset.open(made) as two:
        assert two.only_molecule().forces() == pytest.approx(one.only_molecule().forces(), abs=1e-5)
        assert two.only_molecule().maps()[0].tolist() == list(range(22))


def test_an_overfitted_map_is_told(all_atom, mapping, tmp_path):
    unrelated = np.random.default_rng(0).standard_normal((12, 22, 3))  # the sum is optimal for such forces
    np.savez(tmp_path / "a.npz", positions=all_atom[0][:12], forces=unrelated)
    options = mapping | {"force_map": "optimal", "length_unit": "nm", "force_unit": "kJ/mol/nm"}
    with (
        pytest.warns(UserWarning, match="12 frames are too few to find rigid bonds"),
        pytest.warns(UserWarning, match="overfitted to 12 frames"),
    ):
        map_trajectory(tmp_path / "a.npz", tmp_path / "d.h5", **options)
