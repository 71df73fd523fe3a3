"""Transition kernels in a training: pairs within trajectories, labels of the force of the density, refusals."""

import warnings

import h5py
import numpy as np
import pytest
import torch

from ase_cg import CGModel, Recipe, train
from ase_cg.data.dataset import Dataset
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.errors import InputError
from ase_cg.flows import label_set
from ase_cg.flows.kernel import FlowKernel
from ase_cg.settings import validated
from ase_cg.training.data import read_training_data
from ase_cg.training.transitions import displacement_std, frames_after, with_transitions
from ase_cg.units import thermal_energy
from tests.conftest import SMALL_SCHNET, two_bead_topology

KELVIN, CENTER, WIDTH = 300.0, 4.0, 0.1  # of the distance, in Å
MEMORY = 0.85  # of the distance from frame to frame, 0.5 ps apart
LENGTHS = (2000, 1500, 500)
FEW = {"fraction": 0.1, "subset": "contiguous"}


def _tumbling_pair(rng: np.random.Generator, length: int) -> np.ndarray:
    """Two beads whose distance is an Ornstein–Uhlenbeck process, 4 ± 0.1 Å, and whose direction wanders."""
    r, direction = np.empty(length), np.empty((length, 3))
    r[0], at = rng.standard_normal(), rng.standard_normal(3)
    for step in range(length):
        if step:
            r[step] = MEMORY * r[step - 1] + np.sqrt(1 - MEMORY**2) * rng.standard_normal()
        at = at / np.linalg.norm(at) + 0.3 * rng.standard_normal(3)
        direction[step] = at / np.linalg.norm(at)
    positions = np.full((length, 2, 3), 7.0)
    positions[:, 1] += (CENTER + WIDTH * r)[:, None] * direction
    return positions


@pytest.fixture(scope="module")
def tumbling(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "pair.h5"
    with (
        create_dataset(path) as dataset,
        dataset.molecule(
            "pair", two_bead_topology(), temperature=KELVIN, resolution=("A", "B"), mapping={"frame_interval": "0.5 ps"}
        ) as molecule,
    ):
        for length in LENGTHS:
            molecule.append(_tumbling_pair(rng, length))
            molecule.next_trajectory()
    return path


def _recipe(dataset, kernel=None, data=None, **changes) -> Recipe:
    settings = {"name": "transition", "lag": "1 ps", "epochs": 2, "batch_size": 256} | (kernel or {})
    if settings.get("flow", "cnf") == "cnf":
        settings = {"features": 16, "layers": 2, "path_std": 0.02} | settings
    given = {
        "name": "test",
        "data": {"dataset": str(dataset)} | (data or {}),
        "labels": "flow",
        "kernel": settings,
        "priors": ["bonds"],
        "backbone": {"name": "schnet", **SMALL_SCHNET},
        "training": {"epochs": 1, "batch_size": 128, "learning_rate": 3e-3} | changes.pop("training", {}),
    }
    return Recipe.model_validate(given | changes)


def _quietly(recipe, folder, **options):
    """Train without the warnings that flows of two epochs deserve."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the flow does not reproduce")
        warnings.filterwarnings("ignore", "labels of molecule 'pair' are biased")
        return train(recipe, folder, quiet=True, **options)


def _paired(recipe):
    data = read_training_data(recipe, recipe.data.dataset)
    return with_transitions(data, recipe.kernel.lag, recipe.data.frame_interval)


def _along_bond(folder):
    """Return lengths of the bond, labels along it, both in Å and eV/Å, and the frames that were labelled."""
    with Dataset.open(folder / "flow" / "labels.h5") as labels:
        found = labels.molecules["pair"]
        x, f, sources = found.coordinates().astype(float), found.forces().astype(float), found.source_frames()
    bond = x[:, 1] - x[:, 0]
    r = np.linalg.norm(bond, axis=1)
    along = (f[:, 1] * bond).sum(1) / r
    # Labels pull along the bond alone: what turns the pair has been taken out.
    assert f[:, 1] == pytest.approx(along[:, None] * bond / r[:, None], abs=1e-4)
    return r, along, sources


def _slope(r, along):
    """Return by how much labels change with the length on average, and its standard error.

    Of exact labels it is −kT over the variance of r, whatever the density: by parts. Only kT 2/r, hardly bent, is left.
    """
    slope, offset = np.polyfit(r - r.mean(), along, 1)
    return slope, (along - offset - slope * (r - r.mean())).std() / r.std() / np.sqrt(len(r))


def test_labels_regress_to_the_force_of_the_density(tumbling, tmp_path):
    kernel = {"epochs": 14, "batch_size": 192, "nodes": 3, "learning_rate": 5e-3, "final_learning_rate": 1e-4}
    model = CGModel.load(train(_recipe(tumbling, kernel), tmp_path / "t", quiet=True))
    r, along, _ = _along_bond(tmp_path / "t")
    with Dataset.open(tumbling) as dataset:
        frames = dataset.molecules["pair"].coordinates().astype(float)
    exact = np.linalg.norm(frames[:, 1] - frames[:, 0], axis=1)
    assert r.mean() == pytest.approx(exact.mean(), abs=0.15 * WIDTH)
    assert r.std() == pytest.approx(exact.std(), rel=0.12)
    slope, error = _slope(r, along)
    kT = thermal_energy(KELVIN)
    assert slope == pytest.approx(-kT / WIDTH**2, rel=0.3)
    # Exactly the force of the density of the labels' positions, to statistical error.
    assert slope == pytest.approx(-kT / r.var(), abs=4 * error)
    assert along.mean() == pytest.approx(-2 * kT / CENTER, abs=4 * along.std() / np.sqrt(len(r)))
    assert model.card.provenance["flow"]["labels"]["pair"]["dropped"] == 0
    assert FlowKernel.load(tmp_path / "t" / "flow" / "flow.safetensors").lag == "1 ps"


def test_labels_can_be_at_the_frames_themselves(tumbling, tmp_path):
    recipe = _recipe(tumbling, {"labels_at": "frames", "epochs": 4, "learning_rate": 5e-3, "nodes": 2}, training=FEW)
    _quietly(recipe, tmp_path / "t")
    r, along, sources = _along_bond(tmp_path / "t")
    with Dataset.open(tumbling) as dataset:
        frames = dataset.molecules["pair"].coordinates(sources).astype(float)
    assert np.linalg.norm(frames[:, 1] - frames[:, 0], axis=1) == pytest.approx(r, abs=2e-3)
    assert np.corrcoef(r, along)[0, 1] < -0.2


def test_pairs_stay_within_trajectories_and_parts(tumbling):
    assert frames_after((4, 2, 3), 2).tolist() == [2, 3, 8]
    paired = _paired(_recipe(tumbling, {"lag": "50 ps"}))
    (molecule,) = paired.molecules
    assert molecule.lag == 100
    edges = np.cumsum(LENGTHS)
    whole = read_training_data(_recipe(tumbling), tumbling).molecules[0].split
    for part, before in zip(molecule.split, whole, strict=True):
        assert 0 < len(part) < len(before)
        assert (np.searchsorted(edges, part, "right") == np.searchsorted(edges, part - 100, "right")).all()
        assert np.isin(part - 100, before).all()
    batch = next(iter(paired.loader("validation", _recipe(tumbling).training, 0)))
    frames = molecule.split.validation[: len(batch.parts[0].coordinates)]
    with Dataset.open(tumbling) as dataset:
        assert (batch.parts[0].earlier.numpy() == dataset.molecules["pair"].coordinates(frames - 100)).all()


def test_the_width_of_transitions_is_that_of_the_shape_and_not_of_tumbling(tumbling):
    exact = WIDTH * np.sqrt(2 * (1 - MEMORY**2) / 2)  # of a distance of two beads, each of which moves by half of it
    assert displacement_std(_paired(_recipe(tumbling))) == pytest.approx(exact, rel=0.1)


def test_a_killed_labelling_goes_on_and_another_lag_is_another_training(tumbling, tmp_path, monkeypatch):
    recipe = _recipe(tumbling, {"epochs": 1, "nodes": 2}, training=FEW)
    whole = _quietly(recipe, tmp_path / "whole")
    original, calls = label_set.label_batch, []

    def killed(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(label_set, "label_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            _quietly(recipe, tmp_path / "parts")
    flow = tmp_path / "parts" / "flow" / "flow.safetensors"
    written = flow.stat().st_mtime_ns
    resumed = _quietly(recipe, tmp_path / "parts")
    assert flow.stat().st_mtime_ns == written
    one, two = (CGModel.load(path).state_dict() for path in (whole, resumed))
    assert all(torch.equal(one[key], two[key]) for key in one)
    with pytest.raises(InputError, match="another recipe or dataset"):
        _quietly(_recipe(tumbling, {"epochs": 1, "lag": "0.5 ps"}, training=FEW), tmp_path / "parts")


def test_a_coupling_flow_learns_transitions_too(tumbling, tmp_path):
    kernel = {"flow": "coupling", "coupling_layers": 2, "blocks": 1, "embedding": 16, "epochs": 6}
    recipe = _recipe(tumbling, kernel | {"learning_rate": 5e-3, "batch_size": 128})
    _quietly(recipe, tmp_path / "t")
    r, along, _ = _along_bond(tmp_path / "t")
    assert WIDTH / 2 < r.std() < 2 * WIDTH  # of few epochs
    slope, error = _slope(r, along)
    assert slope == pytest.approx(-thermal_energy(KELVIN) / r.var(), abs=4 * error)


def _changed(dataset, path, change):
    path.write_bytes(dataset.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file["molecules"]["pair"])
    return path


def _shuffled(group):
    group["coordinates"][...] = np.random.default_rng(0).permutation(group["coordinates"][...])


def _without_interval(group):
    group.attrs["mapping"] = "{}"


def _labelled(group):
    group["source_frames"] = np.arange(len(group["coordinates"]))


@pytest.mark.parametrize(
    ("change", "kernel", "data", "message"),
    [
        (_shuffled, {}, {}, r"frames of molecule 'pair' .* resemble those before no more than any others"),
        (_without_interval, {}, {}, r"does not say how much time .*; give it as data.frame_interval, such as '1 ps'"),
        (_without_interval, {"lag": "1 ps"}, {"frame_interval": "0.3 ps"}, r"kernel.lag \(1 ps\) is no whole multiple"),
        (_labelled, {}, {}, r"is a set of labels, whose frames are not in the order of time"),
        (None, {"lag": "1000 ps"}, {}, r"is 2000 frames, and the longest trajectory of molecule 'pair' has 2000"),
        (None, {"lag": "0.75 ps"}, {}, r"kernel.lag \(0.75 ps\) is no whole multiple of data.frame_interval \(0.5 ps"),
        (None, {}, {"frame_interval": "1 ps"}, r"data.frame_interval is 1 ps, but .* was mapped with 0.5 ps between"),
        (None, {"lag": "900 ps"}, {}, r"no two validation frames of molecule 'pair' lie kernel.lag"),
    ],
)
def test_data_without_transitions_are_refused(tumbling, tmp_path, change, kernel, data, message):
    path = tumbling if change is None else _changed(tumbling, tmp_path / "d.h5", change)
    with pytest.raises(InputError, match=message):
        _quietly(_recipe(path, kernel, data), tmp_path / "t")
    assert not (tmp_path / "t").exists()  # the corrected recipe finds its folder free


def test_frames_that_are_streamed_are_refused(tumbling, tmp_path):
    with pytest.raises(InputError, match=r"needs the frames of molecule 'pair' in memory; raise training.memory_limit"):
        _quietly(_recipe(tumbling, training={"memory_limit": 1e-6}), tmp_path / "t")


def test_the_recipe_may_say_what_the_dataset_does_not(tumbling, tmp_path):
    path = _changed(tumbling, tmp_path / "d.h5", _without_interval)
    assert _paired(_recipe(path, data={"frame_interval": "250 fs"})).molecules[0].lag == 4
    settings = {"kernel": {"epochs": 1, "nodes": 1}, "training": FEW}
    _quietly(_recipe(path, data={"frame_interval": "250 fs"}, **settings), tmp_path / "t")
    with pytest.raises(InputError, match="another recipe or dataset"):  # though all was finished there
        _quietly(_recipe(path, data={"frame_interval": "500 fs"}, **settings), tmp_path / "t")


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("transition", "kernel needs 'lag', the time between the two frames of a transition"),
        ({"name": "transition", "lag": "10"}, "kernel.lag cannot be '10'"),
        ({"name": "transition", "lag": "-1 ps"}, "kernel needs a positive 'lag', not '-1 ps'"),
        (
            {"name": "transition", "lag": "1 ps", "noise_std": 0.1},
            "has 'noise_std', which is a key of the kernel 'cnf'",
        ),
        (
            {"name": "transition", "lag": "1 ps", "flow": "coupling", "nodes": 3},
            "not of 'transition with flow: coupling",
        ),
        ({"name": "cnf", "lag": "1 ps"}, "has 'lag', which is a key of the kernel 'transition' and not of 'cnf'"),
        ({"name": "coupling", "prior_std": 0.1}, "has 'prior_std', which is a key of the kernel 'cnf'"),
    ],
)
def test_wrong_kernels_are_named(kernel, message):
    data = {"name": "x", "data": {"dataset": "d.h5"}, "labels": "flow", "kernel": kernel}
    with pytest.raises(InputError, match=message):
        validated(Recipe, data, "recipe r.yaml")
