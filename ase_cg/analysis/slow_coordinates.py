"""Slow coordinates: time-lagged independent components of the reference, or principal components without time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.features import dihedral_angles, pair_distances, ramachandran_beads, representative_beads
from ase_cg.analysis.sources import FrameSource, Piece
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError

MAX_PAIRS = 2000  # features; the covariance matrix of more would decide time and memory
MAX_COORDINATES = 4


@dataclass(frozen=True)
class FeatureSet:
    """What slow coordinates are linear in.

    Parameters
    ----------
    pairs : tuple of (int, int)
        Beads whose distances (Å) are features.
    dihedrals : tuple of (int, int, int, int)
        Beads whose dihedrals are features, as cosine and sine.
    """

    pairs: tuple[tuple[int, int], ...] = ()
    dihedrals: tuple[tuple[int, int, int, int], ...] = ()

    @classmethod
    def of(cls, topology: BeadTopology) -> Self:
        """Return all distances between Cα beads; without a fold φ and ψ; without those all distances.

        Of large molecules every second, third, … bead is taken, so that there are at most 2000 distances.
        """
        beads = representative_beads(topology)
        angles = ramachandran_beads(topology)
        if angles and len(beads) == topology.n_beads:
            return cls(dihedrals=tuple(four for pair in angles for four in pair))
        step = 1
        while len(beads[::step]) * (len(beads[::step]) - 1) // 2 > MAX_PAIRS:
            step += 1
        chosen = beads[::step]
        return cls(pairs=tuple((i, j) for place, i in enumerate(chosen) for j in chosen[place + 1 :]))

    @property
    def names(self) -> str:
        """What the features are, in words."""
        return f"{len(self.pairs)} distances" if self.pairs else f"cosines and sines of {len(self.dihedrals)} dihedrals"

    def __call__(self, frames: NDArray[Any]) -> NDArray[np.float64]:
        """Return the features of frames (F, N, 3): shape (F, features)."""
        if self.pairs:
            return pair_distances(frames, self.pairs)
        angles = dihedral_angles(frames, self.dihedrals)
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


@dataclass(frozen=True)
class SlowCoordinates:
    """Linear coordinates fitted to a reference; any frames can be projected into them.

    Parameters
    ----------
    kind : {"TICA", "PCA"}
    features : FeatureSet
    mean : ndarray, shape (features,)
    matrix : ndarray, shape (features, d)
    lag : int
        In frames; 0 for PCA.
    timescales : ndarray, shape (d,)
        Of TICA, in frames.
    """

    kind: str
    features: FeatureSet
    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]
    lag: int = 0
    timescales: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @property
    def labels(self) -> list[str]:
        """Name of each coordinate."""
        short = {"TICA": "TIC", "PCA": "PC"}[self.kind]
        return [f"{short} {number}" for number in range(1, self.matrix.shape[1] + 1)]

    def project(self, frames: NDArray[Any]) -> NDArray[np.float64]:
        """Return the coordinates of frames (F, N, 3) in Å: shape (F, d)."""
        return np.asarray((self.features(frames) - self.mean) @ self.matrix)


def fit_tica(
    source: FrameSource,
    features: FeatureSet,
    lag: int,
    n_coordinates: int = MAX_COORDINATES,
    *,
    weights: Sequence[NDArray[np.float64]] | None = None,
) -> SlowCoordinates:
    """Fit time-lagged independent component analysis to a source, streamed (deeptime, reversible, kinetic map).

    A pair of frames counts by the weight of its first. Where weights are the density of equilibrium over that of the
    sampling, such pairs are those of a trajectory in equilibrium, whatever the starts were (Wu et al., J. Chem. Phys.
    146, 154104 (2017)). A trajectory ends where a frame of weight 0 lies: no pair reaches over it.

    Parameters
    ----------
    source : FrameSource
    features : FeatureSet
    lag : int
        In frames; pairs lie within one trajectory.
    n_coordinates : int
        At most.
    weights : sequence of ndarray, optional
        Of the frames, shape (F,), one array a piece; by default all count the same.

    Raises
    ------
    InputError
        If every trajectory is shorter than the lag.
    """
    from deeptime.decomposition import TICA

    if lag < 1:
        raise InputError(f"the lag is a whole number of frames from 1, not {lag}")
    estimator = TICA(lagtime=lag, dim=None)
    covariances = TICA.covariance_estimator(lagtime=lag)
    fitted = False
    trajectory, carried, carried_weights = -1, np.empty((0, 0)), np.empty(0)
    for part, frames, given in _weighted_chunks(source, weights):
        series, own = features(frames), np.ones(len(frames)) if given is None else given
        if part.trajectory == trajectory:
            series, own = np.concatenate([carried, series]), np.concatenate([carried_weights, own])
        of_pairs = _pair_weights(own, lag)
        if of_pairs.any():
            covariances.partial_fit((series[:-lag], series[lag:]), weights=None if weights is None else of_pairs)
            fitted = True
        trajectory, carried, carried_weights = part.trajectory, series[-lag:], own[-lag:]
    if not fitted:
        longest = max((piece.length for piece in source.pieces), default=0)
        raise InputError(
            f"every trajectory of {source.name} is shorter than the lag of {lag} frames (the longest has {longest}); "
            "choose a shorter one with --lag"
        )
    model = estimator.fit_from_covariances(covariances).fetch_model()
    matrix = np.asarray(model.instantaneous_coefficients)[:, :n_coordinates]
    return SlowCoordinates(
        "TICA",
        features,
        np.asarray(model.mean_0),
        _oriented(matrix),
        lag,
        np.asarray(model.timescales(lagtime=lag))[:n_coordinates],
    )


def _pair_weights(weights: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    """Return the weights of pairs of frames a lag apart: that of the first, 0 where a frame in between has none."""
    if len(weights) <= lag:
        return np.empty(0)
    gone = np.concatenate([[0], np.cumsum(weights <= 0)])
    return np.where(gone[lag + 1 :] == gone[: -lag - 1], weights[:-lag], 0.0)


def _weighted_chunks(
    source: FrameSource, weights: Sequence[NDArray[np.float64]] | None
) -> Iterator[tuple[Piece, NDArray[Any], NDArray[np.float64] | None]]:
    """Give which frames, the frames (F, N, 3) and their weights (F,), some at a time."""
    place = {piece.trajectory: (number, piece.start) for number, piece in enumerate(source.pieces)}
    for part, frames in source.chunks():
        number, first = place[part.trajectory]
        yield part, frames, None if weights is None else weights[number][part.start - first : part.stop - first]


def fit_pca(source: FrameSource, features: FeatureSet, n_coordinates: int = 2) -> SlowCoordinates:
    """Fit principal components of the features, each with variance 1, to a source whose frames are no time series."""
    from deeptime.covariance import Covariance

    estimator = Covariance(remove_data_mean=True, bessels_correction=False)
    for _, frames, weights in _weighted_chunks(source, source.weights()):
        if weights is None or weights.any():
            estimator.partial_fit(features(frames), weights=weights)
    model = estimator.fetch_model()
    values, vectors = np.linalg.eigh(model.cov_00)
    kept = [place for place in np.argsort(-values) if values[place] > 1e-12 * values.max()][:n_coordinates]
    return SlowCoordinates(
        "PCA", features, np.asarray(model.mean_0), _oriented(vectors[:, kept] / np.sqrt(values[kept]))
    )


def _oriented(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the coordinates with the largest coefficient of each positive: their sign means nothing, but must stay."""
    places = np.abs(matrix).argmax(0)
    return np.asarray(matrix * np.sign(matrix[places, np.arange(matrix.shape[1])]))


def project(source: FrameSource, coordinates: SlowCoordinates) -> list[NDArray[np.float64]]:
    """Return the coordinates of all frames of a source: one array (F, d) a piece."""
    return per_piece(source, coordinates.project)


def per_piece(source: FrameSource, function: Any) -> list[NDArray[np.float64]]:
    """Return a function of the frames (F, N, 3), streamed: one array a piece, in the order of the pieces."""
    collected: dict[int, list[NDArray[np.float64]]] = {piece.trajectory: [] for piece in source.pieces}
    for part, frames in source.chunks():
        collected[part.trajectory].append(function(frames))
    return [np.concatenate(parts) for parts in collected.values()]
