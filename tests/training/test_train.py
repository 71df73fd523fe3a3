"""Training: it learns a known force, resumes exactly, and refuses what it cannot do."""

import csv
import logging
import os
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from ase_cg import CGModel, Recipe, train
from ase_cg.analysis.describe import sharpened_priors
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.errors import InputError
from ase_cg.models.model import ModelCard
from ase_cg.models.priors.prior_set import describe_priors
from ase_cg.training.callbacks import EpochProgress
from ase_cg.training.data import read_training_data
from ase_cg.training.frames import BatchSampler
from ase_cg.training.objective import ForceMatching
from ase_cg.units import thermal_energy
from tests.conftest import SMALL_SCHNET, two_bead_topology


def _recipe(dataset, **changes) -> Recipe:
    data = {
        "name": "test",
        "data": {"dataset": dataset},
        "backbone": {"name": "schnet", **SMALL_SCHNET},
        "training": {"epochs": 4, "batch_size": 32, "learning_rate": 3e-3, **changes.pop("training", {})},
    }
    return Recipe.model_validate(data | changes)


@pytest.fixture(scope="module")
def anharmonic(tmp_path_factory):
    """Two beads whose distance has U = kT (2 s² + s³/2 + s⁴/4), s = (r − 4)/0.4, sampled exactly in 3-D."""
    kT = thermal_energy(300.0)
    grid = np.linspace(2.4, 5.6, 4001)
    s = (grid - 4.0) / 0.4
    p = grid**2 * np.exp(-(2 * s**2 + s**3 / 2 + s**4 / 4))
    rng = np.random.default_rng(0)
    r = np.interp(rng.random(6000), np.cumsum(p) / p.sum(), grid)
    s = (r - 4.0) / 0.4
    force = -kT / 0.4 * (4 * s + 1.5 * s**2 + s**3)
    direction = rng.standard_normal((6000, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    positions, forces = np.zeros((6000, 2, 3)), np.zeros((6000, 2, 3))
    positions[:, 1] = r[:, None] * direction
    forces[:, 1] = force[:, None] * direction
    forces[:, 0] = -forces[:, 1]
    # Noise of the kind recorded forces have: zero mean given the positions.
    forces += 0.1 * rng.standard_normal(forces.shape)
    path = tmp_path_factory.mktemp("data") / "d.h5"
    with (
        create_dataset(path) as dataset,
        dataset.molecule(
            "dimer", two_bead_topology(), temperature=300.0, resolution=("ALA:A", "ALA:B"), force_map="slice"
        ) as molecule,
    ):
        molecule.append(positions, forces)
    return path, kT


@pytest.mark.parametrize("labels", ["atomistic", "noise", "forces_and_noise"])
def test_each_label_teaches_the_force_of_its_density(anharmonic, labels, tmp_path):
    path, kT = anharmonic
    noise = None if labels == "atomistic" else 0.1
    recipe = _recipe(
        path,
        labels=labels,
        noise_std=noise,
        priors=["bonds"],
        training={"epochs": 30, "batch_size": 64, "learning_rate": 5e-3},
    )
    model = CGModel.load(train(recipe, tmp_path / "t", quiet=True)).with_priors("training")
    r = np.linspace(3.65, 4.3, 21)  # where nearly all data are
    # Exact force along the distance: of the density itself, or of the density with noise on both beads.
    grid = np.linspace(2.4, 5.6, 1601)
    s = (grid - 4.0) / 0.4
    density = np.exp(-(2 * s**2 + s**3 / 2 + s**4 / 4))
    if noise is None:
        logarithm = np.log(density)
    else:
        # The difference vector gets noise of variance 2σ² in 3-D; radial convolution of a spherical density.
        v = 2 * noise**2
        a, b = grid[:, None], grid[None]
        kernel = b / a * (np.exp(-((a - b) ** 2) / (2 * v)) - np.exp(-((a + b) ** 2) / (2 * v)))
        logarithm = np.log((kernel * density).sum(1))
    exact = kT * np.interp(r, grid, np.gradient(logarithm, grid))
    topology = model.card.topologies[0]
    positions = torch.zeros(len(r), 2, 3)
    positions[:, 1, 2] = torch.from_numpy(r).float()
    graph = model.graph(topology, len(r))._replace(positions=positions.reshape(-1, 3))
    _, forces = model.energy_and_forces(graph)
    learned = forces.reshape(-1, 2, 3)[:, 1, 2].numpy()
    assert np.abs(exact).max() > 0.15
    assert np.sqrt(np.mean((learned - exact) ** 2)) < 0.015
    assert learned == pytest.approx(exact, abs=0.04)


def test_sharpened_priors_are_clean_for_simulation_and_noised_for_training(anharmonic, tmp_path):
    path, kT = anharmonic
    recipe = _recipe(path, labels="noise", noise_std=0.1, priors=["bonds"], training={"epochs": 1})
    model = CGModel.load(train(recipe, tmp_path / "t", quiet=True))
    clean, noised = (1 / float(p.terms["bonds"].stiffness[0]) for p in (model.priors, model.training_priors))
    assert (noised - clean) * kT / 2 == pytest.approx(2 * 0.1**2, rel=0.1)
    plain = CGModel.load(train(recipe.model_copy(update={"sharpened_priors": False}), tmp_path / "p", quiet=True))
    assert plain.training_priors is None
    assert 1 / float(plain.priors.terms["bonds"].stiffness[0]) == pytest.approx(noised)


def test_only_the_priors_that_are_named_are_sharpened(example_data, tmp_path):
    recipe = Recipe.model_validate(
        {
            "name": "some",
            "data": {"dataset": example_data / "ala2_reference.h5"},
            "labels": "noise",
            "noise_std": 0.1,
            "sharpened_priors": ["bonds"],
            "training": {"fraction": 0.002},
        }
    )
    data = read_training_data(recipe, recipe.data.dataset)
    every = read_training_data(recipe.model_copy(update={"sharpened_priors": True}), recipe.data.dataset)
    simulated, trained, clean = (describe_priors(p) for p in (data.priors, data.training_priors, every.priors))
    assert simulated["bonds"] == clean["bonds"] != trained["bonds"]
    assert simulated["angles"] == trained["angles"] != clean["angles"]
    card = ModelCard(300.0, data.resolution, data.topologies, noise_std=0.1)
    CGModel(data.vocabulary, data.priors, card, training_priors=data.training_priors).save(tmp_path / "m.safetensors")
    loaded = CGModel.load(tmp_path / "m.safetensors")
    assert sharpened_priors(loaded) == ["bonds"]
    assert describe_priors(loaded.training_priors) == trained


class Killed(Exception):  # noqa: N818 - not an error of ours
    pass


@pytest.fixture
def train_until_killed(monkeypatch):
    """Train until the end of the third epoch, and be killed there."""

    def go(recipe: Recipe, folder: Path) -> None:
        original = EpochProgress.on_train_epoch_end

        def kill(self, trainer, module):
            original(self, trainer, module)
            if trainer.current_epoch == 2:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(EpochProgress, "on_train_epoch_end", kill)
            with pytest.raises(Killed):
                train(recipe, folder, quiet=True)

    return go


def test_a_killed_training_resumes_to_bit_equal_weights(dataset_file, tmp_path, train_until_killed):
    recipe = _recipe(dataset_file, labels="forces_and_noise", noise_std=0.05)
    whole = train(recipe, tmp_path / "whole", quiet=True)
    train_until_killed(recipe, tmp_path / "parts")
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    resumed = train(recipe, tmp_path / "parts", quiet=True)
    one, two = (CGModel.load(p) for p in (whole, resumed))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert one.card.provenance["metrics"] == two.card.provenance["metrics"]
    # The same call again does nothing.
    before = resumed.stat().st_mtime_ns
    assert train(recipe, tmp_path / "parts", quiet=True).stat().st_mtime_ns == before


def test_training_writes_checkpoints_and_logs_and_says_where_the_model_comes_from(dataset_file, tmp_path):
    folder = tmp_path / "t"
    model = CGModel.load(train(_recipe(dataset_file), folder, quiet=True))
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list(folder.glob("tensorboard/**/events*"))
    with next(folder.glob("csv/**/metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["validation_loss"]) for row in rows if row["validation_loss"]]
    assert len(losses) == 4
    provenance = model.card.provenance
    assert provenance["metrics"]["validation_loss"] == pytest.approx(min(losses), rel=1e-5)
    assert provenance["metrics"]["test_loss"] > 0
    assert provenance["recipe"]["labels"] == "atomistic"
    assert len(provenance["dataset_sha256"]) == 64


def test_training_leaves_the_process_as_it_was(dataset_file, tmp_path):
    import lightning  # noqa: F401 - its own import is not what is tested

    def state():
        loggers = [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")]
        return torch.get_default_dtype(), torch.get_num_threads(), torch.random.get_rng_state().sum(), loggers

    before, environment, filters = state(), dict(os.environ), list(warnings.filters)
    train(_recipe(dataset_file, training={"epochs": 1}), tmp_path / "t", quiet=True)
    after = state()
    assert before[:2] == after[:2]
    assert before[3] == after[3]
    assert environment == dict(os.environ)
    assert filters == list(warnings.filters)


def test_the_same_seed_gives_the_same_model_and_another_gives_another(dataset_file, tmp_path):
    weights = [
        CGModel.load(
            train(_recipe(dataset_file, training={"epochs": 1, "seed": seed}), tmp_path / name, quiet=True)
        ).backbone.embedding.weight
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_folder_of_another_training_is_kept(dataset_file, tmp_path):
    recipe = _recipe(dataset_file, training={"epochs": 1})
    train(recipe, tmp_path / "t", quiet=True)
    with pytest.raises(InputError, match="another recipe or dataset"):
        train(_recipe(dataset_file, training={"epochs": 2}), tmp_path / "t", quiet=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not empty"):
        train(recipe, tmp_path / "mine", quiet=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_a_folder_in_which_another_process_trains_is_refused(dataset_file, tmp_path, monkeypatch):
    recipe = _recipe(dataset_file, training={"epochs": 2, "seeds": [0, 1]})
    refused = []

    def meanwhile(self, trainer, module):
        original(self, trainer, module)
        for overwrite in (False, True):
            # Locks of files that are open twice are apart also within a process.
            with pytest.raises(InputError, match="is being written by another process"):
                train(recipe, tmp_path / "t", overwrite=overwrite, quiet=True)
            refused.append(trainer.current_epoch)

    original = EpochProgress.on_train_epoch_end
    monkeypatch.setattr(EpochProgress, "on_train_epoch_end", meanwhile)
    model = train(recipe, tmp_path / "t", quiet=True)
    assert refused == [0, 0, 1, 1] * 2
    assert CGModel.load(model).card.provenance["metrics"]["epochs"] == 2
    assert not list(tmp_path.rglob(".lock*"))


def test_bad_input_is_one_sentence_and_leaves_no_folder(dataset_file, tmp_path, ala2, ala2_positions):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="too few to split"):
        train(_recipe(dataset_file, training={"blocks": 1000}), out, quiet=True)
    with pytest.raises(InputError, match="did you mean 'schnet'"):
        train(_recipe(dataset_file, backbone="schnett"), out, quiet=True)
    with pytest.raises(InputError, match="did you mean 'cutoff'"):
        train(_recipe(dataset_file, backbone={"name": "schnet", "cutof": 3}), out, quiet=True)
    with pytest.raises(InputError, match="GPUs here"):
        train(_recipe(dataset_file, training={"device": "cuda:9"}), out, quiet=True)
    with pytest.raises(InputError, match="does not exist"):
        train(_recipe(tmp_path / "none.h5"), out, quiet=True)
    plain = tmp_path / "plain.h5"
    with (
        create_dataset(plain) as dataset,
        dataset.molecule("m", ala2, temperature=300.0, resolution="calpha") as molecule,
    ):
        molecule.append(ala2_positions + 0.05 * np.random.default_rng(0).standard_normal((100, 6, 3)))
    with pytest.raises(InputError, match="has no forces"):
        train(_recipe(plain), out, quiet=True)
    assert not out.exists()


def test_batches_cover_every_frame_once_and_depend_on_seed_and_epoch_only():
    def epoch(number: int, seed: int = 0) -> list[list[int]]:
        sampler = BatchSampler([10], 4, shuffle=True, seed=seed)
        sampler.set_epoch(number)
        return [batch.tolist() for batch in sampler]

    assert sorted(row for batch in epoch(0) for row in batch) == [[0, frame, 0] for frame in range(10)]
    assert [len(batch) for batch in epoch(0)] == [4, 4, 2]
    assert epoch(3) == epoch(3)
    assert epoch(3) != epoch(4)
    assert epoch(3) != epoch(3, seed=1)


def test_a_folder_moved_between_stop_and_resume_gives_the_same_weights(dataset_file, tmp_path, train_until_killed):
    recipe = _recipe(dataset_file)
    whole = train(recipe, tmp_path / "whole", quiet=True)
    train_until_killed(recipe, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    one, two = CGModel.load(whole), CGModel.load(train(recipe, tmp_path / "there", quiet=True))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert one.card.provenance["metrics"] == two.card.provenance["metrics"]
    assert not (tmp_path / "here").exists()


def test_diverged_training_is_an_error_and_no_model(dataset_file, tmp_path):
    with pytest.raises(InputError, match="training diverged"):
        train(_recipe(dataset_file, training={"learning_rate": 1e30, "epochs": 2}), tmp_path / "t", quiet=True)
    assert not (tmp_path / "t" / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["training.json", "checkpoints/*.ckpt"])
def test_damaged_resume_files_are_one_sentence(dataset_file, tmp_path, name):
    recipe = _recipe(dataset_file, training={"epochs": 1})
    train(recipe, tmp_path / "t", quiet=True).unlink()
    for path in (tmp_path / "t").glob(name):
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="damaged") as error:
        train(recipe, tmp_path / "t", quiet=True)
    assert "\n" not in str(error.value)
    train(recipe, tmp_path / "t", overwrite=True, quiet=True)


@pytest.mark.parametrize(
    "wrong", [{"features": "16"}, {"features": 16.5}, {"head": 128}, {"head": ["a"]}, {"cutoff": None}]
)
def test_hyper_parameters_of_the_wrong_kind_are_one_sentence(dataset_file, tmp_path, wrong):
    with pytest.raises(InputError, match=f"schnet: {next(iter(wrong))} must be"):
        train(_recipe(dataset_file, backbone={"name": "schnet", **wrong}), tmp_path / "t", quiet=True)
    assert not (tmp_path / "t").exists()


def test_ctrl_c_stops_after_the_batch_and_is_not_swallowed_by_the_last_one(dataset_file, tmp_path, monkeypatch):
    """Asked for in the middle of a batch, and after the last: both times the training stops, and goes on later."""
    recipe = _recipe(dataset_file)
    whole = train(recipe, tmp_path / "whole", quiet=True)
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the background of a shell has another
    try:
        for place, moment in (("training_step", 9), ("configure_optimizers", 0), ("validation_step", 2)):
            calls = []
            original = getattr(ForceMatching, place)

            def struck(self, *arguments, _original=original, _moment=moment, _calls=calls, **options):
                if len(_calls) == _moment:
                    signal.raise_signal(signal.SIGINT)
                _calls.append(0)
                return _original(self, *arguments, **options)

            with monkeypatch.context() as patch:
                patch.setattr(ForceMatching, place, struck)
                with pytest.raises(KeyboardInterrupt):
                    train(recipe, tmp_path / "parts", quiet=True)
            assert not (tmp_path / "parts" / "model.safetensors").exists()
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    one, two = CGModel.load(whole), CGModel.load(train(recipe, tmp_path / "parts", quiet=True))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
