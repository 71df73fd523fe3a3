"""Force maps from a file: any valid one is used as it is, others are one sentence."""

import numpy as np
import pytest

from ase_cg import Dataset, InputError, map_trajectory, optimal_force_map
from ase_cg.beads.mapping import linear_map
from ase_cg.units import KCAL_PER_MOL

BEADS = ("ACE:C", "ALA:N", "ALA:CA", "ALA:C", "NME:N")
ATOMS = [4, 6, 8, 14, 16]


@pytest.fixture
def published(shared):
    folder = shared / "ala2_all_atom_forces"
    options = {
        "topology": folder / "ala2_all_atom.pdb",
        "resolution": BEADS,
        "temperature": 300,
        "length_unit": "Å",
        "force_unit": "kcal/mol/Å",
        "quiet": True,
    }
    return folder / "ala2_all_atom.npz", options


def _valid_map(forces, groups):
    """A valid map that is none of ours: the optimal one of forces that are disturbed."""
    rng = np.random.default_rng(3)
    return optimal_force_map(forces + 20 * rng.standard_normal(forces.shape), np.eye(22)[ATOMS], groups)


def test_any_valid_map_is_used_as_it_is(published, tmp_path):
    path, options = published
    default = map_trajectory(path, tmp_path / "default.h5", **options)
    with Dataset.open(default) as dataset:
        groups = dataset.only_molecule().force_map_report["constraint_groups"]
    forces = np.load(path)["forces"].astype(float)
    own = _valid_map(forces[:200], groups)
    np.save(tmp_path / "own.npy", own.astype(np.float32))
    made = map_trajectory(path, tmp_path / "own.h5", force_map=tmp_path / "own.npy", **options)
    with Dataset.open(made) as dataset:
        molecule = dataset.only_molecule()
        assert molecule.force_map == "from a file"
        assert molecule.force_map_report["constraint_groups"] == groups
        assert molecule.mapping["force_map"]["file"] == "own.npy"
        assert molecule.forces() == pytest.approx(linear_map(own, forces) * KCAL_PER_MOL, abs=1e-4)
        assert molecule.maps()[2] == pytest.approx(own, abs=1e-6)


def _not_valid(name, own):
    wrong = own.copy()
    if name == "sum":
        wrong[1] *= 1.01
    elif name == "tied":
        wrong[0, 1] += 0.5  # a hydrogen of the acetyl group's methyl, and no bead
    elif name == "nan":
        wrong[0, 0] = np.nan
    elif name == "shape":
        wrong = wrong.T
    elif name == "text":
        wrong = np.array([["a", "b"]])
    elif name == "object":
        wrong = np.array([[{}]], dtype=object)
    return wrong


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sum", r"not valid: W Cᵀ differs from the identity by 0.01 at beads 1 and 1"),
        ("tied", r"not valid: rigid bonds tie atoms 0 and 1 .* for bead 0"),
        ("nan", "no numbers"),
        ("shape", r"shape \(22, 5\), not \(5, 22\): beads × atoms"),
        ("text", "no .npy file with a matrix of numbers"),
        ("object", "no .npy file with a matrix of numbers"),
        ("missing", "does not exist"),
    ],
)
def test_other_maps_are_one_sentence_and_leave_nothing(name, message, published, tmp_path):
    path, options = published
    own = _valid_map(np.load(path)["forces"][:200].astype(float), [[0, 1, 2, 3], [6, 7], [8, 9], [16, 17]])
    if name != "missing":
        np.save(tmp_path / "own.npy", _not_valid(name, own))
    with pytest.raises(InputError, match=message) as error:
        map_trajectory(path, tmp_path / "d.h5", force_map=tmp_path / "own.npy", constraints="hbonds", **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "d.h5").exists()


def test_water_has_no_share(wet, tmp_path):
    """Columns of atoms that are not read are left out, and have to be zero."""
    trajectory, options = wet
    own = np.zeros((6, 22 + 15))
    own[:, :22] = np.eye(22)[[4, 6, 8, 10, 14, 16]]
    np.save(tmp_path / "own.npy", own)
    options |= {"force_map": str(tmp_path / "own.npy"), "constraints": "none"}
    made = map_trajectory(trajectory, tmp_path / "own.h5", **options)
    wanted = map_trajectory(trajectory, tmp_path / "slice.h5", **(options | {"force_map": "slice"}))
    with Dataset.open(made) as one, Dataset.open(wanted) as two:
        assert np.array_equal(one.only_molecule().forces(), two.only_molecule().forces())
    own[2, 30] = 0.1
    np.save(tmp_path / "own.npy", own)
    with pytest.raises(InputError, match=r"forces of atom 30 .* water or an ion"):
        map_trajectory(trajectory, tmp_path / "other.h5", **options)


def test_forces_on_beads_need_no_map(mapping, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "beads.npz", positions=rng.random((5, 6, 3)), forces=rng.random((5, 6, 3)))
    np.save(tmp_path / "own.npy", np.eye(6))
    options = mapping | {"force_map": tmp_path / "own.npy", "length_unit": "nm", "force_unit": "kJ/mol/nm"}
    with pytest.raises(InputError, match="the forces are those on the beads already"):
        map_trajectory(tmp_path / "beads.npz", tmp_path / "d.h5", **options)
    assert not (tmp_path / "d.h5").exists()
