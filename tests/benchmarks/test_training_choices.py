"""The study of training choices: its recipes differ from the usual ones in what their names say."""

import importlib
import json
import sys

import pytest

from ase_cg import Recipe
from ase_cg.models.backbones import make_backbone
from tests.conftest import ROOT

CASE = "dipeptide/0.01_forces_and_noise_0.05_seed_0_simulation_chooses"

# The published forces that these studies read fail their check, and one is told of it.
pytestmark = pytest.mark.filterwarnings("ignore:forces of molecule")


@pytest.fixture
def choices(monkeypatch):
    """Import the script."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("training_choices")


def test_each_recipe_is_valid_and_differs_in_one_setting(choices, shared, tmp_path):
    study = choices.ChoiceStudy(tmp_path, "quick")
    dataset = choices.SYSTEMS["dipeptide"].dataset(tmp_path / "dipeptide")
    for row in choices.all_rows([0]):
        case = row[0]
        recipe = study.recipe(case, dataset)
        backbone = Recipe.model_validate(recipe).backbone
        make_backbone(backbone.name, 6, backbone.hyper_parameters)
        usual = super(choices.ChoiceStudy, study).recipe(case, dataset)
        name = getattr(case, "choice", None)
        changed = {} if name is None else choices.CHOICES[name]
        assert {key for key in recipe if recipe[key] != usual[key]} == set(changed)


@pytest.mark.filterwarnings("ignore:training.warmup_steps")  # the effort "smoke" has few steps
def test_a_simulation_chooses_the_epoch_and_the_row_is_made_once(choices, shared, tmp_path, monkeypatch, capsys):
    options = ["--folder", str(tmp_path), "--effort", "smoke", "--seeds", "0", "--only", f"{CASE}/*"]
    monkeypatch.setattr(sys, "argv", ["training_choices.py", *options])
    monkeypatch.setitem(choices.SIMULATED, "duration", "0.2 ps")
    choices.main()
    result = tmp_path / "smoke" / CASE / "sharpened.json"
    row = json.loads(result.read_text())
    assert row["training"]["simulation_js"] > 0
    written = result.stat().st_mtime_ns
    choices.main()
    assert result.stat().st_mtime_ns == written
    table = (tmp_path / "smoke" / "training_choices.md").read_text()
    assert table.count("| simulation chooses | 0 |") == 1
    assert capsys.readouterr().out.endswith(table)
