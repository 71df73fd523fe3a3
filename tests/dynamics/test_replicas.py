"""The replica engine: exact distributions, equipartition, independence and bit-exact restart."""

import numpy as np
import pytest
import torch
from ase import units as ase_units
from ase.units import kB

from ase_cg import ReplicaSimulation
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import BeadGraph
from ase_cg.errors import InputError, SimulationError
from ase_cg.models.base import Backbone
from ase_cg.models.model import CGModel, ModelCard
from ase_cg.models.priors.prior_set import PriorSet

FS = ase_units.fs


@pytest.fixture
def options():
    return {"time_step": 2 * FS, "friction": 1 / (100 * FS), "seed": 3}


class DoubleWell(Backbone):
    """U = h ((r/w)² − 1)² of the distance of two beads, about a barrier at r = 0 never reached in 3-D."""

    def __init__(self, n_types: int = 1, *, height: float = 0.08, centre: float = 4.0, width: float = 0.5) -> None:
        super().__init__(100.0, {})
        self.height, self.centre, self.width = height, centre, width
        self.register_buffer("unused", torch.zeros(1))

    def potential(self, r):
        s = (r - self.centre) / self.width
        return self.height * (s**2 - 1) ** 2

    def bead_energies(self, graph: BeadGraph):
        i, _ = graph.edges
        r = torch.linalg.vector_norm(graph.edge_vectors(), dim=-1)
        return r.new_zeros(len(graph.positions)).index_add(0, i, self.potential(r))


def test_distribution_of_a_double_well_at_several_temperatures_at_once():
    topology = BeadTopology(("A", "A"), ("A", "A"), (1, 2), (0, 0), (12.0, 12.0), ())
    well = DoubleWell()
    model = CGModel(("A",), PriorSet([]), ModelCard(300.0, "calpha", (topology,)), backbone=well, backbone_name="well")
    n = 600
    temperatures = np.repeat([300.0, 450.0, 600.0], n // 3)
    start = np.zeros((n, 2, 3))
    start[:, 1, 0] = np.where(np.arange(n) % 2, 3.5, 4.5)
    simulation = ReplicaSimulation(
        model, start, temperature=temperatures, time_step=8 * FS, friction=1 / (200 * FS), seed=1, dtype="float64"
    )
    simulation.step(300)
    distances = []
    for _ in range(120):
        simulation.step(10)
        x = simulation.positions
        distances.append(np.linalg.norm(x[:, 1] - x[:, 0], axis=-1))
    sampled = np.array(distances).reshape(-1, 3, n // 3)
    grid = np.linspace(2.5, 5.5, 3001)
    for index, kelvin in enumerate((300.0, 450.0, 600.0)):
        p = grid**2 * np.exp(-well.potential(grid) / (kB * kelvin))
        p /= p.sum()
        for function in (lambda r: (r - 4.0) ** 2, lambda r: (r > 4.0) * 1.0, well.potential):
            exact = float((p * function(grid)).sum())
            per_replica = function(sampled[:, index]).mean(0)
            error = per_replica.std(ddof=1) / np.sqrt(len(per_replica))
            assert per_replica.mean() == pytest.approx(exact, abs=4.5 * error)


def test_equipartition_of_every_replica_temperature(dimer_model, options):
    n = 300
    start = np.zeros((n, 2, 3))
    start[:, 1, 0] = 3.0
    temperatures = np.repeat([200.0, 300.0, 500.0], n // 3)
    simulation = ReplicaSimulation(dimer_model, start, temperature=temperatures, **options)
    simulation.step(200)
    kinetic = []
    for _ in range(40):
        simulation.step(50)
        kinetic.append(simulation.kinetic_energies())
    ratio = np.array(kinetic) / (0.5 * 6 * kB * temperatures)
    for part in np.split(ratio, 3, axis=1):
        error = part.mean(0).std(ddof=1) / np.sqrt(part.shape[1])
        assert part.mean() == pytest.approx(1.0, abs=4 * error + 0.002)


def test_frictionless_dynamics_keep_the_energy(model, ala2_positions):
    simulation = ReplicaSimulation(
        model, ala2_positions[None].repeat(4, 0), time_step=0.5 * FS, friction=0.0, dtype="float64"
    )
    energies = []
    for _ in range(50):
        simulation.step(10)
        energies.append(simulation.potential_energies() + simulation.kinetic_energies())
    assert np.ptp(energies, axis=0).max() < 3e-3


def test_a_replica_does_not_depend_on_its_company_or_on_how_steps_are_divided(model, ala2_positions, options):
    start = ala2_positions + 0.01 * np.arange(5)[:, None, None]
    options = options | {"dtype": "float64"}
    together = ReplicaSimulation(model, start, **options)
    together.step(60)
    for part in (slice(0, 2), slice(2, 5)):
        apart = ReplicaSimulation(model, start[part], replica_numbers=np.arange(5)[part], **options)
        for n_steps in (7, 13, 40):
            apart.step(n_steps)
        assert apart.positions == pytest.approx(together.positions[part], abs=1e-9)
        assert apart.velocities == pytest.approx(together.velocities[part], abs=1e-9)


def test_restart_is_bit_exact(model, ala2_positions, options):
    start = ala2_positions[None].repeat(3, 0)
    whole, first, second = (ReplicaSimulation(model, start, **options) for _ in range(3))
    whole.step(25)
    whole.step(25)
    first.step(25)
    arrays, text = first.save_state()
    second.load_state({name: array.copy() for name, array in arrays.items()}, text)
    second.step(25)
    assert np.array_equal(whole.positions, second.positions)
    assert np.array_equal(whole.velocities, second.velocities)
    assert second.steps_done == 50


def test_travelling_far_from_the_origin_costs_no_precision(model, ala2_positions, options):
    near = ReplicaSimulation(model, ala2_positions[None], **options)
    far = ReplicaSimulation(model, ala2_positions[None] + 1e5, **options)
    assert far.forces == pytest.approx(near.forces, abs=1e-5)


class Springs:
    """A stand-in for a compiled model: R independent harmonic molecules, whatever their number, bit by bit."""

    def __init__(self, stiffness=2.0):
        self.stiffness = stiffness
        self.steps_made = 0

    def energy_and_forces(self, positions):
        return 0.5 * self.stiffness * (positions**2).sum((1, 2)), -self.stiffness * positions

    def make_step(self, integrator):
        self.steps_made += 1
        return lambda x, v, f, noise: integrator.advance(x, v, f, noise, self.energy_and_forces)


@pytest.mark.parametrize("integrator", ["langevin", "overdamped"])
def test_replicas_are_bit_equal_alone_together_and_in_chunks(dimer_model, options, integrator):
    start = 0.3 * np.random.default_rng(0).standard_normal((6, 2, 3))
    options = options | {"integrator": integrator}
    springs = Springs()
    together = ReplicaSimulation(dimer_model, start, compiled=springs, **options)
    assert springs.steps_made == 1
    together.step(2500)
    for part in (slice(0, 1), slice(1, 6)):
        apart = ReplicaSimulation(
            dimer_model, start[part], compiled=Springs(), replica_numbers=np.arange(6)[part], **options
        )
        for n_steps in (1, 1023, 1024, 452):
            apart.step(n_steps)
        assert np.array_equal(apart.positions, together.positions[part])
        assert np.array_equal(apart.velocities, together.velocities[part])
        assert np.array_equal(apart.potential_energies(), together.potential_energies()[part])


def test_each_replica_may_have_a_seed_of_its_own(dimer_model, options):
    start = np.array([[[0.0, 0, 0], [3.0, 0, 0]]] * 3)
    options = options | {"dtype": "float64"}
    simulation = ReplicaSimulation(dimer_model, start, **(options | {"seed": [4, 9, 4]}))
    simulation.step(20)
    assert np.array_equal(simulation.positions[0], simulation.positions[2])
    assert not np.array_equal(simulation.positions[0], simulation.positions[1])


class Cliff(Springs):
    """Springs on which one replica, once beyond a distance, falls off the edge of the model."""

    def __init__(self, edge, kind):
        super().__init__()
        self.edge, self.kind = edge, kind

    def energy_and_forces(self, positions):
        energies, forces = super().energy_and_forces(positions)
        over = positions[:, :, 0].abs().amax(1) > self.edge
        forces = torch.where(over[:, None, None], float("nan") if self.kind == "nan" else 3e4, forces)
        return torch.where(over, float("nan") if self.kind == "nan" else 0.0, energies), forces


@pytest.mark.parametrize("kind", ["nan", "force"])
def test_an_exploding_replica_is_stopped_and_the_others_go_on_bit_by_bit(dimer_model, options, kind):
    """Replica 2 starts fast enough to reach the edge; nothing of it shows in the others."""
    start = np.zeros((4, 2, 3))
    start[:, :, 0] = [0.1, 0.2]
    options = options | {"temperature": 30.0}
    start[2, :, 0] = [0.8, 0.85]

    def make(form, parts=slice(None)):
        return ReplicaSimulation(
            dimer_model, start[parts], compiled=form, replica_numbers=np.arange(4)[parts] + 10, **options
        )

    simulation = make(Cliff(0.9, kind))
    simulation.step(1)
    drifting = simulation.save_state()
    drifting[0]["velocities"][2] = 0.25
    simulation.load_state(*drifting)
    others = make(Springs(), [0, 1, 3])
    others.load_state({name: array[[0, 1, 3]] for name, array in drifting[0].items()}, drifting[1])
    with pytest.warns(UserWarning, match=r"replica 12 stopped at step \d+, where .*last good frame is step 1;") as seen:
        simulation.step(700)
    assert len(seen) == 1
    simulation.step(1400)  # without another word
    others.step(2100)
    (stop,) = simulation.stopped.values()
    assert (stop.replica, stop.last_good_step) == (12, 1)
    assert 1 < stop.step < 701
    assert stop.last_steps == tuple(range(stop.step - len(stop.last_steps), stop.step))
    inside = np.abs(stop.last_frames[:, :, 0]).max(1)
    assert (inside <= 0.9).all()
    assert inside[-1] > 0.85
    assert np.array_equal(simulation.positions[[0, 1, 3]], others.positions)
    assert np.array_equal(simulation.velocities[[0, 1, 3]], others.velocities)
    assert np.array_equal(simulation.positions[2], drifting[0]["positions"][2])
    assert np.isfinite(simulation.potential_energies()).all()
    again = make(Cliff(0.9, kind))
    again.load_state(*simulation.save_state())
    again.step(10)
    simulation.step(10)
    assert np.array_equal(again.positions, simulation.positions)
    assert again.stopped[2][:5] == stop[:5]


def test_a_torn_bond_stops_a_replica(dimer_model, options):
    start = np.zeros((2, 2, 3))
    start[:, 1, 0] = 3.0
    simulation = ReplicaSimulation(dimer_model, start, compiled=Springs(0.0), **(options | {"friction": 0.0}))
    arrays, text = simulation.save_state()
    arrays["velocities"][:] = 0.0
    arrays["velocities"][1, 1, 0] = 0.5
    simulation.load_state(arrays, text)
    with pytest.warns(UserWarning, match=r"the bond of beads 0 \(A\) and 1 \(A\) is 12\.\d Å long"):
        simulation.step(200)
    assert simulation.stopped[1].step == int(9.0 / (0.5 * 2 * FS)) + 1


def test_when_no_replica_is_left_it_is_an_error_with_the_last_good_frames(model, ala2_positions, options):
    start = ala2_positions[None].repeat(3, 0)
    simulation = ReplicaSimulation(model, start, **(options | {"time_step": 500 * FS}))
    with pytest.raises(
        SimulationError, match=r"replica \d.* stopped at step .* bead.* try a time step of [\d.]+ fs"
    ) as error:
        simulation.step(200)
    assert np.array_equal(error.value.last_good, start)
    assert np.array_equal(simulation.positions, start)


def test_the_advised_time_step_is_that_of_the_fastest_motion(dimer_model):
    """Two beads of 12 amu on a spring U = 2 (r − 3)²: ω² = 2·4/12."""
    start = np.array([[[0.0, 0, 0], [3.0, 0, 0]]] * 2)
    omega = np.sqrt(8 / 12)
    simulation = ReplicaSimulation(dimer_model, start, time_step=0.1, friction=0.2)
    assert simulation.largest_stable_step() == pytest.approx(1 / omega, rel=1e-3)
    simulation = ReplicaSimulation(dimer_model, start, time_step=0.1, friction=[0.2, 0.4], integrator="overdamped")
    assert simulation.largest_stable_step() == pytest.approx(np.array([0.2, 0.4]) / (2 * omega**2), rel=1e-3)


def test_a_full_gpu_says_how_many_replicas_fit(dimer_model, options, monkeypatch):
    from ase_cg.dynamics import memory

    class Full(Springs):
        def energy_and_forces(self, positions):
            raise torch.OutOfMemoryError

    assert memory.replicas_that_fit(lambda replicas: 1000 + 50 * replicas, 11_000) == int((9900 - 1000) / 50)
    monkeypatch.setattr(memory, "_estimate", lambda device, evaluate: 37)
    start = np.array([[[0.0, 0, 0], [3.0, 0, 0]]] * 64)
    with pytest.raises(InputError, match="no memory for 64 replicas of 2 beads: about 37 fit; run fewer at once"):
        ReplicaSimulation(dimer_model, start, compiled=Full(), **options)


def test_wrong_input_is_one_sentence(model, ala2_positions, options):
    start = ala2_positions[None]
    broken = start.copy()
    broken[0, 2] = np.nan
    ragged = [ala2_positions, ala2_positions[:5]]
    cases = [
        ({"positions": start[:, :5]}, r"\(1, 5, 3\) do not fit"),
        ({"positions": ragged}, "replica 1 has 5 beads, the topology 6"),
        ({"positions": broken}, r"start of replica 0 has no finite position of bead 2 \(ALA:CA\)"),
        ({"positions": 1e200 * start}, "start of replica 0 is no conformation that the model knows"),
        ({"time_step": 0.0}, "time step"),
        ({"friction": -1.0}, "friction"),
        ({"friction": np.nan}, "friction"),
        ({"friction": None}, "langevin dynamics need a friction"),
        ({"integrator": "overdamped", "friction": 0.0}, "positive friction"),
        ({"integrator": "euler"}, "unknown integrator"),
        ({"temperature": -5}, "temperature"),
        ({"temperature": [300, 310]}, "temperature must be one number or one for each of 1"),
        ({"device": "cuda:77"}, "GPUs"),
        ({"seed": -1}, "seed"),
        ({"seed": 0.5}, "seed"),
    ]
    for change, message in cases:
        arguments = {"positions": start} | options | change
        with pytest.raises(InputError, match=message) as error:
            ReplicaSimulation(model, **arguments)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="go back 1"):
        ReplicaSimulation(model, start, **options).step(-1)
