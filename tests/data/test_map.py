"""Mapping real and made trajectories: numbers, streams, and every kind of bad input."""

import contextlib
import struct

import h5py
import mdtraj
import numpy as np
import pytest

from ase_cg import Dataset, map_trajectory
from ase_cg.data.truncation import check_complete
from ase_cg.errors import InputError
from ase_cg.units import KCAL_PER_MOL

FIVE_BEADS = ("ACE:C", "ALA:N", "ALA:CA", "ALA:C", "NME:N")


@pytest.fixture
def all_atom_file(example_data, tmp_path):
    """A made trajectory of the example molecule with forces, as .npz in nm and kJ/mol/nm."""
    rng = np.random.default_rng(0)
    x = mdtraj.load(str(example_data / "ala2.pdb")).xyz[0] + 0.01 * rng.standard_normal((30, 22, 3))
    path = tmp_path / "all.npz"
    np.savez(path, positions=x, forces=100 * rng.standard_normal((30, 22, 3)))
    return path


@pytest.fixture
def mapping(mapping):
    return mapping | {"length_unit": "nm", "force_unit": "kJ/mol/nm"}


@pytest.mark.parametrize(("force_map", "wanted"), [("slice", 26.99), ("constraint_sum", 26.05)])
def test_published_forces_have_the_published_root_mean_square(force_map, wanted, shared, tmp_path):
    folder = shared / "ala2_all_atom_forces"
    biased = pytest.warns(UserWarning, match="ALA:N") if force_map == "slice" else contextlib.nullcontext()
    with biased:
        path = map_trajectory(
            folder / "ala2_all_atom.npz",
            tmp_path / "beads.h5",
            topology=folder / "ala2_all_atom.pdb",
            resolution=FIVE_BEADS,
            temperature=300,
            force_map=force_map,
            length_unit="Å",
            force_unit="kcal/mol/Å",
            quiet=True,
        )
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        rms = np.sqrt((molecule.forces().astype(float) ** 2).mean()) / KCAL_PER_MOL
        assert molecule.topology.bonds == ((0, 1), (1, 2), (2, 3), (3, 4))
    assert rms == pytest.approx(wanted, abs=0.05)


def test_units_and_atoms_are_right(all_atom_file, mapping, tmp_path):
    path = map_trajectory(all_atom_file, tmp_path / "b.h5", **mapping)
    raw = np.load(all_atom_file)
    atoms = [4, 6, 8, 10, 14, 16]
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        assert molecule.coordinates() == pytest.approx(raw["positions"][:, atoms] * 10, abs=1e-5)
        wanted = raw["forces"][:, atoms] * KCAL_PER_MOL / 4.184 / 10
        assert molecule.forces() == pytest.approx(wanted, rel=1e-6)
        assert molecule.force_map == "slice"
        assert molecule.mapping["trajectories"][0]["file"] == "all.npz"


def test_mdtraj_formats_and_forces_in_hdf5(all_atom_file, mapping, tmp_path, example_data):
    raw = np.load(all_atom_file)
    trajectory = mdtraj.Trajectory(raw["positions"], mdtraj.load(str(example_data / "ala2.pdb")).topology)
    trajectory.save_xtc(str(tmp_path / "t.xtc"))
    trajectory.save_hdf5(str(tmp_path / "t.h5"))
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        file["forces"] = raw["forces"]
        file["forces"].attrs["units"] = "kJ/mol/nm"
    del mapping["length_unit"], mapping["force_unit"]
    plain = map_trajectory(tmp_path / "t.xtc", tmp_path / "plain.h5", **mapping)
    forced = map_trajectory(tmp_path / "t.h5", tmp_path / "forced.h5", **mapping)
    with Dataset.open(plain) as one, Dataset.open(forced) as two:
        assert not one.only_molecule().has_forces
        assert two.only_molecule().has_forces
        # XTC keeps 0.01 Å.
        assert one.only_molecule().coordinates() == pytest.approx(two.only_molecule().coordinates(), abs=0.011)


def test_several_files_and_joined_trajectories_keep_their_boundaries(all_atom_file, mapping, tmp_path, monkeypatch):
    monkeypatch.setattr("ase_cg.data.importers.frames.CHUNK_FRAMES", 7)
    path = map_trajectory([all_atom_file, all_atom_file], tmp_path / "b.h5", trajectory_length=12, **mapping)
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        assert molecule.trajectory_lengths == (12, 12, 6, 12, 12, 6)
        assert np.array_equal(molecule.coordinates()[:30], molecule.coordinates()[30:])


def test_the_time_between_frames_is_recorded_where_it_is_said(all_atom_file, mapping, tmp_path):
    said = map_trajectory(all_atom_file, tmp_path / "said.h5", frame_interval="4 ps", **mapping)
    silent = map_trajectory(all_atom_file, tmp_path / "silent.h5", **mapping)
    with Dataset.open(said) as one, Dataset.open(silent) as two:
        assert one.only_molecule().mapping["frame_interval"] == "4 ps"
        assert "frame_interval" not in two.only_molecule().mapping
    for wrong in ("4", "-4 ps", "4 Å"):
        with pytest.raises(InputError, match="frame_interval cannot be"):
            map_trajectory(all_atom_file, tmp_path / "wrong.h5", frame_interval=wrong, **mapping)


def _break(name, arrays, mapping, folder):
    """Return changed arrays and options for one kind of bad input."""
    x, f = arrays["positions"], arrays["forces"]
    changes = {
        "force frames": ({"positions": x, "forces": f[:-1]}, {}),
        "force atoms": ({"positions": x, "forces": f[:, :-1]}, {}),
        "nan positions": ({"positions": np.where(np.arange(30)[:, None, None] == 17, np.nan, x), "forces": f}, {}),
        "infinite forces": ({"positions": x, "forces": np.where(np.arange(30)[:, None, None] == 3, np.inf, f)}, {}),
        "nan elsewhere": ({"positions": np.where(np.arange(30 * 22 * 3).reshape(30, 22, 3) == 4 * 66, np.nan, x)}, {}),
        "complex": ({"positions": x + 0j}, {}),
        "name": ({"positions": x}, {"name": "a/b"}),
        "endless temperature": ({"positions": x}, {"temperature": float("inf")}),
        "no unit": ({"positions": x, "forces": f}, {"length_unit": None}),
        "no force unit": ({"positions": x, "forces": f}, {"force_unit": None}),
        "wrong unit": ({"positions": x, "forces": f}, {"length_unit": "nmm"}),
        "other topology": ({"positions": x[:, :-2], "forces": f[:, :-2]}, {}),
        "no such atom": ({"positions": x, "forces": f}, {"resolution": ["ALA:CZ"]}),
        "no positions": ({"velocities": x}, {}),
        "no temperature": ({"positions": x, "forces": f}, {"temperature": 0.0}),
        "no frames": ({"positions": x[:0], "forces": f[:0]}, {}),
        "force map": ({"positions": x, "forces": f}, {"force_map": "slise"}),
    }
    arrays, options = changes[name]
    np.savez(folder / "bad.npz", **arrays)
    return mapping | options


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("force frames", r"forces of shape \(29, 22, 3\) for positions of shape \(30, 22, 3\)"),
        ("force atoms", r"forces of shape \(30, 21, 3\)"),
        ("nan positions", r"frame 17 .* no numbers"),
        ("infinite forces", r"forces of frame 3 .* no numbers"),
        ("no unit", "--length-unit"),
        ("no force unit", "--force-unit"),
        ("wrong unit", "did you mean 'nm'"),
        ("other topology", "the topology has 22 atoms"),
        ("no such atom", "ALA:CZ"),
        ("nan elsewhere", r"frame 4 .* no numbers"),
        ("complex", "no real numbers"),
        ("name", "name cannot be 'a/b'"),
        ("endless temperature", "temperature"),
        ("no positions", "has no array named"),
        ("no temperature", "temperature"),
        ("no frames", "no frames"),
        ("force map", "slise"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(name, message, all_atom_file, mapping, tmp_path):
    options = _break(name, dict(np.load(all_atom_file)), mapping, tmp_path)
    with pytest.raises(InputError, match=message) as error:
        map_trajectory(tmp_path / "bad.npz", tmp_path / "out.h5", **options)
    assert "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.npz", "bad.npz"]


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".xtc", ".dcd", ".trr"])
def test_truncated_trajectories_are_one_sentence(suffix, all_atom_file, mapping, tmp_path, example_data):
    path = tmp_path / f"t{suffix}"
    if suffix == ".npz":
        path.write_bytes(all_atom_file.read_bytes())
    else:
        structure = mdtraj.load(str(example_data / "ala2.pdb"))
        mdtraj.Trajectory(np.load(all_atom_file)["positions"], structure.topology).save(str(path))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3 + 5])
    with pytest.raises(InputError, match=rf"t\{suffix}"):
        map_trajectory(path, tmp_path / "out.h5", **mapping)
    assert not (tmp_path / "out.h5").exists()


def test_missing_trajectory_is_one_sentence(mapping, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        map_trajectory(tmp_path / "none.xtc", tmp_path / "out.h5", **mapping)


def test_an_existing_dataset_is_kept(all_atom_file, mapping, tmp_path):
    path = map_trajectory(all_atom_file, tmp_path / "b.h5", **mapping)
    before = path.read_bytes()
    with pytest.raises(InputError, match="overwrite"):
        map_trajectory(all_atom_file, path, **mapping)
    assert path.read_bytes() == before
    map_trajectory(all_atom_file, path, overwrite=True, **mapping)


@pytest.mark.parametrize("suffix", [".xtc", ".trr"])
@pytest.mark.parametrize("atoms", [5, 22])
def test_whole_files_of_any_size_are_accepted(atoms, suffix, all_atom_file, tmp_path, example_data):
    structure = mdtraj.load(str(example_data / "ala2.pdb")).atom_slice(range(atoms))
    path = tmp_path / f"t{suffix}"
    mdtraj.Trajectory(np.load(all_atom_file)["positions"][:, :atoms], structure.topology).save(str(path))
    check_complete(path, 30)
    data = path.read_bytes()
    for cut in (1, 17, len(data) // 2):
        path.write_bytes(data[:-cut])
        with pytest.raises(InputError, match="truncated"):
            check_complete(path, 30)


@pytest.mark.parametrize("suffix", [".h5", ".pdb", ".xtc"])
def test_a_structure_with_other_atoms_than_the_trajectory_is_refused(
    suffix, all_atom_file, mapping, tmp_path, example_data
):
    structure = mdtraj.load(str(example_data / "ala2.pdb"))
    path = tmp_path / f"t{suffix}"
    mdtraj.Trajectory(np.load(all_atom_file)["positions"], structure.topology).save(str(path))
    fewer = tmp_path / "fewer.pdb"
    structure.atom_slice(range(20)).save(str(fewer))
    with pytest.raises(InputError, match="20 atoms"):
        map_trajectory(path, tmp_path / "out.h5", **(mapping | {"topology": fewer}))
    if suffix == ".xtc":
        return  # it names no atoms
    swapped = tmp_path / "swapped.pdb"
    lines = (example_data / "ala2.pdb").read_text().splitlines(keepends=True)
    swapped.write_text("".join([lines[0], lines[2], lines[1], *lines[3:]]))
    with pytest.raises(InputError, match=r"atom 0 is ACE:CH3 in .* but ACE:H1 in the topology"):
        map_trajectory(path, tmp_path / "out.h5", **(mapping | {"topology": swapped}))
    assert not (tmp_path / "out.h5").exists()


def test_units_that_contradict_the_file_are_refused_and_declared_ones_are_honoured(
    all_atom_file, mapping, tmp_path, example_data
):
    structure = mdtraj.load(str(example_data / "ala2.pdb"))
    x = np.load(all_atom_file)["positions"]
    mdtraj.Trajectory(x, structure.topology).save_xtc(str(tmp_path / "t.xtc"))
    with pytest.raises(InputError, match="in nm by definition"):
        map_trajectory(tmp_path / "t.xtc", tmp_path / "out.h5", **(mapping | {"length_unit": "Å"}))
    mdtraj.Trajectory(x, structure.topology).save_hdf5(str(tmp_path / "t.h5"))
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        file["coordinates"].attrs["units"] = "angstroms"
    with pytest.raises(InputError, match="in angstroms by definition"):
        map_trajectory(tmp_path / "t.h5", tmp_path / "out.h5", **mapping)
    path = map_trajectory(tmp_path / "t.h5", tmp_path / "out.h5", **(mapping | {"length_unit": None}))
    with Dataset.open(path) as dataset:
        assert dataset.only_molecule().coordinates() == pytest.approx(x[:, [4, 6, 8, 10, 14, 16]], abs=1e-5)


def test_a_trr_frame_without_positions_is_refused(tmp_path):
    """GROMACS writes such frames where it keeps forces more often than positions."""
    frame = struct.pack(">3i", 1993, 13, 12) + b"GMX_trn_file"
    only_forces = struct.pack(">13i", 0, 0, 0, 0, 0, 0, 0, 0, 0, 5 * 12, 5, 0, 0) + struct.pack(">2f", 0, 0)
    (tmp_path / "t.trr").write_bytes(frame + only_forces + struct.pack(">15f", *range(15)))
    with pytest.raises(InputError, match="1 of 1 frames hold no positions"):
        check_complete(tmp_path / "t.trr", 1)


def test_an_input_is_never_overwritten(all_atom, mapping, tmp_path, example_data):
    np.savez(tmp_path / "a.npz", positions=all_atom[0])
    pdb = tmp_path / "a.pdb"
    pdb.write_bytes((example_data / "ala2.pdb").read_bytes())
    trajectory = mdtraj.Trajectory(all_atom[0], mdtraj.load(str(pdb)).topology)
    trajectory.save_hdf5(str(tmp_path / "a.h5"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    options = mapping | {"topology": pdb}
    for source, output in ((tmp_path / "a.h5", tmp_path / "a.h5"), (tmp_path / "a.h5", pdb)):
        with pytest.raises(InputError, match=r"is an input|must end in"):
            map_trajectory(source, output, overwrite=True, **options)
    with pytest.raises(InputError, match="is an input"):
        map_trajectory(
            tmp_path / "a.h5", tmp_path / "a.h5", overwrite=True, **(options | {"topology": tmp_path / "a.h5"})
        )
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
