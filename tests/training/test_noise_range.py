"""Training over a range of noise: one network learns the force of each noised density, and is resumed exactly."""

from functools import partial

import numpy as np
import pytest
import torch

from ase_cg import CGModel, Recipe, train
from ase_cg.analysis.describe import describe
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.models.base import energy_and_forces
from ase_cg.training.callbacks import EpochProgress
from ase_cg.training.data import read_training_data
from ase_cg.training.trainer import make_network
from tests.conftest import SMALL_SCHNET, two_bead_topology
from tests.labels.test_known_ground import RigidPair

RANGE = {"from": 0.05, "to": 0.2}


def _recipe(dataset, **changes) -> Recipe:
    data = {
        "name": "range",
        "data": {"dataset": str(dataset)},
        "labels": "forces_and_noise",
        "noise_std": RANGE,
        "priors": ["bonds"],
        "backbone": {"name": "schnet", **SMALL_SCHNET},
        "training": {"epochs": 4, "batch_size": 32, "learning_rate": 3e-3, **changes.pop("training", {})},
    }
    return Recipe.model_validate(data | changes)


@pytest.fixture(scope="module")
def rigid(tmp_path_factory):
    """A pair of beads with an anharmonic distance, of an exactly sampled density with a rigid bond."""
    x, forces = RigidPair.sample(10_000, np.random.default_rng(1))
    path = tmp_path_factory.mktemp("data") / "d.h5"
    options = {"temperature": 300.0, "resolution": ("ALA:A", "ALA:B"), "force_map": "optimal"}
    with create_dataset(path) as dataset, dataset.molecule("m", two_bead_topology(), **options) as molecule:
        molecule.append(x[:, [0, 2]], np.einsum("na,fax->fnx", np.array([[1, 1, 0, 0], [0, 0, 1, 1]]), forces))
    return path


def test_one_network_learns_the_force_of_every_noised_density(rigid, tmp_path):
    recipe = _recipe(rigid, training={"epochs": 6, "batch_size": 64, "learning_rate": 5e-3})
    model = CGModel.load(train(recipe, tmp_path / "t", quiet=True))
    metrics = model.card.provenance["metrics"]
    assert metrics["label_variance"] == pytest.approx(metrics["label_variance_theory"], rel=0.05)
    data = read_training_data(recipe, rigid)
    network = make_network(recipe, len(model.vocabulary))
    kept = torch.load(tmp_path / "t" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    network.load_state_dict({k.removeprefix("backbone."): v for k, v in kept.items() if k.startswith("backbone.")})
    r = np.linspace(2.5, 3.3, 17)
    positions = torch.zeros(len(r), 2, 3)
    positions[:, 1, 2] = torch.from_numpy(r).float()
    graph = model.graph(model.only_topology(), len(r))._replace(positions=positions.reshape(-1, 3))
    found = []
    for noise_std in (0.05, 0.1, 0.2):
        level = torch.full((len(r),), noise_std)
        parts = (energy_and_forces(partial(term, noise_std=level), graph)[1] for term in (data.noised_priors, network))
        learned = sum(parts).reshape(-1, 2, 3)[:, 1, 2].numpy()
        exact = np.interp(r, RigidPair.distance, RigidPair.mean_force(noise_std))
        assert np.sqrt(np.mean((learned - exact) ** 2)) < 0.15 * np.sqrt(np.mean(exact**2))
        found.append(learned)
    # The model that is saved is an ordinary one, of the lowest level.
    assert model.card.noise_std == RANGE["from"]
    saved = model.with_priors("training").energy_and_forces(graph)[1].reshape(-1, 2, 3)[:, 1, 2].numpy()
    assert saved == pytest.approx(found[0], abs=1e-5)
    assert set(model.backbone.state_dict()) == set(network.backbone.state_dict())
    clean, noised = (priors.terms["bonds"].stiffness[0] for priors in (model.priors, model.training_priors))
    assert clean > noised


def test_the_recipe_says_where_the_model_is_evaluated(dataset_file, tmp_path):
    noise = RANGE | {"evaluate_at": 0.1}
    models = [
        CGModel.load(train(_recipe(dataset_file, noise_std=given, training={"epochs": 1}), tmp_path / name, quiet=True))
        for name, given in (("low", RANGE), ("middle", noise))
    ]
    assert [model.card.noise_std for model in models] == [0.05, 0.1]
    assert models[1].card.provenance["recipe"]["noise_std"] == noise
    assert not torch.equal(models[0].backbone.embedding.weight, models[1].backbone.embedding.weight)
    assert torch.equal(models[0].backbone.head[0].weight, models[1].backbone.head[0].weight)
    low, middle = (model.training_priors.terms["bonds"].stiffness[0] for model in models)
    assert low > middle


def test_a_killed_training_resumes_to_bit_equal_weights(dataset_file, tmp_path, monkeypatch):
    recipe = _recipe(dataset_file, labels="noise", training={"ema_decay": 0.9})
    whole = train(recipe, tmp_path / "whole", quiet=True)
    original = EpochProgress.on_train_epoch_end

    def kill(self, trainer, module):
        original(self, trainer, module)
        if trainer.current_epoch == 2:
            raise KeyError

    with monkeypatch.context() as patch:
        patch.setattr(EpochProgress, "on_train_epoch_end", kill)
        with pytest.raises(KeyError):
            train(recipe, tmp_path / "parts", quiet=True)
    one, two = (CGModel.load(path) for path in (whole, train(recipe, tmp_path / "parts", quiet=True)))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert one.card.provenance["metrics"] == two.card.provenance["metrics"]


def test_several_seeds_are_told_of(dataset_file, tmp_path):
    recipe = _recipe(dataset_file, training={"epochs": 1, "seeds": [0, 1]})
    train(recipe, tmp_path / "t", quiet=True)
    told = describe(tmp_path / "t")
    assert set(told["networks"]) == {"noise_0.05_seed_0", "noise_0.05_seed_1"}
    assert told["chosen"] in told["networks"]
    assert told["recipe"]["noise_std"] == RANGE | {"evaluate_at": 0.05}
