"""Kernels as files, labels of frames, label sets: resumable, failed frames dropped, wrong input refused."""

import json

import numpy as np
import pytest
import torch

from ase_cg.data.dataset import Dataset
from ase_cg.errors import InputError
from ase_cg.flows import label_set
from ase_cg.flows.check import check_bonds, describe_failures
from ase_cg.flows.cnf import ContinuousFlow
from ase_cg.flows.egnn import EGNN
from ase_cg.flows.field import VectorField, drawn_by
from ase_cg.flows.kernel import FlowKernel, bead_types
from ase_cg.flows.label_set import LabelSet, Share
from ase_cg.flows.labelling import label_batch
from ase_cg.labels.frame_noise import FrameNoise
from ase_cg.units import thermal_energy

KT = thermal_energy(300.0)
CPU = torch.device("cpu")
WIDTHS = {"noise_std": 0.05, "prior_std": 0.05}


@pytest.fixture
def kernel(ala2) -> FlowKernel:
    types, n_types = bead_types({"ala2": ala2}, distinct=True)
    torch.manual_seed(1)
    field = EGNN(n_types, features=8, n_layers=2)
    for layer in field.layers:
        torch.nn.init.normal_(layer.coordinate[2].weight, std=0.02)
    flow = ContinuousFlow(field.requires_grad_(requires_grad=False), **WIDTHS, nodes=2)
    return FlowKernel(flow, types, temperature=300.0, provenance={"metrics": {"test_loss": 0.5}})


@pytest.fixture
def kernel_file(kernel, tmp_path):
    kernel.save(tmp_path / "flow.safetensors")
    return tmp_path / "flow.safetensors"


class Explosive(VectorField):
    """Takes noise away, but frames whose first bead is far out have a field that is no number, or flings them away."""

    def forward(self, time, x, types):
        far = x.detach()[:, 0].norm(dim=-1)[:, None, None]
        factor = torch.ones_like(far).masked_fill(far > 30, torch.nan).masked_fill((far > 20) & (far < 30), 1e6)
        return -0.5 * factor * (x - x.mean(1, keepdim=True))


def test_a_kernel_survives_its_file(kernel, kernel_file, ala2_positions):
    loaded = FlowKernel.load(kernel_file)
    assert loaded.types == kernel.types
    assert loaded.temperature == 300.0
    assert loaded.provenance == kernel.provenance
    z = torch.from_numpy(ala2_positions).float()[None]
    one, two = (
        k.flow.sample(z, k.types_of("ala2"), drawn_by(torch.Generator().manual_seed(0))) for k in (kernel, loaded)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    with pytest.raises(InputError, match="exists already"):
        kernel.save(kernel_file)
    with pytest.raises(InputError, match="trained on ala2, and not on molecule 'cln'"):
        loaded.types_of("cln")


def test_files_that_are_no_kernels_are_refused(kernel_file, tmp_path, model):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(kernel_file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"is truncated \(.*\); if `ase-cg train` made it, delete it"):
        FlowKernel.load(cut)
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="no flow of ase-cg"):
        FlowKernel.load(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="does not exist"):
        FlowKernel.load(tmp_path / "none.safetensors")


def test_beads_are_told_apart_or_share_types_by_name(ala2):
    assert bead_types({"a": ala2, "b": ala2}, distinct=True) == ({"a": tuple(range(6)), "b": tuple(range(6, 12))}, 12)
    shared, count = bead_types({"a": ala2, "b": ala2}, distinct=False)
    assert shared["a"] == shared["b"]
    assert count == 6


def test_labels_are_thermal_energy_times_the_score_and_belong_to_frames(kernel, dataset_file):
    with Dataset.open(dataset_file) as dataset:
        x = torch.from_numpy(dataset.molecules["ala2"].coordinates(slice(0, 8)))
    types, numbers = kernel.types_of("ala2"), torch.arange(8)
    whole = label_batch(kernel.flow, types, x, (1,), numbers, kT=KT)
    assert whole.kept.all()
    noise = FrameNoise((1,), numbers)
    z = kernel.flow.add_noise(x, noise.normal)
    again = kernel.flow.log_prob(torch.from_numpy(whole.coordinates), z, types)
    assert whole.log_prob == pytest.approx(again.log_prob.numpy(), abs=0.02)
    assert whole.forces == pytest.approx((KT * again.score).numpy(), abs=0.01)
    assert np.abs(whole.forces).max() > 0.5
    # In whatever batch, and wherever the molecule is.
    part = label_batch(kernel.flow, types, x[3:5] + 7.0, (1,), numbers[3:5], kT=KT)
    assert part.coordinates == pytest.approx(whole.coordinates[3:5], abs=1e-4)
    assert part.forces == pytest.approx(whole.forces[3:5], abs=0.02)
    assert whole.coordinates.mean(1) == pytest.approx(0, abs=1e-5)


def test_a_frame_has_as_many_labels_as_it_comes_times_each_drawn_anew(kernel_file, dataset_file, tmp_path, monkeypatch):
    monkeypatch.setattr(label_set, "PART_FRAMES", 10)
    once = np.arange(10, 40, 2)

    def labelled(name, frames):
        labels = LabelSet(kernel_file, dataset_file, {"ala2": frames}, tmp_path / name, seed=3)
        labels.prepare()
        labels.make(CPU, quiet=True)
        labels.gather()
        with Dataset.open(tmp_path / name) as found:
            molecule = found.molecules["ala2"]
            assert (molecule.source_frames() == frames).all()
            return molecule.coordinates(), molecule.forces()

    single, thrice = labelled("single.h5", once), labelled("thrice.h5", np.repeat(once, 3))
    for one, three in zip(single, thrice, strict=True):
        assert three[::3] == pytest.approx(one, abs=1e-2)  # the first label is that of a frame that comes once
        assert np.abs(three[1::3] - three[::3]).max((1, 2)).min() > 0.01
        assert np.abs(three[2::3] - three[1::3]).max((1, 2)).min() > 0.01


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_failed_integrations_are_dropped_and_never_zeros(solver):
    flow = ContinuousFlow(Explosive(), **WIDTHS, solver=solver, tolerance=1e-4)
    x = torch.zeros(5, 3, 3).double()
    x[:, 0, 0], x[:, 1, 0] = torch.tensor([1.0, 50.0, 2.0, 35.0, 3.0]), -1.0
    found = label_batch(flow, torch.zeros(3, dtype=torch.long), x, (0,), torch.arange(5), kT=KT)
    assert found.kept.tolist() == [True, False, True, False, True]
    assert found.coordinates.shape == found.forces.shape == (3, 3, 3)
    assert (np.abs(found.forces).max((1, 2)) > 0.01).all()
    assert np.isfinite(found.log_prob).all()


def test_a_label_set_is_a_dataset_and_goes_on_where_it_was_killed(kernel_file, dataset_file, tmp_path, monkeypatch):
    monkeypatch.setattr(label_set, "PART_FRAMES", 20)
    frames = {"ala2": np.arange(10, 200, 2)}

    def made(name):
        return LabelSet(kernel_file, dataset_file, frames, tmp_path / name, seed=3)

    def finish(labels):
        labels.make(CPU, quiet=True)
        return labels.gather()

    whole = made("whole.h5")
    whole.prepare()
    report = finish(whole)
    assert report["ala2"]["labelled"] == 95
    assert report["ala2"]["dropped"] == 0
    with Dataset.open(tmp_path / "whole.h5") as found:
        molecule = found.molecules["ala2"]
        assert molecule.trajectory_lengths == (55, 40)
        assert (molecule.source_frames() == frames["ala2"]).all()
        expected = molecule.coordinates(), molecule.forces()
    assert not (tmp_path / "whole-parts").exists()

    calls = []

    def killed(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return label_batch(*args, **kwargs)

    parts = made("parts.h5")
    parts.prepare()
    with monkeypatch.context() as patch:
        patch.setattr(label_set, "label_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            parts.make(CPU, quiet=True)
    assert not (tmp_path / "parts.h5").exists()
    assert len(list((tmp_path / "parts-parts").glob("*.safetensors"))) == 2
    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(label_set, "label_batch", lambda *a, **k: calls.append(a) or label_batch(*a, **k))
        again = made("parts.h5")
        again.prepare()
        finish(again)
    assert len(calls) == 3
    with Dataset.open(tmp_path / "parts.h5") as found:
        molecule = found.molecules["ala2"]
        assert (molecule.coordinates() == expected[0]).all()
        assert (molecule.forces() == expected[1]).all()
    assert made("parts.h5").finished


def test_several_processes_share_the_parts(kernel_file, dataset_file, tmp_path, monkeypatch):
    monkeypatch.setattr(label_set, "PART_FRAMES", 30)
    labels = LabelSet(kernel_file, dataset_file, {"ala2": np.arange(100)}, tmp_path / "l.h5", seed=0)
    labels.prepare()
    labels.make(CPU, share=Share(0, 2), quiet=True)
    assert len(list((tmp_path / "l-parts").glob("*.safetensors"))) == 2
    with pytest.raises(InputError, match="missing or damaged"):
        labels.gather()
    assert not (tmp_path / "l.h5").exists()
    labels.make(CPU, share=Share(1, 2), quiet=True)
    assert labels.gather()["ala2"]["labelled"] == 100


def test_labels_of_something_else_are_kept_and_named(kernel_file, dataset_file, tmp_path):
    def labels(seed, frames=20):
        return LabelSet(kernel_file, dataset_file, {"ala2": np.arange(frames)}, tmp_path / "l.h5", seed=seed)

    labels(0).prepare()
    with pytest.raises(InputError, match="parts of other labels; delete it, and the same command"):
        labels(1).prepare()
    labels(0).make(CPU, quiet=True)
    labels(0).gather()
    assert labels(0).finished
    with pytest.raises(InputError, match="labels of another flow, dataset or choice of frames"):
        _ = labels(0, 19).finished
    whole = (tmp_path / "l.h5").read_bytes()
    (tmp_path / "l.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"truncated.*; delete it, and give the same command again"):
        _ = labels(0).finished


def test_a_flow_of_another_temperature_or_molecule_is_refused(kernel, dataset_file, tmp_path):
    kernel.temperature = 350.0
    kernel.save(tmp_path / "hot.safetensors")
    frames = {"ala2": np.arange(10)}
    with pytest.raises(InputError, match="trained at 350 K, and molecule 'ala2' has 300 K"):
        LabelSet(tmp_path / "hot.safetensors", dataset_file, frames, tmp_path / "l.h5", seed=0)
    kernel.types = {"other": (0,) * 6}
    kernel.save(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not on molecule 'ala2'"):
        LabelSet(tmp_path / "other.safetensors", dataset_file, frames, tmp_path / "l.h5", seed=0)


def test_where_nothing_can_be_labelled_nothing_is_written(kernel, dataset_file, tmp_path, monkeypatch):
    kernel.flow.field.embedding.weight.fill_(torch.nan)
    kernel.save(tmp_path / "nan.safetensors")
    labels = LabelSet(tmp_path / "nan.safetensors", dataset_file, {"ala2": np.arange(40)}, tmp_path / "l.h5", seed=0)
    labels.prepare()
    labels.make(CPU, quiet=True)
    with pytest.raises(InputError, match="none of 40 frames could be labelled"):
        labels.gather()
    assert not (tmp_path / "l.h5").exists()


def test_bonds_that_a_flow_does_not_reproduce_are_named(published, reference):
    """The published flow mends the noise of its data; a field that is zero does not."""
    from ase_cg.beads.topology import BeadTopology

    names = ("TYR", "TYR", "ASP", "PRO", "GLU", "THR", "GLY", "THR", "TRP", "TYR")
    bonds = tuple((i, i + 1) for i in range(9))
    topology = BeadTopology(names, names, tuple(range(1, 11)), (0,) * 10, (12.0,) * 10, bonds)
    rng = np.random.default_rng(0)
    frames = np.repeat(reference["data"].numpy(), 25, axis=0).astype(np.float32)
    frames = frames @ np.linalg.qr(rng.standard_normal((3, 3)))[0].astype(np.float32)
    idle = EGNN(10, features=4, n_layers=1).double().requires_grad_(requires_grad=False)
    torch.nn.init.zeros_(idle.layers[0].coordinate[2].weight)
    found = {}
    for name, field in (("published", published), ("idle", idle)):
        flow = ContinuousFlow(field, **WIDTHS)
        found[name] = check_bonds(flow, torch.arange(10), frames, topology, drawn_by(torch.Generator().manual_seed(0)))
    distances = {name: np.mean([check.wasserstein for check in checks]) for name, checks in found.items()}
    assert distances["published"] < 0.6 * distances["idle"]
    noised = [check.noise for check in found["idle"]]
    assert (np.array([check.wasserstein for check in found["idle"]]) > noised).all()  # σ_p comes on top
    message = describe_failures(found["idle"], topology)
    assert "2–3 (ASP–PRO: " in message
    assert "and 4 more" in message
    assert json.dumps([check._asdict() for check in found["idle"]])


def test_a_bond_that_does_not_fluctuate_is_named_like_others():
    from ase_cg.beads.topology import BeadTopology
    from ase_cg.flows.check import BondCheck

    topology = BeadTopology(("A", "B"), ("A", "B"), (1, 2), (0, 0), (12.0, 12.0), ((0, 1),))
    check = BondCheck((0, 1), wasserstein=0.05, floor=0.0, std=0.0, noise=0.04)
    assert not check.reproduced
    assert "0–1 (A–B: 0.05 Å" in describe_failures([check], topology)
