"""Frame weights: a weighted dataset trains like the dataset it stands for."""

import numpy as np
import pytest
import torch

from ase_cg import CGModel, InputError, Recipe, train
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.data.splits import drawn_by_weight
from ase_cg.labels import label_source
from ase_cg.training.frames import BatchSampler, MoleculeFrames, frame_loader
from ase_cg.training.streaming import BLOCK_FRAMES, FrameStream
from tests.conftest import SMALL_SCHNET, two_bead_topology

MADE = {"temperature": 300.0, "resolution": "calpha", "force_map": "slice"}
FRAMES = 4000


def _dimer(path, lengths, forces, weights=None):
    x, f = np.zeros((len(lengths), 2, 3)), np.zeros((len(lengths), 2, 3))
    x[:, 1, 0], f[:, 1, 0], f[:, 0, 0] = lengths, forces, -forces
    with (
        create_dataset(path) as dataset,
        dataset.molecule("m", two_bead_topology(), weighted=weights is not None, **MADE) as molecule,
    ):
        molecule.append(x, f, weights=weights)
    return path


def _recipe(path, **changes):
    training = {"epochs": 6, "batch_size": 64, "learning_rate": 3e-3} | changes.pop("training", {})
    data = {"name": "w", "data": {"dataset": str(path)}, "priors": ["bonds"], "training": training}
    return Recipe.model_validate(data | {"backbone": {"name": "schnet", **SMALL_SCHNET}} | changes)


def test_frames_come_as_often_as_their_weights_say():
    weights = np.array([0.0, 1.0, 0.25, 3.0, 0.75, 0.0])
    expected = 50 * weights / weights.sum()
    counts = []
    for offset in np.linspace(0, 1, 200, endpoint=False):
        drawn = drawn_by_weight(weights, 50, offset)
        assert (np.diff(drawn) >= 0).all()
        counts.append(np.bincount(drawn, minlength=6))
        assert (np.abs(counts[-1] - expected) < 1).all()
    assert np.mean(counts, axis=0) == pytest.approx(expected, abs=0.02)
    assert drawn_by_weight(np.ones(7)).tolist() == list(range(7))


@pytest.mark.parametrize("streamed", [False, True])
def test_an_epoch_draws_by_weight_and_validation_counts_by_weight(streamed, tmp_path):
    rng = np.random.default_rng(0)
    weights = rng.gamma(0.5, size=FRAMES)
    path = _dimer(tmp_path / "d.h5", np.arange(FRAMES, dtype=float), np.zeros(FRAMES), weights)
    frames = np.arange(0, FRAMES, 2)
    x = np.zeros((FRAMES, 2, 3), dtype=np.float32)
    x[:, 1, 0] = np.arange(FRAMES)

    def loader(shuffle):
        if streamed:
            options = {"with_forces": False, "buffer_bytes": 24 * 3 * BLOCK_FRAMES}
            return FrameStream(
                path, "m", frames, batch_size=64, shuffle=shuffle, seed=1, weights=weights[frames], **options
            )
        held = MoleculeFrames(x[frames], None, frames, weights[frames])
        return frame_loader([held], batch_size=64, shuffle=shuffle, seed=1)

    epochs = []
    for epoch in range(40):
        training = loader(shuffle=True)
        training.sampler.set_epoch(epoch)
        parts = [batch.parts[0] for batch in training]
        assert sum(len(part.draws) for part in parts) == len(frames)
        assert all((part.weights == 1).all() for part in parts)
        draws = torch.cat([part.draws for part in parts]).numpy()
        assert len(np.unique(draws)) == len(draws)  # copies of a frame have noise of their own
        numbers = torch.cat([part.coordinates[:, 1, 0] for part in parts]).numpy().astype(int)
        assert np.array_equal(numbers, draws & (2**40 - 1))
        epochs.append(np.bincount(numbers, minlength=FRAMES)[frames])
    expected = weights[frames] * len(frames) / weights[frames].sum()
    assert not np.array_equal(epochs[0], epochs[1])
    assert np.abs(np.mean(epochs, axis=0) - expected).max() < 0.5
    assert np.corrcoef(np.mean(epochs, axis=0), expected)[0, 1] > 0.99
    parts = [batch.parts[0] for batch in loader(shuffle=False)]
    found = torch.cat([part.weights for part in parts]).numpy()
    assert found == pytest.approx(weights[frames] / weights[frames].mean(), rel=1e-5)


def test_balanced_molecules_with_weights_give_equally_many_frames():
    sampler = BatchSampler(
        [10, 990], 50, shuffle=True, seed=0, balance="molecules", weights=[np.arange(10.0), np.ones(990)]
    )
    rows = np.concatenate(list(sampler))
    assert np.bincount(rows[:, 0]).tolist() == [500, 500]
    assert np.bincount(rows[rows[:, 0] == 0, 1], minlength=10) == pytest.approx(500 * np.arange(10) / 45, abs=1)


def test_a_weighted_dataset_trains_as_the_density_it_stands_for(tmp_path):
    """Noise labels of a flat sample weighted to a Gaussian: the model finds the Gaussian's noised force."""
    from ase_cg.units import thermal_energy

    kT, spread, sigma = thermal_energy(300.0), 0.25, 0.1
    rng = np.random.default_rng(0)
    length = rng.uniform(2.0, 4.0, 20_000)
    weights = np.exp(-((length - 3.0) ** 2) / (2 * spread**2))
    path = _dimer(tmp_path / "d.h5", length, -kT * (length - 3.0) / spread**2, weights)
    recipe = _recipe(path, labels="noise", noise_std=sigma, training={"epochs": 5})
    model = CGModel.load(train(recipe, tmp_path / "t", quiet=True)).with_priors("training")
    r = np.linspace(2.7, 3.4, 8)
    positions = torch.zeros(len(r), 2, 3)
    positions[:, 1, 0] = torch.from_numpy(r)
    graph = model.graph(model.only_topology(), len(r))._replace(positions=positions.reshape(-1, 3))
    _, forces = model.energy_and_forces(graph)
    learned = forces.reshape(-1, 2, 3)[:, 1, 0].numpy()
    # With y the noised bond: a Gaussian of variance s² + 2σ² along x and 2σ² across. The model knows |y| = r only, and
    # the mean force along y at given r has −2kT/r from the components across; y_x = r − 2σ²/r on average.
    exact = -kT * (r - 2 * sigma**2 / r - 3.0) / (spread**2 + 2 * sigma**2) - 2 * kT / r
    assert np.abs(exact).max() > 0.1
    assert np.sqrt(np.mean((learned - exact) ** 2)) < 0.01


def test_labels_are_fitted_by_weight():
    rng = np.random.default_rng(0)
    forces = torch.from_numpy(rng.standard_normal((50, 3, 3)))
    counts = rng.integers(0, 4, 50)
    repeated = torch.repeat_interleave(forces, torch.from_numpy(counts), dim=0)
    for name, sigma in (("atomistic", None), ("forces_and_noise", 0.05)):
        one = label_source(name).fit(forces, kT=0.025, noise_std=sigma, weights=torch.from_numpy(counts / 7.0))
        two = label_source(name).fit(repeated, kT=0.025, noise_std=sigma)
        assert one.variance() == pytest.approx(two.variance(), rel=1e-10)


def test_a_part_without_weight_is_told(tmp_path):
    weights = np.zeros(100)
    weights[:3] = 1.0
    path = _dimer(tmp_path / "d.h5", np.linspace(3, 4, 100), np.zeros(100), weights)
    with pytest.raises(InputError, match=r"no frame of the .* part has a weight above zero"):
        train(_recipe(path), tmp_path / "t", quiet=True)
    assert not (tmp_path / "t").exists()
