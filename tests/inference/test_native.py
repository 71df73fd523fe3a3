"""Sums over neighbours in C++ are those of PyTorch's operations."""

import os

import numpy as np
import pytest
import torch

from ase_cg.inference import cache, compiled, native
from ase_cg.inference.dense import DenseModel
from ase_cg.inference.export import has_compiler
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


def test_larger_molecules_take_the_native_form(monkeypatch):
    """Compiled into the graph, it is found again in the cache."""
    model, frames = chain_model("schnet", 26)
    made = model.compile(replicas=2, quiet=True)
    assert made._key["native"]
    assert made.force_error < 2e-6
    monkeypatch.setattr(compiled, "write_package", pytest.fail)
    again = model.compile(replicas=2, quiet=True)
    x = torch.tensor(frames[:2])
    for found, expected in zip(again.energy_and_forces(x), made.energy_and_forces(x), strict=True):
        assert torch.equal(found, expected)


def test_without_a_working_compiler_it_says_so_once_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("ASE_CG_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "FLAGS", ("--no-such-option",))
    fresh = native.load.__wrapped__
    with pytest.warns(UserWarning, match=r"slower than they could be: .* cannot compile convolution.cpp: .*no-such"):
        assert not fresh(quiet=True)
    assert cache.cached_size() == (0, 0)


def test_a_library_that_others_could_write_is_not_kept_so(tmp_path, monkeypatch):
    """Whatever the umask, code in the cache is the user's own."""
    monkeypatch.setenv("ASE_CG_CACHE", str(tmp_path / "cache"))
    before = os.umask(0o002)
    try:
        place = cache.entry("key", ".so")
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
