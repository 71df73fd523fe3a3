"""Sums over neighbours in C++ are those of PyTorch's operations."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ase_cg.inference import cache, native, packages
from ase_cg.inference.convolution import Convolution, Product
from ase_cg.inference.dense import DenseModel
from ase_cg.inference.export import has_compiler
from ase_cg.inference.tabulate import RadialTable
from tests.inference.conftest import chain_model

CASES = [
    ("schnet", {}),
    ("schnet", {"n_interactions": 1}),
    ("schnet", {"n_interactions": 4, "n_filters": 13}),
    ("painn", {"n_interactions": 3}),
    ("mace", {}),
    ("mace", {"max_ell": 3, "correlation": 3, "hidden_irreps": "4x0e + 4x1o + 4x2e"}),
]


@pytest.fixture(autouse=True)
def library(own_cache):
    if not has_compiler():
        pytest.skip("no C++ compiler")
    assert native.load(quiet=True)
    assert native.load(quiet=False)  # known already


@pytest.mark.parametrize(("name", "hyper"), CASES)
def test_native_sums_are_the_dense_ones(name, hyper):
    """Energies, and forces through two or more layers, with beads within the cutoff and beyond."""
    model, frames = chain_model(name, 18, hyper)
    x = torch.tensor(frames[:3])
    energy, forces = DenseModel(model, model.only_topology(), 3, torch.float64, 64).energy_and_forces(x)
    made = DenseModel(model, model.only_topology(), 3, torch.float64, 64, native=True)
    found, native_forces = made.energy_and_forces(x)
    assert torch.allclose(found, energy, rtol=0, atol=1e-10)
    assert float((native_forces - forces).norm() / forces.norm()) < 1e-11
    # A finite difference along a random direction.
    direction = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    up, down = (made.energy_and_forces(x + sign * 1e-5 * direction)[0] for sign in (1, -1))
    assert torch.allclose((up - down) / 2e-5, -(native_forces * direction).sum((1, 2)), rtol=1e-6, atol=1e-8)


def test_simple_sums_alone_go_with_tables_by_type():
    """The first layer of SchNet has a table for each type, and is not native; the others are."""
    model, frames = chain_model("schnet", 10, {"n_interactions": 3})
    x = torch.tensor(frames[:3])
    forces = DenseModel(model, model.only_topology(), 3, torch.float64, 64).energy_and_forces(x)[1]
    mixed = DenseModel(model, model.only_topology(), 3, torch.float64, 64, native=True, simple_only=True)
    sums = [module for module in mixed.modules() if isinstance(module, Convolution)]
    assert [module.native for module in sums] == [False, True, True]
    found = mixed.energy_and_forces(x)[1]
    assert float((found - forces).norm() / forces.norm()) < 1e-11


def test_a_replica_does_not_depend_on_the_others_and_nan_stays_where_it_is():
    model, frames = chain_model("painn", 12)
    made = DenseModel(model, model.only_topology(), 3, torch.float32, 64, native=True)
    x = torch.tensor(frames[:3])
    energy, forces = made.energy_and_forces(x)
    other = x.clone()
    other[1] = torch.nan
    other[2] = torch.tensor(frames[9])
    found, others = made.energy_and_forces(other)
    assert torch.equal(others[0], forces[0])
    assert found[0] == energy[0]
    assert bool(torch.isnan(found[1]))
    one = DenseModel(model, model.only_topology(), 1, torch.float32, 64, native=True)
    # What surrounds the sums, products of matrices, rounds otherwise for other sizes.
    assert torch.allclose(one.energy_and_forces(x[:1])[1][0], forces[0], rtol=0, atol=1e-4)


def test_beads_apart_feel_nothing_and_beads_on_one_spot_stay_finite():
    model, frames = chain_model("schnet", 12, priors=())
    made = DenseModel(model, model.only_topology(), 1, torch.float64, 64, native=True)
    apart = torch.tensor(100.0 * np.arange(36.0).reshape(1, 12, 3))
    assert float(made.energy_and_forces(apart)[1].abs().max()) == 0.0
    x = torch.tensor(frames[:1])
    x[0, 5] = x[0, 0]
    assert bool(torch.isfinite(made.energy_and_forces(x)[1]).all())


ONE = (Product(0, 0, None, 0),)
SEVERAL = (
    Product(0, 0, None, 0),
    Product(1, 1, 0, 1, 0.5, odd=True),
    Product(1, 0, 1, 0, -2.0),
    Product(2, 2, 0, 1, odd=True),
)
SECOND = (Product(0, 1, None, 0),)  # of two filters


def table_of(n_functions: int, channels: int, dtype: torch.dtype) -> RadialTable:
    weights = torch.linspace(-1, 1.3, channels).double()
    functions = [
        lambda d, p=p: ((1 - d / 6.0).clamp_min(0) ** 4 * torch.cos((p + 1) * d))[:, None] * weights
        for p in range(n_functions)
    ]
    return RadialTable(functions, 6.0, 16).to(dtype)


def both_directions(values: torch.Tensor, sign: float = 1.0) -> torch.Tensor:
    """Derivatives by what a pair and its opposite share, at (i, j) with j < i."""
    return (values + sign * values.transpose(-1, -2)).tril(-1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("products", [ONE, SEVERAL, SECOND])
@pytest.mark.parametrize("n_beads", [1, 2, 7])
def test_a_native_sum_of_any_shape_and_stride(dtype, products, n_beads):
    """Features that all beads or replicas share, odd numbers of channels, channels apart, distances at the cutoff."""
    torch.manual_seed(0)
    distance = 8 * torch.rand(2, n_beads, n_beads).to(dtype)
    if n_beads > 5:
        cutoff = torch.tensor(6.0, dtype=dtype)
        distance[:, 4, :4] = torch.stack([cutoff, *(torch.nextafter(cutoff, to * cutoff) for to in (0, 2)), 0 * cutoff])
        distance[:, 5, :2] = torch.tensor([torch.inf, 1e8])
    distance = distance.tril(-1) + distance.tril(-1).transpose(1, 2) + 1e4 * torch.eye(n_beads, dtype=dtype)
    angular = torch.randn(2, 2, n_beads, n_beads).to(dtype).tril(-1)
    angular = angular + torch.tensor([-1, 1]).to(dtype)[:, None, None, None] * angular.transpose(2, 3)
    n_functions = 1 + max(product.filter for product in products)
    tolerance = 1e-11 if dtype == torch.float64 else 2e-4
    for channels, replicas, beads, apart in ((1, 2, 1, 0), (3, 2, 0, 1), (13, 1, 1, 1), (16, 1, 0, 0)):
        convolution = Convolution(table_of(n_functions, channels, dtype), products)
        shape = (2, replicas, n_beads if beads else 1, channels)
        features = torch.randn(*shape[:2], *shape[:1:-1]).to(dtype).transpose(2, 3)
        features = features if apart else features.contiguous()
        found = []
        for native_one in (False, True):
            convolution.native = native_one
            given = [distance, angular, features[: 1 + (products is SEVERAL)]]
            inputs = [tensor.detach().requires_grad_() for tensor in given]
            whole = inputs[2] if native_one else inputs[2].expand(-1, 2, n_beads, -1)
            result = convolution(*inputs[:2], whole)
            weights = torch.linspace(-1, 1, result.numel()).to(dtype).reshape(result.shape)
            by_distance, by_angle, by_features = torch.autograd.grad((result * weights).sum(), inputs)
            by_angles = [both_directions(by_angle[0], -1.0), both_directions(by_angle[1])]
            found.append([result.detach(), both_directions(by_distance), *by_angles, by_features])
        for expected, ours in zip(*found, strict=True):
            assert ours.shape == expected.shape
            assert torch.allclose(ours, expected, rtol=0, atol=tolerance * (1 + float(expected.abs().max())))


def test_what_does_not_fit_is_refused_not_read_beyond_its_end():
    distance, good = torch.ones(1, 3, 3).double(), torch.ones(1, 1, 3, 2).double()
    for products, features in (
        (ONE, torch.ones(1, 1, 4, 2).double()),
        (ONE, torch.ones(1, 1, 3, 1).double()),
        (ONE, good.float()),
        (ONE, torch.ones(0, 1, 3, 2).double()),
        (SECOND, good),
        ((Product(0, 0, 0, 0),), good),  # without angular parts
    ):
        convolution = Convolution(table_of(1, 2, torch.float64), products)
        convolution.native = True
        with pytest.raises(RuntimeError, match=r"do not fit|names what is not there|expected scalar type"):
            convolution(distance, None, features)


def test_a_library_that_cannot_be_loaded_is_made_again(tmp_path, monkeypatch):
    """As one that was compiled on another system with the same home folder, or one that was damaged."""
    monkeypatch.setenv("ASE_CG_CACHE", str(tmp_path / "cache"))
    made, loaded = [], []

    def compile_to(path):
        made.append(path)
        path.write_text("library" if len(made) > 1 else "foreign")

    def load_library(path):
        if Path(path).read_text() != "library":
            raise OSError("version GLIBC_9 not found")
        loaded.append(path)

    monkeypatch.setattr(native, "_compile", compile_to)
    monkeypatch.setattr(native, "_describe", lambda: None)
    monkeypatch.setattr(native, "_known", lambda: False)
    monkeypatch.setattr(torch.ops, "load_library", load_library)
    fresh = native.load.__wrapped__
    assert fresh(quiet=True)
    assert len(made) == 2
    assert fresh(quiet=True)
    assert len(made) == 2
    Path(loaded[0]).write_bytes(b"lib")  # never given to the system, which may end the process for it
    assert fresh(quiet=True)
    assert len(made) == len(loaded) == 3


def test_larger_molecules_take_the_native_form(monkeypatch):
    """Compiled into the graph, it is found again in the cache."""
    model, frames = chain_model("schnet", 26)
    made = model.compile(replicas=2, quiet=True)
    assert made._key["native"]
    assert made.force_error < 2e-6
    monkeypatch.setattr(packages, "write_package", pytest.fail)
    again = model.compile(replicas=2, quiet=True)
    x = torch.tensor(frames[:2])
    for found, expected in zip(again.energy_and_forces(x), made.energy_and_forces(x), strict=True):
        assert torch.equal(found, expected)


def test_without_a_working_compiler_it_says_so_once_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("ASE_CG_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "FLAGS", ("--no-such-option",))
    monkeypatch.setattr(native, "_known", lambda: False)
    fresh = native.load.__wrapped__
    with pytest.warns(UserWarning, match=r"slower than they could be: .* cannot compile convolution.cpp: .*no-such"):
        assert not fresh(quiet=True)
    assert cache.cached_size() == (0, 0)


def test_a_library_that_others_could_write_is_not_kept_so(tmp_path, monkeypatch):
    """Whatever the umask, code in the cache is the user's own."""
    monkeypatch.setenv("ASE_CG_CACHE", str(tmp_path / "cache"))
    before = os.umask(0o002)
    try:
        place = cache.entry("0123456789abcdef" * 2, ".so")
        cache.make_folder(place.package.parent)
        place.package.write_bytes(b"x")
        place.write({})
    finally:
        os.umask(before)
    assert place.package.stat().st_mode & 0o777 == 0o600
    assert place.read() == {}
    assert cache.cached_size() == (1, 1)
    assert cache.clear() == (1, 1)
    assert not place.package.exists()
