"""One molecule through ASE: CGCalculator under ASE's own LangevinBAOAB."""

import json
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_cg.beads.atoms import beads_to_atoms
from ase_cg.beads.topology import BeadTopology
from ase_cg.calculator import CGCalculator
from ase_cg.dynamics.engine import check_finite
from ase_cg.errors import InputError
from ase_cg.models.model import CGModel


class ASESimulation:
    """Langevin dynamics of one molecule, driven by ASE; the same interface as :class:`ReplicaSimulation`.

    ASE's restart files keep neither its step counter nor its random numbers; :meth:`save_state` does.

    Parameters
    ----------
    model : CGModel
    positions : array_like, shape (1, N, 3) or (N, 3)
        In Å.
    topology : BeadTopology, optional
    temperature : float, optional
        In K; by default the model's.
    time_step : float
        In ASE time units.
    friction : float
        In inverse ASE time units.
    seed : int
    device, dtype : str

    Attributes
    ----------
    atoms : ase.Atoms
    dynamics : ase.md.langevinbaoab.LangevinBAOAB
    """

    def __init__(
        self,
        model: CGModel,
        positions: ArrayLike,
        *,
        topology: BeadTopology | None = None,
        temperature: float | None = None,
        time_step: float,
        friction: float,
        seed: int = 0,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        from ase.md.langevinbaoab import LangevinBAOAB
        from ase.md.velocitydistribution import thermalize_momenta

        if not friction > 0:
            raise InputError("Langevin dynamics through ASE need a positive friction")
        self.topology = topology or model.only_topology()
        kelvin = model.card.temperature if temperature is None else temperature
        start = np.asarray(positions, dtype=float)
        if start.size != 3 * self.topology.n_beads:
            raise InputError(f"starting positions of shape {start.shape} do not fit {self.topology.n_beads} beads")
        check_finite(start.reshape(1, -1, 3), np.zeros((1, 1, 3)), self.topology.names, 0, start, 0)
        self.atoms = beads_to_atoms(self.topology, start.reshape(-1, 3), model.vocabulary)
        self.atoms.calc = CGCalculator(model, topology=self.topology, device=device, dtype=dtype)  # type: ignore[arg-type]
        self._rng = np.random.default_rng(seed)
        thermalize_momenta(self.atoms, kelvin, rng=self._rng)

        def make_dynamics() -> Any:
            return LangevinBAOAB(self.atoms, time_step, temperature_K=kelvin, T_tau=1 / friction, rng=self._rng)

        self._make_dynamics = make_dynamics
        self.dynamics = self._make_dynamics()
        self.steps_done = 0

    @property
    def positions(self) -> NDArray[np.float64]:
        """Current positions in Å, shape (1, N, 3)."""
        return np.array(self.atoms.positions)[None]

    @property
    def velocities(self) -> NDArray[np.float64]:
        """Current velocities in Å per ASE time unit, shape (1, N, 3)."""
        return np.array(self.atoms.get_velocities())[None]

    def step(self, n_steps: int) -> None:
        """Advance by some time steps; raises :class:`SimulationError` if positions explode."""
        self.dynamics.run(n_steps)
        self.steps_done += n_steps

    def save_state(self) -> tuple[dict[str, NDArray[Any]], str]:
        """Return arrays and a text from which :meth:`load_state` continues bit by bit."""
        arrays = {"positions": self.positions, "momenta": self.atoms.get_momenta()[None]}
        return arrays, json.dumps({"steps_done": self.steps_done, "generator": self._rng.bit_generator.state})

    def load_state(self, arrays: dict[str, NDArray[Any]], text: str) -> None:
        """Continue from a saved state."""
        data = json.loads(text)
        self.atoms.positions[:] = arrays["positions"][0]
        self.atoms.set_momenta(arrays["momenta"][0])
        self.dynamics = self._make_dynamics()  # it evaluates the forces of where it starts
        self._rng.bit_generator.state = data["generator"]
        self.steps_done = int(data["steps_done"])
