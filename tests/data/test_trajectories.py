"""Trajectories within one file: where they start, and what a dataset's hash says of them."""

import h5py
import numpy as np
import pytest

from ase_cg import Dataset, InputError, map_trajectory
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.data.importers.frames import chunk_frames
from tests.conftest import two_bead_topology

CHUNK = chunk_frames(6)  # frames that are read at once: a trajectory may start just there


@pytest.fixture
def mapped(tmp_path, example_data, ala2_positions):
    """Map 5000 frames of beads, more than are read at once, whose first bead tells their number."""
    frames = np.repeat(ala2_positions[None], 5000, 0)
    frames[:, 0, 0] += np.arange(5000) * 1e-4
    np.save(tmp_path / "x.npy", frames)

    def run(**options):
        return map_trajectory(
            options.pop("trajectories", tmp_path / "x.npy"),
            tmp_path / "x.h5",
            topology=example_data / "ala2.pdb",
            resolution=["ACE:C", "ALA:N", "ALA:CA", "ALA:CB", "ALA:C", "NME:N"],
            temperature=300,
            length_unit="Å",
            quiet=True,
            **options,
        )

    return run


@pytest.mark.parametrize(
    "starts", [[0], [0, 1, 4, 3999, 4096, 4999], [0, CHUNK, 2 * CHUNK + 1, 4 * CHUNK - 1], [0.0, 2500.0]]
)
def test_starts_divide_a_file(mapped, tmp_path, starts):
    np.save(tmp_path / "starts.npy", np.array(starts))
    with Dataset.open(mapped(trajectory_starts=tmp_path / "starts.npy")) as dataset:
        molecule = dataset.only_molecule()
        assert molecule.trajectory_lengths == tuple(np.diff([*starts, 5000]).astype(int))
        first = molecule.coordinates()[:, 0, 0]
        assert np.diff(first).min() > -1e-6  # in their order


def test_starts_may_be_given_as_numbers(mapped):
    for starts in ([0, 7, 4999], np.array([0, 7, 4999]), (0, 7, 4999)):
        with Dataset.open(mapped(trajectory_starts=starts, overwrite=True)) as dataset:
            assert dataset.only_molecule().trajectory_lengths == (7, 4992, 1)
    for wrong in ([0, 1.5], np.array([[0, 1]]), [1, 2], np.array([0, 5000]), [0, 3, 3]):
        with pytest.raises(InputError, match="trajectory_starts"):
            mapped(trajectory_starts=wrong, overwrite=True)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ([3, 10], "begins with frame 3; the first trajectory starts at 0"),
        ([0, 10, 10], "frame 10 follows frame 10"),
        ([0, 5000], "starts at frame 5000 .* has only 5000 frames"),
        ([0, 1.5], "numbers that are no frames"),
        ([0, np.nan], "numbers that are no frames"),
        ([[0, 1]], "not a list of frames"),
        ([], "not a list of frames"),
        (["a"], "not a list of frames"),
    ],
)
def test_wrong_starts_are_refused(mapped, tmp_path, starts, message):
    np.save(tmp_path / "starts.npy", np.array(starts))
    with pytest.raises(InputError, match=message):
        mapped(trajectory_starts=tmp_path / "starts.npy")
    assert not (tmp_path / "x.h5").exists()


def test_a_file_is_divided_once(mapped, tmp_path):
    np.save(tmp_path / "starts.npy", np.array([0, 10]))
    with pytest.raises(InputError, match="divide a file twice"):
        mapped(trajectory_starts=tmp_path / "starts.npy", trajectory_length=10)
    with pytest.raises(InputError, match="divides one file, not 2"):
        mapped(trajectory_starts=tmp_path / "starts.npy", trajectories=[tmp_path / "x.npy"] * 2)


def _written(path, *, temperature=300.0, shift=0.0, weight=1.0, cut=5, compress=False, mapping=None):
    x = np.arange(60.0).reshape(10, 2, 3) + shift
    with (
        create_dataset(path, compress=compress) as dataset,
        dataset.molecule(
            "m", two_bead_topology(), temperature=temperature, resolution="calpha", weighted=True, mapping=mapping
        ) as molecule,
    ):
        for part in (slice(cut), slice(cut, None)):
            molecule.append(x[part], weights=np.full(len(x[part]), weight))
            molecule.next_trajectory()
    with Dataset.open(path) as dataset:
        return dataset.hash()


def test_one_dataset_has_one_hash(tmp_path):
    """The file's layout, its age and the record of its making do not count; what it says does."""
    plain = _written(tmp_path / "a.h5")
    assert _written(tmp_path / "b.h5") == plain
    assert _written(tmp_path / "c.h5", compress=True, mapping={"topology": "elsewhere.pdb"}) == plain
    with h5py.File(tmp_path / "a.h5") as source, h5py.File(tmp_path / "d.h5", "w") as target:
        for name, value in source.attrs.items():
            target.attrs[name] = value
        source.copy("molecules", target)
        target.create_dataset("room", data=np.zeros(1000))
        # Chunks, compression and the order of bytes are the file's own affair.
        group = target["molecules/m"]
        for key, dtype in (("coordinates", ">f4"), ("weights", ">f8"), ("trajectory_lengths", "<i4")):
            values = group[key][:]
            del group[key]
            group.create_dataset(key, data=values, dtype=dtype, chunks=(1, *values.shape[1:]), compression="lzf")
    with Dataset.open(tmp_path / "d.h5") as dataset:
        assert dataset.hash() == plain
    others = [
        _written(tmp_path / f"other_{number}.h5", **change)
        for number, change in enumerate([{"temperature": 301.0}, {"shift": 1e-4}, {"weight": 2.0}, {"cut": 4}])
    ]
    assert len({plain, *others}) == 5


@pytest.mark.parametrize(
    ("array", "place"), [("coordinates", (9, 1, 2)), ("coordinates", (4, 0, 0)), ("weights", (7,)), ("topology", None)]
)
def test_any_change_changes_the_hash(tmp_path, array, place):
    before = _written(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        group = file["molecules/m"]
        if place is None:
            group.attrs["topology"] = group.attrs["topology"].replace('"A"', '"B"')
        else:
            group[array][place] = group[array][place] * (1 + 1e-6)
    with Dataset.open(tmp_path / "a.h5") as dataset:
        assert dataset.hash() != before


def test_the_same_input_mapped_twice_has_one_hash(mapped, tmp_path):
    """Neither names of files nor what is known of them counts."""
    (tmp_path / "copy").mkdir()
    np.save(tmp_path / "copy" / "y.npy", np.load(tmp_path / "x.npy"))
    found = set()
    for name in ("x.npy", "copy/y.npy"):
        with Dataset.open(mapped(trajectories=tmp_path / name, trajectory_starts=[0, 9], overwrite=True)) as dataset:
            found.add(dataset.hash())
    assert len(found) == 1
    with Dataset.open(mapped(trajectory_starts=[0, 10], overwrite=True)) as dataset:
        assert dataset.hash() not in found
