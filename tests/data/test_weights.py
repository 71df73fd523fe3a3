"""Frame weights: what they decide, and wrong ones."""

import numpy as np
import pytest

from ase_cg import Dataset, InputError, map_trajectory
from ase_cg.data.dataset_writer import create_dataset
from tests.conftest import two_bead_topology
from tests.data.conftest import N_FRAMES


def test_weights_decide_the_optimal_map(all_atom, tmp_path, mapping):
    """Frames of no weight have no say: the map of weighted frames is that of the frames that count."""
    rng = np.random.default_rng(0)
    nonsense = 1e3 * rng.standard_normal((N_FRAMES, 22, 3))
    np.savez(tmp_path / "a.npz", positions=all_atom[0], forces=all_atom[1])
    both = {"positions": np.concatenate([all_atom[0]] * 2), "forces": np.concatenate([all_atom[1], nonsense])}
    np.savez(tmp_path / "b.npz", **both)
    np.save(tmp_path / "w.npy", np.repeat([1.0, 0.0], N_FRAMES))
    options = mapping | {"force_map": "optimal", "constraints": "none", "length_unit": "nm", "ridge": 1e-3}
    options |= {"force_unit": "kJ/mol/nm"}
    alone = map_trajectory(tmp_path / "a.npz", tmp_path / "a.h5", **options)
    weighted = map_trajectory(tmp_path / "b.npz", tmp_path / "b.h5", weights=[tmp_path / "w.npy"], **options)
    with Dataset.open(alone) as one, Dataset.open(weighted) as two:
        a, b = one.only_molecule(), two.only_molecule()
        assert b.maps()[2] == pytest.approx(a.maps()[2], abs=1e-3)
        assert b.force_map_report["rms"] == pytest.approx(a.force_map_report["rms"], rel=1e-3)


@pytest.mark.filterwarnings("ignore:the optimal force map is overfitted")  # 40 frames are few
def test_the_force_map_of_weighted_frames_is_that_of_repeated_ones(all_atom, tmp_path, mapping):
    counts = np.tile([1, 3, 0, 2], N_FRAMES // 4)
    x, f = all_atom
    f = f * np.where(counts == 3, 3.0, 1.0)[:, None, None]  # a weight in the wrong power asks for another map
    f[counts == 3] = np.roll(f[counts == 3], 1, axis=1)
    np.savez(tmp_path / "w.npz", positions=x, forces=f)
    np.savez(tmp_path / "r.npz", positions=np.repeat(x, counts, axis=0), forces=np.repeat(f, counts, axis=0))
    np.save(tmp_path / "w.npy", counts / 2)
    options = mapping | {"force_map": "optimal", "constraints": "none", "length_unit": "nm", "force_unit": "kJ/mol/nm"}
    found = {}
    for name, weights in (("w", [tmp_path / "w.npy"]), ("r", [])):
        # The ridge is compared with a sum over frames: weights have the mean 1, counts 1.5.
        ridge = 1.0 if weights else 1.5
        path = map_trajectory(
            tmp_path / f"{name}.npz", tmp_path / f"{name}.h5", weights=weights, ridge=ridge, **options
        )
        with Dataset.open(path) as dataset:
            found[name] = dataset.only_molecule().maps()[2], dataset.only_molecule().force_map_report["rms"]
    assert found["w"][0] == pytest.approx(found["r"][0], abs=1e-6)
    assert found["w"][1] == pytest.approx(found["r"][1], rel=1e-6)


@pytest.mark.filterwarnings("ignore:the optimal force map is overfitted")  # 40 frames are few
def test_files_count_by_their_weights_beside_each_other(all_atom, tmp_path, mapping):
    """Two files weigh what their frames in one file would: in the force map as in what is stored, priors' source."""
    x, f = all_atom
    f = np.concatenate([f[:20], 3 * np.roll(f[20:], 1, axis=1)])  # a second half that asks for another map
    weights = np.concatenate([np.linspace(1, 2, 20), np.linspace(20, 40, 20)])
    for name, part in (("all", slice(None)), ("a", slice(20)), ("b", slice(20, None))):
        np.savez(tmp_path / f"{name}.npz", positions=x[part], forces=f[part])
        np.save(tmp_path / f"{name}.npy", weights[part])
    options = mapping | {"force_map": "optimal", "constraints": "none", "length_unit": "nm", "ridge": 1e-3}
    options |= {"force_unit": "kJ/mol/nm"}

    def mapped(*names, weighted=True):
        given = [tmp_path / f"{name}.npy" for name in names] if weighted else []
        path = tmp_path / f"{'_'.join(names)}_{weighted}.h5"
        with Dataset.open(
            map_trajectory([tmp_path / f"{name}.npz" for name in names], path, weights=given, **options)
        ) as dataset:
            molecule = dataset.only_molecule()
            return molecule.maps()[2], molecule.weights(), molecule.force_map_report["rms"]

    together, apart = mapped("all"), mapped("a", "b")
    for one, other in zip(together, apart, strict=True):
        assert other == pytest.approx(one, rel=1e-5, abs=1e-7)
    assert np.abs(apart[0] - mapped("a", "b", weighted=False)[0]).max() > 0.01


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(39), "39 weights"),
        (np.ones(41), "holds 41 weights for the 40 frames"),
        (-np.ones(40), "weight of frame 0"),
        (np.full(40, np.nan), "weight of frame 0"),
        (np.zeros(40), "no weight above zero"),
        (np.ones((40, 2)), r"shape \(40, 2\)"),
    ],
)
def test_wrong_weights_are_one_sentence(weights, message, all_atom, mapping, tmp_path):
    np.savez(tmp_path / "a.npz", positions=all_atom[0])
    np.save(tmp_path / "w.npy", weights)
    with pytest.raises(InputError, match=message):
        map_trajectory(tmp_path / "a.npz", tmp_path / "d.h5", weights=[tmp_path / "w.npy"], length_unit="nm", **mapping)
    assert not (tmp_path / "d.h5").exists()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, -1, 1, 1], "weight of frame 5 .* is -1"),
        ([1, 1, np.nan, 1], "weight of frame 6 .* is nan"),
        ([0, 0, 0, 0], "no frame .* above zero"),
    ],
)
def test_wrong_weights_are_neither_written_nor_read(weights, message, tmp_path):
    import h5py

    path, x = tmp_path / "d.h5", np.arange(24.0).reshape(4, 2, 3)
    options = {"temperature": 300.0, "resolution": ("ALA:A", "ALA:B"), "weighted": True}

    def write(first, second):
        with create_dataset(path) as dataset, dataset.molecule("m", two_bead_topology(), **options) as molecule:
            molecule.append(x, weights=np.array(first))
            molecule.append(x, weights=np.array(second))

    with pytest.raises(InputError, match=message):
        write(np.zeros(4), weights)
    assert not path.exists()
    write(np.ones(4), np.ones(4))
    with h5py.File(path, "a") as file:
        file["molecules/m/weights"][4:] = weights
    if sum(weights):
        with Dataset.open(path) as dataset, pytest.raises(InputError, match=f"molecule 'm': the {message}"):
            dataset.only_molecule().weights()
