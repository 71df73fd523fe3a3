"""Markov state models of slow coordinates: clusters, timescales, macrostates, populations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.errors import InputError

Series = Sequence[NDArray[np.float64]]
States = list[NDArray[np.int64]]

MAX_FITTED = 100_000  # frames that clusters are fitted to; all are assigned
DEFAULT_CLUSTERS = 100
DEFAULT_MACROSTATES = 2
N_TIMESCALES = 3
LAG_MULTIPLES = (1, 2, 3, 4, 5)


def fit_clusters(series: Series, n_clusters: int = DEFAULT_CLUSTERS, *, seed: int = 0) -> NDArray[np.float64]:
    """Return the centres of k-means clusters (deeptime, k-means++) of frames, one array (F, d) a trajectory.

    Returns
    -------
    ndarray, shape (clusters, d)
        Fewer than asked for where there are fewer frames than ten a cluster.
    """
    from deeptime.clustering import KMeans

    frames = np.concatenate(list(series))
    frames = frames[:: -(-len(frames) // MAX_FITTED)]
    count = max(1, min(n_clusters, len(frames) // 10))
    fitted = KMeans(count, fixed_seed=seed, max_iter=200, n_jobs=1).fit(np.ascontiguousarray(frames)).fetch_model()
    return np.asarray(fitted.cluster_centers)


def assign(series: Series, centers: NDArray[np.float64]) -> States:
    """Return the nearest centre of each frame: one array (F,) a trajectory."""
    from scipy.spatial import cKDTree

    found = np.asarray(cKDTree(centers).query(np.concatenate(list(series)))[1], dtype=np.int64)
    return np.split(found, np.cumsum([len(x) for x in series])[:-1])


@dataclass(frozen=True)
class MarkovModel:
    """A reversible Markov state model.

    Parameters
    ----------
    msm : deeptime.markov.msm.MarkovStateModel
    states : ndarray, shape (s,)
        Clusters that the model connects.
    disconnected : tuple of int
        Clusters that were visited, but not both entered and left.
    lag : int
        In frames.
    n_clusters : int
    """

    msm: Any
    states: NDArray[np.int64]
    disconnected: tuple[int, ...]
    lag: int
    n_clusters: int

    @property
    def stationary(self) -> NDArray[np.float64]:
        """Stationary probability of each cluster, shape (clusters,); 0 where it is not connected."""
        found = np.zeros(self.n_clusters)
        found[self.states] = self.msm.stationary_distribution
        return found

    def timescales(self, count: int = N_TIMESCALES) -> NDArray[np.float64]:
        """Return the slowest implied timescales in frames, shape (count,), not a number where there are fewer."""
        found = np.full(count, np.nan)
        if len(self.states) > 1:
            values = np.asarray(self.msm.timescales(), dtype=float)[:count]
            found[: len(values)] = values
        return found

    def frame_weights(self, states: States) -> list[NDArray[np.float64]]:
        """Return the weight of each frame that makes clusters as probable as they are in equilibrium, sum 1."""
        counts = np.bincount(np.concatenate(states), minlength=self.n_clusters)
        weight = np.divide(self.stationary, counts, out=np.zeros(self.n_clusters), where=counts > 0)
        return [weight[s] for s in states]


def fit_markov_model(states: States, lag: int, n_clusters: int) -> MarkovModel:
    """Fit a reversible Markov state model to the largest set of clusters that transitions connect (deeptime).

    Parameters
    ----------
    states : list of ndarray
        Cluster of each frame, one array (F,) a trajectory.
    lag : int
        In frames; transitions are counted with a sliding window.
    n_clusters : int

    Raises
    ------
    InputError
        If all trajectories are shorter than the lag, or no transitions connect any clusters.
    """
    from deeptime.markov import TransitionCountEstimator

    longest = max((len(s) for s in states), default=0)
    if longest <= lag:
        raise InputError(f"every trajectory is shorter than the lag of {lag} frames (the longest has {longest})")
    usable = [s for s in states if len(s) > lag]
    counts = TransitionCountEstimator(lag, "sliding", n_states=n_clusters).fit(usable).fetch_model()
    return markov_model_of_counts(counts.count_matrix, lag, np.unique(np.concatenate(states)))


def markov_model_of_counts(counts: NDArray[np.float64], lag: int, visited: NDArray[np.int64]) -> MarkovModel:
    """Fit a reversible Markov state model to the largest set of clusters that transitions connect (deeptime).

    Parameters
    ----------
    counts : ndarray, shape (clusters, clusters)
        Transitions from the first cluster to the second within the lag.
    lag : int
        In frames.
    visited : ndarray of int
        Clusters that hold frames.

    Raises
    ------
    InputError
        If no transitions connect any clusters.
    """
    from deeptime.markov import TransitionCountModel
    from deeptime.markov.msm import MaximumLikelihoodMSM

    model = TransitionCountModel(counts, counting_mode="sliding", lagtime=lag)
    connected = model.submodel_largest(connectivity_threshold=0)
    if not connected.count_matrix.sum() > 0:
        raise InputError(
            f"at a lag of {lag} frames no cluster is left and reached again, so that none are connected; choose a "
            "shorter lag or fewer clusters"
        )
    msm = MaximumLikelihoodMSM(reversible=True).fit(connected).fetch_model()
    kept = np.asarray(connected.state_symbols, dtype=np.int64)
    return MarkovModel(msm, kept, tuple(int(s) for s in np.setdiff1d(visited, kept)), lag, len(counts))


@dataclass(frozen=True)
class ImpliedTimescales:
    """Implied timescales at several lags, and how well the model of the first predicts the others.

    Parameters
    ----------
    lags : tuple of int
        In frames.
    timescales : ndarray, shape (lags, 3)
        In frames.
    predicted, estimated : ndarray, shape (lags, m, m)
        Chapman–Kolmogorov check: probability to be in macrostate j after the lag, having been in i: of the model of
        the first lag, and of a model of that lag itself.
    """

    lags: tuple[int, ...]
    timescales: NDArray[np.float64]
    predicted: NDArray[np.float64]
    estimated: NDArray[np.float64]

    @property
    def largest_deviation(self) -> float:
        """Largest difference between what is predicted and what is estimated, a probability."""
        return float(np.abs(self.predicted - self.estimated).max()) if self.predicted.size else 0.0


def implied_timescales(states: States, model: MarkovModel, macrostates: NDArray[np.int64]) -> ImpliedTimescales:
    """Return implied timescales at 1 … 5 times the lag, with the Chapman–Kolmogorov check between macrostates.

    Parameters
    ----------
    states : list of ndarray
    model : MarkovModel
        Of the first lag.
    macrostates : ndarray, shape (clusters,)
        Macrostate of each cluster.
    """
    longest = max(len(s) for s in states)
    lags, models = [], []
    for multiple in LAG_MULTIPLES:
        lag = multiple * model.lag
        if 2 * lag < longest or multiple == 1:
            lags.append(lag)
            models.append(model if multiple == 1 else fit_markov_model(states, lag, model.n_clusters))
    n = int(macrostates.max()) + 1
    member = np.eye(n)[macrostates]
    start = np.stack([model.stationary * member[:, i] for i in range(n)])
    total = start.sum(1, keepdims=True)
    start = np.divide(start, total, out=np.zeros_like(start), where=total > 0)
    estimated = np.stack([_propagated(start, other, 1) @ member for other in models])
    predicted = np.stack([_propagated(start, model, lag // model.lag) @ member for lag in lags])
    return ImpliedTimescales(tuple(lags), np.stack([m.timescales() for m in models]), predicted, estimated)


def _propagated(start: NDArray[np.float64], model: MarkovModel, steps: int) -> NDArray[np.float64]:
    """Return distributions over clusters (m, clusters) after some steps; what is not connected stays where it is."""
    matrix = np.eye(model.n_clusters)
    matrix[np.ix_(model.states, model.states)] = model.msm.transition_matrix
    return np.asarray(start @ np.linalg.matrix_power(matrix, steps))


def macrostates_of(model: MarkovModel, centers: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the macrostate of each cluster by PCCA+ (deeptime), shape (clusters,), the most populated first.

    A cluster that is not connected belongs to the macrostate of the nearest one that is.

    Parameters
    ----------
    model : MarkovModel
    centers : ndarray, shape (clusters, d)
    count : int
        Macrostates asked for; there are fewer where fewer clusters are connected.
    """
    n = min(count, len(model.states))
    if n < 2:
        return np.zeros(model.n_clusters, dtype=np.int64)
    own = np.asarray(model.msm.pcca(n).assignments)
    population = np.bincount(own, weights=model.msm.stationary_distribution, minlength=n)
    rank = np.empty(n, dtype=np.int64)
    rank[np.argsort(-population)] = np.arange(n)
    distances = np.linalg.norm(centers[:, None] - centers[model.states][None], axis=-1)
    return np.asarray(rank[own[distances.argmin(1)]])


def macrostate_populations(model: MarkovModel, macrostates: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Return the equilibrium probability of each macrostate, shape (count,)."""
    return np.asarray(np.bincount(macrostates, weights=model.stationary, minlength=count), dtype=np.float64)
