"""Figures between two ensembles, with intervals and the floor."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.ensembles import Ensemble, Grid
from ase_cg.analysis.metrics import jensen_shannon, pmf_error, wasserstein_distances

RESAMPLES = 200
FEATURES_PREFIX = "wasserstein_of_"
INTERNAL = ("bonds", "angles", "dihedrals")
NORMAL_95 = 1.96  # standard errors to either side of a 95 % interval

Weights = NDArray[np.float64] | None
Figures = dict[str, Any]

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


def figures(
    one: Ensemble,
    other: Ensemble,
    grids: Mapping[str, Grid],
    main: str | None,
    one_weights: Weights = None,
    other_weights: Weights = None,
) -> Figures:
    """Return all figures between two ensembles, their blocks weighted.

    Parameters
    ----------
    one, other : Ensemble
    grids : dict
    main : str or None
        The plane whose figures have no prefix.
    one_weights, other_weights : ndarray, shape (T,), optional

    Returns
    -------
    dict
        Figures that are one number, and Wasserstein distances of single features under ``wasserstein_of_<kind>``.
    """
    found: Figures = {"pmf_error_kT": None, "pmf_error_squared_kT2": None, "jensen_shannon_nats": None}
    for name, histogram in one.surfaces.items():
        p, q = histogram.probabilities(one_weights), other.surfaces[name].probabilities(other_weights)
        prefix = "" if name == main else f"{name}_"
        error = pmf_error(p, q)
        found |= {
            f"{prefix}pmf_error_kT": error,
            f"{prefix}pmf_error_squared_kT2": error**2,
            f"{prefix}jensen_shannon_nats": jensen_shannon(p, q),
        }
    found["bond_wasserstein_A"] = None
    for name, histogram in one.distributions.items():
        p, q = histogram.probabilities(one_weights), other.distributions[name].probabilities(other_weights)
        distances = wasserstein_distances(p, q, grids[name].width, periodic=grids[name].periodic)
        found[FEATURE_FIGURES[name]] = float(distances.mean())
        if name in INTERNAL:
            found[FEATURES_PREFIX + name] = distances
    return found


def compared(simulated: Ensemble, reference: Ensemble, grids: Mapping[str, Grid], main: str | None) -> dict[str, Any]:
    """Return the figures of a simulation with intervals from resampling its blocks."""
    n = n_blocks(simulated)
    rng = np.random.default_rng(0)

    def sample() -> Figures:
        drawn = rng.multinomial(n, np.full(n, 1 / n)).astype(float)
        return figures(simulated, reference, grids, main, drawn)

    return _with_intervals(figures(simulated, reference, grids, main), _samples(sample) if n > 1 else [])


def floor(reference: Ensemble, grids: Mapping[str, Grid], main: str | None) -> dict[str, Any]:
    """Return the figures between two halves of the reference: the mean over random halves, and their spread."""
    n = n_blocks(reference)
    rng = np.random.default_rng(0)

    def sample() -> Figures:
        half = np.zeros(n)
        half[rng.permutation(n)[: n // 2]] = 1.0
        return figures(reference, reference, grids, main, half, 1.0 - half)

    samples = _samples(sample) if n > 1 else []
    if not samples:
        return _with_intervals(dict.fromkeys(figures(reference, reference, grids, main)), [])
    means = {
        name: None if value is None else np.mean([s[name] for s in samples], 0) for name, value in samples[0].items()
    }
    return _with_intervals(means, samples)


def _samples(sample: Callable[[], Figures]) -> list[Figures]:
    """Return many samples, without those to which no weight fell."""
    from ase_cg.errors import InputError

    found = []
    for _ in range(RESAMPLES):
        try:
            found.append(sample())
        except InputError:
            continue
    return found


def n_blocks(ensemble: Ensemble) -> int:
    """Return the number of blocks that can be resampled."""
    histogram = next(iter([*ensemble.surfaces.values(), *ensemble.distributions.values()]))
    return len(histogram.counts)


def _with_intervals(values: Figures, samples: list[Figures]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, value in values.items():
        interval = None
        if value is not None and samples:
            # Not percentiles: resampling adds noise, which raises every distance, so they would miss the value.
            error = NORMAL_95 * np.std(np.array([s[name] for s in samples], dtype=float), axis=0)
            low, high = np.maximum(0.0, value - error), value + error
            interval = [low.tolist(), high.tolist()] if np.ndim(value) else [float(low), float(high)]
        plain = value.tolist() if isinstance(value, np.ndarray) and value.ndim else value
        if isinstance(plain, np.floating | np.ndarray):
            plain = float(plain)
        rows[name] = {"value": plain, "interval": interval}
    return rows
