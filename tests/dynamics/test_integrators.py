"""Integrators: exact averages of the harmonic oscillator, order of the energy error, reversibility, purity."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from ase_cg import ReplicaSimulation
from ase_cg.dynamics.integrators import BAOAB, OverdampedLangevin, VelocityVerlet, make_integrator
from ase_cg.errors import InputError
from ase_cg.units import thermal_energy

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


def free(x):
    return x.new_zeros(len(x)), torch.zeros_like(x)


class FreeBeads:
    """A form without forces."""

    def energy_and_forces(self, positions):
        return free(positions)

    def make_step(self, integrator):
        return lambda x, v, f, noise: integrator.advance(x, v, f, noise, self.energy_and_forces)


def test_free_velocities_decay_with_the_friction_of_each_replica():
    """Without noise v(t) = v(0) exp(−γt), of every bead, however long the step; with it ⟨v²⟩ comes to kT/m."""
    frictions = torch.tensor([0.0, 0.03, 0.3, 2.0], dtype=torch.float64)[:, None, None]
    masses = torch.tensor([[12.0], [1.0]], dtype=torch.float64)
    kT = torch.tensor([KT, 2 * KT, 3 * KT, 4 * KT], dtype=torch.float64)[:, None, None]
    v0 = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for dt in (0.1, 0.5):
        integrator = make_integrator("langevin", dt, masses, kT, frictions)
        x, v, f = v0 * 0, v0, v0 * 0
        for _ in range(round(3 / dt)):
            x, v, f, _ = integrator.advance(x, v, f, torch.zeros_like(x), free)
        assert torch.allclose(v, v0 * torch.exp(-3 * frictions), rtol=1e-12)
        # Noise of one in a single component: what a step adds to it is √(1 − e^(−2γΔt)) √(kT/m).
        kicked = integrator.advance(x, v * 0, f, torch.ones_like(x), free)[1]
        added = torch.sqrt((1 - torch.exp(-2 * frictions * dt)) * kT / masses).expand(4, 2, 3)
        assert torch.allclose(kicked, added, rtol=1e-12)
    still = make_integrator("verlet", 0.5, masses, kT, frictions).advance(x, v0, f, torch.ones_like(x), free)
    assert torch.equal(still[1], v0)
    assert torch.allclose(still[0], x + 0.5 * v0, rtol=1e-14)


@pytest.mark.parametrize("name", ["langevin", "overdamped"])
def test_a_constant_force_moves_a_bead_by_the_force_over_mass_and_friction(name):
    """The drift is F t/(mγ), for a bead of any mass, and for each replica's own friction."""
    frictions = torch.tensor([0.5, 2.0], dtype=torch.float64)[:, None, None]
    masses = torch.tensor([[12.0], [3.0]], dtype=torch.float64)
    force = torch.full((2, 2, 3), 0.7, dtype=torch.float64)
    integrator = make_integrator(name, 0.01, masses, column(KT, 2), frictions)
    x, v, f = force * 0, force * 0, force
    places = []
    for _ in range(3000):
        x, v, f, _ = integrator.advance(x, v, f, torch.zeros_like(x), lambda x: (x.sum((1, 2)), force))
        places.append(x)
    drift = (places[-1] - places[-1001]) / 10.0
    assert torch.allclose(drift, force / (masses * frictions), rtol=1e-3)


@pytest.mark.parametrize("integrator", ["langevin", "overdamped", "verlet"])
def test_free_replicas_lose_memory_and_spread_as_langevin_beads_do(dimer_model, integrator):
    """Through ReplicaSimulation: ⟨v(0)·v(t)⟩ = (3kT/m) e^(−γt), and ⟨Δx²⟩ = 6kT/(mγ²) (γt − 1 + e^(−γt))."""
    n, frictions, mass = 3000, np.repeat([0.04, 0.16], 1500), 12.0
    thermal = thermal_energy(300.0)
    run = ReplicaSimulation(
        dimer_model,
        np.tile([[[0.0, 0, 0], [3.0, 0, 0]]], (n, 1, 1)),
        integrator=integrator,
        time_step=0.25,
        friction=frictions,
        seed=3,
        compiled=FreeBeads(),
    )
    x0, v0 = run.positions, run.velocities
    for time in (5.0, 20.0):
        run.step(round(time / 0.25) - run.steps_done)
        memory = (v0 * run.velocities).sum(-1).mean(1) * mass / (3 * thermal)
        spread = ((run.positions - x0) ** 2).sum(-1).mean(1)
        for friction in (0.04, 0.16):
            own = frictions == friction
            gt = friction * time
            remembered = {"langevin": np.exp(-gt), "overdamped": 0.0, "verlet": 1.0}[integrator]
            wide = {
                "langevin": 6 * thermal / (mass * friction**2) * (gt - 1 + np.exp(-gt)),
                "overdamped": 6 * thermal * time / (mass * friction),
                "verlet": 3 * thermal / mass * time**2,
            }[integrator]
            for found, exact in ((memory[own], remembered), (spread[own] / wide, 1.0)):
                error = found.std(ddof=1) / np.sqrt(own.sum())
                assert error < 0.03
                assert abs(found.mean() - exact) < 4 * error


def test_the_friction_of_a_command_is_that_of_the_dynamics(model, ala2, ala2_positions):
    """Given with its unit: after 1 fs at 1 /fs velocities remember 1/e of themselves (a bond has turned by 0.1 rad)."""
    from ase import units

    from ase_cg.dynamics.prepare import prepare
    from ase_cg.dynamics.settings import SimulationSettings
    from ase_cg.dynamics.starts import Start, grouped

    start = Start("ala2", ala2, np.repeat(ala2_positions[None], 200, 0), ("start",) * 200)
    settings = SimulationSettings(
        "", "", 200, 300.0, "0.25 fs", "1 /fs", "1 fs", "1 fs", 0, prior_only=False, device="cpu", dtype="float32"
    )
    _, run = prepare(model, grouped([start])[0], settings, None, quiet=True)
    assert run.time_step == pytest.approx(0.25 * units.fs, rel=1e-12)
    v0 = run.velocities
    run.step(4)
    share = (v0 * run.velocities).sum() / (v0**2).sum()
    assert share == pytest.approx(np.exp(-1), abs=4 / np.sqrt(200 * 18))
