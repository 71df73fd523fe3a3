"""Whether forces belong to the density of their positions: virials of bonded pairs, and Stein's identity."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.block_means import BlockMeans, Floats, block_means, joint_p
from ase_cg.data.dataset import Molecule
from ase_cg.data.force_check_result import VERDICTS, ForceCheck, PairTest, SteinRatio, SteinSum, Verdict
from ase_cg.data.splits import spread_frames
from ase_cg.units import thermal_energy

MAX_FRAMES = 20_000  # that are looked at
MAX_DISTANCES = 40_000_000  # that are computed
MAX_VALUES = 8_000_000  # that are kept of them
CHUNK_DISTANCES = 1_000_000
FRAME_DISTANCES = 50_000  # of a frame; of larger molecules not every bead is compared with all others
FEWEST_BEADS = 50  # that are
FEWEST_FRAMES = 500
REACH = (1.5, 2.5, 4.0)  # ranges of Stein's check, in mean distances of nearest neighbours
DOUBTFUL, INCONSISTENT = 1e-3, 1e-6  # p
ENOUGH = 40  # blocks of frames, below which nothing is called inconsistent
# Deviations above which forces are doubtful, and inconsistent; below, training would hardly feel it. Stretched bonds
# deviate by 4 to 10 % where a time step of 2 fs makes them too hot, in much of what is published.
TOLERATED = {"virial": (0.05, 0.08), "stretch": (0.05, 0.15), "stein": (0.05, 0.08)}


class ForceChecker:
    """Checks forces against the positions they were recorded at, frames after frames.

    Where F_i is the force of a (free) energy U and positions follow exp(−U/kT), integration by parts gives, for any
    smooth vector field g_i of the positions, ⟨F_i·g_i + kT ∇_i·g_i⟩ = 0 (Stein's identity). Three kinds of g are used:

    - g_i = x_i − x_j for each bonded pair, in both directions: ⟨(x_i − x_j)·F_i⟩ = −3 kT;
    - g_i = (r − r̄) (x_i − x_j)/r for the same pairs, with the mean bond length r̄: the force that stretches a stiff bond
      times its mean length is the noise of the first kind, and is left out here;
    - g_i = Σ_j (x_i − x_j) (1 − r_ij²/r_c²)² over the beads j nearer than r_c, for each bead and r_c of 1.5, 2.5 and 4
      distances of nearest neighbours. With cells the nearest image counts, and r_c is at most half of the smallest
      height of the cell. Without cells only beads that bonds connect to i count: the image of another molecule that a
      file happens to hold may change from frame to frame, and g would jump.

    Each is a test of its own, so errors of different beads cannot cancel. Frames with weights count by them. The
    identities have to hold in equilibrium; in data of adaptive sampling they hold as far as the short-ranged parts have
    come to rest, which bonds and neighbours do first. Wrong units, temperatures and forces of other frames are seen as
    well as the bias of forces on single atoms with rigid bonds. Of molecules of more than 223 beads Stein's check looks
    at some beads only.

    Parameters
    ----------
    topology : BeadTopology
        Of N beads.
    temperature : float
        In K.
    """

    def __init__(self, topology: BeadTopology, temperature: float) -> None:
        self._kelvin, self._kT = temperature, thermal_energy(temperature)
        self._bonds = np.array([pair for i, j in topology.bonds for pair in ((i, j), (j, i))], int).reshape(-1, 2)
        self._judged = judged_beads(topology.n_beads)
        self._connected = _connected(topology.n_beads, topology.bonds)[self._judged]
        self._limit = frame_limit(topology)
        self._rest: Floats | None = None
        self._reach: Floats | None = None
        self._images: bool | None = None
        self._stride, self._seen = 1, 0
        self._rows: list[tuple[Floats, ...]] = []
        self._kept = 0

    def add(
        self, positions: NDArray[Any], forces: NDArray[Any], weights: Floats | None = None, cells: Floats | None = None
    ) -> None:
        """Add frames that follow those before in time; of very many, evenly spread ones are kept.

        Parameters
        ----------
        positions, forces : ndarray, shape (F, N, 3)
            In Å and eV/Å; molecules whole.
        weights : ndarray of shape (F,), optional
        cells : ndarray of shape (F, 3, 3), optional
            Rows are cell vectors in Å, zero along directions that are not periodic.
        """
        chosen = np.arange(-self._seen % self._stride, len(positions), self._stride)
        self._seen += len(positions)
        if not len(chosen):
            return
        self._images = cells is not None if self._images is None else self._images and cells is not None
        step = max(1, CHUNK_DISTANCES // self._connected.size)
        for start in range(0, len(chosen), step):
            rows = chosen[start : start + step]
            x, f = positions[rows].astype(float), forces[rows].astype(float)
            w = np.ones(len(rows)) if weights is None else np.asarray(weights[rows], dtype=float)
            boxes = None if cells is None else cells[rows]
            self._rows.append((w, *self._bonded(x, f, boxes), *self._stein(x, f, boxes)))
            self._kept += len(rows)
        if self._kept > 2 * self._limit:
            self._thin()

    def _thin(self) -> None:
        """Keep every other frame."""
        self._rows = [tuple(np.concatenate(parts)[::2] for parts in zip(*self._rows, strict=True))]
        self._kept, self._stride = len(self._rows[0][0]), 2 * self._stride

    def _bonded(self, x: Floats, f: Floats, cells: Floats | None) -> tuple[Floats, Floats, Floats]:
        """Return −(x_i − x_j)·F_i/(3 kT), and −F_i·g/kT and ∇_i·g of stretched bonds, each (F, P) for P pairs."""
        i, j = self._bonds.T
        between = _nearest(x[:, i] - x[:, j], cells)
        length = np.linalg.norm(between, axis=-1)
        if self._rest is None:
            self._rest = length.mean(0)
        work = -(between * f[:, i]).sum(-1) / self._kT
        share = 1 - self._rest / np.maximum(length, 1e-12)
        return work / 3, share * work, 1 + 2 * share

    def _stein(self, x: Floats, f: Floats, cells: Floats | None) -> tuple[Floats, Floats, Floats, Floats]:
        """Return F_i·g_i/kT, ∇_i·g_i, Σ_j |∇_i·g_ij|, each (F, M J) for M ranges and J beads, and the ranges (F, M)."""
        between = x[:, self._judged, None] - x[:, None]
        counted = self._connected
        limit = np.full(len(x), np.inf)
        if cells is not None:
            between = _nearest(between.reshape(len(x), -1, 3), cells).reshape(between.shape)
            inverse_heights = np.linalg.norm(np.linalg.pinv(cells), axis=1)
            limit = 0.5 / np.maximum(inverse_heights.max(1), 1e-12)
            counted = self._judged[:, None] != np.arange(x.shape[1])
        squared = (between**2).sum(-1)
        along = np.einsum("fia,fija->fij", f[:, self._judged], between) / self._kT
        if self._reach is None:
            self._reach = _ranges(squared, counted)
        reach = np.minimum(self._reach, limit[:, None])
        work, divergence, size = [], [], []
        for m in range(len(REACH)):
            u = squared / reach[:, m, None, None] ** 2
            inside = np.where(counted & (u < 1), 1 - u, 0.0)
            work.append((along * inside**2).sum(2))
            terms = inside * (3 - 7 * u)  # h' + 2h/r with h = r (1 − u)²
            divergence.append(terms.sum(2))
            size.append(np.abs(terms).sum(2))
        return *(np.concatenate(parts, axis=1) for parts in (work, divergence, size)), reach

    def result(self) -> ForceCheck:
        """Return what was found."""
        nothing = ForceCheck("undecided", None, 0.0, self._kept, self._kelvin, bool(self._images))
        if not self._rows:
            return nothing
        rows = [np.concatenate(parts) for parts in zip(*self._rows, strict=True)]
        weights, virials, pull, spread, work, divergence, size, reach = rows
        if not weights.sum() > 0:
            return nothing
        share = weights / weights.sum()
        scale, stretch = share @ size, share @ spread
        counted, stretched = scale > 0, stretch > 0
        families = {
            "virial": block_means(virials - 1, weights),
            "stretch": block_means((pull - spread)[:, stretched] / stretch[stretched], weights),
            "stein": block_means((work + divergence)[:, counted] / scale[counted], weights),
        }
        known = {name: found for name, found in families.items() if found is not None and len(found.mean)}
        if not known:
            return nothing
        p = {name: min(1.0, len(known) * joint_p(found)) for name, found in known.items()}
        deviations = {name: _deviation(found) for name, found in known.items()}
        verdicts = [_verdict(name, p[name], deviations[name], found.blocks) for name, found in known.items()]
        lowest = min(p, key=lambda name: p[name])
        reaches = share @ reach
        return ForceCheck(
            verdict=max(verdicts, key=VERDICTS.index),
            p=p[lowest],
            deviation=deviations[lowest],
            frames=len(weights),
            temperature=self._kelvin,
            images=bool(self._images),
            virials=_pair_tests(self._bonds, known.get("virial")),
            stretches=_pair_tests(self._bonds[stretched], known.get("stretch")),
            stein=_stein_sums(np.flatnonzero(counted), self._judged, reaches, known.get("stein")),
            stein_ratios=tuple(_ratios(weights, work, divergence, reaches)),
        )


def check_forces(molecule: Molecule) -> ForceCheck:
    """Check the forces of a molecule of a dataset; see :class:`ForceChecker`.

    Parameters
    ----------
    molecule : Molecule
        With forces.
    """
    checker = ForceChecker(molecule.topology, molecule.temperature)
    weights = molecule.weights()
    frames = np.arange(molecule.n_frames) if weights is None else np.flatnonzero(weights)
    frames = spread_frames(frames, frame_limit(molecule.topology))
    step = max(1, MAX_VALUES // (3 * molecule.topology.n_beads))
    for start in range(0, len(frames), step):
        rows = frames[start : start + step]
        checker.add(molecule.coordinates(rows), molecule.forces(rows), None if weights is None else weights[rows])
    return checker.result()


def known_check(molecule: Molecule) -> ForceCheck:
    """Check the forces of a molecule, or take what their mapping found: it knew periodic cells, and datasets do not."""
    found, record = check_forces(molecule), molecule.force_map_report.get("check")
    if record is None or not record["images"] or molecule.has_weights:  # weights may have come later
        return found
    mapped = ForceCheck.from_dict(record)
    return max(found, mapped, key=lambda check: VERDICTS.index(check.verdict))


def frame_limit(topology: BeadTopology) -> int:
    """Return how many frames of a molecule are looked at."""
    judged = len(judged_beads(topology.n_beads))
    n_values = 6 * len(topology.bonds) + 3 * len(REACH) * judged
    limit = min(MAX_FRAMES, MAX_DISTANCES // (judged * topology.n_beads), MAX_VALUES // n_values)
    return max(FEWEST_FRAMES, limit)


def judged_beads(n_beads: int) -> NDArray[np.int64]:
    """Return the beads that Stein's check looks at: all, or of very many some that are evenly spread."""
    count = min(n_beads, max(FEWEST_BEADS, FRAME_DISTANCES // n_beads))
    return np.linspace(0, n_beads - 1, count).astype(int)


def _connected(n_beads: int, bonds: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Return (N, N), true for two different beads that bonds connect, over however many others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    i, j = np.array(bonds, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(n_beads, n_beads))
    label = connected_components(graph, directed=False)[1]
    return np.asarray((label[:, None] == label) & ~np.eye(n_beads, dtype=bool))


def _nearest(between: Floats, cells: Floats | None) -> Floats:
    """Return distance vectors (F, P, 3) to the nearest image; right for those within half a height of the cell."""
    if cells is None:
        return between
    images = np.round(between @ np.linalg.pinv(cells))
    return np.asarray(between - images @ cells)


def _ranges(squared: Floats, counted: NDArray[np.bool_]) -> Floats:
    """Return the ranges of Stein's check in Å, from the distances (F, N, N) of the first frames."""
    nearest = np.sqrt(np.where(counted, squared, np.inf).min(2))
    mean = float(nearest[np.isfinite(nearest)].mean()) if np.isfinite(nearest).any() else 1.0
    return mean * np.array(REACH)


def _deviation(found: BlockMeans) -> float:
    beyond = float(np.sqrt(max(0.0, float((found.mean**2 - found.error**2).mean()))))
    striking = np.abs(found.mean)[found.p * len(found.p) < DOUBTFUL]
    return max(beyond, float(striking.max())) if len(striking) else beyond


def _verdict(kind: str, p: float, deviation: float, blocks: float) -> Verdict:
    doubtful, inconsistent = TOLERATED[kind]
    if p < INCONSISTENT and deviation > inconsistent and blocks >= ENOUGH:
        return "inconsistent"
    return "doubtful" if p < DOUBTFUL and deviation > doubtful else "consistent"


def _pair_tests(pairs: NDArray[np.int64], found: BlockMeans | None) -> tuple[PairTest, ...]:
    if found is None:
        return ()
    return tuple(
        PairTest((int(i), int(j)), 1 + float(mean), float(error), float(p))
        for (i, j), mean, error, p in zip(pairs, found.mean, found.error, found.p, strict=True)
    )


def _stein_sums(
    places: NDArray[np.int64], judged: NDArray[np.int64], reaches: Floats, found: BlockMeans | None
) -> tuple[SteinSum, ...]:
    if found is None:
        return ()
    return tuple(
        SteinSum(
            int(judged[place % len(judged)]), float(reaches[place // len(judged)]), float(mean), float(error), float(p)
        )
        for place, mean, error, p in zip(places, found.mean, found.error, found.p, strict=True)
    )


def _ratios(weights: Floats, work: Floats, divergence: Floats, reaches: Floats) -> Iterator[SteinRatio]:
    """Give −⟨F·g⟩ / (kT ⟨∇·g⟩) of all beads for each range."""
    share = weights / weights.sum()
    parts = (np.split(array, len(reaches), axis=1) for array in (work, divergence))
    for reach, one, other in zip(reaches, *parts, strict=True):
        total, mean = one.sum(1), float(share @ other.sum(1))
        found = block_means((total + other.sum(1))[:, None], weights)
        if mean and found is not None:
            yield SteinRatio(float(reach), -float(share @ total) / mean, float(found.error[0]) / abs(mean))
