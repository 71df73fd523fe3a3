"""Many replicas of a molecule at once, as [replica, bead] tensors in one batch."""

import math
import warnings
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from ase.units import kB
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.devices import find_device
from ase_cg.dynamics.arguments import check_form, friction_of_each, per_replica, replica_keys, starting_array
from ase_cg.dynamics.failures import End, Limits, Stop, replayed, stop_sentence
from ase_cg.dynamics.forms import EagerForm, Form, Step
from ase_cg.dynamics.integrators import make_integrator
from ase_cg.dynamics.memory import out_of_memory_explained
from ase_cg.dynamics.noise import NoiseBlocks, generator
from ase_cg.dynamics.saved_state import SavedState
from ase_cg.dynamics.state import State, on_host
from ase_cg.dynamics.stiffness import fastest_frequency
from ase_cg.errors import InputError, SimulationError, StartError
from ase_cg.models.model import CGModel
from ase_cg.units import thermal_energy


class ReplicaSimulation:
    """Dynamics of R replicas of one molecule.

    Positions and velocities are kept in double precision. A replica's random numbers depend on its seed, its number
    and the step only, not on how many run beside it or on how the steps are divided into calls.

    A replica that explodes is stopped with a warning, and stays where it was last good (:attr:`stopped`); the
    others go on.

    Parameters
    ----------
    model : CGModel
    positions : array_like, shape (R, N, 3)
        Where each replica starts, in Å.
    topology : BeadTopology, optional
        By default the molecule the model was trained on.
    integrator : {"langevin", "overdamped", "verlet"}
        :class:`BAOAB`, :class:`OverdampedLangevin`, or :class:`VelocityVerlet` at constant energy.
    temperature : float or array_like of shape (R,), optional
        In K; by default the model's.
    time_step : float
        In ASE time units (``2 * ase.units.fs``).
    friction : float or array_like of shape (R,), optional
        In inverse ASE time units (``1 / (1000 * ase.units.fs)``); ``verlet`` needs none.
    seed : int or array_like of shape (R,)
        One for all, from which every replica's own follows by its number; or one for each.
    replica_numbers : array_like of shape (R,), optional
        By default 0, 1, …; others for a run divided among several simulations.
    compiled : Form, optional
        The model compiled for this topology and number of replicas; without it, it is evaluated as it is.
    device : str
    dtype : {"float32", "float64"}
        Of the model's evaluation.

    Attributes
    ----------
    steps_done : int
    stopped : dict of int to Stop
        Replicas that exploded, by their place in the batch.

    Raises
    ------
    InputError
        If shapes, the time step, the friction, the seed or the device are wrong, a starting position is not finite,
        or the GPU's memory is too small.
    SimulationError
        From :meth:`step`, when no replica is left.
    """

    def __init__(
        self,
        model: CGModel,
        positions: ArrayLike,
        *,
        topology: BeadTopology | None = None,
        integrator: str = "langevin",
        temperature: ArrayLike | None = None,
        time_step: float,
        friction: ArrayLike | None = None,
        seed: ArrayLike = 0,
        replica_numbers: ArrayLike | None = None,
        compiled: Form | None = None,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        self.topology = topology or model.only_topology()
        start = starting_array(positions, self.topology)
        if not 0 < time_step < math.inf:
            raise InputError(f"the time step must be positive, not {time_step}")
        self.n_replicas = len(start)
        check_form(compiled, self.topology, self.n_replicas)
        self.steps_done = 0
        self.stopped: dict[int, Stop] = {}
        self._device = find_device(device)
        kelvin = model.card.temperature if temperature is None else temperature
        self.temperatures = per_replica(kelvin, self.n_replicas, "temperature")
        kT = self._tensor([thermal_energy(float(t)) for t in self.temperatures])[:, None, None]
        self._masses = self._tensor(np.array(self.topology.masses)[:, None])
        self.time_step = time_step
        frictions = friction_of_each(friction, self.n_replicas, integrator)
        self.integrator = make_integrator(
            integrator, time_step, self._masses, kT, self._tensor(frictions)[:, None, None]
        )
        numbers = np.arange(self.n_replicas) if replica_numbers is None else replica_numbers
        self.replica_numbers = per_replica(numbers, self.n_replicas, "the replica number").astype(int)
        keys = replica_keys(seed, self.replica_numbers)
        self._noise = NoiseBlocks(keys, self.topology.n_beads, self._device)
        self._start = x = self._tensor(start)
        drawn = np.stack([generator(key, "velocities").standard_normal(start.shape[1:]) for key in keys])

        self._tried = (model, dtype)
        with self._explained():
            self.form: Form = compiled or EagerForm(model, self.topology, self.n_replicas, self._device, dtype)
            self._step: Step = self.form.make_step(self.integrator)
            energies, forces = self.form.energy_and_forces(x)
        self._limits = Limits(self.topology, x)
        velocities = self._tensor(drawn) * torch.sqrt(kT / self._masses)
        self._state = State(x, velocities, forces, energies).copied()
        self._good, self._good_step = self._state.copied(), 0
        self._check_start()

    def _tensor(self, values: ArrayLike) -> Tensor:
        return torch.tensor(np.asarray(values), dtype=torch.float64, device=self._device)

    def _explained(self) -> AbstractContextManager[None]:
        """Make an exhausted GPU say how many replicas fit."""
        model, dtype = self._tried

        def evaluate(replicas: int) -> None:
            form = EagerForm(model, self.topology, replicas, self._device, dtype)
            form.energy_and_forces(self._start[:1].repeat(replicas, 1, 1))

        return out_of_memory_explained(self.n_replicas, self.topology.n_beads, self._device, evaluate)

    def _check_start(self) -> None:
        beyond = torch.nonzero(self._limits.exceeded(self._state))
        if len(beyond):
            place = int(beyond[0])
            raise StartError(
                f"the start of replica {self.replica_numbers[place]} is no conformation that the model knows: "
                f"{self._limits.reason(self._state, place)}"
            )

    @property
    def steps_per_block(self) -> int:
        """Steps for which random numbers are drawn at once."""
        return self._noise.steps_per_block

    @property
    def positions(self) -> NDArray[np.float64]:
        """Current positions in Å, shape (R, N, 3)."""
        return on_host(self._state.positions)

    @property
    def velocities(self) -> NDArray[np.float64]:
        """Current velocities in Å per ASE time unit, shape (R, N, 3)."""
        return on_host(self._state.velocities)

    @property
    def forces(self) -> NDArray[np.float64]:
        """Forces at the current positions in eV/Å, shape (R, N, 3)."""
        return on_host(self._state.forces)

    def potential_energies(self) -> NDArray[np.float64]:
        """Return the model's energy of each replica in eV, shape (R,)."""
        return on_host(self._state.energies)

    def kinetic_energies(self) -> NDArray[np.float64]:
        """Return the kinetic energy of each replica in eV, shape (R,); of a stopped one 0."""
        return on_host((0.5 * self._masses * self._state.velocities**2).sum((1, 2)))

    def kinetic_temperatures(self) -> NDArray[np.float64]:
        """Return the temperature in K of each replica's velocities, shape (R,)."""
        return self.kinetic_energies() / float(1.5 * self.topology.n_beads * kB)

    def largest_stable_step(self) -> NDArray[np.float64]:
        """Return the time step in ASE time units at which ωΔt = 1 for each replica's fastest motion ω, shape (R,).

        At twice that a harmonic motion becomes unstable (:func:`fastest_frequency`; overdamped dynamics: Δt ω² = γ/2).
        """
        product = fastest_frequency(self.form.energy_and_forces, self._good.positions, self._masses)
        reach = self.integrator.reach[:, 0, 0]
        power = 1 if bool((reach == self.time_step).all()) else 2  # the reach of overdamped dynamics is √(2Δt/γ)
        return on_host(self.time_step / (product * reach) ** power)

    def step(self, n_steps: int) -> None:
        """Advance all replicas by some time steps, then stop those that have exploded.

        Raises
        ------
        SimulationError
            If no replica is left; it carries the last good frames.
        """
        self.advance(n_steps)
        self.check()

    def advance(self, n_steps: int) -> None:
        """Advance without looking; :meth:`check` must follow before the positions are used."""
        if n_steps < 0:
            raise InputError(f"a simulation cannot go back {-n_steps} steps")
        end = self.steps_done + n_steps
        with self._explained():
            while self.steps_done < end:
                noise = self._noise.steps(self.steps_done, end - self.steps_done)
                step = self._step
                x, v, f, energies = self._state
                for one in noise:
                    x, v, f, energies = step(x, v, f, one)
                self._state = State(x, v, f, energies)
                self.steps_done += len(noise)

    def check(self) -> None:
        """Stop the replicas that are beyond a limit; the others' state is good from here on."""
        report = getattr(self.form, "report", None)  # of a compiled model, what its steps met
        if report is not None:
            report()
        bad = self._limits.exceeded(self._state)
        if bool(bad.any()):
            self._stop(bad)
        self._state = self._state.copied()  # a compiled step may use its results' memory again
        self._good, self._good_step = self._state, self.steps_done

    def _stop(self, bad: Tensor) -> None:
        places = torch.nonzero(bad)[:, 0].tolist()
        ends = replayed(self._step, self._noise, self._limits, bad, (self._good, self._good_step), self.steps_done)
        for place in places:
            end = ends.get(place) or End(self.steps_done, self._limits.reason(self._state, place))
            self.stopped[place] = Stop(int(self.replica_numbers[place]), self._good_step, *end)
        self._state = self._state.rows_from(self._good, bad)
        self._freeze()
        self._good = self._state
        allowed = float(self.largest_stable_step()[places[0]])
        sentence = stop_sentence([self.stopped[place] for place in places], self.time_step, allowed)
        if len(self.stopped) == self.n_replicas:
            raise SimulationError(sentence, self.positions)
        warnings.warn(sentence, UserWarning, stacklevel=4)

    def _freeze(self) -> None:
        """Make steps leave the stopped replicas where they are."""
        rows = torch.zeros(self.n_replicas, dtype=torch.bool, device=self._device)
        rows[list(self.stopped)] = True
        still = torch.where(rows[:, None, None], 0.0, self._state.velocities)
        self._state = kept = self._state._replace(velocities=still).copied()
        step = self.form.make_step(self.integrator)

        def frozen(x: Tensor, v: Tensor, f: Tensor, noise: Tensor) -> State:
            return State(*step(x, v, f, noise)).rows_from(kept, rows)

        self._step = frozen

    def exchange(self, source: ArrayLike) -> None:
        """Move conformations among replicas, each to another temperature: row r becomes what row ``source[r]`` was.

        Velocities are rescaled by √(T_new/T_old), forces and energies go with their positions.
        """
        if self.steps_done != self._good_step:
            self.check()
        rows = np.asarray(source, dtype=int)
        if sorted(rows) != list(range(self.n_replicas)) or any(rows[place] != place for place in self.stopped):
            raise InputError("an exchange permutes the replicas, and leaves stopped ones where they are")
        factors = self._tensor(np.sqrt(self.temperatures / self.temperatures[rows]))[:, None, None]
        index = torch.as_tensor(rows, device=self._device)
        x, v, f, energies = (tensor[index] for tensor in self._state)
        self._state = self._good = State(x, factors * v, f, energies)

    def snapshot(self) -> SavedState:
        """Return the present, as of the last :meth:`check`, for :meth:`save_state`; it costs nothing."""
        return SavedState(self._good, self._good_step, dict(self.stopped))

    def save_state(self, snapshot: SavedState | None = None) -> tuple[dict[str, NDArray[Any]], str]:
        """Return arrays and a text from which :meth:`load_state` continues bit by bit."""
        return (snapshot or SavedState(self._state, self.steps_done, self.stopped)).written()

    def load_state(self, arrays: dict[str, NDArray[Any]], text: str) -> None:
        """Continue from a saved state; the simulation must have been made with the same arguments.

        Raises
        ------
        InputError
            If it is of another number of replicas or beads.
        """
        if arrays["positions"].shape != tuple(self._state.positions.shape):
            raise InputError("the saved state is of another number of replicas or beads")
        self._state, self.steps_done, self.stopped = SavedState.read(arrays, text, self._device)
        self._step = self.form.make_step(self.integrator)
        if self.stopped:
            self._freeze()
        self._good, self._good_step = self._state, self.steps_done
