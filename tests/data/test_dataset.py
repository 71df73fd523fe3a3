"""The dataset file: what is written is read, and what is damaged is refused."""

import h5py
import numpy as np
import pytest

from ase_cg import Dataset
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.data.splits import split_by_blocks
from ase_cg.errors import InputError


def test_what_is_written_is_read(dataset_file, ala2):
    with Dataset.open(dataset_file) as dataset:
        molecule = dataset.only_molecule()
        assert molecule.topology == ala2
        assert molecule.temperature == 300.0
        assert molecule.trajectory_lengths == (120, 120)
        assert molecule.has_forces
        everything = molecule.coordinates()
        assert everything.shape == (240, 6, 3)
        assert np.array_equal(molecule.coordinates(np.array([3, 130])), everything[[3, 130]])
        assert np.array_equal(molecule.forces(slice(5, 9)), molecule.forces()[5:9])
        assert [(s.start, s.stop) for s in molecule.trajectories()] == [(0, 120), (120, 240)]
        info = dataset.info()["molecules"]["ala2"]
        assert (info["beads"], info["frames"], info["forces"]) == (6, 240, True)


def test_a_failed_write_leaves_nothing_behind(ala2, ala2_positions, tmp_path):
    path = tmp_path / "d.h5"
    frames = np.repeat(ala2_positions[None], 3, 0)
    frames[1, 2, 0] = np.nan
    with (
        pytest.raises(InputError, match=r"frame 1 .* no numbers"),
        create_dataset(path) as dataset,
        dataset.molecule("m", ala2, temperature=300.0, resolution="calpha") as molecule,
    ):
        molecule.append(frames)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_silently(dataset_file):
    before = dataset_file.read_bytes()
    with pytest.raises(InputError, match="overwrite"), create_dataset(dataset_file):
        pass
    assert dataset_file.read_bytes() == before


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.98])
def test_a_truncated_file_is_one_sentence(dataset_file, fraction):
    data = dataset_file.read_bytes()
    dataset_file.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(InputError, match=r"dataset\.h5"):
        Dataset.open(dataset_file).only_molecule().coordinates()


def test_other_files_and_versions_are_refused(tmp_path, dataset_file):
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match="no ase-cg dataset"):
        Dataset.open(other)
    with h5py.File(dataset_file, "r+") as file:
        file.attrs["version"] = 99
    with pytest.raises(InputError, match="version 99"):
        Dataset.open(dataset_file)
    with pytest.raises(InputError, match="does not exist"):
        Dataset.open(tmp_path / "none.h5")


def test_wrong_shapes_and_missing_forces_are_refused(ala2, ala2_positions, tmp_path):
    frames = np.repeat(ala2_positions[None], 3, 0)
    for wrong in ((frames[:, :4], None), (frames, frames[:2]), (frames, None)):
        with (
            pytest.raises(InputError),
            create_dataset(tmp_path / "d.h5") as dataset,
            dataset.molecule("m", ala2, temperature=300.0, resolution="calpha", force_map="slice") as molecule,
        ):
            molecule.append(*wrong)
    with (
        create_dataset(tmp_path / "d.h5") as dataset,
        dataset.molecule("m", ala2, temperature=300.0, resolution="calpha") as molecule,
    ):
        molecule.append(frames)
    with Dataset.open(tmp_path / "d.h5") as dataset, pytest.raises(InputError, match="has no forces"):
        dataset.only_molecule().forces()


def test_split_is_by_blocks_of_time_complete_and_reproducible(dataset_file):
    with Dataset.open(dataset_file) as dataset:
        split = split_by_blocks(dataset.only_molecule(), (0.1, 0.1), blocks=20, seed=4)
        again = split_by_blocks(dataset.only_molecule(), (0.1, 0.1), blocks=20, seed=4)
    assert sorted(np.concatenate(split).tolist()) == list(range(240))
    assert all(np.array_equal(a, b) for a, b in zip(split, again, strict=True))
    assert len(split.validation) == len(split.test) == 24
    # Blocks of 12 frames: a part changes only at multiples of 12.
    for part in split:
        starts = part[np.flatnonzero(np.diff(part, prepend=-2) > 1)]
        assert (starts % 12 == 0).all()


def test_too_few_frames_to_split_is_one_sentence(dataset_file):
    with Dataset.open(dataset_file) as dataset:
        molecule = dataset.only_molecule()
        with pytest.raises(InputError, match="240 frames, too few to split into 500 blocks"):
            split_by_blocks(molecule, (0.1, 0.1), blocks=500)
        with pytest.raises(InputError, match="leave none for training"):
            split_by_blocks(molecule, (0.6, 0.6), blocks=10)


@pytest.mark.parametrize(("given", "says"), [(None, "no temperature"), (np.nan, "the temperature nan"), (0.0, "0.0")])
def test_data_without_a_temperature_are_refused(dataset_file, tmp_path, given, says):
    path = tmp_path / "d.h5"
    path.write_bytes(dataset_file.read_bytes())
    with h5py.File(path, "r+") as file:
        attributes = file["molecules/ala2"].attrs
        del attributes["temperature"]
        if given is not None:
            attributes["temperature"] = given
    with pytest.raises(InputError, match=rf"{says} for molecule 'ala2', and forces need a positive one in K"):
        Dataset.open(path)
