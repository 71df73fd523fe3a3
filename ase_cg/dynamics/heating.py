"""Early signs that a time step is too large: beads hotter than their thermostat, or energy that is not conserved."""

import numpy as np
from ase.units import kB
from numpy.typing import NDArray

from ase_cg.dynamics.replicas import ReplicaSimulation
from ase_cg.units import FEMTOSECOND

FIRST_LOOK, LAST_LOOK = 200, 20_000  # steps
HOT = 1.4  # of the temperature; BAOAB's own error is towards cold
ERRORS = 5.0
DRIFT = 0.1  # of the kinetic energy: what the total energy may vary by
UNSTABLE = 0.6  # of the product of frequency and time step at which a harmonic motion becomes unstable, 2


class HeatingWatch:
    """Looks at a simulation's first steps, and says once what is wrong with its time step.

    Parameters
    ----------
    simulation : ReplicaSimulation
        At its start.
    constant_energy : bool
        Whether the energy is conserved, rather than the temperature.
    """

    def __init__(self, simulation: ReplicaSimulation, *, constant_energy: bool) -> None:
        self._simulation = simulation
        self._conserved = self._total() if constant_energy else None
        self._next_look = FIRST_LOOK

    def first_look(self) -> str | None:
        """Return a warning if the fastest motion of half of the replicas is too fast for the time step."""
        allowed = float(np.median(self._simulation.largest_stable_step()))
        step = self._simulation.time_step
        if step <= 2 * UNSTABLE * allowed:
            return None
        return (
            f"the time step of {step / FEMTOSECOND:.3g} fs is too large for the fastest motion of the start: "
            f"{_advice(allowed)}"
        )

    def look(self) -> str | None:
        """Return a warning if there is one to give."""
        steps = self._simulation.steps_done
        if not self._next_look <= steps <= LAST_LOOK:
            return None
        found = self._heated() if self._conserved is None else self._drifted(self._conserved)
        if found is not None:
            self._next_look = LAST_LOOK + 1
        return found

    def _heated(self) -> str | None:
        simulation = self._simulation
        ratio = np.delete(simulation.kinetic_temperatures() / simulation.temperatures, list(simulation.stopped))
        if not len(ratio):
            return None
        error = np.sqrt(2 / (3 * simulation.topology.n_beads * len(ratio)))
        if ratio.mean() < max(HOT, 1 + ERRORS * error):
            return None
        self._next_look = 2 * simulation.steps_done
        allowed = self._allowed()
        if simulation.time_step <= allowed:
            return None  # strain of the starts, which the thermostat takes up
        return (
            f"after {simulation.steps_done} steps the beads are {ratio.mean():.1f} times as hot as they should be, and "
            f"the time step of {simulation.time_step / FEMTOSECOND:.3g} fs is large for their fastest motion: "
            f"{_advice(allowed)}"
        )

    def _drifted(self, before: NDArray[np.float64]) -> str | None:
        simulation = self._simulation
        thermal = 1.5 * simulation.topology.n_beads * kB * simulation.temperatures
        drift = np.delete(np.abs(self._total() - before) / thermal, list(simulation.stopped))
        if not len(drift) or drift.mean() < DRIFT:
            return None
        return (
            f"after {simulation.steps_done} steps the total energy is off by {drift.mean():.1f} times the kinetic "
            f"energy, so the time step of {simulation.time_step / FEMTOSECOND:.3g} fs is too large: "
            f"{_advice(min(self._allowed(), simulation.time_step / 2))}"
        )

    def _allowed(self) -> float:
        return float(self._simulation.largest_stable_step().min())

    def _total(self) -> NDArray[np.float64]:
        return self._simulation.potential_energies() + self._simulation.kinetic_energies()


def _advice(allowed: float) -> str:
    return f"try {allowed / FEMTOSECOND:.2g} fs"
