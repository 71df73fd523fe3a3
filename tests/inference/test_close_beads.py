"""Beads closer than the compiled form was checked for: noticed, evaluated by the model itself, told once."""

import math
import warnings

import numpy as np
import pytest
import torch
from ase import Atoms

from ase_cg import CGCalculator
from ase_cg.dynamics.integrators import make_integrator
from ase_cg.dynamics.replicas import ReplicaSimulation
from ase_cg.inference import compiled
from ase_cg.inference.close_beads import CloseBeads
from ase_cg.inference.gate import GATE, SHARES, Gate, pair_distances
from ase_cg.inference.tabulate import COEFFICIENTS, RadialTable
from tests.inference.conftest import chain_model
from tests.inference.test_dense import exact, relative

N = 6
WRONG_BELOW = 2.2  # Å
CPU = torch.device("cpu")

pytestmark = pytest.mark.filterwarnings("ignore:no C")


@pytest.fixture(autouse=True)
def operation_by_operation(monkeypatch):
    monkeypatch.setattr(compiled, "has_compiler", lambda: False)


@pytest.fixture
def wrong_tables(monkeypatch):
    """Tables whose values below some distance are three per cent too large."""
    made = RadialTable.__init__

    def init(self, functions, cutoff, intervals):
        made(self, functions, cutoff, intervals)
        # Whole intervals: the one that holds the distance is right.
        self.rows[: int(WRONG_BELOW * self.per_angstrom) * COEFFICIENTS * self.n_functions] *= 1.03

    monkeypatch.setattr(RadialTable, "__init__", init)


def close(frames, distance, pair=(1, 4)):
    """Frames in which two beads are at a distance."""
    x = np.array(frames, dtype=float)
    first, second = pair
    vector = x[..., second, :] - x[..., first, :]
    x[..., second, :] = x[..., first, :] + distance * vector / np.linalg.norm(vector, axis=-1, keepdims=True)
    return x


def beads_at(x, model):
    return Atoms(numbers=[1 + model.vocabulary.index(name) for name in model.only_topology().names], positions=x)


@pytest.mark.parametrize("name", ["schnet", "painn"])
def test_the_check_reaches_below_the_distances_of_the_frames(name):
    """No right table is trusted only where data live: normal motion needs no second evaluation."""
    model, frames = chain_model(name, N)
    made = model.compile(replicas=3)
    least = float(pair_distances(torch.tensor(frames[:8])).min())
    assert made.closest < 0.6 * least
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for share in (1.5, 1.0, 0.8, 0.65):
            x = close(frames[20:23], max(share * least, 1.001 * made.closest))
            _, forces = made.energy_and_forces(torch.tensor(x))
            assert relative(forces, exact(model, x)[1]) < 2e-5


@pytest.mark.parametrize("distance", [0.05, 1.2, 1.8, 2.5])
def test_a_calculator_gives_the_models_forces_at_any_distance(wrong_tables, distance):
    """With tables that are wrong at short distances, which an unguarded form would hand on."""
    model, frames = chain_model("schnet", N, priors=("bonds",))
    x = close(frames[30], distance)
    beads, same = beads_at(x, model), beads_at(x, model)
    beads.calc = CGCalculator(model, compile=True)
    same.calc = CGCalculator(model, dtype="float64")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        forces, energy = beads.get_forces(), beads.get_potential_energy()
        beads.positions += 0.01
        beads.get_forces()
    expected = same.get_forces()
    assert np.linalg.norm(forces - expected) < 1e-5 * np.linalg.norm(expected)
    assert energy == pytest.approx(same.get_potential_energy(), rel=1e-5, abs=1e-5)
    sentences = [str(one.message) for one in told if "came within" in str(one.message)]
    if distance < WRONG_BELOW:
        assert len(sentences) == 1
        assert f"two beads came within {distance:.2f} Å of each other" in sentences[0]
        # Without the guard the error would be there to see.
        made = model.compile(replicas=1)
        _, unguarded = made.chunk_function(torch.tensor(x)[None])
        if distance >= 1.0:
            assert relative(unguarded, exact(model, x[None])[1]) > 1e-4


def test_the_limit_is_the_last_distance_that_was_right(wrong_tables):
    model, frames = chain_model("schnet", N, priors=("bonds",))
    made = model.compile(replicas=2)
    gauge = Gate(model, model.only_topology(), frames[:8], GATE, CPU)
    assert made.closest >= WRONG_BELOW - 0.3
    assert made.closest / gauge.least == pytest.approx(1.0) or made.closest / gauge.least in [
        pytest.approx(share) for share in SHARES
    ]
    step = made.closest / gauge.least
    assert step == pytest.approx(1.0) or gauge.error_closer(made.chunk_function, 2, step) <= GATE


@pytest.mark.parametrize(
    ("bad_below", "kind"), [(0.0, "error"), (0.4, "nan"), (0.75, "error"), (0.95, "nan"), (1.2, "error")]
)
def test_the_gauge_finds_where_a_function_goes_wrong(bad_below, kind):
    model, frames = chain_model("painn", N, priors=("bonds", "repulsion"))
    gauge = Gate(model, model.only_topology(), frames[:8], GATE, CPU)

    def function(x):
        energies, forces = exact(model, x.numpy())
        near = pair_distances(x).amin(1) < bad_below * gauge.least
        wrong = 1.01 * forces if kind == "error" else forces * math.nan
        return energies, torch.where(near[:, None, None], wrong, forces)

    found = gauge.closest(function, 3) / gauge.least
    right = [share for share in (1.0, *SHARES) if share >= bad_below]
    assert found == pytest.approx(min(right, default=1.0))


def test_only_the_replicas_with_close_beads_are_evaluated_again(wrong_tables, monkeypatch):
    """In chunks, with one replica whose positions are no numbers beside them."""
    monkeypatch.setattr(compiled, "MAX_CHUNK", 2)
    model, frames = chain_model("schnet", N, priors=("bonds",))
    made = model.compile(replicas=5)
    x = np.array(frames[:5])
    x[3] = close(x[3], 1.4)
    x[2, 0] = math.nan
    evaluated = []
    monkeypatch.setattr(
        CloseBeads,
        "_evaluated",
        lambda self, positions, inner=CloseBeads._evaluated: evaluated.append(positions) or inner(self, positions),
    )
    with pytest.warns(UserWarning, match="came within 1.40 Å"):
        energies, forces = made.energy_and_forces(torch.tensor(x))
    assert len(evaluated) == 1
    assert torch.equal(evaluated[0], torch.tensor(x[3]))
    rows = [0, 1, 3, 4]
    expected, right = exact(model, x[rows])
    assert torch.allclose(energies[rows], expected, rtol=1e-5, atol=1e-5)
    for row, one in zip(rows, right, strict=True):
        assert relative(forces[row], one) < 1e-5


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_step_that_leads_to_close_beads_is_that_of_the_model(wrong_tables, monkeypatch, replicas):
    """Its new forces and velocities, not those of the table; steps elsewhere stay the compiled ones."""
    monkeypatch.setattr(compiled, "MAX_CHUNK", 2)
    model, frames = chain_model("schnet", N, priors=("bonds",))
    made = model.compile(replicas=replicas)
    masses = torch.full((N, 1), 50.0).double()
    kT = torch.full((replicas, 1, 1), 0.02).double()
    integrator = make_integrator("langevin", 0.1, masses, kT, 0.01 * torch.ones_like(kT))
    x = torch.tensor(frames[:replicas])
    x[-1] = torch.tensor(close(frames[replicas - 1], 1.5))
    noise = torch.zeros_like(x)
    forces = exact(model, x.numpy())[1]
    with pytest.warns(UserWarning, match="came within"):
        found = made.make_step(integrator)(x, 0 * x, forces, noise)
    expected = integrator.advance(x, 0 * x, forces, noise, lambda y: exact(model, y.numpy()))
    for one, right in zip(found, expected, strict=True):
        assert torch.allclose(one, right, rtol=1e-4, atol=1e-4 * float(right.abs().max()))
        assert relative(one[-1:], right[-1:]) < 1e-5
    made.close.exact = pytest.fail
    made.make_step(integrator)(torch.tensor(frames[:replicas]), 0 * x, forces, noise)


def test_steps_on_a_device_are_noted_and_told_once(wrong_tables):
    """There a step does not wait: the least distance of all steps is looked at with the reports."""
    model, frames = chain_model("schnet", N, priors=("bonds",))
    made = model.compile(replicas=2)
    assert made.looks_at_steps
    made.looks_at_steps = False
    x = torch.tensor(frames[:2])
    masses = torch.full((N, 1), 50.0).double()
    kT = torch.full((2, 1, 1), 0.02).double()
    step = made.make_step(make_integrator("verlet", 0.1, masses, kT, kT))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(x, 0 * x, 0 * x, 0 * x)
        made.report()
        x[1] = torch.tensor(close(frames[1], 1.3))
        step(x, 0 * x, 0 * x, 0 * x)
        step(torch.tensor(frames[:2]), 0 * x, 0 * x, 0 * x)
    with pytest.warns(UserWarning, match=r"came within 1.30 Å .* checked down to .*: forces of those steps may be off"):
        made.report()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.report()


def test_a_simulation_asks_for_the_report(dimer_model):
    """At every look at the replicas."""
    asked = []

    class Form:
        def energy_and_forces(self, positions):
            return positions.new_zeros(len(positions)), 0 * positions

        def make_step(self, integrator):
            return lambda x, v, f, noise: integrator.advance(x, v, f, noise, self.energy_and_forces)

        def report(self):
            asked.append(1)

    start = np.array([[[0.0, 0, 0], [3.0, 0, 0]]])
    run = ReplicaSimulation(dimer_model, start, time_step=0.1, friction=0.1, compiled=Form())
    run.step(3)
    run.step(3)
    assert len(asked) == 2


def test_one_bead_has_no_distances():
    model, frames = chain_model("painn", 1, priors=())
    made = model.compile()
    energies, forces = made.energy_and_forces(torch.tensor(frames[:1]))
    assert made.closest == 0
    assert torch.isfinite(energies).all()
    assert float(forces.abs().max()) == 0
