"""The dense, tabulated form of every network and prior is the model itself, weights carried over exactly."""

import numpy as np
import pytest
import torch

from ase_cg.inference.activation import tanh
from ase_cg.inference.convolution import Convolution, Product
from ase_cg.inference.dense import DenseModel
from ase_cg.inference.pairs import FAR, find_pairs
from ase_cg.inference.tabulate import RadialTable
from ase_cg.models.base import energy_and_forces
from ase_cg.models.model import prepared_copy
from tests.inference.conftest import PRIORS, chain_model

CASES = [
    ("schnet", {}),
    ("schnet", {"n_interactions": 1, "head": [8, 4]}),
    ("schnet", {"n_interactions": 4, "cutoff_lower": 1.0}),
    ("painn", {}),
    ("painn", {"n_interactions": 3, "trainable_basis": True}),
    ("painn", {"n_interactions": 1}),
    ("mace", {}),
    ("mace", {"max_ell": 3, "correlation": 3, "hidden_irreps": "4x0e + 4x1o + 4x2e"}),
    ("mace", {"num_interactions": 1, "correlation": 1, "max_ell": 1, "gate": "tanh", "scale": 0.5}),
    ("mace", {"num_interactions": 3, "hidden_irreps": "4x0e"}),
]


MORE_PRIORS = (
    "restricted_bending",
    "cosine_angles",
    "polynomial_angles",
    "polynomial_cosine_angles",
    "cutoff_repulsion",
    "exponential_repulsion",
)


def exact(model, positions):
    """Energies and forces of the model itself in double precision, at positions (R, N, 3)."""
    reference = prepared_copy(model, torch.device("cpu"), "float64")
    x = torch.tensor(positions)
    graph = reference.graph(model.only_topology(), len(x))._replace(positions=x.reshape(-1, 3))
    energy, forces = energy_and_forces(reference, graph)
    return energy, forces.reshape(x.shape)


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("name", "hyper"), CASES)
def test_a_dense_network_is_the_network(name, hyper):
    model, frames = chain_model(name, 7, hyper, priors=())
    energy, forces = exact(model, frames[:3])
    x = torch.tensor(frames[:3])
    errors = []
    for intervals in (64, 256):
        found, dense_forces = DenseModel(model, model.only_topology(), 3, torch.float64, intervals).energy_and_forces(x)
        errors.append(relative(dense_forces, forces))
        assert torch.allclose(found, energy, rtol=0, atol=1e-4 * float(forces.abs().max()))
    # Slopes of a quintic are exact to fifth order: four times the intervals, a thousandth of the error.
    assert errors[0] < 1e-4
    assert errors[1] < max(errors[0] / 300, 1e-10)


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("name", ["schnet", "mace"])
def test_tables_by_type_change_nothing(monkeypatch, name, folded):
    limit = 10**9 if folded else 0
    for module in ("dense_schnet", "dense_mace"):
        monkeypatch.setattr(f"ase_cg.inference.{module}.MAX_NUMBERS", limit)
    model, frames = chain_model(name, 7, priors=())
    dense = DenseModel(model, model.only_topology(), 2, torch.float64, 512)
    _, forces = dense.energy_and_forces(torch.tensor(frames[:2]))
    assert relative(forces, exact(model, frames[:2])[1]) < 1e-7


@pytest.mark.parametrize("prior", [*PRIORS, *MORE_PRIORS])
def test_a_dense_prior_is_the_prior(prior):
    model, frames = chain_model(None, 9, priors=(prior,))
    energy, forces = exact(model, frames[:4])
    found, dense_forces = DenseModel(model, model.only_topology(), 4, torch.float64, 64).energy_and_forces(
        torch.tensor(frames[:4])
    )
    assert torch.allclose(found, energy, rtol=1e-12, atol=1e-14)
    assert relative(dense_forces, forces) < 1e-12


@pytest.mark.parametrize("name", ["schnet", "painn", "mace"])
def test_single_precision_loses_no_more_than_the_model_does(name):
    model, frames = chain_model(name, 8)
    _, forces = exact(model, frames[:4])
    x = torch.tensor(frames[:4])
    single = prepared_copy(model, torch.device("cpu"), "float32")
    centred = (x - x.mean(1, keepdim=True)).float().reshape(-1, 3)
    _, eager = energy_and_forces(single, single.graph(model.only_topology(), 4)._replace(positions=centred))
    _, dense = DenseModel(model, model.only_topology(), 4, torch.float32, 256).energy_and_forces(x)
    assert relative(dense, forces) < 3 * relative(eager.double().reshape(x.shape), forces) + 1e-7


def test_far_from_the_origin_and_in_other_replicas_nothing_changes():
    model, frames = chain_model("painn", 6)
    x = torch.tensor(frames[:3])
    dense = DenseModel(model, model.only_topology(), 3, torch.float32, 128)
    _, forces = dense.energy_and_forces(x)
    _, moved = dense.energy_and_forces(x + 1e4)
    assert relative(moved, forces) < 1e-6
    other = x.clone()
    other[1:] = torch.tensor(frames[10:12])
    assert torch.equal(dense.energy_and_forces(other)[1][0], forces[0])
    other[1] = torch.nan
    assert torch.equal(dense.energy_and_forces(other)[1][0], forces[0])


def test_beads_on_one_spot_and_beyond_the_cutoff_have_finite_forces():
    for name in ("schnet", "painn", "mace"):
        model, frames = chain_model(name, 6, priors=())
        x = torch.tensor(frames[:1])
        x[0, 5] = x[0, 0]
        dense = DenseModel(model, model.only_topology(), 1, torch.float64, 128)
        assert bool(torch.isfinite(dense.energy_and_forces(x)[1]).all())
        spread = torch.tensor(100.0 * np.arange(18.0).reshape(1, 6, 3))
        assert float(dense.energy_and_forces(spread)[1].abs().max()) == 0.0


def test_a_convolution_and_its_derivatives():
    """Against the sum written out with the functions themselves, and by finite differences."""
    torch.manual_seed(0)
    functions = [lambda d: ((1 - d / 6.0).clamp_min(0) ** 4)[:, None] * torch.tensor([1.0, -2.0, 0.5]).double()]
    functions.append(lambda d: ((1 - d / 6.0).clamp_min(0) ** 3 * torch.sin(d))[:, None] * torch.ones(3).double())
    table = RadialTable(functions, 6.0, 512)
    products = (Product(0, 0, None, 0), Product(1, 1, 0, 1, 0.5), Product(1, 0, 1, 0, -2.0))
    convolution = Convolution(table, products)
    pairs = find_pairs(2 * torch.randn(3, 2, 4).double(), FAR * torch.eye(4).double())
    angular, features = torch.randn(2, 2, 4, 4).double(), torch.randn(2, 2, 4, 3).double()
    distance = pairs.distance

    def written_out(d, y, s):
        w = [f(d.reshape(-1)).reshape(2, 4, 4, 3) * (d < 6)[..., None] for f in functions]
        first = (w[0] * s[0][:, None]).sum(2)
        second = (0.5 * y[0][..., None] * w[1] * s[1][:, None] - 2.0 * y[1][..., None] * w[0] * s[0][:, None]).sum(2)
        return torch.stack([first, second])

    inputs = [t.clone().requires_grad_() for t in (distance, angular, features)]
    weights = torch.randn(2, 2, 4, 3).double()
    expected = written_out(*inputs)
    gradients = torch.autograd.grad((expected * weights).sum(), inputs)
    found = convolution(*inputs)
    found_gradients = torch.autograd.grad((found * weights).sum(), inputs)
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)
    for gradient, reference in zip(found_gradients, gradients, strict=True):
        assert torch.allclose(gradient, reference, rtol=0, atol=1e-6)


def test_a_table_is_continuous_with_its_slope_and_ends_at_the_cutoff():
    table = RadialTable([lambda d: (torch.cos(d * torch.pi / 5) + 1)[:, None]], 5.0, 16)
    knots = torch.arange(1, 16).double() * 5.0 / 16
    for step, tolerance in ((1e-9, 1e-8), (0.0, 1e-12)):
        below, above = (table.find((knots + sign * step)[None, None]) for sign in (-1, 1))
        assert torch.allclose(table.values(below, 0), table.values(above, 0), rtol=0, atol=tolerance)
        assert torch.allclose(table.slopes(below, 0), table.slopes(above, 0), rtol=0, atol=1e-7)
    beyond = table.find(torch.tensor([[[5.0, 6.0, 1e4, torch.inf]]]).double())
    assert float(table.values(beyond, 0).abs().max()) == 0.0
    assert float(table.slopes(beyond, 0).abs().max()) == 0.0
    d = torch.linspace(5 / 16, 4.99, 501).double()  # nearer to zero, functions may be 0/0 and are taken a little off
    error = table.values(table.find(d[None, None]), 0)[0, 0, :, 0] - (torch.cos(d * torch.pi / 5) + 1)
    # h⁶/46080 · max|f⁽⁶⁾|
    assert float(error.abs().max()) < 1.05 * (5 / 16) ** 6 / 46080 * (torch.pi / 5) ** 6


def test_tanh_and_its_derivative():
    x = torch.linspace(-40, 40, 4001).double().requires_grad_()
    y = tanh(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(y, torch.tanh(x), rtol=0, atol=1e-12)
    assert torch.allclose(slope, 1 - torch.tanh(x) ** 2, rtol=0, atol=1e-12)
