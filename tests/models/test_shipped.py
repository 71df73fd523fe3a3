"""The models that come with ase-cg: each has a card, a recipe and starts, and its molecule keeps its shape."""

import re

import mdtraj
import numpy as np
import pytest

import ase_cg
from ase_cg.models.io import find_model
from ase_cg.training.recipe import Recipe
from tests.conftest import ROOT

NAMES = sorted(path.stem for path in (ROOT / "models").glob("*.safetensors"))


def test_models_are_found_by_name_and_unknown_names_are_told_which_there_are():
    assert NAMES
    for name in NAMES:
        assert find_model(name).stem == name
    with pytest.raises(ase_cg.InputError, match=NAMES[0]):
        find_model("chignolin_of_another_group")


@pytest.mark.parametrize("name", NAMES)
def test_the_card_names_a_recipe_that_made_the_model(name):
    model = ase_cg.CGModel.load(name)
    card = (ROOT / "models" / f"{name}.md").read_text()
    recipe = Recipe.read(ROOT / re.search(r"`(training/\w+\.yaml)`", card)[1])
    assert (model.card.labels, model.card.noise_std) == (recipe.labels, recipe.noise_std)
    assert model.backbone_name == recipe.backbone.name
    assert list(model.priors.terms) == [prior if isinstance(prior, str) else prior.name for prior in recipe.priors]
    weights = sum(parameter.numel() for parameter in model.backbone.parameters())
    assert f"({weights} weights" in card
    assert f"{model.card.provenance['metrics']['validation_loss']:.2f}" in card
    assert len(model.frames[0]) > 0  # the checks of compiled forms need them


@pytest.mark.parametrize("name", NAMES)
def test_the_molecule_keeps_its_shape_from_the_starts_that_the_card_names(name, tmp_path):
    card = (ROOT / "models" / f"{name}.md").read_text()
    model = ase_cg.CGModel.load(name)
    start = ROOT / re.search(r"`((?:examples|models)/[\w/]+\.pdb)`", card)[1]
    output = ase_cg.simulate(name, tmp_path / "run", start=start, replicas=4, duration="1 ps", seed=1, quiet=True)
    trajectories = sorted(output.glob("*.h5"))
    assert len(trajectories) == 4
    topology = model.only_topology()
    kept = model.frames[0].numpy()
    for path in trajectories:
        frames = 10 * mdtraj.load(path).xyz
        assert np.isfinite(frames).all()
        for i, j in topology.bonds:
            lengths = np.linalg.norm(frames[:, i] - frames[:, j], axis=-1)
            usual = np.linalg.norm(kept[:, i] - kept[:, j], axis=-1).mean()
            assert abs(lengths - usual).max() < 0.4
