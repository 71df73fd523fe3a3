"""Forces that do not belong to the density of their positions are refused; others pass without a word."""

import warnings

import numpy as np
import pytest

from ase_cg import CGModel, InputError, Recipe, optimal_force_map, train
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.training.checks import check_recorded_forces
from ase_cg.units import KCAL_PER_MOL
from tests.conftest import SMALL_SCHNET
from tests.labels.test_known_ground import RigidPair

REFUSED = (
    r"forces of molecule 'm' do not belong to the density of its positions at .*must be 1 and is .* ± .* for B\d–B\d .*"
    r"use the force map 'optimal' .* train on labels: noise.*allow_inconsistent_forces"
)


def _data(path, x, f, kelvin, labels="atomistic", weights=None, bonds=None, **training):
    n = x.shape[1]
    names = tuple(f"B{i}" for i in range(n))
    bonds = tuple((i, i + 1) for i in range(n - 1)) if bonds is None else bonds
    topology = BeadTopology(names, ("X",) * n, tuple(range(1, n + 1)), (0,) * n, (12.0,) * n, bonds)
    options = {"temperature": kelvin, "resolution": "atoms", "force_map": "slice", "weighted": weights is not None}
    with create_dataset(path) as dataset, dataset.molecule("m", topology, **options) as molecule:
        molecule.append(x, f, weights=weights)
    noise = {} if labels in {"atomistic", "flow", "flow_and_forces"} else {"noise_std": 0.05}
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "data": {"dataset": str(path)},
            "labels": labels,
            "priors": ["bonds"],
            "training": training,
            "backbone": {"name": "schnet", **SMALL_SCHNET},
            **noise,
        }
    )
    return recipe, path


def _told(recipe, path) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_recorded_forces(recipe, path)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(("weighted", "fraction"), [(False, 1.0), (True, 1.0), (False, 0.01)])
def test_slice_forces_at_a_rigid_bond_are_refused_and_optimal_ones_are_not(weighted, fraction, tmp_path):
    """A bias is one of the dataset: it is found also where few of its frames are trained on."""
    x, forces = RigidPair.sample(20_000, np.random.default_rng(2))
    weights = np.random.default_rng(0).uniform(0.5, 1.5, len(x)) if weighted else None
    c = RigidPair.coordinate_map
    found = {}
    for name, force_map in (("slice", c), ("optimal", optimal_force_map(forces, c, [[0, 1]]))):
        mapped = np.einsum("na,fax->fnx", force_map, forces)
        options = {"weights": weights, "fraction": fraction}
        found[name] = _data(tmp_path / f"{name}.h5", x[:, [0, 2]], mapped, 300.0, **options)
    with pytest.raises(InputError, match=REFUSED):
        check_recorded_forces(*found["slice"])
    assert _told(*found["optimal"]) == []


@pytest.mark.parametrize("labels", ["atomistic", "forces_and_noise", "flow_and_forces", "noise", "flow"])
@pytest.mark.parametrize("molecule", ["chignolin", "alanine dipeptide"])
def test_published_slice_forces_are_refused_where_they_are_used(labels, molecule, shared, tmp_path):
    folder = shared / ("chignolin_ca_forces" if molecule == "chignolin" else "ala2_cg_forces")
    names = ("chignolin_ca_coords", "chignolin_ca_forces") if molecule == "chignolin" else ("ala2_cacb_coordinates", "")
    x = np.load(folder / f"{names[0]}.npy")
    f = np.load(folder / f"{names[1] or 'ala2_cacb_forces'}.npy") * KCAL_PER_MOL
    bonds = None if molecule == "chignolin" else ((0, 1), (1, 2), (2, 3), (2, 4), (4, 5))
    kelvin = 350.0 if molecule == "chignolin" else 300.0
    recipe, path = _data(tmp_path / "d.h5", x, f, kelvin, labels, bonds=bonds)
    if labels in {"noise", "flow"}:
        assert _told(recipe, path) == []
        return
    with pytest.raises(InputError, match=REFUSED):
        check_recorded_forces(recipe, path)
    allowed, _ = _data(tmp_path / "e.h5", x, f, kelvin, labels, bonds=bonds, allow_inconsistent_forces=True)
    (told,) = _told(allowed, path)
    assert "do not belong" in told


@pytest.fixture
def biased(tmp_path):
    x, forces = RigidPair.sample(4000, np.random.default_rng(2))
    mapped = np.einsum("na,fax->fnx", RigidPair.coordinate_map, forces)
    return _data(tmp_path / "d.h5", x[:, [0, 2]], 3 * mapped, 300.0, epochs=1)


def test_training_refuses_before_it_makes_a_folder_and_obeys_when_told(biased, tmp_path):
    recipe, _ = biased
    with pytest.raises(InputError, match=REFUSED):
        train(recipe, tmp_path / "t", quiet=True)
    assert not (tmp_path / "t").exists()
    with pytest.warns(UserWarning, match="do not belong to the density"):
        path = train(recipe, tmp_path / "t", allow_inconsistent_forces=True, quiet=True)
    assert CGModel.load(path).card.provenance["recipe"]["training"]["allow_inconsistent_forces"] is True
    training = recipe.training.model_copy(update={"allow_inconsistent_forces": True})
    with pytest.warns(UserWarning, match="do not belong to the density"):  # the same training: it is finished already
        assert train(recipe.model_copy(update={"training": training}), tmp_path / "t", quiet=True) == path


def test_the_command_refuses_with_one_sentence_and_obeys_its_option(biased, tmp_path):
    from typer.testing import CliRunner

    from ase_cg.cli.main import app

    _, dataset = biased
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"name: x\ndata: {{dataset: {dataset}}}\npriors: [bonds]\ntraining: {{epochs: 1}}\n"
        f"backbone: {{name: schnet, {', '.join(f'{k}: {v}' for k, v in SMALL_SCHNET.items())}}}\n"
    )
    options = ["train", str(recipe), "-o", str(tmp_path / "t"), "--quiet"]
    refused = CliRunner().invoke(app, options)
    assert refused.exit_code != 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        obeyed = CliRunner().invoke(app, [*options, "--allow-inconsistent-forces"])
    assert obeyed.exit_code == 0, obeyed.output
    assert (tmp_path / "t" / "model.safetensors").is_file()


def test_few_frames_are_not_refused(tmp_path):
    x, forces = RigidPair.sample(100, np.random.default_rng(2))
    mapped = np.einsum("na,fax->fnx", RigidPair.coordinate_map, forces)
    assert _told(*_data(tmp_path / "d.h5", x[:, [0, 2]], 5 * mapped, 300.0)) == []


def test_every_molecule_of_a_dataset_is_checked(tmp_path):
    """The second is the biased one, and has the name in the message."""
    x, forces = RigidPair.sample(4000, np.random.default_rng(2))
    c = RigidPair.coordinate_map
    sound = np.einsum("na,fax->fnx", optimal_force_map(forces, c, [[0, 1]]), forces)
    recipe, path = _data(tmp_path / "d.h5", x[:, [0, 2]], sound, 300.0)
    assert _told(recipe, path) == []
    topology = BeadTopology(("B0", "B1"), ("X",) * 2, (1, 2), (0, 0), (12.0,) * 2, ((0, 1),))
    options = {"temperature": 300.0, "resolution": "atoms", "force_map": "slice"}
    with create_dataset(path, add=True) as dataset, dataset.molecule("second", topology, **options) as molecule:
        molecule.append(x[:, [0, 2]], 3 * sound)
    with pytest.raises(InputError, match="forces of molecule 'second' do not belong"):
        check_recorded_forces(recipe, path)
