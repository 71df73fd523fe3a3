"""Equilibrium averages from a Markov state model of short trajectories, with errors from drawing trajectories anew."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.kinetics import MarkovModel, States, assign, fit_clusters, fit_markov_model, markov_model_of_counts
from ase_cg.errors import InputError
from ase_cg.progress import Progress

Arrays = list[NDArray[np.float64]]

NORMAL_95 = 1.96  # standard errors to either side of a 95 % interval
LEAST = 1e-9  # distance of a population from 0 and 1 where its odds are taken


class Averages(NamedTuple):
    """Averages in equilibrium of m quantities, with their errors.

    Attributes
    ----------
    values : ndarray, shape (m,)
    errors : ndarray, shape (m,)
        Standard errors: the spread over samples of the trajectories.
    intervals : ndarray, shape (m, 2)
        95 % intervals.
    """

    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    intervals: NDArray[np.float64]


@dataclass(frozen=True)
class EquilibriumDraws:
    """Stationary distributions of Markov models of as many trajectories, drawn with replacement.

    Parameters
    ----------
    states : ndarray of int, shape (F,)
        Cluster of each frame.
    trajectories : ndarray of int, shape (F,)
        Number of its trajectory.
    times : ndarray of int, shape (draws, T)
        How often each trajectory was drawn.
    stationary : ndarray, shape (draws, clusters)
    """

    states: NDArray[np.int64]
    trajectories: NDArray[np.int64]
    times: NDArray[np.int64]
    stationary: NDArray[np.float64]

    def averages(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the averages of quantities of the frames, (F, m), in each draw: shape (draws, m)."""
        found = np.empty((len(self.times), values.shape[1]))
        for number, (times, stationary) in enumerate(zip(self.times, self.stationary, strict=True)):
            repeats = times[self.trajectories].astype(float)
            frames = np.bincount(self.states, weights=repeats, minlength=len(stationary))
            weight = np.divide(stationary, frames, out=np.zeros_like(stationary), where=frames > 0)
            own = repeats * weight[self.states]
            found[number] = own @ values / own.sum()
        return found


@dataclass(frozen=True)
class EquilibriumFit:
    """Clusters and a Markov state model of trajectories in slow coordinates; see :meth:`of`.

    Parameters
    ----------
    centers : ndarray, shape (clusters, d)
    states : list of ndarray, shape (F,)
        Cluster of each frame, one array a trajectory.
    model : MarkovModel
    seed : int
    """

    centers: NDArray[np.float64]
    states: States
    model: MarkovModel
    seed: int

    @classmethod
    def of(cls, slow: Arrays, lag: int, clusters: int, seed: int = 0) -> "EquilibriumFit":
        """Fit to trajectories, one array (F, d) each; the lag is in frames.

        Raises
        ------
        InputError
            If no trajectory is longer than the lag, or no clusters are connected.
        """
        centers = fit_clusters(slow, clusters, seed=seed)
        states = assign(slow, centers)
        return cls(centers, states, fit_markov_model(states, lag, len(centers)), seed)

    @property
    def weights(self) -> Arrays:
        """One array a trajectory, with mean 1."""
        n = sum(len(x) for x in self.states)
        return [n * w for w in self.model.frame_weights(self.states)]

    def crossings(self, macrostates: NDArray[np.int64]) -> int:
        """Return the number of times that a trajectory goes from one macrostate, given for each cluster, to another."""
        return sum(int(np.count_nonzero(np.diff(macrostates[x]))) for x in self.states)

    def draws(self, count: int, progress: Progress | None = None) -> EquilibriumDraws:
        """Draw trajectories with replacement `count` times and fit a model to each draw; clusters stay.

        Raises
        ------
        InputError
            If in fewer than two draws any clusters are connected.
        """
        lag, n = self.model.lag, self.model.n_clusters
        states = np.concatenate(self.states)
        owners = np.repeat(np.arange(len(self.states)), [len(x) for x in self.states])
        # Transitions are found once; a draw counts those of a trajectory as often as it was drawn.
        before = np.concatenate([x[:-lag] for x in self.states])
        after = np.concatenate([x[lag:] for x in self.states])
        owner = np.repeat(np.arange(len(self.states)), [max(len(x) - lag, 0) for x in self.states])
        rng = np.random.default_rng(self.seed)
        all_times, all_stationary = [], []
        for _ in range(count):
            times = np.bincount(rng.integers(0, len(self.states), len(self.states)), minlength=len(self.states))
            counts = np.bincount(before * n + after, weights=times[owner].astype(float), minlength=n * n)
            try:
                model = markov_model_of_counts(counts.astype(float).reshape(n, n), lag, np.arange(n))
            except InputError:  # no transitions were drawn
                continue
            finally:
                if progress is not None:
                    progress.advance(1)
            all_times.append(times)
            all_stationary.append(model.stationary)
        if len(all_times) < 2:
            raise InputError(
                f"when the {len(self.states)} trajectories are drawn anew, transitions connect no clusters; so few "
                "transitions give no error of the weights: choose a shorter lag, or add trajectories"
            )
        return EquilibriumDraws(states, owners, np.array(all_times), np.array(all_stationary))

    def averages(self, values: NDArray[np.float64], draws: EquilibriumDraws) -> Averages:
        """Return averages in equilibrium of quantities of the frames, shape (F, m), with their errors."""
        return averages(np.concatenate(self.weights), values, draws)


def averages(weights: NDArray[np.float64], values: NDArray[np.float64], draws: EquilibriumDraws) -> Averages:
    """Return weighted averages of quantities with their errors.

    The interval of a quantity that is always 0 or 1 is taken in ln(p/(1 − p)), and so stays between 0 and 1; others are
    1.96 standard errors to either side.

    Parameters
    ----------
    weights : ndarray, shape (F,)
    values : ndarray, shape (F, m)
    draws : EquilibriumDraws
    """
    found, drawn = np.asarray(np.average(values, axis=0, weights=weights)), draws.averages(values)
    errors = drawn.std(0, ddof=1)
    intervals = np.stack([found - NORMAL_95 * errors, found + NORMAL_95 * errors], axis=1)
    yes_or_no = np.isin(values, (0, 1)).all(0)
    if yes_or_no.any():
        middle, spread = _log_odds(found[yes_or_no]), NORMAL_95 * _log_odds(drawn[:, yes_or_no]).std(0, ddof=1)
        intervals[yes_or_no] = 1 / (1 + np.exp(-np.stack([middle - spread, middle + spread], axis=1)))
    return Averages(found, errors, intervals)


def _log_odds(populations: NDArray[np.float64]) -> NDArray[np.float64]:
    p = np.clip(populations, LEAST, 1 - LEAST)
    return np.asarray(np.log(p / (1 - p)))
