"""Parallel tempering: the exchange rule, what moves, and the distributions it leaves alone."""

import numpy as np
import pytest
import torch
from ase import units
from ase.units import kB

from ase_cg import ReplicaSimulation
from ase_cg.beads.topology import BeadTopology
from ase_cg.dynamics.tempering import ParallelTempering, temperature_ladder
from ase_cg.errors import InputError

ONE_BEAD = BeadTopology(("A",), ("A",), (1,), (0,), (12.0,), ())
STIFFNESS = 1.5
FS = units.fs


class Well:
    """U = h ((x/w)² − 1)² + k (y² + z²)/2; a single well k r²/2 where h is 0."""

    def __init__(self, height=0.0, width=0.4):
        self.height, self.width = height, width
        self.calls = 0

    def along(self, x):
        return self.height * ((x / self.width) ** 2 - 1) ** 2 if self.height else 0.5 * STIFFNESS * x**2

    def energy_and_forces(self, r):
        self.calls += 1
        x, rest = r[..., 0], r[..., 1:]
        slope = 4 * self.height * ((x / self.width) ** 2 - 1) * x / self.width**2 if self.height else STIFFNESS * x
        energies = (self.along(x) + 0.5 * STIFFNESS * (rest**2).sum(-1)).sum(1)
        return energies, -torch.cat([slope[..., None], STIFFNESS * rest], -1)

    def make_step(self, integrator):
        return lambda x, v, f, noise: integrator.advance(x, v, f, noise, self.energy_and_forces)


def simulation(model, well, temperatures, start=None, **options):
    start = np.zeros((len(temperatures), 1, 3)) if start is None else start
    options = {"time_step": 10 * FS, "friction": 1 / (50 * FS), "seed": 2} | options
    return ReplicaSimulation(model, start, topology=ONE_BEAD, temperature=temperatures, compiled=well, **options)


def boltzmann(shape, temperatures, seed):
    spread = np.sqrt(kB * np.asarray(temperatures) / STIFFNESS)[:, None, None]
    return spread * np.random.default_rng(seed).standard_normal(shape)


def test_exchanges_keep_equilibrium_and_are_accepted_as_often_as_they_must():
    """Independent Boltzmann samples before are Boltzmann samples after; acceptance is ⟨min(1, e^{ΔβΔU})⟩."""
    from ase_cg.models.model import CGModel, ModelCard
    from ase_cg.models.priors.harmonic import HarmonicBonds
    from ase_cg.models.priors.prior_set import PriorSet

    bonds = HarmonicBonds(torch.tensor([[0, 0]]), torch.tensor([2.0]), torch.tensor([3.0]), 1)
    model = CGModel(("A",), PriorSet([bonds]), ModelCard(temperature=300.0, resolution="calpha"))
    ladders, ladder = 3000, [300.0, 420.0]
    temperatures = np.tile(ladder, ladders)
    well = Well()
    start = boltzmann((2 * ladders, 1, 3), temperatures, 1)
    run = simulation(model, well, temperatures, start)
    tempering = ParallelTempering(run, ladders=ladders, seed=5)
    calls, before = well.calls, run.save_state()[0]
    tempering.attempt()
    assert well.calls == calls
    after = run.save_state()[0]
    for name in ("positions", "velocities"):
        scale = STIFFNESS if name == "positions" else 12.0
        ratio = (scale * after[name] ** 2).mean((1, 2)) / (kB * temperatures)
        for part in (ratio[::2], ratio[1::2]):
            assert part.mean() == pytest.approx(1, abs=4 * part.std(ddof=1) / np.sqrt(ladders))
    low, high = (0.5 * STIFFNESS * (boltzmann((100_000, 1, 3), [t], 7) ** 2).sum((1, 2)) for t in ladder)
    high = np.random.default_rng(0).permutation(high)
    expected = np.minimum(1, np.exp((1 / (kB * 300) - 1 / (kB * 420)) * (low - high))).mean()
    pairs = tempering.statistics()["pairs"]
    assert [pair["tried"] for pair in pairs] == [1] * ladders
    accepted = np.mean([pair["accepted"] for pair in pairs])
    assert accepted == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / ladders))
    assert np.array_equal(after["positions"], before["positions"][tempering.walkers])
    assert np.array_equal(after["forces"], before["forces"][tempering.walkers])
    assert np.array_equal(after["energies"], before["energies"][tempering.walkers])
    factor = np.sqrt(temperatures / temperatures[tempering.walkers])[:, None, None]
    assert after["velocities"] == pytest.approx(factor * before["velocities"][tempering.walkers], rel=1e-12)


@pytest.mark.parametrize("integrator", ["langevin", "overdamped"])
@pytest.mark.parametrize("exchange", [True, False])
def test_double_well_at_several_temperatures(dimer_model, integrator, exchange):
    """Averages at each temperature are those of the Boltzmann distribution; errors from independent ladders."""
    ladder, ladders = [300.0, 400.0, 533.0, 711.0], 100
    temperatures = np.tile(ladder, ladders)
    well = Well(0.12)
    start = np.zeros((len(temperatures), 1, 3))
    start[:, 0, 0] = 0.4 * np.where(np.arange(len(temperatures)) // 4 % 2, 1, -1)
    step = {"time_step": 4 * FS} if integrator == "langevin" else {"time_step": 0.5 * FS, "friction": 1 / (20 * FS)}
    run = simulation(dimer_model, well, temperatures, start, integrator=integrator, **step)
    tempering = ParallelTempering(run, ladders=ladders, seed=9)
    seen = []
    for attempt in range(450):
        run.step(12)
        if exchange:
            tempering.attempt()
        if attempt >= 50:
            seen.append(run.positions[:, 0, :2])
    x, y = np.moveaxis(np.array(seen), -1, 0).reshape(2, 400, ladders, len(ladder))
    grid = np.linspace(-1.5, 1.5, 6001)
    for place, kelvin in enumerate(ladder):
        p = np.exp(-well.along(grid) / (kB * kelvin))
        p /= p.sum()
        for function in (lambda r: r**2, well.along, lambda r: np.abs(r) < 0.2, lambda r: r > 0):
            exact = float((p * function(grid)).sum())
            means = function(x[:, :, place]).mean(0)
            assert means.mean() == pytest.approx(exact, abs=4 * means.std(ddof=1) / np.sqrt(ladders) + 1e-9)
        ratio = (STIFFNESS * y[:, :, place] ** 2 / (kB * kelvin)).mean(0)
        error = ratio.std(ddof=1) / np.sqrt(ladders)
        assert error < 0.03
        assert ratio.mean() == pytest.approx(1, abs=4 * error)
    if exchange:
        statistics = tempering.statistics()
        assert statistics["round_trips"] > ladders
        assert all(0.2 < pair["acceptance"] < 1 for pair in statistics["pairs"])


def test_even_and_odd_pairs_take_turns_and_ladders_stay_apart(dimer_model):
    temperatures = np.tile([300.0, 310.0, 320.0, 330.0], 2)
    run = simulation(dimer_model, Well(), temperatures)
    tempering = ParallelTempering(run, ladders=2)
    for _ in range(7):
        tempering.attempt()  # all at the bottom of the well: always accepted
    pairs = tempering.statistics()["pairs"]
    assert [pair["tried"] for pair in pairs] == [4, 3, 4] * 2
    assert [pair["acceptance"] for pair in pairs] == [1.0] * 6
    assert sorted(tempering.walkers[:4]) == [0, 1, 2, 3]
    assert sorted(tempering.walkers[4:]) == [4, 5, 6, 7]


def test_round_trips_go_up_the_ladder_and_back(dimer_model):
    run = simulation(dimer_model, Well(), [300.0, 310.0, 320.0])
    tempering = ParallelTempering(run)
    track = []
    for _ in range(12):
        tempering.attempt()
        track.append(int(np.flatnonzero(tempering.walkers == 0)[0]))
    assert track == [1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]
    assert tempering.statistics()["round_trips_of_walkers"][0] == 2


def test_the_exchanges_have_random_numbers_of_their_own(dimer_model):
    """Another seed of the exchanges changes who is exchanged, not the noise: without exchanges runs are equal."""
    temperatures = [300.0, 400.0, 500.0]
    start = boltzmann((3, 1, 3), temperatures, 3)
    runs = [simulation(dimer_model, Well(), temperatures, start) for _ in range(3)]
    histories = []
    for run, seed in zip(runs, (1, 1, 2), strict=True):
        tempering, history = ParallelTempering(run, seed=seed), []
        for _ in range(40):
            run.step(5)
            tempering.attempt()
            history.append(tuple(tempering.walkers))
        histories.append(history)
    assert histories[0] == histories[1]
    assert np.array_equal(runs[0].positions, runs[1].positions)
    assert histories[0] != histories[2]


def test_a_saved_state_goes_on_with_the_same_exchanges(dimer_model):
    temperatures = [300.0, 400.0, 500.0]
    start = boltzmann((3, 1, 3), temperatures, 3)

    def advance(run, tempering, count):
        for _ in range(count):
            run.step(5)
            tempering.attempt()

    whole = simulation(dimer_model, Well(), temperatures, start)
    exchanges = ParallelTempering(whole, seed=1)
    advance(whole, exchanges, 15)
    saved, text = whole.save_state(), exchanges.save_state()
    advance(whole, exchanges, 15)
    other = simulation(dimer_model, Well(), temperatures, start)
    again = ParallelTempering(other, seed=1)
    other.load_state(*saved)
    again.load_state(text)
    advance(other, again, 15)
    assert np.array_equal(other.positions, whole.positions)
    assert np.array_equal(other.velocities, whole.velocities)
    assert again.statistics() == exchanges.statistics()


def test_ladders_have_equal_ratios_and_rise(dimer_model):
    assert temperature_ladder(300, 480, 3) == pytest.approx([300, np.sqrt(300 * 480), 480])
    with pytest.raises(InputError, match="at least two"):
        temperature_ladder(300, 450, 1)
    with pytest.raises(InputError, match="not from 450 to 300"):
        temperature_ladder(450, 300, 4)
    with pytest.raises(InputError, match="rise"):
        ParallelTempering(simulation(dimer_model, Well(), [300.0, 300.0]))
    with pytest.raises(InputError, match="cannot be divided into 2 ladders"):
        ParallelTempering(simulation(dimer_model, Well(), [300.0, 310.0, 320.0]), ladders=2)
    run = simulation(dimer_model, Well(), [300.0, 310.0])
    with pytest.raises(InputError, match="permutes"):
        run.exchange([0, 0])
