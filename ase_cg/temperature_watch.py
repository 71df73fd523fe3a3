"""Notices that a simulation runs at another temperature than the model was made for."""

import numpy as np
from ase.units import kB


class TemperatureWatch:
    """Collects kinetic energies until the temperature is known well enough to judge, then says it once.

    A free-energy surface belongs to one temperature. The first half of what was seen is dropped as
    equilibration; the rest is cut into blocks, whose spread gives the error of the mean.

    Parameters
    ----------
    reference : float
        Temperature in K of the model's data.
    """

    FIRST_LOOK = 4000  # evaluations
    LAST_LOOK = 64000
    BLOCKS = 10
    MIN_DEVIATION = 0.05  # relative; a thermostat's discretisation error stays below it
    ERRORS = 5.0

    def __init__(self, reference: float) -> None:
        self.reference = reference
        self.decided = False
        self._temperatures: list[float] = []
        self._next_look = self.FIRST_LOOK

    def observe(self, kinetic_energy: float, degrees_of_freedom: int) -> str | None:
        """Take one evaluation's kinetic energy in eV; return the warning when there is one."""
        self._temperatures.append(2 * kinetic_energy / (degrees_of_freedom * kB))
        if len(self._temperatures) < self._next_look:
            return None
        kept = np.array(self._temperatures[len(self._temperatures) // 2 :])
        blocks = np.array([block.mean() for block in np.array_split(kept, self.BLOCKS)])
        mean, error = blocks.mean(), blocks.std(ddof=1) / np.sqrt(self.BLOCKS)
        deviation = abs(mean - self.reference)
        off = deviation > max(self.MIN_DEVIATION * self.reference, self.ERRORS * error)
        self._next_look *= 2
        if off or self._next_look > self.LAST_LOOK:
            self.decided = True
            self._temperatures.clear()
        if not off:
            return None
        return (
            f"the beads are at {mean:.0f} ± {error:.0f} K, but the model is a free energy at {self.reference:g} K: "
            "its averages belong to that temperature only"
        )
