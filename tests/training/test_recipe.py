"""Recipes: every wrong key or value is named, with the nearest right one."""

import inspect
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from ase_cg import Recipe, analyze
from ase_cg.dynamics.integrators import IntegratorName
from ase_cg.errors import InputError
from ase_cg.training.recipe import AnalysisSection, SimulationSection
from tests.conftest import ROOT

GOOD = {"name": "x", "data": {"dataset": "d.h5"}, "labels": "noise", "noise_std": 0.05}


def _read(tmp_path: Path, data: object) -> Recipe:
    path = tmp_path / "r.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return Recipe.read(path)


@pytest.mark.parametrize("path", sorted((ROOT / "training").glob("*.yaml")), ids=lambda p: p.stem)
def test_our_own_recipes_are_valid_and_their_inputs_exist(path):
    recipe = Recipe.read(path)
    if recipe.data.dataset is not None:
        # Public data that do not come with the project: the recipe says how its dataset is made of them.
        assert re.search(r"ase-cg map .*\n?.*-o " + recipe.data.dataset.name, path.read_text())
        return
    for file in [*recipe.data.trajectories, recipe.data.topology, recipe.analysis.reference]:
        assert file.is_file()


def test_paths_are_relative_to_the_recipe(tmp_path):
    paths = {"reference": "r.h5", "native": "../n.pdb", "structure": "s.pdb"}
    read = _read(tmp_path, GOOD | {"analysis": paths | {"backmap": 1}})
    assert read.data.dataset == tmp_path / "d.h5"
    assert {name: getattr(read.analysis, name) for name in paths} == {n: tmp_path / p for n, p in paths.items()}


def test_the_analysis_of_a_recipe_has_the_options_of_analyze():
    """All but the size of the grid have the same defaults, too."""
    options = {
        name: option.default
        for name, option in inspect.signature(analyze).parameters.items()
        if name not in {"simulation", "output", "prior_simulation", "overwrite", "quiet"}
    }
    section = AnalysisSection().model_dump()
    assert set(section) == set(options)
    assert {name for name in section if section[name] != options[name]} == {"reference", "bins"}


def test_a_backbone_is_a_name_or_a_name_with_hyper_parameters(tmp_path):
    assert _read(tmp_path, GOOD | {"backbone": "schnet"}).backbone.name == "schnet"
    given = _read(tmp_path, GOOD | {"backbone": {"name": "schnet", "cutoff": 10}}).backbone
    assert given.hyper_parameters == {"cutoff": 10}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainning": {}}, "trainning is no key of a recipe; did you mean 'training'"),
        ({"training": {"epoch": 3}}, r"training.epoch is no key of a recipe; did you mean 'epochs'"),
        ({"training": {"epochs": "many"}}, r"training.epochs cannot be 'many'"),
        ({"training": {"epochs": 0}}, r"training.epochs cannot be 0: .* greater than or equal to 1"),
        ({"labels": "forces_and_nose"}, "did you mean 'forces_and_noise'"),
        (
            {"priors": ["bonds", "angels"]},
            r"priors.1 cannot be 'angels': .*; did you mean 'angles'",
        ),
        ({"priors": []}, r"priors cannot be \[\]"),
        ({"priors": ["bonds", "bonds"]}, "each prior is listed once"),
        ({"sharpened_priors": ["bond"]}, "sharpened_priors lists 'bond', none of the priors; did you mean 'bonds'"),
        ({"labels": "atomistic"}, "add no noise"),
        ({"noise_std": None}, "need noise_std"),
        ({"noise_std": -1.0}, "noise_std"),
        ({"data": {}}, "data needs either 'dataset' or 'trajectories'"),
        ({"data": {"trajectories": ["a.xtc"]}}, "data needs 'topology' and 'temperature'"),
        ({"name": None}, "name"),
        ({"simulation": {"time_step": "2"}}, r"simulation.time_step cannot be '2': '2' is not a time with its unit"),
        ({"simulation": {"report_interval": "0.3 ps", "duration": "1 ps"}}, "no whole multiple of report_interval"),
        ({"simulation": {"time_step": "0 fs"}}, "time_step must be a positive time"),
        ({"training": {"learning_rate": float("inf")}}, r"training.learning_rate"),
        ({"name": "../escaped"}, "name cannot be"),
        ({"simulation": {"time_step": 2}}, "is not a time with its unit, such as '2 fs'"),
        ({"simulation": {"duration": "20 pss"}}, "did you mean 'ps'"),
        ({"simulation": {"friction": "1 ps"}}, "unknown rate unit"),
        ({"simulation": {"integrator": "overdampd"}}, "did you mean 'overdamped'"),
        ({"simulation": {"integrator": "verlet"}}, "simulation.integrator cannot be 'verlet'"),
        ({"simulation": {"temperature": "warm"}}, "simulation.temperature cannot be 'warm': it must be a positive"),
        ({"simulation": {"temperature": [300, -1]}}, "it must be a positive temperature in K, or a list of them"),
        ({"simulation": {"minimize": "perhaps"}}, "simulation.minimize cannot be 'perhaps'"),
        ({"simulation": {"exchange_interval": "1"}}, r"simulation.exchange_interval cannot be '1': '1' is not a time"),
        ({"analysis": {"bin": 3}}, "analysis.bin is no key of a recipe; did you mean 'bins'"),
        ({"analysis": {"bins": 1}}, "analysis.bins cannot be 1: .* greater than or equal to 2"),
        ({"analysis": {"discard": 1}}, "analysis.discard cannot be 1"),
        ({"analysis": {"lag": -1}}, "analysis.lag cannot be -1"),
        ({"analysis": {"lag": 2.5}}, r"analysis.lag cannot be 2\.5"),
        ({"analysis": {"model_lag": 0}}, "analysis.model_lag cannot be 0"),
        ({"analysis": {"clusters": 1}}, "analysis.clusters cannot be 1"),
        ({"analysis": {"macrostates": 1}}, "analysis.macrostates cannot be 1"),
        ({"analysis": {"macrostates": 9, "clusters": 8}}, r"more macrostates \(9\) than clusters \(8\)"),
        ({"analysis": {"reweight": "al"}}, "analysis.reweight cannot be 'al'; did you mean 'all'"),
        ({"analysis": {"backmap": -1}}, "analysis.backmap cannot be -1"),
        ({"analysis": {"structure": "a.pdb"}}, "analysis has a structure, which only backmap uses"),
        ({"simulation": {"checkpoint_interval": "3 fs"}}, "checkpoint_interval .* no whole multiple of time_step"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message) as error:
        _read(tmp_path, GOOD | change)
    assert "\n" not in str(error.value)
    assert "r.yaml" in str(error.value)


def test_integrators_of_a_recipe_are_those_of_simulations():
    kinds = get_args(SimulationSection.model_fields["integrator"].annotation)
    assert set(kinds) < set(get_args(IntegratorName))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [1\n", "just words"])
def test_what_is_no_recipe_is_said_so(tmp_path, text):
    with pytest.raises(InputError, match=r"r\.yaml"):
        _read(tmp_path, text)


def test_a_missing_key_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(InputError, match="data is missing"):
        _read(tmp_path, {"name": "x"})
    with pytest.raises(InputError, match="does not exist"):
        Recipe.read(tmp_path / "none.yaml")
