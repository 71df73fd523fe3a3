"""The watch on the temperature: silent where it is right, and it says once where it is not."""

import warnings

import numpy as np
import pytest
from ase import units as ase_units
from ase.constraints import FixAtoms, FixCom
from ase.md.langevin import Langevin
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from scipy.signal import lfilter

from ase_cg import CGCalculator
from ase_cg.beads.atoms import beads_to_atoms
from ase_cg.calculator import WATCH_STRIDE
from ase_cg.temperature_watch import TemperatureWatch, reblocked_error


@pytest.fixture
def atoms(model, ala2, ala2_positions):
    made = beads_to_atoms(ala2, ala2_positions, model.vocabulary)
    made.calc = CGCalculator(model)
    return made


@pytest.mark.parametrize("memory", [10, 200])  # steps
@pytest.mark.parametrize(("kelvin", "warned"), [(300, False), (390, True)])
def test_temperature_watch_knows_its_error(kelvin, warned, memory):
    """30 degrees of freedom of Ornstein–Uhlenbeck velocities, whose squares forget in half the memory."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(4):
        watch = TemperatureWatch(300.0)
        v, decay = rng.standard_normal(30), np.exp(-1 / memory)
        noise = np.sqrt(1 - decay**2) * rng.standard_normal((130_000, 30))
        for step in range(130_000):
            v = decay * v + noise[step]
            if step % WATCH_STRIDE:
                continue
            message = watch.observe(0.5 * ase_units.kB * kelvin * float(v @ v), 30)
            alarms += message is not None
            if watch.decided:
                break
    assert alarms == (4 if warned else 0)


def test_reblocking_finds_the_error_of_a_correlated_series():
    rng = np.random.default_rng(1)
    decay = np.exp(-1 / 40)
    means, errors = [], []
    for _ in range(60):
        noise = np.sqrt(1 - decay**2) * rng.standard_normal(8192)
        x = lfilter([1.0], [1.0, -decay], noise)
        means.append(x.mean())
        errors.append(reblocked_error(x))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.3)


def test_another_temperature_draws_one_warning(atoms, monkeypatch):
    monkeypatch.setattr(TemperatureWatch, "FIRST_LOOK", 200)
    monkeypatch.setattr(TemperatureWatch, "MIN_INDEPENDENT", 30)
    rng = np.random.default_rng(0)
    thermalize_momenta(atoms, 450, rng=rng)
    dynamics = LangevinBAOAB(atoms, ase_units.fs, temperature_K=450, T_tau=20 * ase_units.fs, rng=rng)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dynamics.run(4500)
    messages = [str(w.message) for w in caught if "free energy at 300 K" in str(w.message)]
    assert len(messages) == 1


def test_fixed_beads_do_not_look_cold(atoms, monkeypatch):
    monkeypatch.setattr(TemperatureWatch, "FIRST_LOOK", 200)
    monkeypatch.setattr(TemperatureWatch, "MIN_INDEPENDENT", 20)
    atoms.set_constraint(FixAtoms([0, 1]))
    rng = np.random.default_rng(0)
    thermalize_momenta(atoms, 300, rng=rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ASE's own about constraints
        warnings.filterwarnings("error", ".*free energy at.*")
        dynamics = Langevin(atoms, ase_units.fs, temperature_K=300, friction=0.05 / ase_units.fs, fixcm=False, rng=rng)
        dynamics.run(4500)
    assert atoms.calc._watch._next_look > 200


@pytest.mark.parametrize("held", ["nothing", "centre of mass", "centre of mass by a constraint", "two beads"])
def test_degrees_of_freedom_are_counted_once(atoms, monkeypatch, held):
    seen = []
    monkeypatch.setattr(TemperatureWatch, "observe", lambda _, __, freedom: seen.append(freedom))
    if held == "centre of mass by a constraint":
        atoms.set_constraint(FixCom())
    if held == "two beads":
        atoms.set_constraint(FixAtoms([0, 1]))
    thermalize_momenta(atoms, 300, rng=np.random.default_rng(0))
    if held.startswith("centre"):
        Stationary(atoms)
    VelocityVerlet(atoms, ase_units.fs).run(100)
    assert set(seen) == {{"nothing": 18, "two beads": 12}.get(held, 15)}
