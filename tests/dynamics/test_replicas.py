"""The replica engine: exact distributions, equipartition, independence and bit-exact restart."""

import numpy as np
import pytest
import torch
from ase import units as ase_units
from ase.units import kB

from ase_cg import ReplicaSimulation
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import BeadGraph
from ase_cg.dynamics.ase_engine import ASESimulation
from ase_cg.dynamics.integrators import BAOAB, LangevinState
from ase_cg.errors import InputError, SimulationError
from ase_cg.models.base import Backbone
from ase_cg.models.model import CGModel, ModelCard
from ase_cg.models.priors.prior_set import PriorSet

FS = ase_units.fs


@pytest.fixture
def options():
    return {"time_step": 2 * FS, "friction": 1 / (100 * FS), "seed": 3}


@pytest.mark.parametrize("scaled_step", [0.2, 1.0, 1.6])
def test_baoab_is_exact_in_positions_of_a_harmonic_well(scaled_step):
    """⟨k x²⟩/kT = 1 at any stable step, and the velocities' error is the known one, 1 − (ωΔt)²/4."""
    k, mass, kT = 1.7, 12.0, 0.0259
    dt = scaled_step / np.sqrt(k / mass)
    n = 4000
    generator = torch.Generator().manual_seed(0)
    integrator = BAOAB(
        dt,
        torch.full((1, 1), mass).double(),
        torch.full((n, 1, 1), kT).double(),
        torch.full((n, 1, 1), 0.7 / dt).double(),
    )
    x = torch.zeros(n, 1, 3).double()
    state = LangevinState(x, x.clone(), x.clone())
    squares, velocities = [], []
    for step in range(400):
        noise = torch.randn(n, 1, 3, generator=generator, dtype=torch.float64)
        integrator.step(state, noise, lambda y: -k * y)
        if step >= 100 and step % 10 == 0:
            squares.append(float((k * state.positions**2 / kT).mean()))
            velocities.append(float((mass * state.velocities**2 / kT).mean()))
    # 30 samples of 12 000 coordinates, a few steps apart.
    assert np.mean(squares) == pytest.approx(1.0, abs=0.012)
    assert np.mean(velocities) == pytest.approx(1 - scaled_step**2 / 4, abs=0.012)


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
        apart = ReplicaSimulation(model, start[part], first_replica=part.start, **options)
        for n_steps in (7, 13, 40):
            apart.step(n_steps)
        assert apart.positions == pytest.approx(together.positions[part], abs=1e-9)
        assert apart.velocities == pytest.approx(together.velocities[part], abs=1e-9)


@pytest.mark.parametrize("engine", [ReplicaSimulation, ASESimulation])
def test_restart_is_bit_exact(engine, model, ala2_positions, options):
    start = ala2_positions[None] if engine is ASESimulation else ala2_positions[None].repeat(3, 0)
    whole, first, second = (engine(model, start, **(options | {"seed": s})) for s in (5, 5, 99))
    whole.step(25)
    whole.step(25)
    first.step(25)
    arrays, text = first.save_state()
    second.load_state({name: array.copy() for name, array in arrays.items()}, text)
    second.step(25)
    assert np.array_equal(whole.positions, second.positions)
    assert np.array_equal(whole.velocities, second.velocities)
    assert second.steps_done == 50


def test_both_engines_agree_on_forces(model, ala2_positions, options):
    one = ASESimulation(model, ala2_positions, dtype="float64", **options)
    many = ReplicaSimulation(model, ala2_positions[None], dtype="float64", **options)
    assert many.forces[0] == pytest.approx(one.atoms.get_forces(), abs=1e-10)


def test_travelling_far_from_the_origin_costs_no_precision(model, ala2_positions, options):
    near = ReplicaSimulation(model, ala2_positions[None], **options)
    far = ReplicaSimulation(model, ala2_positions[None] + 1e5, **options)
    assert far.forces == pytest.approx(near.forces, abs=1e-5)


def test_explosions_name_replica_and_bead_and_keep_the_last_good_frame(model, ala2_positions, options):
    start = ala2_positions[None].repeat(3, 0)
    simulation = ReplicaSimulation(model, start, **(options | {"time_step": 500 * FS}))

    def run_until_it_explodes() -> None:
        for _ in range(200):
            simulation.step(50)

    with pytest.raises(
        SimulationError, match=r"replica \d, bead \d \(\w+:\w+\) has no finite position, or a force"
    ) as error:
        run_until_it_explodes()
    assert np.isfinite(error.value.last_good).all()
    assert np.array_equal(simulation.positions, error.value.last_good)


def test_wrong_input_is_one_sentence(model, ala2_positions, options):
    start = ala2_positions[None]
    with pytest.raises(InputError, match=r"\(1, 5, 3\) do not fit"):
        ReplicaSimulation(model, start[:, :5], **options)
    with pytest.raises(InputError, match="time step"):
        ReplicaSimulation(model, start, **(options | {"time_step": 0.0}))
    with pytest.raises(InputError, match="friction"):
        ReplicaSimulation(model, start, **(options | {"friction": -1.0}))
    with pytest.raises(InputError, match="temperature"):
        ReplicaSimulation(model, start, temperature=-5, **options)
    with pytest.raises(InputError, match="temperature must be one number or one for each of 1"):
        ReplicaSimulation(model, start, temperature=[300, 310], **options)
    with pytest.raises(InputError, match="GPUs"):
        ReplicaSimulation(model, start, device="cuda:77", **options)
    with pytest.raises(InputError, match="friction"):
        ReplicaSimulation(model, start, **(options | {"friction": np.nan}))
    with pytest.raises(InputError, match="go back 1"):
        ReplicaSimulation(model, start, **options).step(-1)
    broken = start.copy()
    broken[0, 2] = np.nan
    with pytest.raises(SimulationError, match="bead 2"):
        ReplicaSimulation(model, broken, **options)
