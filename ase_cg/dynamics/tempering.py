"""Parallel tempering: neighbouring temperatures exchange conformations."""

import json
from typing import Any

import numpy as np
from ase.units import kB

from ase_cg.dynamics.noise import generator, random_key
from ase_cg.dynamics.replicas import ReplicaSimulation
from ase_cg.errors import InputError

BOTTOM, TOP = 1, 2


def temperature_ladder(lowest: float, highest: float, count: int) -> list[float]:
    """Return temperatures in K at equal ratios, which exchange about equally often where the heat capacity is constant.

    Raises
    ------
    InputError
        If there are fewer than two, or they do not rise from a positive one.
    """
    if count < 2 or not 0 < lowest < highest < np.inf:
        raise InputError(
            f"a ladder of temperatures rises from a positive one in at least two steps, not from {lowest:g} to "
            f"{highest:g} K in {count}"
        )
    return [float(t) for t in np.geomspace(lowest, highest, count)]


class ParallelTempering:
    """Exchanges among the replicas of a simulation, between which it is advanced.

    Even and odd pairs of neighbours take turns. Two are exchanged with probability
    min(1, exp((1/kTᵢ − 1/kTⱼ)(Uᵢ − Uⱼ))); velocities are rescaled by √(T_new/T_old), forces and energies go with
    their positions, and nothing is evaluated again. A place in the batch keeps its temperature and its random
    numbers; what moves are the conformations, called walkers. Stopped replicas take no part.
    Source: Sugita and Okamoto, Chem. Phys. Lett. 314, 141 (1999).

    Parameters
    ----------
    simulation : ReplicaSimulation
        With rising temperatures: one ladder, or several one after the other.
    ladders : int
    seed : int
        Of the exchanges; their random numbers are others than those of the dynamics.
    number : int
        Makes the random numbers of several simulations with one seed differ.

    Attributes
    ----------
    walkers : ndarray, shape (R,)
        Which conformation, by the place where it began, is now at each place.

    Raises
    ------
    InputError
        If the ladders are of different lengths, or temperatures do not rise.

    Examples
    --------
    >>> tempering = ParallelTempering(simulation)  # doctest: +SKIP
    >>> for _ in range(1000):  # doctest: +SKIP
    ...     simulation.step(500)
    ...     tempering.attempt()
    """

    def __init__(self, simulation: ReplicaSimulation, *, ladders: int = 1, seed: int = 0, number: int = 0) -> None:
        n = simulation.n_replicas
        if ladders < 1 or n % ladders or n // ladders < 2:
            raise InputError(f"{n} replicas cannot be divided into {ladders} ladders of at least two temperatures")
        self._simulation = simulation
        self._length = n // ladders
        steps = np.diff(simulation.temperatures.reshape(ladders, -1), axis=1)
        if not (steps > 0).all():
            raise InputError("exchanges need temperatures that rise from replica to replica")
        self._beta = 1 / (kB * simulation.temperatures)
        self._key = random_key(seed, number)
        self.attempts_done = 0
        self.walkers = np.arange(n)
        self._tried = np.zeros(n, dtype=int)  # by the lower place of a pair
        self._accepted = np.zeros(n, dtype=int)
        self._last_end = np.zeros(n, dtype=int)  # of each walker
        self._round_trips = np.zeros(n, dtype=int)
        self._note_ends()

    def attempt(self) -> None:
        """Try to exchange every second pair of neighbours."""
        n = len(self.walkers)
        uniform = generator(self._key, "exchanges", self.attempts_done).random(n)
        energies = self._simulation.potential_energies()
        source = np.arange(n)
        for low in range(n - 1):
            place = low % self._length
            if place == self._length - 1 or place % 2 != self.attempts_done % 2:
                continue
            if low in self._simulation.stopped or low + 1 in self._simulation.stopped:
                continue
            self._tried[low] += 1
            exponent = (self._beta[low] - self._beta[low + 1]) * (energies[low] - energies[low + 1])
            if exponent >= 0 or uniform[low] < np.exp(exponent):
                self._accepted[low] += 1
                source[[low, low + 1]] = low + 1, low
        self.attempts_done += 1
        if (source != np.arange(n)).any():
            self._simulation.exchange(source)
            self.walkers = self.walkers[source]
            self._note_ends()

    def _note_ends(self) -> None:
        bottom, top = self.walkers[:: self._length], self.walkers[self._length - 1 :: self._length]
        self._round_trips[bottom] += self._last_end[bottom] == TOP
        self._last_end[bottom], self._last_end[top] = BOTTOM, TOP

    def statistics(self) -> dict[str, Any]:
        """Return how often pairs were tried and exchanged, and how often walkers went up the ladder and back."""
        pairs = [low for low in range(len(self.walkers)) if low % self._length != self._length - 1]
        return {
            "attempts": self.attempts_done,
            "pairs": [
                {
                    "temperatures": [float(t) for t in self._simulation.temperatures[low : low + 2]],
                    "tried": int(self._tried[low]),
                    "accepted": int(self._accepted[low]),
                    "acceptance": float(self._accepted[low] / self._tried[low]) if self._tried[low] else None,
                }
                for low in pairs
            ],
            "round_trips": int(self._round_trips.sum()),
            "round_trips_of_walkers": self._round_trips.tolist(),
        }

    def save_state(self) -> str:
        """Return a text from which :meth:`load_state` continues."""
        names = ("walkers", "_tried", "_accepted", "_last_end", "_round_trips")
        lists = {name.lstrip("_"): getattr(self, name).tolist() for name in names}
        return json.dumps({"attempts_done": self.attempts_done, **lists})

    def load_state(self, text: str) -> None:
        """Continue from a saved state."""
        data = json.loads(text)
        self.attempts_done = int(data.pop("attempts_done"))
        self.walkers = np.array(data.pop("walkers"))
        for name, values in data.items():
            setattr(self, f"_{name}", np.array(values))
