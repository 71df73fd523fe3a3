"""Many replicas of a molecule at once, as [replica, bead] tensors in one batch."""

import json
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.devices import find_device
from ase_cg.dynamics.engine import check_finite
from ase_cg.dynamics.integrators import BAOAB, LangevinState
from ase_cg.errors import InputError, SimulationError
from ase_cg.models.base import energy_and_forces
from ase_cg.models.model import CGModel, prepared_copy
from ase_cg.units import thermal_energy

NOISE_STEPS = 200  # random numbers are drawn for so many steps at once


class ReplicaSimulation:
    """BAOAB Langevin dynamics of R replicas of one molecule.

    Positions and velocities are kept in double precision; the model is evaluated in `dtype` at positions
    relative to each replica's centre. A replica's random numbers depend on `seed` and its own number only, not
    on how many run beside it or on how the steps are divided into calls.

    Parameters
    ----------
    model : CGModel
    positions : array_like, shape (R, N, 3)
        Where each replica starts, in Å.
    topology : BeadTopology, optional
        By default the molecule the model was trained on.
    temperature : float or array_like of shape (R,), optional
        In K; by default the model's.
    time_step : float
        In ASE time units (``2 * ase.units.fs``).
    friction : float or array_like of shape (R,)
        In inverse ASE time units (``1 / (1000 * ase.units.fs)``).
    seed : int
    first_replica : int
        Number of the first replica, for a run divided among several calls.
    device : str
    dtype : {"float32", "float64"}

    Raises
    ------
    InputError
        If shapes, the time step, the friction or the device are wrong.
    SimulationError
        From :meth:`step`, if positions explode.
    """

    def __init__(
        self,
        model: CGModel,
        positions: ArrayLike,
        *,
        topology: BeadTopology | None = None,
        temperature: ArrayLike | None = None,
        time_step: float,
        friction: ArrayLike,
        seed: int = 0,
        first_replica: int = 0,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        self.topology = topology or model.only_topology()
        start = np.array(positions, dtype=float)
        if start.ndim != 3 or start.shape[1:] != (self.topology.n_beads, 3) or not len(start):
            raise InputError(
                f"starting positions of shape {start.shape} do not fit (replicas, {self.topology.n_beads}, 3)"
            )
        if not 0 < time_step < math.inf:
            raise InputError(f"the time step must be positive, not {time_step}")
        self.n_replicas = len(start)
        self.steps_done = 0
        self._device = find_device(device)
        self._model = prepared_copy(model, self._device, dtype)
        self._graph = self._model.graph(self.topology, self.n_replicas)
        temperatures = self._per_replica(model.card.temperature if temperature is None else temperature, "temperature")
        frictions = self._per_replica(friction, "friction")
        if not ((frictions >= 0) & np.isfinite(frictions)).all():
            raise InputError("the friction must be finite and not negative")
        if seed < 0:
            raise InputError(f"the seed must not be negative, not {seed}")
        masses = self._tensor(np.array(self.topology.masses)[:, None])
        kT = self._tensor([thermal_energy(float(t)) for t in temperatures])[:, None, None]
        self._integrator = BAOAB(time_step, masses, kT, self._tensor(frictions)[:, None, None])
        self._generators = [
            np.random.default_rng(np.random.SeedSequence([seed, first_replica + replica]))
            for replica in range(self.n_replicas)
        ]
        velocities = self._noise(1)[0] * torch.sqrt(kT / masses)
        x = self._tensor(start)
        check_finite(start, np.zeros_like(start), self.topology.names, 0, start, 0)
        self._state = LangevinState(x, velocities, self._forces(x))

    def _tensor(self, values: ArrayLike) -> Tensor:
        return torch.tensor(np.asarray(values), dtype=torch.float64, device=self._device)

    def _per_replica(self, value: ArrayLike, what: str) -> NDArray[np.float64]:
        try:
            return np.broadcast_to(np.asarray(value, dtype=float), (self.n_replicas,))
        except ValueError as error:
            raise InputError(f"{what} must be one number or one for each of {self.n_replicas} replicas") from error

    def _noise(self, n_steps: int) -> Tensor:
        shape = (n_steps, self.topology.n_beads, 3)
        # numpy draws one number after the other: the sequence does not depend on how many are asked for at once.
        return self._tensor(np.stack([g.standard_normal(shape) for g in self._generators], axis=1))

    def _forces(self, positions: Tensor) -> Tensor:
        centred = positions - positions.mean(1, keepdim=True)
        graph = self._graph._replace(positions=centred.reshape(-1, 3).to(self._graph.positions.dtype))
        _, forces = energy_and_forces(self._model, graph)
        return forces.reshape(positions.shape).to(torch.float64)

    @property
    def positions(self) -> NDArray[np.float64]:
        """Current positions in Å, shape (R, N, 3)."""
        return self._state.positions.cpu().numpy()

    @property
    def velocities(self) -> NDArray[np.float64]:
        """Current velocities in Å per ASE time unit, shape (R, N, 3)."""
        return self._state.velocities.cpu().numpy()

    @property
    def forces(self) -> NDArray[np.float64]:
        """Forces at the current positions in eV/Å, shape (R, N, 3)."""
        return self._state.forces.cpu().numpy()

    def potential_energies(self) -> NDArray[np.float64]:
        """Return the model's energy of each replica in eV, shape (R,)."""
        x = self._state.positions - self._state.positions.mean(1, keepdim=True)
        graph = self._graph._replace(positions=x.reshape(-1, 3).to(self._graph.positions.dtype))
        with torch.no_grad():
            return np.asarray(self._model(graph).double().cpu().numpy())

    def kinetic_energies(self) -> NDArray[np.float64]:
        """Return the kinetic energy of each replica in eV, shape (R,)."""
        kinetic = 0.5 * self._integrator.masses * self._state.velocities**2
        return kinetic.sum((1, 2)).cpu().numpy()

    def step(self, n_steps: int) -> None:
        """Advance all replicas by some time steps.

        Raises
        ------
        SimulationError
            If a position is not finite afterwards; the replicas then stand where they did before the call.
        """
        if n_steps < 0:
            raise InputError(f"a simulation cannot go back {-n_steps} steps")
        before, last_good = self._state, self.positions
        self._state = LangevinState(before.positions, before.velocities, before.forces)
        for start in range(0, n_steps, NOISE_STEPS):
            for noise in self._noise(min(NOISE_STEPS, n_steps - start)):
                self._integrator.step(self._state, noise, self._forces)
        try:
            step = self.steps_done + n_steps
            check_finite(self.positions, self.forces, self.topology.names, step, last_good, self.steps_done)
        except SimulationError:
            self._state = before
            raise
        self.steps_done += n_steps

    def save_state(self) -> tuple[dict[str, NDArray[Any]], str]:
        """Return arrays and a text from which :meth:`load_state` continues bit by bit."""
        arrays = {"positions": self.positions, "velocities": self.velocities, "forces": self.forces}
        generators = [generator.bit_generator.state for generator in self._generators]
        return arrays, json.dumps({"steps_done": self.steps_done, "generators": generators})

    def load_state(self, arrays: dict[str, NDArray[Any]], text: str) -> None:
        """Continue from a saved state.

        Raises
        ------
        InputError
            If it is of another number of replicas or beads.
        """
        data = json.loads(text)
        if arrays["positions"].shape != self.positions.shape or len(data["generators"]) != self.n_replicas:
            raise InputError("the saved state is of another number of replicas or beads")
        self._state = LangevinState(*[self._tensor(arrays[name]) for name in ("positions", "velocities", "forces")])
        for generator, state in zip(self._generators, data["generators"], strict=True):
            generator.bit_generator.state = state
        self.steps_done = int(data["steps_done"])
