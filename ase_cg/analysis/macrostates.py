"""Macrostates of the reference, and populations, timescales and folding free energies in them, with errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.kinetics import (
    ImpliedTimescales,
    MarkovModel,
    States,
    assign,
    fit_clusters,
    fit_markov_model,
    implied_timescales,
    macrostate_populations,
    macrostates_of,
)
from ase_cg.errors import InputError
from ase_cg.units import KCAL_PER_MOL, thermal_energy

RESAMPLES = 10
KEPT = 0.9  # of the trajectories in each resample
MANY = 10  # cluster numbers that are listed
MOST_UNCERTAIN = 0.5  # no number between 0 and 1 has a larger standard deviation

Series = Sequence[NDArray[np.float64]]


@dataclass(frozen=True)
class KineticsSettings:
    """How Markov state models are made.

    Parameters
    ----------
    lag : int
        Of the reference, for TICA and its Markov model, in its frames; 0 leaves kinetics out.
    model_lag : int or None
        Of the simulations, in their frames; by default the same number.
    clusters, macrostates : int
    """

    lag: int = 10
    model_lag: int | None = None
    clusters: int = 100
    macrostates: int = 2

    def __post_init__(self) -> None:
        for name, least in (("lag", 0), ("clusters", 2), ("macrostates", 2)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.model_lag is not None and self.model_lag < 1:
            raise InputError(f"model_lag must be at least 1 frame, not {self.model_lag}")
        if self.macrostates > self.clusters:
            raise InputError(f"{self.macrostates} macrostates need at least as many clusters, not {self.clusters}")


@dataclass(frozen=True)
class StateSpace:
    """Clusters and macrostates of the reference, into which any frames can be sorted.

    Parameters
    ----------
    centers : ndarray, shape (clusters, d)
        In slow coordinates.
    macrostates : ndarray, shape (clusters,)
    native : int or None
        The macrostate that holds the frame nearest to the native structure.
    """

    centers: NDArray[np.float64]
    macrostates: NDArray[np.int64]
    native: int | None

    @property
    def n_macrostates(self) -> int:
        """Number of macrostates."""
        return int(self.macrostates.max()) + 1


@dataclass(frozen=True)
class Kinetics:
    """What the Markov model of one ensemble says.

    Errors are standard errors: the spread over ten draws of 90 % of the trajectories, times √(m/(n − m)) because draws
    of m out of n overlap (delete-d jackknife; Shao and Wu, Ann. Stat. 17, 1176 (1989)).

    Parameters
    ----------
    lag : int
        In frames.
    frame_interval : float or None
        In ps.
    model : MarkovModel
    implied : ImpliedTimescales
    timescales, timescale_errors : ndarray, shape (3,)
        In frames.
    populations, population_errors : ndarray, shape (macrostates,)
        In equilibrium, by the Markov model.
    counted : ndarray, shape (macrostates,)
        Fraction of the frames.
    native : int or None
    free_energy, free_energy_error : float or None
        Of folding in kT, −ln(p/(1 − p)) of the native macrostate; negative where it is the more probable.
    temperature : float or None
        In K.
    notes : tuple of str
        What was left out.
    """

    lag: int
    frame_interval: float | None
    model: MarkovModel
    implied: ImpliedTimescales
    timescales: NDArray[np.float64]
    timescale_errors: NDArray[np.float64]
    populations: NDArray[np.float64]
    population_errors: NDArray[np.float64]
    counted: NDArray[np.float64]
    native: int | None
    free_energy: float | None
    free_energy_error: float | None
    temperature: float | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values; numbers that do not exist are None."""
        kcal = None if self.temperature is None else thermal_energy(self.temperature) / KCAL_PER_MOL
        unit = None if self.free_energy is None or kcal is None else kcal
        return {
            "lag_frames": self.lag,
            "frame_interval_ps": self.frame_interval,
            "timescales_frames": _plain(self.timescales),
            "timescale_errors_frames": _plain(self.timescale_errors),
            "macrostate_populations": _plain(self.populations),
            "macrostate_population_errors": _plain(self.population_errors),
            "macrostate_fractions_of_frames": _plain(self.counted),
            "native_macrostate": self.native,
            "folding_free_energy_kT": _number(self.free_energy),
            "folding_free_energy_error_kT": _number(self.free_energy_error),
            "folding_free_energy_kcal_per_mol": None if unit is None else _number(unit * (self.free_energy or 0.0)),
            "implied_timescales": {
                "lags_frames": list(self.implied.lags),
                "timescales_frames": [_plain(row) for row in self.implied.timescales],
            },
            "chapman_kolmogorov_largest_deviation": self.implied.largest_deviation,
            "connected_clusters": len(self.model.states),
            "disconnected_clusters": list(self.model.disconnected),
            "notes": list(self.notes),
        }


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def reference_states(
    slow: Series, rmsd: Series | None, settings: KineticsSettings, weights: Series | None = None
) -> StateSpace:
    """Cluster the reference and find its macrostates.

    Parameters
    ----------
    slow : list of ndarray, shape (F, d)
    rmsd : list of ndarray, shape (F,), or None
        From the native structure.
    settings : KineticsSettings
    weights : list of ndarray, shape (F,), optional
        Of the frames; those of weight 0 are as if they were not there. Otherwise they do not matter: see
        :func:`kinetics_of`.

    Raises
    ------
    InputError
        If all trajectories are shorter than the lag.
    """
    centers = fit_clusters([x for one in _unbroken(slow, weights) for x in one], settings.clusters)
    states = assign(slow, centers)
    runs = [x for one in _unbroken(states, weights) for x in one]
    macrostates = macrostates_of(fit_markov_model(runs, settings.lag, len(centers)), centers, settings.macrostates)
    native = None
    if rmsd is not None:
        distances = np.concatenate(list(rmsd))
        if weights is not None:
            distances = np.where(np.concatenate(list(weights)) > 0, distances, np.inf)
        native = int(macrostates[np.concatenate(states)[int(np.argmin(distances))]])
    return StateSpace(centers, macrostates, native)


def _unbroken(series: Sequence[NDArray[Any]], weights: Series | None) -> list[list[NDArray[Any]]]:
    """Return the stretches of each trajectory between frames of weight 0."""
    if weights is None:
        return [[x] for x in series]
    found = []
    for x, w in zip(series, weights, strict=True):
        ends = np.flatnonzero(np.diff((w > 0).astype(int), prepend=0, append=0)).reshape(-1, 2)
        found.append([x[first:last] for first, last in ends])
    return found


def kinetics_of(
    states: States,
    space: StateSpace,
    lag: int,
    *,
    weights: Series | None = None,
    frame_interval: float | None,
    temperature: float | None,
) -> Kinetics:
    """Return populations, timescales and folding free energy of trajectories sorted into the reference's clusters.

    Transitions count once each, whatever the weights (F,) of the frames: where a trajectory goes does not depend on how
    often trajectories began there, so that a Markov model needs no weights to give the equilibrium (Prinz et al., J.
    Chem. Phys. 134, 174105 (2011)). Weights count in the fraction of the frames in each macrostate, and a trajectory
    ends where a frame of weight 0 lies.

    Raises
    ------
    InputError
        If all trajectories are shorter than the lag.
    """
    n = space.n_macrostates
    trajectories = _unbroken(states, weights)
    runs = [run for one in trajectories for run in one]
    model = fit_markov_model(runs, lag, len(space.centers))
    draws, factor = _resampled(trajectories, lag, len(space.centers))
    drawn = [(fitted.timescales(), macrostate_populations(fitted, space.macrostates, n)) for fitted in draws]
    shares = np.ones(sum(map(len, states))) if weights is None else np.concatenate(list(weights))
    populations = macrostate_populations(model, space.macrostates, n)
    energies = [_folding(p, space.native) for _, p in drawn]
    return Kinetics(
        lag=lag,
        frame_interval=frame_interval,
        model=model,
        implied=implied_timescales(runs, model, space.macrostates),
        timescales=model.timescales(),
        timescale_errors=factor * np.std([t for t, _ in drawn], axis=0, ddof=1),
        populations=populations,
        population_errors=np.minimum(factor * np.std([p for _, p in drawn], axis=0, ddof=1), MOST_UNCERTAIN),
        counted=np.bincount(space.macrostates[np.concatenate(states)], shares, minlength=n) / shares.sum(),
        native=space.native,
        free_energy=_folding(populations, space.native),
        free_energy_error=None if space.native is None else factor * _spread(energies),
        temperature=temperature,
        notes=tuple(_notes(model, runs, space)),
    )


def _spread(energies: list[float | None]) -> float:
    """Return the standard deviation; not a number where a draw has never left the native macrostate, or entered it."""
    values = np.array(energies, dtype=float)
    return float(values.std(ddof=1)) if np.isfinite(values).all() else float("nan")


def _folding(populations: NDArray[np.float64], native: int | None) -> float | None:
    if native is None:
        return None
    with np.errstate(divide="ignore"):
        return float(np.log(1 - populations[native]) - np.log(populations[native]))


def _resampled(trajectories: Sequence[States], lag: int, n_clusters: int) -> tuple[list[MarkovModel], float]:
    """Return models of nine tenths of the trajectories, ten times, and what makes their spread a standard error.

    Of too few trajectories tenths of each are drawn. With a single one the error is not known.
    """
    pieces = [[run for run in one if len(run) > lag] for one in trajectories]
    pieces = [one for one in pieces if one]
    if len(pieces) < RESAMPLES:
        tenths = [[part] for one in pieces for run in one for part in np.array_split(run, RESAMPLES) if len(part) > lag]
        pieces = tenths or pieces
    if len(pieces) < 2:
        return [fit_markov_model(pieces[0], lag, n_clusters)] * RESAMPLES, float("nan")
    rng = np.random.default_rng(0)
    kept = min(len(pieces) - 1, max(1, round(KEPT * len(pieces))))
    draws = [rng.permutation(len(pieces))[:kept] for _ in range(RESAMPLES)]
    models = [fit_markov_model([run for i in draw for run in pieces[i]], lag, n_clusters) for draw in draws]
    return models, float(np.sqrt(kept / (len(pieces) - kept)))


def _notes(model: MarkovModel, states: States, space: StateSpace) -> list[str]:
    if not model.disconnected:
        return []
    share = np.isin(np.concatenate(states), model.disconnected).mean()
    count = len(model.disconnected)
    shown = ", ".join(map(str, model.disconnected[:MANY])) + (", …" if count > MANY else "")
    places = sorted(set(space.macrostates[list(model.disconnected)].tolist()))
    return [
        (
            f"{'cluster' if count == 1 else 'clusters'} {shown} ({count} of {model.n_clusters}, {100 * share:.2g} % of "
            f"the frames, in macrostate {' and '.join(str(place + 1) for place in places)}) not connected by "
            "transitions both ways: left out of the Markov model"
        )
    ]
