"""The EGNN vector field: published values, symmetries, divergence."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ase_cg.errors import InputError
from ase_cg.flows.egnn import EGNN
from ase_cg.flows.field import VectorField, drawn_by, normal_probes
from ase_cg.flows.published import read_published_egnn

TYPES = torch.tensor([0, 1, 2, 1, 3])
TIME = torch.tensor(0.3, dtype=torch.float64)


def _jacobian(field, x):
    """Of each frame, (B, 3N, 3N)."""
    found = [torch.func.jacrev(lambda at: field(TIME, at[None], TYPES)[0])(frame) for frame in x]
    return torch.stack([part.reshape(frame.numel(), frame.numel()) for part, frame in zip(found, x, strict=True)])


def test_published_weights_give_the_published_field_and_divergence(published, reference):
    beads = torch.arange(10)
    for time, field, divergence in zip(reference["v_times"], reference["v"], reference["div"], strict=True):
        v, div = published.with_divergence(time, reference["z0"], beads)
        torch.testing.assert_close(v, field, rtol=0, atol=1e-10)
        torch.testing.assert_close(div, divergence, rtol=0, atol=1e-10)
        torch.testing.assert_close(published(time, reference["z0"], beads), field, rtol=0, atol=1e-10)


def test_field_turns_with_the_molecule_and_knows_no_place(small_field, frames):
    turn = torch.from_numpy(Rotation.random(rng=3).as_matrix())
    there = torch.tensor([30.0, -2.0, 7.0], dtype=torch.float64)
    v = small_field(TIME, frames, TYPES)
    assert v.abs().max() > 0.1
    torch.testing.assert_close(small_field(TIME, frames @ turn.T + there, TYPES), v @ turn.T, rtol=0, atol=1e-10)
    torch.testing.assert_close(v.mean(1), torch.zeros(3, 3).double(), rtol=0, atol=1e-14)


def test_beads_are_told_apart_by_their_types_alone(small_field, frames):
    order = torch.tensor([3, 0, 4, 1, 2])
    v = small_field(TIME, frames, TYPES)
    torch.testing.assert_close(small_field(TIME, frames[:, order], TYPES[order]), v[:, order], rtol=0, atol=1e-12)
    assert (small_field(TIME, frames, TYPES.flip(0)) - v).abs().max() > 1e-3


def test_a_time_for_each_frame_is_the_same_as_frame_by_frame(small_field, frames):
    times = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    together = small_field(times, frames, TYPES)
    alone = [small_field(time, frame[None], TYPES)[0] for time, frame in zip(times, frames, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone))
    v, div = small_field.with_divergence(times, frames, TYPES)
    torch.testing.assert_close(v, together)
    torch.testing.assert_close(div[1:2], small_field.with_divergence(times[1], frames[1:2], TYPES)[1])


@pytest.mark.parametrize("n_layers", [1, 2, 3, 5])
def test_divergence_is_the_trace_of_the_jacobian_and_can_be_differentiated(n_layers, frames):
    torch.manual_seed(n_layers)
    field = EGNN(4, features=8, n_layers=n_layers, reach=3.0).double().requires_grad_(requires_grad=False)
    for layer in field.layers:
        torch.nn.init.normal_(layer.coordinate[2].weight, std=0.5)
    x = frames.clone().requires_grad_()
    v, div = field.with_divergence(TIME, x, TYPES)
    torch.testing.assert_close(v, field(TIME, x, TYPES), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(div, _jacobian(field, frames).diagonal(dim1=1, dim2=2).sum(1), rtol=1e-10, atol=1e-12)
    (gradient,) = torch.autograd.grad(div.sum(), x)
    y = frames.clone().requires_grad_()
    _, generic = VectorField.with_divergence(field, TIME, y, TYPES)
    torch.testing.assert_close(gradient, torch.autograd.grad(generic.sum(), y)[0], rtol=1e-9, atol=1e-10)
    assert gradient.abs().max() > 1e-3


def test_estimated_divergence_has_no_bias_and_the_variance_of_theory(small_field, frames):
    n_probes = 4000
    v, exact = small_field.with_divergence(TIME, frames, TYPES)
    probes = normal_probes(n_probes, frames, drawn_by(torch.Generator().manual_seed(2)))
    torch.testing.assert_close(probes.mean(2), torch.zeros(n_probes, 3, 3).double(), rtol=0, atol=1e-14)
    field, mean = small_field.with_estimated_divergence(TIME, frames, TYPES, probes)
    torch.testing.assert_close(field, v)
    jacobian = _jacobian(small_field, frames)
    symmetric = (jacobian + jacobian.transpose(1, 2)) / 2
    variance = 2 * (symmetric @ symmetric).diagonal(dim1=1, dim2=2).sum(1)
    assert ((mean - exact).abs() < 4 * (variance / n_probes).sqrt()).all()
    single = torch.einsum("kbi,bij,kbj->kb", probes.flatten(2), jacobian, probes.flatten(2))
    torch.testing.assert_close(single.mean(0), mean)
    assert np.abs(single.var(0).numpy() / variance.numpy() - 1).max() < 0.15


def test_damaged_or_foreign_weights_are_refused(tmp_path, operator_forces):
    original = operator_forces / "cln_cnf_weights.npz"
    cut = tmp_path / "cut.npz"
    cut.write_bytes(original.read_bytes()[:100_000])
    with pytest.raises(InputError, match="is damaged"):
        read_published_egnn(cut)
    with np.load(original) as archive:
        arrays = dict(archive)
    del arrays["gcl_2.att_mlp.0.weight"]
    np.savez(tmp_path / "less.npz", **arrays)
    with pytest.raises(InputError, match="does not hold the weights of a published EGNN"):
        read_published_egnn(tmp_path / "less.npz")
    np.savez(tmp_path / "pickle.npz", **{"embedding.weight": np.array([{}], dtype=object)})
    with pytest.raises(InputError, match="no archive of arrays"):
        read_published_egnn(tmp_path / "pickle.npz")
    with pytest.raises(InputError, match="does not exist"):
        read_published_egnn(tmp_path / "none.npz")


def test_a_field_needs_a_shape():
    with pytest.raises(InputError, match="at least one type"):
        EGNN(0)
