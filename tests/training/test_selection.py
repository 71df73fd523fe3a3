"""What training, validation and test frames each decide, and that weights reach all of it.

Training and validation frames follow different laws here, so that what one improves the other worsens.
"""

import csv

import numpy as np
import pytest
import torch

from ase_cg import CGModel, Recipe, train
from ase_cg.data.dataset import Dataset
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.data.splits import split_by_blocks
from ase_cg.labels.forces_and_noise import ForcesAndNoise
from ase_cg.labels.noise import Noise
from ase_cg.models.priors.prior_set import describe_priors
from ase_cg.training import trainer
from ase_cg.training.data import read_training_data
from ase_cg.units import KCAL_PER_MOL, thermal_energy
from tests.conftest import SMALL_SCHNET, two_bead_topology

pytestmark = pytest.mark.filterwarnings("ignore:forces of molecule")  # no forces of one energy, by design
FRAMES = 400
KT = thermal_energy(300.0)


def _frames(seed=0, count=FRAMES):
    rng = np.random.default_rng(seed)
    length = rng.normal(3.0, 0.2, count)
    direction = rng.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    x = np.zeros((count, 2, 3))
    x[:, 1] = length[:, None] * direction
    return x, length, direction


def _along(force, direction):
    f = np.zeros((len(force), 2, 3))
    f[:, 1] = force[:, None] * direction
    f[:, 0] = -f[:, 1]
    return f


def _write(path, x, f, weights=None):
    options = {"temperature": 300.0, "resolution": "calpha", "force_map": None if f is None else "slice"}
    with (
        create_dataset(path) as dataset,
        dataset.molecule("m", two_bead_topology(), weighted=weights is not None, **options) as molecule,
    ):
        molecule.append(x, f, weights)
    return path


def _recipe(path, labels="atomistic", **training):
    settings = {"epochs": 6, "batch_size": 64, "learning_rate": 1e-2, "schedule": "constant"} | training
    noise = {} if labels == "atomistic" else {"noise_std": 0.05}
    data = {"name": "s", "data": {"dataset": str(path)}, "labels": labels, "priors": ["bonds"], "training": settings}
    return Recipe.model_validate(data | {"backbone": {"name": "schnet", **SMALL_SCHNET}} | noise)


def _split(path):
    with Dataset.open(path) as dataset:
        return split_by_blocks(dataset.only_molecule(), (0.1, 0.1))


@pytest.fixture
def opposed(tmp_path):
    """Frames whose training part is pushed one way and whose other parts are pushed the other way."""
    x, length, direction = _frames()
    split = _split(_write(tmp_path / "x.h5", x, None))
    prior = -KT / 0.2**2 * (length - 3.0)
    push = np.full(FRAMES, -0.3)  # eV/Å
    push[split.train] = 0.6
    return _write(tmp_path / "d.h5", x, _along(prior + push, direction))


def _logged(folder, name):
    found = {}
    for file in (folder / "csv").glob("version_*/metrics.csv"):
        with file.open() as rows:
            found |= {int(row["epoch"]): float(row[name]) for row in csv.DictReader(rows) if row.get(name)}
    return [found[epoch] for epoch in sorted(found)]


def _squares(model, path, frames):
    """Return the mean squared error of the forces of each frame in (kcal/mol/Å)², by hand."""
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        x, f = molecule.coordinates(frames), molecule.forces(frames)
    graph = model.graph(model.only_topology(), len(frames))._replace(positions=torch.from_numpy(x).reshape(-1, 3))
    found = model.energy_and_forces(graph)[1].reshape(f.shape).numpy()
    return ((found - f) ** 2).mean((1, 2)) / KCAL_PER_MOL**2


def test_the_epoch_is_chosen_and_training_stops_by_the_validation_loss(opposed, tmp_path):
    recipe = _recipe(opposed, patience=2, epochs=8)
    model = CGModel.load(train(recipe, tmp_path / "t", quiet=True))
    metrics = model.card.provenance["metrics"]
    training, validation = _logged(tmp_path / "t", "train_loss"), _logged(tmp_path / "t", "validation_loss")
    assert training[-1] < 0.8 * training[0]
    assert int(np.argmin(training)) == len(training) - 1
    best = int(np.argmin(validation))
    assert best < len(training) - 1
    assert validation[-1] > 1.1 * validation[best]
    assert metrics["best_epoch"] == best
    assert metrics["validation_loss"] == pytest.approx(validation[best])
    assert metrics["epochs"] == best + 1 + 2
    # The saved network is that of the best epoch, and so is the one that is tested.
    for part in ("validation", "test"):
        squares = _squares(model, opposed, getattr(_split(opposed), part))
        assert squares.mean() == pytest.approx(metrics[f"{part}_loss"], rel=1e-4)


def test_the_rate_falls_when_validation_stalls(opposed, tmp_path):
    recipe = _recipe(opposed, schedule="plateau", plateau_patience=0, epochs=4)
    train(recipe, tmp_path / "t", quiet=True)
    training, validation = _logged(tmp_path / "t", "train_loss"), _logged(tmp_path / "t", "validation_loss")
    assert (np.diff(training) < 0).all()
    last = torch.load(tmp_path / "t" / "checkpoints" / "last.ckpt", weights_only=True)
    before = validation[:-1]  # the checkpoint of an epoch is written before the rate follows it
    worse = sum(loss > min(before[:i]) * (1 - 1e-4) for i, loss in enumerate(before) if i)
    assert worse >= 2
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(1e-2 * 0.5**worse)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_losses_of_a_weighted_dataset_are_weighted_means(part, tmp_path):
    """By hand: Σ w |F − f|² / (3N Σ w) over the frames of the part, with the forces of the saved model."""
    x, length, direction = _frames()
    rng = np.random.default_rng(1)
    weights = rng.gamma(0.5, size=FRAMES)
    f = _along(-KT / 0.2**2 * (length - 3.0), direction) + weights[:, None, None] * rng.standard_normal(x.shape)
    path = _write(tmp_path / "d.h5", x, f, weights)
    model = CGModel.load(train(_recipe(path, epochs=1, batch_size=16), tmp_path / "t", quiet=True))
    frames = getattr(_split(path), part)
    squares = _squares(model, path, frames)
    by_hand = np.average(squares, weights=weights[frames])
    assert abs(squares.mean() / by_hand - 1) > 0.1
    assert model.card.provenance["metrics"][f"{part}_loss"] == pytest.approx(by_hand, rel=1e-4)


class _Captured(Exception):  # noqa: N818 - no error: it ends the training where the test has seen enough
    pass


def _alpha(path, folder, monkeypatch):
    """Return the α that a training through the public function uses."""
    found = []

    def capture(objective, *_, **__):
        found.append(objective.labels[0])
        raise _Captured

    monkeypatch.setattr(trainer, "fit", capture)
    with pytest.raises(_Captured):
        train(_recipe(path, "forces_and_noise"), folder, quiet=True)
    assert isinstance(found[0], ForcesAndNoise)
    return found[0].alpha.numpy()


def test_weights_enter_the_mixture_of_forces_and_noise(tmp_path, monkeypatch):
    """α equals that of a dataset in which frames are repeated as often as they weigh."""
    counts = np.tile([4, 0, 1, 3, 0, 0, 2, 6, 1, 3], FRAMES // 10)  # 20 in each ten frames: blocks stay blocks
    x, length, direction = _frames()
    strength = 1.0 + 2.0 * (counts > 3)
    f = _along(-KT / 0.2**2 * strength * (length - 3.0), direction)
    f[:, 0] *= 1.5
    weighted = _alpha(_write(tmp_path / "w.h5", x, f, counts / 7.0), tmp_path / "w", monkeypatch)
    repeated = _alpha(
        _write(tmp_path / "r.h5", np.repeat(x, counts, 0), np.repeat(f, counts, 0)), tmp_path / "r", monkeypatch
    )
    equal = _alpha(_write(tmp_path / "e.h5", x, f), tmp_path / "e", monkeypatch)
    assert weighted == pytest.approx(repeated, rel=1e-6)
    assert np.abs(weighted - equal).max() > 0.01


def test_priors_see_training_frames_only(tmp_path):
    x, _, _ = _frames()
    split = _split(_write(tmp_path / "x.h5", x, None))
    others = np.concatenate([split.validation, split.test])
    found = {}
    for name, frames in (("as they are", []), ("others moved", others), ("training moved", split.train)):
        moved = x.copy()
        moved[frames] *= 1.5
        path = _write(tmp_path / f"{name}.h5", moved, None)
        data = read_training_data(_recipe(path, "noise"), path)
        found[name] = [describe_priors(priors) for priors in (data.priors, data.training_priors)]
    assert found["others moved"] == found["as they are"]
    assert found["training moved"] != found["as they are"]


def _noise_of_frames(path, folder, monkeypatch, **training):
    """Train on noise; return for each pass over frames, in order, the noise (2, 3) that each frame had."""
    passes: list[tuple[bool, dict[bytes, np.ndarray]]] = []
    forward = Noise.forward

    def record(self, x, forces, noise):
        y, f = forward(self, x, forces, noise)
        if not passes or passes[-1][0] != self.training:
            passes.append((self.training, {}))
        for one, other in zip(x.numpy(), y.numpy(), strict=True):
            passes[-1][1][one.tobytes()] = other - one
        return y, f

    monkeypatch.setattr(Noise, "forward", record)
    train(_recipe(path, "noise", **training), folder, quiet=True)
    monkeypatch.undo()
    fitted, judged = ([frames for kind, frames in passes if kind == wanted] for wanted in (True, False))
    return fitted, judged


def test_noise_is_new_in_every_epoch_for_training_and_the_same_for_validation(tmp_path, monkeypatch):
    """And it belongs to the frame: neither its batch nor its neighbours change it."""
    x, _, _ = _frames()
    path = _write(tmp_path / "d.h5", x, None)
    split = _split(path)
    fitted, validated = _noise_of_frames(path, tmp_path / "a", monkeypatch, epochs=2)
    assert [len(frames) for frames in fitted] == [len(split.train)] * 2
    one, two = (np.array([frames[key] for key in fitted[0]]) for frames in fitted)
    assert (np.abs(one - two).max((1, 2)) > 1e-3).all()
    assert len(np.unique(one.round(5), axis=0)) == len(one)
    assert one.std() == pytest.approx(0.05, rel=0.05)
    first, second = validated[:2]
    assert all(np.array_equal(noise, second[key]) for key, noise in first.items())
    others, _ = _noise_of_frames(path, tmp_path / "b", monkeypatch, epochs=1, batch_size=37)
    assert all(np.allclose(noise, fitted[0][key], atol=1e-6) for key, noise in others[0].items())
