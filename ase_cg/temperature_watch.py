"""Notices that a simulation runs at another temperature than the model was made for."""

import numpy as np
from ase import Atoms
from ase.units import kB
from numpy.typing import NDArray

CENTRE_AT_REST = 1e-4  # of the largest momentum; single-precision forces let the sum drift by 1e-6


class TemperatureWatch:
    """Collects kinetic energies until the temperature is known well enough to judge, then says it once.

    A free-energy surface belongs to one temperature. The first half of what was seen is dropped as
    equilibration; the error of the mean of the rest is found by reblocking, and nothing is said while it rests
    on too few independent values.

    Parameters
    ----------
    reference : float
        Temperature in K of the model's data.
    """

    FIRST_LOOK = 400  # observations; the calculator makes one in ten evaluations
    LAST_LOOK = 12_800
    MIN_INDEPENDENT = 50
    MIN_DEVIATION = 0.05  # relative; a thermostat's discretisation error stays below it
    ERRORS = 5.0

    def __init__(self, reference: float) -> None:
        self.reference = reference
        self.decided = False
        self._temperatures: list[float] = []
        self._next_look = self.FIRST_LOOK

    def observe_beads(self, beads: Atoms) -> str | None:
        """Take the momenta of beads, if they have any; return the warning when there is one."""
        if not beads.has("momenta"):
            return None
        momenta = beads.get_momenta()
        kinetic = 0.5 * float((momenta**2 / beads.get_masses()[:, None]).sum())
        freedom = beads.get_number_of_degrees_of_freedom()
        at_rest = np.abs(momenta.sum(0)).max() < CENTRE_AT_REST * np.abs(momenta).max()
        if at_rest and freedom == 3 * len(beads):
            freedom -= 3  # the centre of mass is held, and by no constraint that ASE has counted already
        return self.observe(kinetic, max(freedom, 1))

    def observe(self, kinetic_energy: float, degrees_of_freedom: int) -> str | None:
        """Take one evaluation's kinetic energy in eV; return the warning when there is one."""
        self._temperatures.append(2 * kinetic_energy / (degrees_of_freedom * kB))
        if len(self._temperatures) < self._next_look:
            return None
        kept = np.array(self._temperatures[len(self._temperatures) // 2 :])
        mean, error = float(kept.mean()), reblocked_error(kept)
        enough = kept.var() >= self.MIN_INDEPENDENT * error**2
        deviation = abs(mean - self.reference)
        off = enough and deviation > max(self.MIN_DEVIATION * self.reference, self.ERRORS * error)
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


def reblocked_error(values: NDArray[np.float64]) -> float:
    """Return the standard error of the mean of a correlated series, shape (n,).

    Neighbours are averaged in pairs again and again; the naive error grows until blocks are longer than the
    correlation, and the largest is taken while at least 16 blocks remain.
    Source: Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989).
    """
    errors = [0.0]
    blocks = values
    while len(blocks) >= 16:
        errors.append(float(blocks.std(ddof=1) / np.sqrt(len(blocks))))
        even = len(blocks) // 2 * 2
        blocks = 0.5 * (blocks[:even:2] + blocks[1:even:2])
    return max(errors)
