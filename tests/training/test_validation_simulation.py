"""Validation simulations: their distances are right, are logged, and choose the checkpoint."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from ase_cg import CGModel, InputError, Recipe, train
from ase_cg.analysis.features import bond_lengths
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.dynamics.failures import Stop
from ase_cg.dynamics.replicas import ReplicaSimulation
from ase_cg.files import read_record
from ase_cg.models.priors.harmonic import HarmonicBonds
from ase_cg.training.simulation_distances import Reference, distances, features
from ase_cg.training.training_settings import ValidationSimulationSection
from ase_cg.training.validation_simulation import ValidationSimulation, simulated
from ase_cg.units import thermal_energy
from tests.conftest import SMALL_SCHNET, two_bead_topology

SHORT = {"every": 2, "replicas": 4, "duration": "0.04 ps", "report_interval": "0.01 ps"}


def _recipe(dataset, **training) -> Recipe:
    settings = {"epochs": 6, "batch_size": 32, "learning_rate": 3e-3, "validation_simulation": SHORT} | training
    return Recipe.model_validate(
        {
            "name": "test",
            "data": {"dataset": str(dataset)},
            "backbone": {"name": "schnet", **SMALL_SCHNET},
            "training": settings,
        }
    )


def _logged(folder: Path, name: str) -> list[float]:
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def _bonds(count: int, mean: float, seed: int) -> np.ndarray:
    """Dimers of random orientation and a Gaussian length."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal((count, 3))
    frames = np.zeros((count, 2, 3))
    lengths = mean + 0.1 * rng.standard_normal(count)
    frames[:, 1] = lengths[:, None] * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    return frames


def test_distances_are_those_of_the_distributions():
    topology, settings = two_bead_topology(), ValidationSimulationSection(bins=20)
    reference = Reference(topology, _bonds(20_000, 3.0, 0), None)
    compared = features(topology, settings)
    assert compared.pairs == [(0, 1)]
    same = distances(_bonds(20_000, 3.0, 1), reference, compared, settings.bins)
    assert same == pytest.approx((0, 0), abs=3e-3)
    apart, moved = distances(_bonds(20_000, 3.05, 1), reference, compared, settings.bins)
    assert moved == pytest.approx(0.05, abs=3e-3)
    # Two Gaussians half a standard deviation apart.
    grid = np.linspace(2, 4, 20_001)
    p, q = (np.exp(-((grid - mean) ** 2) / 0.02) for mean in (3.05, 3.0))
    p, q = p / p.sum(), q / q.sum()
    exact = 0.5 * (p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q))).sum()
    assert apart == pytest.approx(exact, rel=0.15)
    far = distances(_bonds(2000, 9.0, 1), reference, compared, settings.bins)
    assert far == pytest.approx((np.log(2), 6.0), rel=0.02)
    # Weights make of one Gaussian the other.
    lengths = bond_lengths(reference.frames, [(0, 1)])[:, 0]
    tilted = Reference(topology, reference.frames, np.exp(0.05 * (lengths - 3.0) / 0.01))
    assert distances(_bonds(20_000, 3.05, 1), tilted, compared, settings.bins) == pytest.approx((0, 0), abs=6e-3)


def test_the_surface_is_compared_where_there_is_one_and_else_what_is_named(ala2, ala2_positions):
    assert features(ala2, ValidationSimulationSection()).surface
    named = ValidationSimulationSection(dihedrals=[(0, 1, 2, 4)], pairs=[(0, 5)])
    assert not features(ala2, named).surface
    frames = ala2_positions + 0.05 * np.random.default_rng(0).standard_normal((400, 6, 3))
    for settings in (ValidationSimulationSection(bins=10), named):
        compared = features(ala2, settings)
        near, _ = distances(frames[:200], Reference(ala2, frames[200:], None), compared, 10)
        # Its mirror image has other dihedrals.
        far, bond = distances(frames[:200] * [-1, 1, 1], Reference(ala2, frames[200:], None), compared, 10)
        assert near < 0.1
        assert far > 0.3
        assert bond < 0.02
    for wrong in ({"pairs": [(0, 6)]}, {"dihedrals": [(0, 1, 1, 2)]}):
        with pytest.raises(InputError, match="are not different beads of 0 to 5"):
            features(ala2, ValidationSimulationSection(**wrong))


def test_a_simulation_finds_the_right_model_and_an_exploding_one_counts_as_worst(dimer_model):
    kT = thermal_energy(300.0)
    spread = np.sqrt(kT / 4)  # of k = 2 eV/Å²
    frames = _bonds(2000, 3.0, 0)
    lengths = bond_lengths(frames, [(0, 1)])
    frames *= ((3.0 + (lengths - 3.0) * spread / 0.1) / lengths)[:, :, None]
    settings = ValidationSimulationSection(replicas=40, duration="4 ps", friction="5 /ps", bins=15)
    references = (Reference(two_bead_topology(), frames, None),)
    right = ValidationSimulation(settings, references, lambda _: dimer_model, "cpu").measure(None)
    assert right["simulation_js"] < 0.02
    assert right["simulation_bond_wasserstein"] < 0.01
    for stiffness, rest, worst in ((2.0, 3.3, False), (1e9, 3.3, True)):
        wrong = dimer_model.with_terms(["bonds"])
        bonds = HarmonicBonds(torch.tensor([[0, 0]]), torch.tensor([stiffness]), torch.tensor([rest]), 1)
        wrong.priors.terms["bonds"] = bonds
        found = ValidationSimulation(settings, references, lambda _, m=wrong: m, "cpu").measure(None)
        assert found["simulation_js"] == (np.inf if worst else pytest.approx(np.log(2), rel=0.3))


def test_a_replica_that_explodes_counts_as_nowhere_in_the_data(dimer_model, monkeypatch):
    frames = _bonds(400, 3.0, 0)
    settings = ValidationSimulationSection(replicas=40, duration="4 ps", friction="5 /ps", bins=15)
    references = (Reference(two_bead_topology(), frames, None),)
    simulation = ValidationSimulation(settings, references, lambda _: dimer_model, "cpu")
    whole = simulation.measure(None)
    step = ReplicaSimulation.step

    def lose(self, steps):
        step(self, steps)
        self.stopped |= {place: Stop(place, 0, 1, "torn", None, None) for place in (3, 7)}

    monkeypatch.setattr(ReplicaSimulation, "step", lose)
    found = simulation.measure(None)
    assert found["simulation_js"] == pytest.approx(0.95 * whole["simulation_js"] + 0.05 * np.log(2), abs=0.01)


def test_a_compiled_validation_simulation_goes_the_same_way(model, ala2, ala2_positions):
    frames = ala2_positions + 0.02 * np.random.default_rng(0).standard_normal((20, 6, 3))
    found = []
    for compiled in (False, True):
        settings = ValidationSimulationSection(**SHORT | {"compile": compiled})
        positions, stopped = simulated(model, Reference(ala2, frames, None), settings, "cpu")
        assert stopped == 0
        found.append(positions)
    assert found[1].shape == (16, 6, 3)
    assert np.abs(found[0][-4:] - frames[:4]).max() > 0.05
    assert found[1] == pytest.approx(found[0], abs=1e-3)


def test_weights_that_cannot_be_compiled_are_simulated_as_they_are(model, ala2, ala2_positions, monkeypatch):
    def refuse(*args, **kwargs):
        raise InputError("above the gate")

    monkeypatch.setattr(CGModel, "compile", refuse)
    settings = ValidationSimulationSection(**SHORT | {"compile": True})
    with pytest.warns(UserWarning, match="not compiled: above the gate"):
        positions, _ = simulated(model, Reference(ala2, ala2_positions[None].repeat(4, 0), None), settings, "cpu")
    assert np.isfinite(positions).all()


def test_simulations_are_logged_and_choose_the_checkpoint(dataset_file, tmp_path, monkeypatch):
    """Told that the fourth epoch is the best, the training keeps its weights, whatever the loss says."""
    kept = {}

    def measure(self, backbone):
        kept[len(kept)] = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
        return {"simulation_js": [0.3, 0.1, 0.2][len(kept) - 1], "simulation_bond_wasserstein": 0.01}

    monkeypatch.setattr(ValidationSimulation, "measure", measure)
    model = CGModel.load(train(_recipe(dataset_file, select="simulation"), tmp_path / "t", quiet=True))
    assert len(kept) == 3
    assert _logged(tmp_path / "t", "simulation_js") == pytest.approx([np.inf, 0.3, 0.3, 0.1, 0.1, 0.2])
    metrics = model.card.provenance["metrics"]
    assert metrics["best_epoch"] == 3
    assert metrics["simulation_js"] == pytest.approx(0.1)
    assert metrics["validation_loss"] == pytest.approx(_logged(tmp_path / "t", "validation_loss")[3], rel=1e-6)
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, kept[1][name])


def test_simulations_choose_among_seeds_and_noise_levels(dataset_file, tmp_path):
    recipe = _recipe(dataset_file, epochs=2, select="simulation", seeds=[0, 1])
    recipe = Recipe.model_validate(recipe.model_dump() | {"labels": "noise", "noise_std": [0.05, 0.1]})
    train(recipe, tmp_path / "t", quiet=True)
    record = read_record(tmp_path / "t" / "trainings.json")
    best = min(record["trainings"], key=lambda row: row["simulation_js"])
    assert record["chosen"] == best["name"]
    assert all(0 < row["simulation_js"] <= np.log(2) for row in record["trainings"])


def test_a_training_whose_simulations_all_explode_says_so(dataset_file, tmp_path):
    settings = SHORT | {"time_step": "50 fs", "report_interval": "1 ps", "duration": "20 ps"}
    recipe = _recipe(dataset_file, select="simulation", validation_simulation=settings, epochs=2)
    with pytest.raises(InputError, match="no validation simulation ended with finite positions"):
        train(recipe, tmp_path / "t", quiet=True)


def test_a_reference_of_its_own_must_have_the_beads(dataset_file, tmp_path):
    other = tmp_path / "other.h5"
    with (
        create_dataset(other) as dataset,
        dataset.molecule("m", two_bead_topology(), temperature=300.0, resolution="calpha") as molecule,
    ):
        molecule.append(_bonds(30, 3.0, 0))
    for path, message in ((other, "no molecule with the beads of 'ala2'"), (tmp_path / "none.h5", "does not exist")):
        with pytest.raises(InputError, match=message):
            train(_recipe(dataset_file, validation_simulation=SHORT | {"reference": path}), tmp_path / "t", quiet=True)
    assert not (tmp_path / "t").exists()
    recipe = _recipe(dataset_file, validation_simulation=SHORT | {"reference": dataset_file}, epochs=2)
    train(recipe, tmp_path / "t", quiet=True)
    assert np.isfinite(_logged(tmp_path / "t", "simulation_js")[-1])
