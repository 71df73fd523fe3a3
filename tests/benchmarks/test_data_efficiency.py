"""The studies of data efficiency and sharpening: their smallest cases run, resume, and tell apart what differs."""

import importlib
import json
import sys

import numpy as np
import pytest

from ase_cg import Recipe
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


def test_starts_agree_only_where_the_whole_interval_of_their_difference_is_small(script):
    """Too few replicas agree with everything and decide nothing."""
    judgement = script("judgement")
    rng = np.random.default_rng(0)

    def verdicts(apart, replicas, spread=0.2, repetitions=200):
        one = rng.normal(0.3, spread, (repetitions, replicas))
        other = rng.normal(0.3 + apart, spread, (repetitions, replicas))
        found = [judgement.difference(a, b) for a, b in zip(one, other, strict=True)]
        covered = np.mean([f["interval"][0] <= -apart <= f["interval"][1] for f in found])
        assert covered == pytest.approx(0.95, abs=0.04)
        return [f["verdict"] for f in found]

    few = verdicts(0.0, 6)  # not significant, and no agreement
    assert judgement.AGREE not in few
    assert few.count(judgement.UNDECIDED) > 190
    assert verdicts(0.0, 300).count(judgement.AGREE) > 190
    assert verdicts(0.3, 100).count(judgement.DIFFER) > 190
    assert verdicts(0.1, 100).count(judgement.AGREE) < 12  # at the bound itself: 2.5 %
    assert judgement.DIFFER not in verdicts(0.05, 1000)  # significant, and small
    assert judgement.difference(np.zeros(1), np.zeros(5))["verdict"] == judgement.UNDECIDED


def test_a_weighted_share_is_that_of_duplicated_frames_and_its_error_the_spread(script):
    judgement = script("judgement")
    rng = np.random.default_rng(1)
    found, repeated = [], []
    for _ in range(300):
        states = rng.random((30, 40)) < rng.beta(2, 3, (30, 1))
        weights = np.where(states, 3.0, 1.0) * rng.integers(1, 3, (30, 1))
        sums, totals = (states * weights).sum(1), weights.sum(1)
        found.append(judgement.ratio_and_error(sums, totals))
        repeated.append(np.repeat(states.ravel(), weights.ravel().astype(int)).mean())
    values, errors = (np.array([f[key] for f in found]) for key in ("value", "standard_error"))
    assert values == pytest.approx(np.array(repeated))
    assert errors.mean() == pytest.approx(values.std(), rel=0.12)


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
