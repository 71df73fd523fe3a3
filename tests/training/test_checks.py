"""Forces that rigid bonds have biased are found, with the remedy; others pass without a word."""

import warnings

import numpy as np
import pytest

from ase_cg import Recipe, optimal_force_map
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.training.checks import warn_of_suspicious_data
from ase_cg.training.data import read_training_data
from ase_cg.units import KCAL_PER_MOL
from tests.labels.test_known_ground import RigidPair

BIASED = r"forces of molecule 'm' are biased: .* map them with force_map: optimal and the right constraints"


def _training_data(path, x, f, kelvin, labels="atomistic", weights=None, fraction=1.0):
    n = x.shape[1]
    names = tuple(f"B{i}" for i in range(n))
    bonds = tuple((i, i + 1) for i in range(n - 1))
    topology = BeadTopology(names, ("X",) * n, tuple(range(1, n + 1)), (0,) * n, (12.0,) * n, bonds)
    options = {"temperature": kelvin, "resolution": "atoms", "force_map": "slice", "weighted": weights is not None}
    with create_dataset(path) as dataset, dataset.molecule("m", topology, **options) as molecule:
        molecule.append(x, f, weights=weights)
    noise = {} if labels == "atomistic" else {"noise_std": 0.05}
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "data": {"dataset": str(path)},
            "labels": labels,
            "priors": ["bonds"],
            "training": {"fraction": fraction},
            **noise,
        }
    )
    return read_training_data(recipe, path), recipe.noise_levels[0]


def _warnings(data, noise_std) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_suspicious_data(data, noise_std)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(("weighted", "fraction"), [(False, 1.0), (True, 1.0), (False, 0.01)])
def test_slice_forces_at_a_rigid_bond_are_biased_and_optimal_ones_are_not(weighted, fraction, tmp_path):
    """A bias is one of the dataset: it is found also where few of its frames are trained on."""
    x, forces = RigidPair.sample(20_000, np.random.default_rng(2))
    weights = np.random.default_rng(0).uniform(0.5, 1.5, len(x)) if weighted else None
    c = RigidPair.coordinate_map
    found = {}
    for name, force_map in (("slice", c), ("optimal", optimal_force_map(forces, c, [[0, 1]]))):
        mapped = np.einsum("na,fax->fnx", force_map, forces)
        options = {"weights": weights, "fraction": fraction}
        found[name] = _training_data(tmp_path / f"{name}.h5", x[:, [0, 2]], mapped, 300.0, **options)
    with pytest.warns(UserWarning, match=BIASED):
        warn_of_suspicious_data(*found["slice"])
    assert _warnings(*found["optimal"]) == []


@pytest.mark.parametrize("labels", ["atomistic", "forces_and_noise", "noise"])
def test_published_slice_forces_of_chignolin_are_warned_of_where_they_are_used(labels, shared, tmp_path):
    folder = shared / "chignolin_ca_forces"
    x = np.load(folder / "chignolin_ca_coords.npy")
    f = np.load(folder / "chignolin_ca_forces.npy") * KCAL_PER_MOL
    found = _warnings(*_training_data(tmp_path / "d.h5", x, f, 350.0, labels))
    assert len(found) == (0 if labels == "noise" else 1)
    assert all("2." in message and "train on labels: noise" in message for message in found)


def test_published_forces_of_alanine_dipeptide_pass(shared, tmp_path):
    folder = shared / "ala2_cg_forces"
    x = np.load(folder / "ala2_cacb_coordinates.npy")
    f = np.load(folder / "ala2_cacb_forces.npy") * KCAL_PER_MOL
    assert _warnings(*_training_data(tmp_path / "d.h5", x, f, 300.0)) == []
