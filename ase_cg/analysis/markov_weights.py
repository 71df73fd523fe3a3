"""Weights of equilibrium for frames of adaptive sampling, from a Markov state model of their trajectories."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.kinetics import (
    MarkovModel,
    States,
    assign,
    fit_clusters,
    fit_markov_model,
    macrostates_of,
)
from ase_cg.analysis.native import NativeStructure
from ase_cg.analysis.record import NEAR_NATIVE
from ase_cg.analysis.slow_coordinates import FeatureSet, fit_tica, project
from ase_cg.analysis.sources import FrameSource, open_source
from ase_cg.data.dataset import Dataset
from ase_cg.data.dataset_writer import write_weights
from ase_cg.errors import InputError
from ase_cg.files import existing_file, refuse_existing, refuse_input_as_output
from ase_cg.progress import Progress
from ase_cg.units import whole_ratio

PathLike = str | os.PathLike[str]
Arrays = list[NDArray[np.float64]]

NORMAL_95 = 1.96  # standard errors to either side of a 95 % interval
LAGS_TRIED = (1, 2, 3, 4, 5)  # multiples of the lag
CLUSTERS_TRIED = (0.5, 0.75, 1.0, 1.5, 2.0)  # multiples of the number of clusters
READ_AT_ONCE = 16384  # frames
NAMED_STATES = 10  # in messages


@dataclass(frozen=True)
class MarkovWeights:
    """Weights of frames that make them a sample of the equilibrium, and how far they can be trusted.

    A frame in cluster s weighs π(s)/n(s), π the stationary distribution of a reversible Markov state model and n the
    number of frames, so that every cluster is as probable as in equilibrium (Prinz et al., J. Chem. Phys. 134, 174105
    (2011)). The mean weight is 1. Convergence is judged by the populations of the model's macrostates, which are named
    by how probable they are: the first is the most populated.

    Attributes
    ----------
    weights : list of ndarray, shape (F,)
        One array a trajectory.
    lag : int
        In frames.
    clusters : int
    seed : int
    names : tuple of str
        Of m sets of frames: the macrostates, and the frames near the native structure where there is one.
    raw, populations : ndarray, shape (m,)
        Fraction of the frames, and of the weights, in each set.
    errors : ndarray, shape (m,)
        Standard errors of the populations: their spread over samples of the trajectories, drawn with replacement.
    intervals : ndarray, shape (m, 2)
        95 % intervals: of ln(p/(1 − p)), 1.96 standard errors to either side.
    effective_frames : float
        Kish's number of equally weighted frames, (Σw)²/Σw².
    disconnected : tuple of int
        Clusters without weight, since the model does not connect them with the others.
    lost : float
        Fraction of the frames in them.
    by_lag, by_clusters : dict
        Populations with other lags and other numbers of clusters: of each an array, or a sentence why there is none.
    fingerprint : str
        Of the frames to which the weights belong.
    """

    weights: Arrays
    lag: int
    clusters: int
    seed: int
    names: tuple[str, ...]
    raw: NDArray[np.float64]
    populations: NDArray[np.float64]
    errors: NDArray[np.float64]
    intervals: NDArray[np.float64]
    effective_frames: float
    disconnected: tuple[int, ...]
    lost: float
    by_lag: dict[int, NDArray[np.float64] | str]
    by_clusters: dict[int, NDArray[np.float64] | str]
    fingerprint: str

    @property
    def notes(self) -> list[str]:
        """What is in doubt, one sentence each."""
        found = []
        if self.disconnected:
            found.append(
                f"{len(self.disconnected)} clusters with {self.lost:.1%} of the frames are not connected with the "
                "others and weigh nothing"
            )
        for what, table in (("lag", self.by_lag), ("number of clusters", self.by_clusters)):
            other = [value for value in table.values() if not isinstance(value, str)]
            apart = max((float(np.abs(value - self.populations).max()) for value in other), default=0.0)
            if apart > 2 * max(float(self.errors.max()), 1e-3):
                found.append(
                    f"populations change by up to {apart:.3f} with the {what}, more than twice their standard error "
                    f"({self.errors.max():.3f}): look at the table, and choose a {what} from which on they stay"
                )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the weights, as plain values."""

        def plain(table: dict[int, NDArray[np.float64] | str]) -> dict[str, Any]:
            return {str(key): x if isinstance(x, str) else x.tolist() for key, x in table.items()}

        return {
            "method": "reversible Markov state model of k-means clusters in TICA coordinates",
            "lag_frames": self.lag,
            "clusters": self.clusters,
            "seed": self.seed,
            "populations": {
                name: {
                    "fraction_of_frames": float(self.raw[place]),
                    "value": float(self.populations[place]),
                    "standard_error": float(self.errors[place]),
                    "interval": self.intervals[place].tolist(),
                }
                for place, name in enumerate(self.names)
            },
            "effective_frames": self.effective_frames,
            "disconnected_clusters": list(self.disconnected),
            "fraction_of_frames_without_weight": self.lost,
            "populations_by_lag_frames": plain(self.by_lag),
            "populations_by_clusters": plain(self.by_clusters),
            "notes": self.notes,
            "frames_fingerprint": self.fingerprint,
        }

    def population(self, chosen: Sequence[NDArray[np.bool_]]) -> float:
        """Return the weighted fraction of frames that are chosen, one array (F,) a trajectory."""
        return float(np.average(np.concatenate(list(chosen)), weights=np.concatenate(self.weights)))

    def write(self, dataset: PathLike, output: PathLike | None = None, *, overwrite: bool = False) -> Path:
        """Write the weights into the dataset that they were made from, or into a copy of it.

        Parameters
        ----------
        dataset : path
        output : path, optional
            A copy with weights; by default the dataset itself gets them.
        overwrite : bool
            Replace weights that the dataset has, or an output that exists.

        Raises
        ------
        InputError
            If they belong to other frames, or something would be overwritten.
        """
        values = np.concatenate(self.weights)
        return write_weights(dataset, values, self.to_dict(), output, overwrite=overwrite)


def markov_weights(
    dataset: PathLike,
    lag: int | str = 1,
    clusters: int = 60,
    *,
    macrostates: int = 2,
    native: PathLike | None = None,
    resamples: int = 50,
    drop_disconnected: bool = False,
    seed: int = 0,
    quiet: bool = False,
) -> MarkovWeights:
    """Weigh the frames of a dataset of trajectories by a Markov state model, so that they represent the equilibrium.

    The trajectories may be short and begin anywhere, as in adaptive sampling, if each is in local equilibrium after
    the lag and together they go back and forth between all states. Distances between beads (or dihedrals φ and ψ) are
    projected on time-lagged independent components, k-means clusters of these are the states, and transitions are
    counted within trajectories only (deeptime).

    Parameters
    ----------
    dataset : path
        Of one molecule, whose trajectories are known: ``ase-cg map`` with several files, ``trajectory_length`` or
        ``trajectory_starts``. Weights that it has already are not used.
    lag : int or str
        Frames, or a time such as ``"10 ns"`` where the dataset knows the time between frames.
    clusters : int
    macrostates : int
        Whose populations judge convergence.
    native : path, optional
        Native structure; the population of frames within 2.5 Å of it is given as well.
    resamples : int
        Of the trajectories, for standard errors.
    drop_disconnected : bool
        Give frames of clusters that are not connected no weight, instead of raising an error.
    seed : int
    quiet : bool

    Raises
    ------
    InputError
        If the trajectories are too short for the lag, or clusters are not connected and `drop_disconnected` is false.
    """
    _check(clusters, macrostates, resamples)
    if native is not None:
        existing_file(native, "native structure")
    source = open_source(dataset, "the dataset")
    with Dataset.open(dataset) as opened:
        molecule = opened.only_molecule()
        frames, fingerprint = _frames_of(lag, molecule.mapping.get("frame_interval")), molecule.fingerprint()
    _check_lengths(source, frames)
    with Progress("Fitting Markov models", resamples, quiet=quiet) as progress:
        slow = project(source, fit_tica(source, FeatureSet.of(molecule.topology), frames))
        fit = EquilibriumFit.of(slow, frames, clusters, seed)
        _check_connected(fit, frames, drop=drop_disconnected)
        member = macrostates_of(fit.model, fit.centers, macrostates)
        names, sets = _sets(member[np.concatenate(fit.states)], dataset, native)
        populations, errors, intervals = fit.populations(sets, resamples, progress)
    values = np.concatenate(fit.weights)
    gone = np.isin(np.concatenate(fit.states), fit.model.disconnected)
    return MarkovWeights(
        weights=fit.weights,
        lag=frames,
        clusters=len(fit.centers),
        seed=seed,
        names=names,
        raw=sets.mean(0),
        populations=populations,
        errors=errors,
        intervals=intervals,
        effective_frames=float(values.sum() ** 2 / (values**2).sum()),
        disconnected=fit.model.disconnected,
        lost=float(gone.mean()),
        by_lag={n * frames: _tried(slow, n * frames, clusters, seed, sets) for n in LAGS_TRIED},
        by_clusters={n: _tried(slow, frames, n, seed, sets) for n in (int(m * clusters) for m in CLUSTERS_TRIED)},
        fingerprint=fingerprint,
    )


def weigh(
    dataset: PathLike, output: PathLike | None = None, *, overwrite: bool = False, **settings: Any
) -> MarkovWeights:
    """Make weights by :func:`markov_weights`, whose `settings` they are, and write them into the dataset or a copy.

    Raises
    ------
    InputError
        As there; and if the dataset has weights or the output exists, and `overwrite` is false.
    """
    if output is not None:
        refuse_input_as_output(Path(output), [Path(dataset)], (".h5", ".hdf5"))
        refuse_existing(Path(output), overwrite=overwrite)
    with Dataset.open(dataset) as opened:
        if opened.only_molecule().has_weights and output is None and not overwrite:
            raise InputError(
                f"{dataset} has frame weights already; replace them with --overwrite (overwrite=True), or name another "
                "--output"
            )
    found = markov_weights(dataset, **settings)
    found.write(dataset, output, overwrite=overwrite)
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

    def populations(
        self, sets: NDArray[np.float64], resamples: int, progress: Progress | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return populations (m,) of sets of frames in equilibrium, standard errors (m,) and 95 % intervals (m, 2).

        Parameters
        ----------
        sets : ndarray, shape (F, m)
            1 where a frame belongs to a set, otherwise 0.
        resamples : int
            Draws of as many trajectories, with replacement; clusters stay.
        progress : Progress, optional
        """
        rng = np.random.default_rng(self.seed)
        drawn = []
        for _ in range(resamples):
            drawn.append(self._resampled(rng.integers(0, len(self.states), len(self.states)), sets))
            if progress is not None:
                progress.advance(1)
        populations = np.average(sets, axis=0, weights=np.concatenate(self.weights))
        return populations, *_spread(np.array(drawn), populations)

    def _resampled(self, sample: NDArray[np.int64], sets: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the populations of sets of frames (F, m) by a model of the trajectories that were drawn."""
        states = [self.states[i] for i in sample]
        ends = np.cumsum([len(x) for x in self.states])
        rows = np.concatenate([np.arange(ends[i] - len(self.states[i]), ends[i]) for i in sample])
        try:
            model = fit_markov_model(states, self.model.lag, self.model.n_clusters)
        except InputError:  # no transitions were drawn
            return np.full(sets.shape[1], np.nan)
        return np.asarray(np.average(sets[rows], axis=0, weights=np.concatenate(model.frame_weights(states))))


def _check(clusters: int, macrostates: int, resamples: int) -> None:
    for name, value in (("clusters", clusters), ("macrostates", macrostates), ("resamples", resamples)):
        if value < 2:
            raise InputError(f"{name} must be at least 2, not {value}")
    if macrostates > clusters:
        raise InputError(f"{macrostates} macrostates need at least as many clusters, not {clusters}")


def _frames_of(lag: int | str, interval: str | None) -> int:
    """Return a lag in frames."""
    if isinstance(lag, str) and lag.strip().isdigit():
        lag = int(lag)
    if isinstance(lag, str):
        if interval is None:
            raise InputError(
                f"a lag of {lag!r} needs the time between frames, which the dataset does not know; give the lag in "
                "frames, or map again with --frame-interval"
            )
        return whole_ratio(lag, interval, ("lag", "time between frames"))
    if lag < 1:
        raise InputError(f"the lag is a whole number of frames from 1, not {lag}")
    return lag


def _check_lengths(source: FrameSource, lag: int) -> None:
    lengths = [piece.length for piece in source.pieces]
    usable = sum(length > lag for length in lengths)
    if not usable:
        raise InputError(
            f"{source.path}: none of {len(lengths)} trajectories is longer than the lag of {lag} frames (the longest "
            f"has {max(lengths)}); choose a lag of at most {max(lengths) - 1}"
        )
    if 2 * usable < len(lengths):
        warnings.warn(
            f"only {usable} of {len(lengths)} trajectories are longer than the lag of {lag} frames; the others are "
            "weighted, but show no transitions",
            stacklevel=3,
        )


def _check_connected(fit: EquilibriumFit, lag: int, *, drop: bool) -> None:
    missing = fit.model.disconnected
    if not missing:
        return
    counts = np.bincount(np.concatenate(fit.states), minlength=len(fit.centers))
    if not drop:
        named = ", ".join(str(state) for state in missing[:NAMED_STATES])
        more = f" and {len(missing) - NAMED_STATES} more" if len(missing) > NAMED_STATES else ""
        raise InputError(
            f"at a lag of {lag} frames {len(missing)} of {len(fit.centers)} clusters are not both reached from the "
            f"others and left again: {named}{more}, with {counts[list(missing)].sum() / counts.sum():.1%} of the "
            "frames; choose a shorter lag or fewer clusters, add trajectories that connect them, or give these frames "
            "no weight with --drop-disconnected (drop_disconnected=True)"
        )


def _sets(
    member: NDArray[np.int64], dataset: PathLike, native: PathLike | None
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return the sets of frames whose populations are given: their names, and which frames belong to each, (F, m)."""
    columns = [member == number for number in range(int(member.max()) + 1)]
    names = [f"macrostate {number + 1}" for number in range(len(columns))]
    if native is not None:
        names.append(f"within {NEAR_NATIVE:g} Å of the native structure")
        columns.append(_near_native(dataset, native))
    return tuple(names), np.stack(columns, axis=1).astype(float)


def _spread(
    drawn: NDArray[np.float64], populations: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return standard errors and 95 % intervals of populations (m,) from samples (resamples, m)."""
    usable = drawn[np.isfinite(drawn).all(1)]
    least = 1e-9
    odds = [np.log(p / (1 - p)) for p in (np.clip(x, least, 1 - least) for x in (usable, populations))]
    half = NORMAL_95 * odds[0].std(0, ddof=1)
    ends = np.stack([odds[1] - half, odds[1] + half], axis=1)
    return usable.std(0, ddof=1), 1 / (1 + np.exp(-ends))


def _tried(slow: Arrays, lag: int, clusters: int, seed: int, sets: NDArray[np.float64]) -> NDArray[np.float64] | str:
    """Return the populations of sets of frames (F, m) with another lag or number of clusters, or why there are none."""
    if clusters < 2:
        return "fewer than two clusters"
    longest = max(len(x) for x in slow)
    if longest <= lag:
        return f"no trajectory is longer than {longest} frames"
    try:
        fit = EquilibriumFit.of(slow, lag, clusters, seed)
    except InputError:
        return "no clusters are connected"
    if fit.model.disconnected:
        return f"{len(fit.model.disconnected)} clusters are not connected"
    return np.asarray(np.average(sets, axis=0, weights=np.concatenate(fit.weights)))


def _near_native(dataset: PathLike, native: PathLike) -> NDArray[np.bool_]:
    """Return which frames of a dataset of one molecule are within 2.5 Å of RMSD of a native structure, shape (F,)."""
    with Dataset.open(dataset) as opened:
        molecule = opened.only_molecule()
        structure = NativeStructure.read(native, molecule.topology, molecule.resolution)
        parts = [structure.rmsd(molecule.coordinates(frames)) for frames in _chunks(molecule.n_frames)]
    return np.concatenate(parts) < NEAR_NATIVE


def _chunks(n_frames: int) -> list[slice]:
    return [slice(start, start + READ_AT_ONCE) for start in range(0, n_frames, READ_AT_ONCE)]
