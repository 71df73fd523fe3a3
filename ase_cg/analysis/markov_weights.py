"""Weights of equilibrium for frames of adaptive sampling, from a Markov state model of their trajectories."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.equilibrium import Arrays, Averages, EquilibriumDraws, EquilibriumFit, averages
from ase_cg.analysis.kinetics import macrostates_of
from ase_cg.analysis.markov_checks import check_connected, check_frames, check_lengths, check_settings, lag_in_frames
from ase_cg.analysis.native import NativeStructure
from ase_cg.analysis.record import NEAR_NATIVE
from ase_cg.analysis.slow_coordinates import FeatureSet, fit_tica, project
from ase_cg.analysis.sources import FrameSource, open_source
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset import Dataset
from ase_cg.data.dataset_writer import write_weights
from ase_cg.errors import InputError
from ase_cg.files import existing_file, refuse_existing, refuse_input_as_output
from ase_cg.keys import FRAMES_SHA256
from ase_cg.progress import Progress

PathLike = str | os.PathLike[str]

LAGS_TRIED = (1, 2, 3, 4, 5)  # multiples of the lag
CLUSTERS_TRIED = (0.5, 0.75, 1.0, 1.5, 2.0)  # multiples of the number of clusters
READ_AT_ONCE = 16384  # frames


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
    crossings : int
        How often a trajectory goes from one macrostate to another between neighbouring frames.
    frames_sha256 : str
        Of the frames to which the weights belong, :meth:`ase_cg.data.dataset.Molecule.frames_hash`.
    draws : EquilibriumDraws
        Of the trajectories, from which errors come.
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
    crossings: int
    frames_sha256: str
    draws: EquilibriumDraws = field(repr=False)

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
            "crossings_between_macrostates": self.crossings,
            FRAMES_SHA256: self.frames_sha256,
        }

    def average(self, values: NDArray[Any]) -> Averages:
        """Return the average in equilibrium of a quantity, with its standard error and 95 % interval.

        Parameters
        ----------
        values : ndarray, shape (F,) or (F, m)
            Of each frame of the dataset, in its order; booleans give the population of the chosen frames.

        Raises
        ------
        InputError
            If they are not one for each frame, or not finite.
        """
        weights, found = np.concatenate(self.weights), np.asarray(values, dtype=float)
        if found.ndim not in (1, 2) or len(found) != len(weights):
            raise InputError(f"values of shape {found.shape} are not one for each of {len(weights)} frames")
        if not np.isfinite(found).all():
            raise InputError("values hold some that are no numbers")
        return averages(weights, found.reshape(len(weights), -1), self.draws)

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
        weights = np.concatenate(self.weights)
        return write_weights(dataset, weights, self.to_dict(), output, overwrite=overwrite)


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
        If the trajectories are too short for the lag, there are too few frames for the clusters, or clusters are not
        connected and `drop_disconnected` is false.
    """
    check_settings(clusters, macrostates, resamples, seed)
    if native is not None:
        existing_file(native, "native structure")
    source = open_source(dataset, "the dataset")
    with Dataset.open(dataset) as opened:
        molecule = opened.only_molecule()
        frames, frames_sha256 = lag_in_frames(lag, molecule.mapping.get("frame_interval")), molecule.frames_hash()
    check_lengths(source, frames)
    check_frames(source, clusters)
    with Progress("Fitting Markov models", resamples, quiet=quiet) as progress:
        slow = _slow_coordinates(source, molecule.topology, frames)
        fit = EquilibriumFit.of(slow, frames, clusters, seed)
        check_connected(fit, frames, drop=drop_disconnected)
        member = macrostates_of(fit.model, fit.centers, macrostates)
        names, sets = _sets(member[np.concatenate(fit.states)], dataset, native)
        draws = fit.draws(resamples, progress)
        populations, errors, intervals = fit.averages(sets, draws)
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
        crossings=fit.crossings(member),
        frames_sha256=frames_sha256,
        draws=draws,
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


def _slow_coordinates(source: FrameSource, topology: BeadTopology, lag: int) -> Arrays:
    """Return time-lagged independent components of all frames: one array (F, d) a trajectory."""
    from deeptime.numeric import ZeroRankError

    features = FeatureSet.of(topology)
    try:
        return project(source, fit_tica(source, features, lag))
    except ZeroRankError as error:
        raise InputError(
            f"{source.path}: {features.names} are the same in all frames, so that nothing slow is found"
        ) from error


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
