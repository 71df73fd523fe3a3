"""Labels of a flow in a training: the force of the density itself; resumable; wrong recipes refused."""

import shutil
import warnings

import numpy as np
import pytest
import torch

from ase_cg import CGModel, Recipe, train
from ase_cg.analysis.describe import describe
from ase_cg.cli.show_info import show_info
from ase_cg.data.dataset import Dataset
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.errors import InputError
from ase_cg.files import file_hash
from ase_cg.flows import label_set
from ase_cg.flows.coupling import CouplingFlow
from ase_cg.flows.kernel import FlowKernel
from ase_cg.flows.orientation import rotations
from ase_cg.units import thermal_energy
from tests.conftest import SMALL_SCHNET, two_bead_topology

KELVIN, CENTER, WIDTH = 300.0, 4.0, 0.1  # of the distance, in Å


@pytest.fixture(scope="module")
def stiff_pair(tmp_path_factory):
    """Two beads at a distance of 4 ± 0.1 Å, which noise of 0.1 Å on each bead would widen to 0.17 Å."""
    rng = np.random.default_rng(0)
    r = CENTER + WIDTH * rng.standard_normal(8_000)
    direction = rng.standard_normal((len(r), 3))
    positions = np.zeros((len(r), 2, 3))
    positions[:, 1] = (r / np.linalg.norm(direction, axis=1))[:, None] * direction
    path = tmp_path_factory.mktemp("data") / "pair.h5"
    with (
        create_dataset(path) as dataset,
        dataset.molecule("pair", two_bead_topology(), temperature=KELVIN, resolution=("A", "B")) as molecule,
    ):
        molecule.append(positions[:5_000] + 5.0)  # not mean-free
        molecule.next_trajectory()
        molecule.append(positions[5_000:])
    return path


def _recipe(dataset, kernel=None, **changes) -> Recipe:
    settings = {"name": "cnf", "noise_std": 0.1, "prior_std": 0.1, "path_std": 0.02, "features": 16, "layers": 2}
    settings |= {"epochs": 2, "batch_size": 256} | (kernel or {})
    data = {
        "name": "test",
        "data": {"dataset": str(dataset)},
        "labels": "flow",
        "kernel": settings,
        "priors": ["bonds"],
        "backbone": {"name": "schnet", **SMALL_SCHNET},
        "training": {"epochs": 2, "batch_size": 128, "learning_rate": 3e-3} | changes.pop("training", {}),
    }
    return Recipe.model_validate(data | changes)


def _quietly(recipe, folder, **options):
    """Train without the warning that a flow of two epochs deserves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the flow does not reproduce")
        return train(recipe, folder, quiet=True, **options)


def test_the_model_learns_the_force_of_the_density_without_noise(stiff_pair, tmp_path):
    recipe = _recipe(
        stiff_pair,
        {"epochs": 12, "batch_size": 192, "learning_rate": 5e-3, "final_learning_rate": 1e-4},
        training={"epochs": 10},
    )
    model = CGModel.load(train(recipe, tmp_path / "t", quiet=True))
    with Dataset.open(tmp_path / "t" / "flow" / "labels.h5") as labels:
        found = labels.molecules["pair"]
        assert found.force_map == "flow"
        assert found.temperature == KELVIN
        lengths = np.linalg.norm(np.diff(found.coordinates(), axis=1)[:, 0], axis=1)
    # The flow's samples have the bond of the data, to a tenth of its width.
    assert lengths.std() == pytest.approx(WIDTH, rel=0.1)
    assert lengths.mean() == pytest.approx(CENTER, abs=0.1 * WIDTH)
    r = torch.linspace(CENTER - 1.5 * WIDTH, CENTER + 1.5 * WIDTH, 13)
    positions = torch.zeros(len(r), 2, 3)
    positions[:, 1, 2] = r
    graph = model.graph(model.card.topologies[0], len(r))._replace(positions=positions.reshape(-1, 3))
    learned = model.energy_and_forces(graph)[1].reshape(-1, 2, 3)[:, 1, 2].numpy()
    # p(r)/r² is the density of the difference vector.
    kT = thermal_energy(KELVIN)
    exact = -kT * ((r.numpy() - CENTER) / WIDTH**2 + 2 / r.numpy())
    slope = np.polyfit(r.numpy(), learned, 1)[0]
    assert slope == pytest.approx(-kT / WIDTH**2, rel=0.15)  # noise labels would have given a third
    assert np.abs(learned - exact).max() < 0.15 * np.abs(exact).max()
    provenance = model.card.provenance
    assert model.card.labels == "flow"
    assert model.card.noise_std == 0.0
    assert provenance["flow"]["labels"]["pair"] == {"labelled": 8000, "dropped": 0}
    assert provenance["flow"]["flow_sha256"] == file_hash(tmp_path / "t" / "flow" / "flow.safetensors")
    assert provenance["flow"]["bonds"]["pair"][0]["reproduced"]
    assert provenance["train_frames"]["pair"]["count"] == 6400


def test_a_flow_that_was_hardly_trained_is_warned_of(stiff_pair, tmp_path):
    with pytest.warns(
        UserWarning, match=r"does not reproduce all bonds of molecule 'pair': 0–1 \(A–A: .*kernel.epochs"
    ):
        train(_recipe(stiff_pair, training={"fraction": 0.05}), tmp_path / "t", quiet=True)


def test_a_killed_labelling_goes_on_and_the_same_call_again_does_nothing(stiff_pair, tmp_path, monkeypatch):
    recipe = _recipe(stiff_pair, training={"fraction": 0.05})
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
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    resumed = _quietly(recipe, tmp_path / "parts")
    assert flow.stat().st_mtime_ns == written
    one, two = (CGModel.load(path).state_dict() for path in (whole, resumed))
    assert all(torch.equal(one[key], two[key]) for key in one)
    before = resumed.stat().st_mtime_ns
    assert _quietly(recipe, tmp_path / "parts").stat().st_mtime_ns == before
    # Another kernel is another training; discarded only when asked to.
    other = _recipe(stiff_pair, {"features": 8}, training={"fraction": 0.05})
    with pytest.raises(InputError, match="another recipe or dataset"):
        _quietly(other, tmp_path / "parts")
    _quietly(other, tmp_path / "parts", overwrite=True)
    assert flow.stat().st_mtime_ns > written


def test_several_seeds_share_one_flow_and_its_labels(stiff_pair, tmp_path):
    _quietly(_recipe(stiff_pair, training={"fraction": 0.02, "seeds": [1, 2], "epochs": 1}), tmp_path / "t")
    names = {path.name for path in (tmp_path / "t").iterdir()}
    assert {"flow", "seed_1", "seed_2", "model.safetensors", "trainings.md"} <= names
    assert not (tmp_path / "t" / "seed_1" / "flow").exists()


def test_frames_that_failed_are_counted_in_a_warning(stiff_pair, tmp_path, monkeypatch):
    original = label_set.label_batch

    def half(*args, **kwargs):
        found = original(*args, **kwargs)
        keep = np.arange(len(found.kept)) % 2 == 0
        return found._replace(kept=keep, **{k: getattr(found, k)[keep] for k in found._fields[1:]})

    monkeypatch.setattr(label_set, "label_batch", half)
    with pytest.warns(
        UserWarning, match=r"\d+ of \d+ frames of molecule 'pair' could not be labelled and were dropped"
    ):
        model = CGModel.load(_quietly(_recipe(stiff_pair, training={"fraction": 0.02}), tmp_path / "t"))
    counts = model.card.provenance["flow"]["labels"]["pair"]
    assert counts["dropped"] == counts["labelled"]


def test_a_label_set_is_told_of_and_is_a_dataset_to_train_on(stiff_pair, tmp_path, capsys):
    _quietly(_recipe(stiff_pair, training={"fraction": 0.02}), tmp_path / "t")
    described = describe(tmp_path / "t")
    assert (
        described["flow"] == describe(tmp_path / "t" / "flow") == describe(tmp_path / "t" / "flow" / "flow.safetensors")
    )
    assert described["flow"]["finished"]
    assert described["flow"]["labelled"]
    show_info(described)
    shown = capsys.readouterr().out
    assert "flow cnf, finished: 2 of 2 epochs" in shown
    assert "pair: 0 of 1 bonds reproduced" in shown
    shutil.copy(tmp_path / "t" / "flow" / "labels.h5", tmp_path / "labels.h5")
    recipe = _recipe(tmp_path / "labels.h5", training={"epochs": 1})
    recipe = recipe.model_copy(update={"labels": "atomistic", "kernel": None})
    assert CGModel.load(train(recipe, tmp_path / "again", quiet=True)).card.labels == "atomistic"


def test_noise_in_the_wrong_unit_is_warned_of(stiff_pair, tmp_path):
    kernel = {"noise_std": 0.0005, "epochs": 1}
    recipe = _recipe(stiff_pair, kernel, training={"fraction": 0.02, "epochs": 1})
    with pytest.warns(UserWarning, match=r"kernel.noise_std is 0.0005 Å, below 0.001 Å"):
        _quietly(recipe, tmp_path / "t")


def test_a_coupling_flow_is_trained_and_labels_by_the_same_line(stiff_pair, tmp_path):
    kernel = {"name": "coupling", "noise_std": 0.1, "coupling_layers": 2, "blocks": 1, "embedding": 8, "draws": 2}
    recipe = Recipe.model_validate(
        _recipe(stiff_pair, training={"fraction": 0.05, "epochs": 1}).model_dump()
        | {"kernel": kernel | {"epochs": 3, "learning_rate": 3e-3}}
    )
    model = CGModel.load(_quietly(recipe, tmp_path / "t"))
    found = model.card.provenance["flow"]
    assert found["labels"]["pair"]["labelled"] > 1000
    assert found["labels"]["pair"]["dropped"] == 0
    kernel = FlowKernel.load(tmp_path / "t" / "flow" / "flow.safetensors")
    assert isinstance(kernel.flow, CouplingFlow)
    assert kernel.flow.start.modes.bond_stds == pytest.approx([WIDTH], rel=0.05)
    assert all(row["reproduced"] for row in kernel.provenance["bonds"]["pair"])
    with Dataset.open(tmp_path / "t" / "flow" / "labels.h5") as labels:
        x, f = (
            part.astype(float) for part in (labels.molecules["pair"].coordinates(), labels.molecules["pair"].forces())
        )
        times = np.unique(labels.molecules["pair"].source_frames(), return_counts=True)[1]
    assert (times == 2).sum() == round(0.05 * 0.8 * 8_000)  # training frames twice, others once
    assert (times == 1).sum() == len(times) - (times == 2).sum()
    virial = -(x * f).sum((1, 2)) / (3 * thermal_energy(KELVIN))
    assert virial.mean() == pytest.approx(1.0, abs=4 * virial.std() / len(virial) ** 0.5)
    assert f.mean(1) == pytest.approx(0, abs=1e-4)


def test_frames_without_weight_do_not_count_for_the_bonds_that_a_coupling_flow_begins_with(tmp_path):
    rng = np.random.default_rng(0)
    weighted = rng.random(600) < 0.5
    r = np.where(weighted, CENTER + WIDTH * rng.standard_normal(600), 6.0)
    x = np.zeros((600, 2, 3))
    x[:, 1, 0] = r
    options = {"temperature": KELVIN, "resolution": ("A", "B"), "weighted": True}
    with (
        create_dataset(tmp_path / "d.h5") as dataset,
        dataset.molecule("pair", two_bead_topology(), **options) as molecule,
    ):
        molecule.append(x, weights=weighted.astype(float))
    kernel = {"name": "coupling", "coupling_layers": 1, "blocks": 1, "embedding": 4, "epochs": 1}
    recipe = Recipe.model_validate(_recipe(tmp_path / "d.h5", training={"epochs": 1}).model_dump() | {"kernel": kernel})
    _quietly(recipe, tmp_path / "t")
    modes = FlowKernel.load(tmp_path / "t" / "flow" / "flow.safetensors").flow.start.modes
    assert modes.bond_means == pytest.approx([CENTER], abs=0.02)
    assert modes.bond_stds == pytest.approx([WIDTH], rel=0.1)


def test_frames_are_rotated_uniformly():
    turns = rotations(torch.randn(20_000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    identity = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(turns @ turns.transpose(1, 2), identity.expand(20_000, 3, 3))
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(20_000).double())
    moments = torch.einsum("bij,bkl->ijkl", turns, turns) / len(turns)
    exact = torch.einsum("ik,jl->ijkl", identity, identity) / 3
    torch.testing.assert_close(moments, exact, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "cnff"}, "kernel.name cannot be 'cnff'"),
        ({"kernel": {"name": "coupling", "noise_std": 0}}, "above 0: its samples begin with that noise"),
        ({"kernel": {"noise_std": -0.05}}, "kernel.noise_std cannot be -0.05"),
        ({"kernel": {"noise_std": 5.0}}, "noise_std cannot be 5.0: it is a standard deviation in Å, of at most 1 Å"),
        ({"kernel": {"prior_std": 0}}, "kernel.prior_std cannot be 0"),
        ({"kernel": {"nois_std": 0.05}}, "did you mean 'noise_std'"),
        ({"kernel": {"name": "coupling", "nodes": 3}}, "has 'nodes', which is a key of the kernel 'cnf'"),
        ({"kernel": {"start": "noise"}}, "has 'start', which is a key of the kernel 'coupling' and not of 'cnf'"),
        (
            {"kernel": {"name": "coupling", "start": "harmonic", "distinct_beads": False}},
            "needs 'distinct_beads' with 'start: harmonic'",
        ),
        ({"kernel": {"blocks": 2}}, "has 'blocks', which is a key of the kernel 'coupling' and not of 'cnf'"),
        ({"noise_std": 0.05}, r"give kernel.prior_std \(of coupling flows kernel.noise_std\)"),
        ({"labels": "noise", "noise_std": 0.05}, "labels 'noise' use no kernel"),
    ],
)
def test_wrong_kernels_are_named(change, message):
    from ase_cg.settings import validated

    data = {"name": "x", "data": {"dataset": "d.h5"}, "labels": "flow", "kernel": "cnf"} | change
    with pytest.raises(InputError, match=message):
        validated(Recipe, data, "recipe r.yaml")


def test_the_kernel_of_flow_labels_has_a_default():
    recipe = Recipe.model_validate({"name": "x", "data": {"dataset": "d.h5"}, "labels": "flow"})
    assert recipe.flow_kernel.name == "cnf"
    whole = Recipe.model_validate({"name": "x", "data": {"dataset": "d.h5"}, "labels": "flow", "kernel": "coupling"})
    assert Recipe.model_validate(whole.model_dump()) == whole
    assert recipe.flow_kernel.conditioning_std == 0.0
    assert recipe.flow_kernel.start_std == 0.07
    assert whole.flow_kernel.conditioning_std == 0.05
    assert whole.flow_kernel.harmonic_start
    assert [whole.flow_kernel.labels_of_each(n) for n in (90, 9_000, 100_000)] == [10, 3, 1]
    assert [recipe.flow_kernel.labels_of_each(n) for n in (90, 1_500, 9_000)] == [10, 6, 1]
    assert Recipe.model_validate({"name": "x", "data": {"dataset": "d.h5"}}).flow_kernel is None
