"""The studies of data efficiency and sharpening: their smallest cases run, resume, and tell apart what differs."""

import importlib
import json
import sys

import numpy as np
import pytest

from ase_cg import Recipe
from ase_cg.analysis import Histogram
from tests.conftest import ROOT

# The published forces that these studies read fail their check, and one is told of it.
pytestmark = pytest.mark.filterwarnings("ignore:forces of molecule")


@pytest.fixture
def script(monkeypatch):
    """Import a script of the folder ``benchmarks`` by its name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


@pytest.mark.filterwarnings("ignore:training.warmup_steps")  # the effort "smoke" has few steps
def test_a_stopped_study_goes_on_and_finds_the_same(script, shared, tmp_path, monkeypatch, capsys):
    options = ["--effort", "smoke", "--only", "dipeptide/0.01_forces_and_noise_0.05_seed_0/*"]
    monkeypatch.setattr(sys, "argv", ["data_efficiency.py", "--folder", str(tmp_path), *options])
    case = tmp_path / "smoke" / "dipeptide" / "0.01_forces_and_noise_0.05_seed_0"
    script("data_efficiency").main()
    first = {name: json.loads((case / f"{name}.json").read_text()) for name in ("plain", "sharpened")}
    trained = (case / "training" / "model.safetensors").stat().st_mtime_ns

    (case / "sharpened.json").unlink()
    capsys.readouterr()
    script("data_efficiency").main()
    again = json.loads((case / "sharpened.json").read_text())
    assert [again[key] for key in ("figures", "share", "starts")] == [
        first["sharpened"][key] for key in ("figures", "share", "starts")
    ]
    assert (case / "training" / "model.safetensors").stat().st_mtime_ns == trained

    # One network with two sets of priors; the plain ones have the blurred bonds.
    assert first["plain"]["training"] == first["sharpened"]["training"]
    bonds = [first[name]["figures"]["bond_wasserstein_A"]["value"] for name in ("plain", "sharpened")]
    assert bonds[1] < 0.5 * bonds[0]
    assert first["plain"]["share"]["reference"]["value"] == pytest.approx(0.025, abs=0.001)
    assert Recipe.read(case / "recipe.yaml").training.fraction == 0.01
    table = (tmp_path / "smoke" / "table.md").read_text()
    assert capsys.readouterr().out.endswith(table)
    assert table.count("| forces and noise |") == 2
    assert (tmp_path / "smoke" / "figure.png").stat().st_size > 1000


def test_starts_that_differ_are_told_from_starts_that_agree(script):
    judgement = script("judgement")
    rng = np.random.default_rng(0)
    basin = np.arange(40) >= 20
    same = rng.multinomial(200, [0.5, 0.3, 0.2], size=40).astype(float)
    other = np.where(basin[:, None], rng.multinomial(200, [0.4, 0.4, 0.2], size=40), same)
    probability, halves = judgement.permutation(Histogram(same), basin)
    assert probability > judgement.SIGNIFICANT
    # Of two samples of 4000 frames in three bins: (bins - 1)/8 (1/4000 + 1/4000).
    assert halves == pytest.approx(2 / 8 * 2 / 4000, rel=0.15)
    assert judgement.permutation(Histogram(other), basin)[0] < judgement.SIGNIFICANT
    shares = same[:, 2] / 200
    assert judgement.share_permutation(shares, basin) > judgement.SIGNIFICANT
    assert judgement.share_permutation(shares + 0.1 * basin, basin) < judgement.SIGNIFICANT


def test_a_perfect_network_with_sharpened_priors_has_the_clean_bonds_and_angles(script, shared, tmp_path):
    sharpening = script("sharpening")
    rows = sharpening.weighted(sharpening.DIPEPTIDE, tmp_path, 0.02, draws=3)
    noised = rows["noised, not sharpened"]
    for source in ("harmonic", "histogram"):
        bonds, both = rows[f"{source}: bonds"], rows[f"{source}: bonds, angles"]
        assert both["bonds"] < 0.1 * noised["bonds"]
        assert both["angles"] < 0.3 * noised["angles"]
        # Angles are not what sharpened bonds mend.
        assert bonds["bonds"] < 0.1 * noised["bonds"]
        assert bonds["angles"] > 0.8 * noised["angles"]
