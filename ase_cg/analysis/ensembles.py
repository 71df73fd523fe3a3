"""Distributions of a reference or simulation, streamed, kept apart by trajectory so that they can be resampled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.convergence import Convergence
from ase_cg.analysis.features import (
    bond_angles,
    bond_lengths,
    contact_map,
    dihedral_angles,
    inverted_fraction,
    ramachandran_angles,
    representative_beads,
)
from ase_cg.analysis.native import CONTACT_CUTOFF, GDT_CUTOFFS
from ase_cg.analysis.series import SERIES_UNITS, Arrays
from ase_cg.analysis.sources import FrameSource, Piece
from ase_cg.analysis.surfaces import RMSD_AND_SIZE, RMSD_AND_SIZE_AXES, Histogram, Plane
from ase_cg.beads.topology import BeadTopology

MIN_BLOCKS = 10
MAX_BLOCKS = 200
BOND_BIN = 0.0005  # Å; a tenth of the smallest distance that is reported
MAX_BINS = 2000  # of a bond
ANGLE_BINS = 720
MAX_CELLS = 50_000  # bins of all bonds together, or angles, or dihedrals: of each block 0.4 MB
SCALAR_BINS = 500


@dataclass(frozen=True)
class Grid:
    """Bins of one kind of feature.

    Parameters
    ----------
    edges : ndarray, shape (bins + 1,)
    unit : str
        Of the edges; empty for a fraction.
    periodic : bool
    """

    edges: NDArray[np.float64]
    unit: str
    periodic: bool = False

    @property
    def width(self) -> float:
        """Of a bin."""
        return float(self.edges[1] - self.edges[0])

    def count(self, values: NDArray[np.float64], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Return the weights of values (F, features) by bin: shape (features, bins); values outside at the ends."""
        bins = len(self.edges) - 1
        place = np.clip(((values - self.edges[0]) / self.width).astype(np.int64), 0, bins - 1)
        features = values.shape[1]
        flat = (place + bins * np.arange(features)).ravel()
        repeated = None if weights is None else np.repeat(weights, features)
        return np.bincount(flat, weights=repeated, minlength=features * bins).reshape(features, bins).astype(float)


@dataclass(frozen=True)
class Ensemble:
    """The distributions of one simulation or reference.

    Parameters
    ----------
    source : FrameSource
    series : dict
        Figures of each frame: ``rmsd``, ``radius_of_gyration``, …; of each one array (F,) a trajectory.
    slow : list of ndarray, shape (F, d)
        Slow coordinates, one array a trajectory.
    weights : list of ndarray, or None
        Of frames, shape (F,), one array a trajectory.
    surfaces : dict
        Histogram of each plane, by its name.
    distributions : dict
        Histogram (T, features, bins) of ``bonds``, ``angles``, ``dihedrals`` and of each of the series.
    inverted : float or None
        Fraction of residues that are D.
    contacts : ndarray, shape (n, n), or None
        How often two Cα beads touch.
    convergence : Convergence or None
        Of the slowest coordinate.
    """

    source: FrameSource
    series: dict[str, Arrays]
    slow: Arrays
    weights: Arrays | None
    surfaces: dict[str, Histogram]
    distributions: dict[str, Histogram]
    inverted: float | None
    contacts: NDArray[np.float64] | None
    convergence: Convergence | None

    @property
    def frames(self) -> int:
        """Number of frames that have a weight."""
        return self.source.n_frames if self.weights is None else sum(int((w > 0).sum()) for w in self.weights)

    @property
    def equal_frames(self) -> float:
        """Kish's number of equally weighted frames that would know as much, (Σw)²/Σw²."""
        if self.weights is None:
            return float(self.source.n_frames)
        w = np.concatenate(self.weights)
        return float(w.sum() ** 2 / (w**2).sum())

    def mean(self, name: str) -> float:
        """Return the (weighted) mean of a series."""
        weights = None if self.weights is None else np.concatenate(self.weights)
        return float(np.average(np.concatenate(self.series[name]), weights=weights))


def blocks_of(pieces: Sequence[Piece]) -> list[tuple[Piece, int]]:
    """Return pieces of time and the block of the bootstrap to which each belongs.

    Ten or more trajectories are a block each, more than two hundred are pooled to two hundred; fewer than ten are cut
    into blocks of time, ten or more in all.
    """
    if len(pieces) >= MIN_BLOCKS:
        count = min(len(pieces), MAX_BLOCKS)
        return [(piece, number * count // len(pieces)) for number, piece in enumerate(pieces)]
    cuts = -(-MIN_BLOCKS // max(len(pieces), 1))
    found: list[tuple[Piece, int]] = []
    for piece in pieces:
        for part in np.array_split(np.arange(piece.start, piece.stop), cuts):
            if len(part):
                found.append((Piece(piece.trajectory, int(part[0]), int(part[-1]) + 1), len(found)))
    return found


def weighing(values: Arrays, weights: Arrays | None) -> Arrays:
    """Return the values (F, …) of the frames that have a weight, one array a trajectory."""
    return values if weights is None else [x[w > 0] for x, w in zip(values, weights, strict=True)]


def feature_grids(
    topology: BeadTopology, bonds: Sequence[tuple[float, float] | None], sources: Sequence["Frames"]
) -> dict[str, Grid]:
    """Return the bins of every kind of feature, wide enough for the frames of all sources that have a weight."""
    grids = {}
    known = [pair for pair in bonds if pair is not None]
    if known:
        low, high = min(a for a, _ in known), max(b for _, b in known)
        width = max(BOND_BIN, (high - low) / min(MAX_BINS, max(1, MAX_CELLS // len(topology.bonds))))
        n_bins = int(np.ceil((high - low) / width)) + 2
        grids["bonds"] = Grid(np.asarray(low - width / 2 + width * np.arange(n_bins + 1)), "Å")
    if topology.angles:
        grids["angles"] = Grid(np.linspace(0, np.pi, _angle_bins(len(topology.angles)) + 1), "rad")
    if topology.dihedrals:
        edges = np.linspace(-np.pi, np.pi, _angle_bins(len(topology.dihedrals)) + 1)
        grids["dihedrals"] = Grid(edges, "rad", periodic=True)
    for name in sources[0].series:
        if name == "gdt_ts":  # takes only so many values, each of which gets a bin
            steps = len(GDT_CUTOFFS) * len(representative_beads(topology))
            grids[name] = Grid(np.asarray((np.arange(steps + 2) - 0.5) / steps), SERIES_UNITS[name])
            continue
        values = [x for one in sources for x in weighing(one.series[name], one.weights) if len(x)]
        low, high = float(min(x.min() for x in values)), float(max(x.max() for x in values))
        grids[name] = Grid(np.linspace(low, high + max(1e-6, 1e-6 * abs(high)), SCALAR_BINS + 1), SERIES_UNITS[name])
    return grids


def _angle_bins(count: int) -> int:
    return max(1, min(ANGLE_BINS, MAX_CELLS // count))


@dataclass(frozen=True)
class Frames:
    """What is known of the frames of a source before they are counted: see :class:`Ensemble`."""

    source: FrameSource
    series: dict[str, Arrays]
    slow: Arrays
    weights: Arrays | None
    convergence: Convergence | None


def count_frames(
    known: Frames, topology: BeadTopology, planes: Mapping[str, Plane], grids: Mapping[str, Grid]
) -> Ensemble:
    """Read a source and count its frames on all grids."""
    source = known.source
    blocks = blocks_of(source.pieces)
    counter = _Counter(known, topology, planes, grids, 1 + max(number for _, number in blocks))
    numbers = iter(blocks)
    block, number = next(numbers)
    for piece, frames in source.chunks([block for block, _ in blocks]):
        while piece.trajectory != block.trajectory or piece.start >= block.stop:
            block, number = next(numbers)
        counter.add(piece, number, frames)
    return counter.ensemble()


class _Counter:
    """Collects histograms by block."""

    def __init__(
        self,
        known: Frames,
        topology: BeadTopology,
        planes: Mapping[str, Plane],
        grids: Mapping[str, Grid],
        n_blocks: int,
    ) -> None:
        self.known, self.topology, self.planes, self.grids = known, topology, planes, grids
        self.place = {piece.trajectory: (n, piece.start) for n, piece in enumerate(known.source.pieces)}
        sizes = {"bonds": len(topology.bonds), "angles": len(topology.angles), "dihedrals": len(topology.dihedrals)}
        self.surfaces = {name: np.zeros((n_blocks, np.prod(plane.shape) + 1)) for name, plane in planes.items()}
        self.distributions = {
            name: np.zeros((n_blocks, sizes.get(name, 1), len(grid.edges) - 1)) for name, grid in grids.items()
        }
        self.beads = representative_beads(topology)
        self.contacts = np.zeros((len(self.beads), len(self.beads)))
        self.inverted = 0.0
        self.total = 0.0
        self.has_inverted = True

    def add(self, piece: Piece, block: int, frames: NDArray[Any]) -> None:
        """Count frames (F, N, 3) of a block."""
        number, first = self.place[piece.trajectory]
        own = slice(piece.start - first, piece.stop - first)
        weights = None if self.known.weights is None else self.known.weights[number][own]
        for name, points in self._points(number, own, frames).items():
            repeats = len(points) // len(frames)
            shared = None if weights is None else np.tile(weights, repeats)
            self.surfaces[name][block] += self.planes[name].count(points, shared)
        for name, values in self._values(number, own, frames).items():
            self.distributions[name][block] += self.grids[name].count(values, weights)
        weight = float(len(frames)) if weights is None else float(weights.sum())
        if not weight > 0:
            return
        self.contacts += weight * contact_map(frames, CONTACT_CUTOFF, self.beads, weights)
        found = inverted_fraction(frames, self.topology, weights)
        self.has_inverted = found is not None
        self.inverted += weight * (found or 0.0)
        self.total += weight

    def _points(self, number: int, own: slice, frames: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        found = {}
        for name in self.planes:
            if name == "ramachandran":
                angles = ramachandran_angles(frames, self.topology)
                assert angles is not None  # noqa: S101 - the plane exists only where the beads do
                found[name] = angles
            elif name == RMSD_AND_SIZE:
                series = self.known.series
                found[name] = np.stack([series[axis][number][own] for axis in RMSD_AND_SIZE_AXES], axis=1)
            else:
                found[name] = self.known.slow[number][own, :2]
        return found

    def _values(self, number: int, own: slice, frames: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        topology = self.topology
        internal = {
            "bonds": lambda: bond_lengths(frames, topology.bonds),
            "angles": lambda: bond_angles(frames, topology.angles),
            "dihedrals": lambda: dihedral_angles(frames, topology.dihedrals),
        }
        return {
            name: internal[name]() if name in internal else self.known.series[name][number][own, None]
            for name in self.grids
        }

    def ensemble(self) -> Ensemble:
        """Return what was counted."""
        known = self.known
        return Ensemble(
            source=known.source,
            series=known.series,
            slow=known.slow,
            weights=known.weights,
            surfaces={name: Histogram(counts) for name, counts in self.surfaces.items()},
            distributions={name: Histogram(counts) for name, counts in self.distributions.items()},
            inverted=self.inverted / self.total if self.has_inverted and self.total > 0 else None,
            contacts=self.contacts / self.total if self.total > 0 else None,
            convergence=known.convergence,
        )
