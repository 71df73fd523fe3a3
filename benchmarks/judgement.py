"""How a study judges a simulation of which half of the replicas started from the reference, half in one basin."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import t

from ase_cg import Comparison
from ase_cg.analysis import Histogram
from ase_cg.analysis.intervals import surface_measurements
from ase_cg.analysis.jackknife import estimate

ONE_BASIN = "one_basin"  # name of the start, with which the files of its replicas begin
BLOCKS = 20  # of time, where trajectories are fewer
AGREED = 0.1  # starts agree if the whole interval of the difference of their shares is within this
SERIES = ("rmsd", "radius_of_gyration")
AGREE, DIFFER, UNDECIDED = "agree within 0.1", "differ", "undecided: longer runs needed"

Counted = Callable[[np.ndarray], np.ndarray]


def judged(comparison: Comparison, counted: Counted) -> dict[str, Any]:
    """Return the figures of a comparison, the share of the frames that count, and how both starts compare."""
    model, reference, main = comparison.model, comparison.reference, str(comparison.main)
    shares = share_of_each(model, counted)
    return {
        "figures": comparison.rows["model"],
        "floor": comparison.rows["floor"],
        "sampling_jensen_shannon_nats": sampling(comparison.rows["model"]["jensen_shannon_nats"]),
        "share": {"reference": weighted_share(reference, counted), "model": mean_and_error(shares)},
        "starts": compared_starts(model, model.surfaces[main], reference.surfaces[main], shares),
        "series_jensen_shannon_nats": series_divergences(comparison),
        "replicas": len(shares),
        "replicas_stopped": len(model.source.left_out),
    }


def sampling(figure: dict[str, Any]) -> float:
    """Return how much of a figure as sampled comes from the finite samples of both sides."""
    return float(figure["plug_in"] - figure["value"])


def compared_starts(model: Any, surface: Histogram, target: Histogram, shares: np.ndarray) -> dict[str, Any]:
    """Return what the replicas of each start give, and whether their shares agree."""
    paths = [model.source.files[piece.trajectory].name for piece in model.source.pieces]
    basin = np.array([name.startswith(ONE_BASIN) for name in paths])
    if basin.all() or not basin.any() or len(surface.counts) != len(basin):
        return {"verdict": UNDECIDED, "doubt": f"only {len(basin)} replicas are left"}
    starts: dict[str, Any] = difference(shares[~basin], shares[basin])
    for name, chosen in (("reference", ~basin), (ONE_BASIN, basin)):
        starts[name] = surface_figures(surface.counts[chosen], target.counts)
        starts[name]["share"] = mean_and_error(shares[chosen])
    return starts


def surface_figures(blocks: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Return the corrected figures of a surface, from blocks (T, bins) of both sides."""
    found: dict[str, float] = {}
    for measured in surface_measurements(blocks, target):
        corrected = estimate(measured.figure, blocks, target, second_order=measured.second_order).corrected
        found |= {name: float(value) for name, value in measured.named(corrected).items()}
    return found


def difference(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Return the difference of the means of independent values, its 95 % interval, and the verdict.

    That a difference is not significant does not mean that there is none: starts agree if the whole interval (Welch's)
    is within ±0.1, they differ if it holds no value within, and otherwise nothing is decided.
    """
    variances = [values.var(ddof=1) / len(values) if len(values) > 1 else np.inf for values in (one, other)]
    apart, error = float(one.mean() - other.mean()), float(np.sqrt(sum(variances)))
    if not np.isfinite(error):
        return {"difference": apart, "interval": None, "verdict": UNDECIDED}
    weights = sum(v**2 / (len(values) - 1) for v, values in zip(variances, (one, other), strict=True))
    half = float(t.ppf(0.975, error**4 / weights)) * error if weights > 0 else 0.0
    low, high = apart - half, apart + half
    verdict = AGREE if low >= -AGREED and high <= AGREED else DIFFER if low > AGREED or high < -AGREED else UNDECIDED
    return {"difference": apart, "interval": [low, high], "verdict": verdict}


def share_of_each(ensemble: Any, counted: Counted) -> np.ndarray:
    """Return the share of frames that count of each trajectory; of a single one, of every frame."""
    found = counted_frames(ensemble, counted)
    return found[0] if len(found) == 1 else np.array([part.mean() for part in found])


def counted_frames(ensemble: Any, counted: Counted) -> list[np.ndarray]:
    """Return 1 for each frame that counts and 0 for others, one array a trajectory."""
    parts: dict[int, list[np.ndarray]] = {}
    for piece, frames in ensemble.source.chunks():
        parts.setdefault(piece.trajectory, []).append(counted(frames))
    return [np.concatenate(part).astype(float) for part in parts.values()]


def weighted_share(ensemble: Any, counted: Counted) -> dict[str, float]:
    """Return the share of frames that count, with their weights, and its standard error between blocks.

    Blocks are trajectories, or twenty pieces of time of fewer than twenty.
    """
    frames = counted_frames(ensemble, counted)
    weights = ensemble.weights or [np.ones(len(x)) for x in frames]
    if len(frames) < BLOCKS:
        frames, weights = (np.array_split(np.concatenate(list(x)), BLOCKS) for x in (frames, weights))
    return ratio_and_error(
        np.array([(w * x).sum() for w, x in zip(weights, frames, strict=True)]), np.array([w.sum() for w in weights])
    )


def ratio_and_error(sums: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Return the weighted mean Σ sums/Σ weights of independent blocks, and its standard error."""
    n, value = len(sums), float(sums.sum() / weights.sum())
    error = np.sqrt(n / (n - 1) * ((sums - value * weights) ** 2).sum()) / weights.sum() if n > 1 else float("nan")
    return {"value": value, "standard_error": float(error)}


def mean_and_error(values: np.ndarray) -> dict[str, float]:
    """Return the mean of independent values, and its standard error."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return {"value": float(values.mean()), "standard_error": float(error)}


def series_divergences(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Return the divergence of each figure of single frames, corrected and as sampled, its interval, and the floor.

    The floor is that between random halves of the trajectories of the reference, or of its blocks of time, as sampled;
    ``at_floor`` is the model's at as many independent frames.
    """
    found = {}
    for name in SERIES:
        key = f"{name}_jensen_shannon_nats"
        if key in comparison.rows["floor"]:
            row = comparison.rows["model"][key]
            found[name] = {
                "value": row["value"],
                "interval": row["interval"],
                "plug_in": row["plug_in"],
                "at_floor": row["plug_in_at_floor"],
                "floor": comparison.rows["floor"][key]["value"],
            }
    return found
