"""Figures between two ensembles: what the samples give, corrected for their size, with intervals and the floor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis import metrics
from ase_cg.analysis.ensembles import MIN_BLOCKS, Ensemble, Grid
from ase_cg.analysis.jackknife import (
    Array,
    Estimate,
    Figure,
    effective_bins,
    effective_samples,
    estimate,
    mean_of_parts,
    probabilities,
    totals,
)

FEATURES_PREFIX = "wasserstein_of_"
INTERNAL = ("bonds", "angles", "dihedrals")
SERIES_BINS = 50  # of the divergence of a figure of single frames
FLOOR_DIVISIONS = 100  # of the reference into random halves
FEWEST_BLOCKS = 5  # from which an error is estimated
SAMPLES_A_BIN = 5.0  # independent frames in a filled bin, below which the correction fails (benchmarks/coverage.py)
SAMPLES_A_BLOCK = 3.0  # independent frames in a block of time, below which blocks depend on each other

FEATURE_FIGURES: Mapping[str, str] = {
    "bonds": "bond_wasserstein_A",
    "angles": "angle_wasserstein_rad",
    "dihedrals": "dihedral_wasserstein_rad",
    "radius_of_gyration": "radius_of_gyration_wasserstein_A",
    "end_to_end": "end_to_end_wasserstein_A",
    "rmsd": "rmsd_wasserstein_A",
    "gdt_ts": "gdt_ts_wasserstein",
    "native_contacts": "native_contacts_wasserstein",
}
"""Name of the figure of each kind of feature: the mean of the Wasserstein distances of its features."""
COMMON = "pmf_error_common_kT"
SAME_FRAMES = "its bins are chosen from the same frames, and intervals of it cover too little"


@dataclass(frozen=True)
class Measurement:
    """Figures that are made of the same two histograms.

    Parameters
    ----------
    figure : callable
        As in :func:`ase_cg.analysis.jackknife.estimate`.
    places : dict
        Of each figure by name: where it stands in what the callable returns, and whether it is the root of that.
    one, other : ndarray, shape (T, bins) or (T, features, bins)
        Blocks of both.
    samples : tuple of (float, float)
        Independent frames of both.
    second_order : bool
    filled : float or None
        Bins that hold the frames; None where figures do not depend on bins.
    """

    figure: Figure
    places: Mapping[str, tuple[Any, bool]]
    one: Array
    other: Array
    samples: tuple[float, float]
    second_order: bool = False
    filled: float | None = None

    def named(self, values: Array) -> dict[str, Array]:
        """Return values that the figure gave, 0 where they are below, by name."""
        least = np.maximum(values, 0.0)
        return {name: np.sqrt(least[x]) if root else least[x] for name, (x, root) in self.places.items()}


def measurements(
    one: Ensemble, other: Ensemble, grids: Mapping[str, Grid], main: str | None, *, part: float = 1.0
) -> list[Measurement]:
    """Return all that is measured between two ensembles, of which a part is used."""
    found: list[Measurement] = []
    for name, histogram in one.surfaces.items():
        prefix = "" if name == main else f"{name}_"
        found += surface_measurements(histogram.counts, other.surfaces[name].counts, prefix, part)
    for name, histogram in one.distributions.items():
        blocks = histogram.counts, other.distributions[name].counts
        found.append(wasserstein_measurement(*blocks, name, grids[name], part))
        if name not in INTERNAL:
            coarse = [_coarse(counts[:, 0]) for counts in blocks]
            found.append(divergence_measurement(coarse[0], coarse[1], f"{name}_jensen_shannon_nats", part))
    return found


def _samples(one: Array, other: Array, part: float, *, cumulative: bool = False) -> tuple[float, float]:
    found = [part * effective_samples(counts, cumulative=cumulative) for counts in (one, other)]
    return found[0], found[1]


def surface_measurements(one: Array, other: Array, prefix: str = "", part: float = 1.0) -> list[Measurement]:
    """Return PMF errors and divergence of blocks (T, bins) on the grid of a plane."""
    samples = _samples(one, other, part)
    known = [n for n in samples if np.isfinite(n)]
    smallest = metrics.smallest_probability(one.shape[1], *known)
    p, q = (probabilities(counts.sum(0)) for counts in (one, other))
    common = metrics.common_bins(p, q, smallest)

    def errors(p: Array, q: Array) -> Array:
        return np.stack([metrics.squared_pmf_error(p, q, smallest, bins) for bins in (None, common)], -1)

    places = {
        f"{prefix}pmf_error_kT": ((..., 0), True),
        f"{prefix}pmf_error_squared_kT2": ((..., 0), False),
        f"{prefix}{COMMON}": ((..., 1), True),
    }
    filled = effective_bins(0.5 * (p + q))
    divergence = divergence_measurement(one, other, f"{prefix}jensen_shannon_nats", part)
    return [Measurement(errors, places, one, other, samples, filled=filled), divergence]


def divergence_measurement(one: Array, other: Array, name: str, part: float = 1.0) -> Measurement:
    """Return the Jensen–Shannon divergence of blocks (T, bins)."""

    def divergence(p: Array, q: Array) -> Array:
        return metrics.jensen_shannon_divergences(p, q)[..., None]

    filled = effective_bins(0.5 * (probabilities(one.sum(0)) + probabilities(other.sum(0))))
    places = {name: ((..., 0), False)}
    return Measurement(divergence, places, one, other, _samples(one, other, part), second_order=True, filled=filled)


def wasserstein_measurement(one: Array, other: Array, kind: str, grid: Grid, part: float = 1.0) -> Measurement:
    """Return Wasserstein distances of blocks (T, features, bins), and their mean."""

    def squares(p: Array, q: Array) -> Array:
        distances = metrics.wasserstein_distances(p, q, grid.width, periodic=grid.periodic)
        # Squares, because noise adds to a distance by its square.
        return np.concatenate([distances, distances.mean(-1, keepdims=True)], -1) ** 2

    places: dict[str, tuple[Any, bool]] = {FEATURE_FIGURES[kind]: ((..., -1), True)}
    if kind in INTERNAL:
        places[FEATURES_PREFIX + kind] = ((..., slice(None, -1)), True)
    return Measurement(squares, places, one, other, _samples(one, other, part, cumulative=True))


def _coarse(counts: Array) -> Array:
    """Return blocks (T, bins) on at most fifty bins, whole ones joined."""
    starts = np.unique(np.linspace(0, counts.shape[1], SERIES_BINS, endpoint=False).astype(int))
    return np.asarray(np.add.reduceat(counts, starts, axis=1))


def compared(simulated: Ensemble, reference: Ensemble, grids: Mapping[str, Grid], main: str | None) -> dict[str, Any]:
    """Return the figures of a simulation.

    Returns
    -------
    dict
        Of each figure ``value`` (corrected for the sizes of both samples), ``interval`` (95 %, of both samples; None
        where it cannot be trusted), ``plug_in`` (of the samples as they are), ``plug_in_at_floor`` (the same with as
        many independent frames on either side as the floor's; None where the simulation has fewer) and ``doubt`` (why
        there is no interval).
    """
    rows: dict[str, Any] = dict(_nothing())
    short = blocks_too_short(simulated, "simulation") or blocks_too_short(reference, "reference")
    for measured in measurements(simulated, reference, grids, main):
        found = estimate(measured.figure, measured.one, measured.other, second_order=measured.second_order)
        doubt = short or doubt_of(measured)
        rows |= _rows(measured, found, _at_floor(measured), doubt)
    return rows


def _nothing() -> dict[str, dict[str, Any]]:
    """Return the rows of figures that every table has, where there is nothing to measure."""
    names = ("pmf_error_kT", "pmf_error_squared_kT2", COMMON, "jensen_shannon_nats")
    return {name: _row(None, None, None, None, None) for name in (*names, "bond_wasserstein_A")}


def _row(value: Any, interval: Any, plug_in: Any, at_floor: Any, doubt: str | None) -> dict[str, Any]:
    plain = [None if x is None else np.asarray(x).tolist() for x in (value, plug_in, at_floor)]
    ends = None if interval is None else [np.asarray(end).tolist() for end in interval]
    return {"value": plain[0], "interval": ends, "plug_in": plain[1], "plug_in_at_floor": plain[2], "doubt": doubt}


def _rows(measured: Measurement, found: Estimate, at_floor: Array | None, doubt: str | None) -> dict[str, Any]:
    value, plug_in = measured.named(found.corrected), measured.named(found.plug_in)
    ends = [measured.named(end) for end in found.interval()]
    floor_like = None if at_floor is None else measured.named(at_floor)
    doubts = {name: doubt or (SAME_FRAMES if name.endswith(COMMON) else None) for name in value}
    return {
        name: _row(
            value[name],
            None if doubts[name] else (ends[0][name], ends[1][name]),
            plug_in[name],
            None if floor_like is None else floor_like[name],
            doubts[name],
        )
        for name in value
    }


def doubt_of(measured: Measurement) -> str | None:
    """Return why an interval cannot be trusted; None where it can.

    Raising the number of bins without more frames ends here: the correction is for noise that is small in most bins.
    """
    sides = ("simulation", "reference")
    for name, counts, samples in zip(sides, (measured.one, measured.other), measured.samples, strict=True):
        blocks = int((totals(counts) > 0).sum())
        if blocks < FEWEST_BLOCKS:
            return f"the {name} has {blocks} independent blocks, fewer than {FEWEST_BLOCKS}"
        if measured.filled is not None and samples < SAMPLES_A_BIN * measured.filled:
            return (
                f"too few independent frames for the bins: the {name} has {samples:.0f}, {measured.filled:.0f} filled "
                f"bins need {SAMPLES_A_BIN * measured.filled:.0f}"
            )
    return None


def in_blocks_of_time(ensemble: Ensemble) -> bool:
    """Return whether trajectories were too few to be blocks, and were cut in time."""
    return len(ensemble.source.pieces) < MIN_BLOCKS


def blocks_too_short(ensemble: Ensemble, name: str) -> str | None:
    """Return a doubt where trajectories had to be cut in blocks of time, and these are shorter than the relaxation."""
    if not in_blocks_of_time(ensemble) or ensemble.convergence is None:
        return None
    each = ensemble.convergence.effective_samples / n_blocks(ensemble)
    if each >= SAMPLES_A_BLOCK:
        return None
    return (
        f"the {name} has {len(ensemble.source.pieces)} trajectories, too few for an error, and its blocks of time are "
        f"shorter than the relaxation ({each:.1f} independent frames each)"
    )


def _at_floor(measured: Measurement) -> Array | None:
    """Return the figure with as many independent frames on either side as in half of the reference, as sampled."""
    here, there = measured.samples
    blocks = len(measured.one)
    wanted = blocks * 0.5 * there / here if here > 0 else np.inf
    if not 0.5 <= wanted <= blocks or len(measured.other) < 2:  # nan and inf as well
        return None
    return mean_of_parts(measured.figure, measured.one, measured.other, (round(wanted), len(measured.other) // 2))


def floor(reference: Ensemble, grids: Mapping[str, Grid], main: str | None) -> dict[str, Any]:
    """Return the figures between two random halves of the blocks of the reference, as sampled: mean and 95 % range."""
    rows: dict[str, Any] = dict(_nothing())
    for measured in measurements(reference, reference, grids, main, part=0.5):
        samples = _halves(measured.figure, measured.one)
        if samples is None:
            rows |= {name: _row(None, None, None, None, "one block only") for name in measured.places}
            continue
        mean = measured.named(samples.mean(0))
        ends = [measured.named(end) for end in np.quantile(samples, [0.025, 0.975], axis=0)]
        rows |= {name: _row(value, (ends[0][name], ends[1][name]), value, value, None) for name, value in mean.items()}
    return rows


def _halves(figure: Figure, counts: Array) -> NDArray[np.float64] | None:
    """Return the figures between the halves of many random divisions: shape (divisions, …); None of one block."""
    rng = np.random.default_rng(0)
    used = counts[totals(counts) > 0]
    if len(used) < 2:
        return None
    total = used.sum(0)
    found = []
    for _ in range(FLOOR_DIVISIONS):
        half = used[rng.permutation(len(used))[: len(used) // 2]].sum(0)
        found.append(figure(probabilities(half), probabilities(total - half)))
    return np.asarray(found)


def without_interval(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return which figures of which row have no interval and why, one sentence for each reason."""
    found = []
    for name, row in rows.items():
        reasons: dict[str, list[str]] = {}
        for figure, cell in row.items():
            if cell["doubt"] and cell["doubt"] != SAME_FRAMES:
                reasons.setdefault(cell["doubt"], []).append(figure)
        found += [f"{name} has no intervals of {', '.join(figures)}: {reason}" for reason, figures in reasons.items()]
    return found


def n_blocks(ensemble: Ensemble) -> int:
    """Return the number of blocks that are taken for independent."""
    histogram = next(iter([*ensemble.surfaces.values(), *ensemble.distributions.values()]))
    return len(histogram.counts)
