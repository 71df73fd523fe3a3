"""How a study judges a simulation of which half of the replicas started from the reference, half in one basin."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ase_cg import Comparison
from ase_cg.analysis import Histogram, jensen_shannon, pmf_error

ONE_BASIN = "one_basin"  # name of the start, with which the files of its replicas begin
PERMUTATIONS = 400
SIGNIFICANT = 0.01
SERIES_BINS = 50
SERIES = ("rmsd", "radius_of_gyration")

Counted = Callable[[np.ndarray], np.ndarray]


def judged(comparison: Comparison, counted: Counted) -> dict[str, Any]:
    """Return the figures of a comparison, the share of the frames that count, and whether both starts agree."""
    model, reference, main = comparison.model, comparison.reference, str(comparison.main)
    shares, reference_shares = share_of_each(model, counted), share_of_each(reference, counted)
    target = reference.surfaces[main].probabilities()
    starts, halves = compared_starts(model, model.surfaces[main], target, shares)
    return {
        "figures": comparison.rows["model"],
        "floor": comparison.rows["floor"],
        # Two halves of the replicas differ by four times the noise of all of them.
        "sampling_jensen_shannon_nats": halves / 4,
        "share": {"reference": mean_and_error(blocks(reference_shares)), "model": mean_and_error(shares)},
        "starts": starts,
        "series_jensen_shannon_nats": series_divergences(comparison),
        "replicas": len(shares),
        "replicas_stopped": len(model.source.left_out),
    }


def compared_starts(
    model: Any, surface: Histogram, target: np.ndarray, shares: np.ndarray
) -> tuple[dict[str, Any], float]:
    """Return what the replicas of each start give, whether they agree, and how far random groups differ."""
    paths = [model.source.files[piece.trajectory].name for piece in model.source.pieces]
    basin = np.array([name.startswith(ONE_BASIN) for name in paths])
    if basin.all() or not basin.any() or len(surface.counts) != len(basin):
        return {"agree": False, "doubt": f"only {len(basin)} replicas are left"}, float("nan")
    probability, halves = permutation(surface, basin)
    starts: dict[str, Any] = {"p_of_surface": probability, "p_of_share": share_permutation(shares, basin)}
    for name, chosen in (("reference", ~basin), (ONE_BASIN, basin)):
        p = surface.probabilities(chosen.astype(float))
        starts[name] = {
            "pmf_error_kT": pmf_error(p, target),
            "jensen_shannon_nats": jensen_shannon(p, target),
            "share": mean_and_error(shares[chosen]),
        }
    agree = bool(min(starts["p_of_surface"], starts["p_of_share"]) >= SIGNIFICANT)
    return starts | {"agree": agree}, halves


def share_of_each(ensemble: Any, counted: Counted) -> np.ndarray:
    """Return the share of frames that count of each trajectory; of a single one, of every frame."""
    parts: dict[int, list[np.ndarray]] = {}
    for piece, frames in ensemble.source.chunks():
        parts.setdefault(piece.trajectory, []).append(counted(frames))
    found = [np.concatenate(part).astype(float) for part in parts.values()]
    return found[0] if len(found) == 1 else np.array([part.mean() for part in found])


def blocks(values: np.ndarray, count: int = 20) -> np.ndarray:
    """Return the means of blocks of time."""
    return np.array([block.mean() for block in np.array_split(values, count)])


def mean_and_error(values: np.ndarray) -> dict[str, float]:
    """Return the mean of independent values, and its standard error."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return {"value": float(values.mean()), "standard_error": float(error)}


def permutation(surface: Histogram, basin: np.ndarray) -> tuple[float, float]:
    """Compare the divergence between the two starts with that between random groups of replicas.

    Returns
    -------
    probability : float
        That random groups differ as much.
    mean : float
        Of the divergence between random groups.
    """

    def divergence(group: np.ndarray) -> float:
        weights = group.astype(float)
        return jensen_shannon(surface.probabilities(weights), surface.probabilities(1 - weights))

    return _permuted(divergence, basin)


def share_permutation(shares: np.ndarray, basin: np.ndarray) -> float:
    """Return how probable it is that the shares of random groups of replicas differ as much as those of the starts."""
    return _permuted(lambda group: abs(shares[group].mean() - shares[~group].mean()), basin)[0]


def _permuted(statistic: Callable[[np.ndarray], float], group: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    values = np.array([statistic(rng.permutation(group)) for _ in range(PERMUTATIONS)])
    return float((1 + (values >= statistic(group)).sum()) / (1 + PERMUTATIONS)), float(values.mean())


def series_divergences(comparison: Comparison) -> dict[str, dict[str, float]]:
    """Return the divergence of each figure of single frames, and its floor between random halves of the reference."""
    found = {}
    rng = np.random.default_rng(0)
    for name in SERIES:
        if name not in comparison.reference.series:
            continue
        target = np.concatenate(comparison.reference.series[name])
        simulated = np.concatenate(comparison.model.series[name])
        edges = np.linspace(target.min(), target.max(), SERIES_BINS + 1)

        def divergence(one: np.ndarray, other: np.ndarray, edges: np.ndarray = edges) -> float:
            counts = [np.histogram(np.clip(x, edges[0], edges[-1]), edges)[0] / len(x) for x in (one, other)]
            return jensen_shannon(counts[0], counts[1])

        halves = [np.array_split(rng.permutation(target), 2) for _ in range(20)]
        found[name] = {
            "value": divergence(simulated, target),
            "floor": float(np.mean([divergence(one, other) for one, other in halves])),
        }
    return found
