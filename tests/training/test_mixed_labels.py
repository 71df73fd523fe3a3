"""Labels of a flow with recorded forces: valid with any weights, of least variance with the inverse variances."""

import warnings

import numpy as np
import pytest

from ase_cg import CGModel, Recipe, train
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.data.splits import Split
from ase_cg.errors import InputError
from ase_cg.models.priors.prior_set import PriorSet
from ase_cg.training.data import MoleculeData
from ase_cg.training.mixed_labels import with_recorded_forces
from ase_cg.units import thermal_energy
from tests.conftest import SMALL_SCHNET, two_bead_topology

NONE = PriorSet([])
STIFFNESS = 0.3  # eV/Å², of the known ground: f = −k x + noise


def _molecule(x, noise, rng, weights=None) -> MoleculeData:
    frames = np.arange(len(x))
    forces = (-STIFFNESS * x + noise * rng.standard_normal(x.shape)).astype(np.float32)
    split = Split(frames[: len(x) // 2], frames[len(x) // 2 : -10], frames[-10:])
    return MoleculeData("m", two_bead_topology(), split, x.astype(np.float32), forces, None, weights, None)


def _slope(data: MoleculeData, weights) -> float:
    """The stiffness that a weighted fit to training frames finds."""
    rows = data.split.train
    w, x, f = weights[rows][:, None, None], data.coordinates[rows].astype(float), data.forces[rows].astype(float)
    return float(-(w * x * f).sum() / (w * x * x).sum())


def test_weights_are_inverse_variances_and_give_the_least_scatter_without_bias():
    rng = np.random.default_rng(0)
    noises, counts = (3.0, 1.0), (400, 200)
    found = {factor: [] for factor in (0.0, 0.2, 1.0, 5.0, np.inf)}
    for _ in range(400):
        parts = [_molecule(rng.standard_normal((n, 2, 3)), s, rng) for n, s in zip(counts, noises, strict=True)]
        data = with_recorded_forces(*parts, NONE, ("A",))
        ratio = data.weights[0] / data.weights[-1]
        for factor, slopes in found.items():
            weights = data.weights.copy()
            weights[: counts[0]] = data.weights[-1] * (ratio * factor if np.isfinite(factor) else 1e9)
            slopes.append(_slope(data, weights))
    assert ratio == pytest.approx((noises[1] / noises[0]) ** 2, rel=0.2)
    for slopes in found.values():  # valid with any weights
        assert np.mean(slopes) == pytest.approx(STIFFNESS, abs=4 * np.std(slopes) / 20)
    scatter = {factor: np.std(slopes) for factor, slopes in found.items()}
    assert scatter[1.0] == min(scatter.values())
    assert scatter[1.0] < 0.98 * scatter[0.0]
    assert scatter[1.0] < 0.5 * scatter[np.inf]


def test_frame_weights_and_parts_stay_with_their_frames():
    rng = np.random.default_rng(1)
    weights = rng.uniform(0.5, 1.5, 60)
    labelled = _molecule(rng.standard_normal((40, 2, 3)), 1.0, rng)
    recorded = _molecule(rng.standard_normal((60, 2, 3)), 1.0, rng, weights)
    data = with_recorded_forces(labelled, recorded, NONE, ("A",))
    assert data.weights[40:] / data.weights[40] == pytest.approx(weights / weights[0])
    for part, one, other in zip(data.split, labelled.split, recorded.split, strict=True):
        expected = np.concatenate([labelled.coordinates[one], recorded.coordinates[other]])
        assert (data.coordinates[part] == expected).all()
    assert (data.label_forces == data.forces[data.split.train]).all()
    with pytest.raises(InputError, match=r"raise training\.memory_limit"):
        with_recorded_forces(labelled, recorded._replace(forces=None), NONE, ("A",))


def test_the_mean_force_that_priors_hold_does_not_count_as_variance():
    """A stiff bond, whose mean force is ten times the noise of one set and as large as that of the other.

    In the plain mean squares 1 + 100 stand against 100 + 100.
    """
    rng = np.random.default_rng(3)
    kT, width, center, noises = thermal_energy(300.0), 0.05, 4.0, (1.0, 10.0)
    x = np.zeros((4000, 2, 3))
    r = center + width * rng.standard_normal(len(x))
    x[:, 1, 2] = r
    mean = np.zeros_like(x)
    mean[:, 1, 2] = -kT * (r - center) / width**2
    mean[:, 0] = -mean[:, 1]
    priors = PriorSet.fit_positions(x, two_bead_topology(), ["bonds"], vocabulary=("A",), kT=kT)
    unit = np.sqrt(np.square(mean).mean()) / 10
    parts = [_molecule(x, 0.0, rng) for _ in noises]
    parts = [
        part._replace(forces=(mean + unit * noise * rng.standard_normal(x.shape)).astype(np.float32))
        for part, noise in zip(parts, noises, strict=True)
    ]
    found = [with_recorded_forces(*parts, given, ("A",)).weights for given in (priors, NONE)]
    ratios = [weights[0] / weights[-1] for weights in found]
    assert ratios[0] == pytest.approx(100, rel=0.1)
    assert ratios[1] == pytest.approx(200 / 101, rel=0.1)


def test_a_recipe_trains_on_both(tmp_path):
    rng = np.random.default_rng(2)
    kT, width = thermal_energy(300.0), 0.1
    r = 4.0 + width * rng.standard_normal(1500)
    axis = rng.standard_normal((len(r), 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    positions, forces = np.zeros((2, len(r), 2, 3))
    positions[:, 1] = r[:, None] * axis
    forces[:, 1] = (-kT * ((r - 4.0) / width**2 + 2 / r))[:, None] * axis
    forces[:, 0] = -forces[:, 1]
    path = tmp_path / "d.h5"
    options = {"temperature": 300.0, "resolution": ("A", "B"), "force_map": "slice"}
    with create_dataset(path) as dataset:
        with dataset.molecule("pair", two_bead_topology(), **options) as molecule:
            molecule.append(positions, forces)
        with dataset.molecule("without", two_bead_topology(), **options | {"force_map": None}) as molecule:
            molecule.append(positions[:300])
    settings = {
        "name": "both",
        "data": {"dataset": str(path)},
        "labels": "flow_and_forces",
        "kernel": {"noise_std": 0.1, "prior_std": 0.1, "features": 8, "layers": 2, "epochs": 2, "draws": 2},
        "priors": ["bonds"],
        "backbone": {"name": "schnet", **SMALL_SCHNET},
        "training": {"epochs": 2},
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the flow does not reproduce")
        model = CGModel.load(train(Recipe.model_validate(settings), tmp_path / "t", quiet=True))
    assert model.card.labels == "flow_and_forces"
    metrics = model.card.provenance["metrics"]
    assert metrics["train_frames"] == 2 * (1200 + 240) + 1200  # of labels and of recorded forces, where there are any
    assert metrics["label_variance_theory"] > 0
