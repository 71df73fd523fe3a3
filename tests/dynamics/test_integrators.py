"""Integrators: exact averages of the harmonic oscillator, order of the energy error, reversibility, purity."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from ase_cg.dynamics.integrators import BAOAB, OverdampedLangevin, VelocityVerlet, make_integrator
from ase_cg.errors import InputError

K, MASS, KT = 1.7, 12.0, 0.0259
OMEGA = np.sqrt(K / MASS)


def harmonic(x):
    return 0.5 * K * (x * x).sum((1, 2)), -K * x


def column(value, n=1):
    return torch.full((n, 1, 1), float(value), dtype=torch.float64)


MASSES = torch.full((1, 1), MASS, dtype=torch.float64)


def run(integrator, n, steps, *, every=10, drop=100, seed=0):
    """Return m v²/kT, k x²/kT and k x v as means over each of n replicas, shape (3, n)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(n, 1, 3, dtype=torch.float64)
    v, f = x, x
    seen = []
    for step in range(steps):
        noise = torch.randn(n, 1, 3, generator=generator, dtype=torch.float64)
        x, v, f, _ = integrator.advance(x, v, f, noise, harmonic)
        if step >= drop and step % every == 0:
            seen.append(
                torch.stack([(MASS * v**2 / KT).mean((1, 2)), (K * x**2 / KT).mean((1, 2)), (x * v).mean((1, 2))])
            )
    return torch.stack(seen).mean(0).numpy()


def agrees(samples, exact):
    """Whether the mean of independent samples is the exact value within four of its own errors."""
    error = samples.std(ddof=1) / np.sqrt(len(samples))
    assert error < 0.01
    return abs(samples.mean() - exact) < 4 * error


@pytest.mark.parametrize("scaled_step", [0.2, 1.0, 1.6])
@pytest.mark.parametrize("damping", [0.3, 3.0])
def test_baoab_has_its_exact_discretisation_error(scaled_step, damping):
    """⟨k x²⟩/kT = 1, m⟨v²⟩/kT = 1 − (ωΔt)²/4 and ⟨x v⟩ = 0 at any stable step, whatever the friction."""
    dt, n = scaled_step / OMEGA, 4000
    kinetic, potential, mixed = run(BAOAB(dt, MASSES, column(KT, n), column(damping / dt, n)), n, 400)
    assert agrees(potential, 1.0)
    assert agrees(kinetic, 1 - scaled_step**2 / 4)
    assert agrees(mixed, 0.0)


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8])
def test_overdamped_dynamics_are_exact_in_positions_of_a_harmonic_well(share):
    """At any stable step; Euler's scheme would give ⟨k x²⟩/kT = 1/(1 − Δt k/(2mγ)): 1.67 at the largest."""
    n, friction = 4000, 0.2
    dt = share * MASS * friction / K
    integrator = OverdampedLangevin(dt, MASSES, column(KT, n), column(friction, n))
    _, potential, mixed = run(integrator, n, 600, drop=200)
    assert agrees(potential, 1.0)
    assert agrees(mixed, 0.0)


def test_overdamped_steps_are_those_of_the_formula():
    """x + Δt F/(mγ) + √(kTΔt/(2mγ)) (ξₙ + ξₙ₊₁)."""
    friction, dt, generator = 0.2, 0.3, torch.Generator().manual_seed(1)
    integrator = OverdampedLangevin(dt, MASSES, column(KT), column(friction))
    x = torch.full((1, 1, 3), 0.4, dtype=torch.float64)
    noise = torch.randn(6, 1, 1, 3, generator=generator, dtype=torch.float64)
    expected = x
    x, v, f, _ = integrator.advance(x, x * 0, harmonic(x)[1], noise[0], harmonic)
    expected = x
    for last, new in pairwise(noise):
        random = np.sqrt(KT * dt / (2 * MASS * friction)) * (last + new)
        expected = expected + dt * harmonic(expected)[1] / (MASS * friction) + random
        x, v, f, _ = integrator.advance(x, v, f, new, harmonic)
        assert torch.allclose(x, expected, rtol=0, atol=1e-14)


def morse(x):
    r = torch.linalg.vector_norm(x[:, 1] - x[:, 0], dim=-1, keepdim=True)
    decay = torch.exp(-1.5 * (r - 2.0))
    slope = 2 * 0.8 * 1.5 * (1 - decay) * decay
    force = slope * (x[:, 1] - x[:, 0]) / r
    return 0.8 * (1 - decay)[:, 0] ** 2, torch.stack([force, -force], 1)


def test_verlet_conserves_energy_to_second_order_and_is_reversible():
    masses = torch.tensor([[12.0], [16.0]], dtype=torch.float64)
    start = torch.tensor([[[0.0, 0, 0], [2.3, 0.1, 0]]], dtype=torch.float64)
    speeds = torch.tensor([[[0.0, 0.02, 0], [0.01, 0, 0.03]]], dtype=torch.float64)
    worst = []
    for dt in (0.4, 0.2, 0.1):
        integrator = VelocityVerlet(dt, masses, column(KT))
        energy, f = morse(start)
        x, v, totals = start, speeds, []
        for _ in range(round(200 / dt)):
            x, v, f, energy = integrator.advance(x, v, f, x, morse)
            totals.append(float(energy[0] + (0.5 * masses * v**2).sum()))
        worst.append(np.ptp(totals))
        v = -v
        for _ in range(round(200 / dt)):
            x, v, f, energy = integrator.advance(x, v, f, x, morse)
        assert torch.allclose(x, start, atol=1e-9)
        assert torch.allclose(v, -speeds, atol=1e-9)
    assert worst[0] / worst[1] == pytest.approx(4, rel=0.1)
    assert worst[1] / worst[2] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("name", ["langevin", "overdamped", "verlet"])
def test_steps_are_pure_and_trace_into_one_graph(name):
    from torch.fx.experimental.proxy_tensor import make_fx

    generator = torch.Generator().manual_seed(2)
    arrays = [torch.randn(3, 1, 3, generator=generator, dtype=torch.float64) for _ in range(4)]
    copies = [array.clone() for array in arrays]
    integrator = make_integrator(name, 0.3, MASSES, column(KT, 3), column(0.1, 3))
    expected = integrator.advance(*arrays, harmonic)
    assert all(torch.equal(a, b) for a, b in zip(arrays, copies, strict=True))
    traced = make_fx(lambda *given: integrator.advance(*given, harmonic))(*arrays)
    assert all(torch.equal(a, b) for a, b in zip(traced(*arrays), expected, strict=True))


def test_integrators_are_known_by_name():
    with pytest.raises(InputError, match="did you mean 'verlet'"):
        make_integrator("verlot", 0.3, MASSES, column(KT), column(0.1))
    with pytest.raises(InputError, match="positive friction"):
        make_integrator("overdamped", 0.3, MASSES, column(KT), column(0.0))
