"""Distances between distributions."""

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float64]
OF_UNIFORM = 0.1  # smallest probability that is told from 0, in parts of a uniform distribution's
COMMON = 5.0  # times the smallest probability has a bin that both sides fill


def smallest_probability(bins: int, *effective_samples: float) -> float:
    """Return the probability below which two surfaces are not told apart.

    A tenth of a uniform distribution's, or what half an independent frame is worth of the side that has fewer:
    neither grid nor sample resolves less. On a grid it is the same for all samples that are large enough, so that a
    figure does not change with their size.

    Parameters
    ----------
    bins : int
        Of the whole grid.
    effective_samples : float
        Independent frames of each side; none for distributions that are known exactly.
    """
    return max([OF_UNIFORM / bins, *(0.5 / max(n, 1.0) for n in effective_samples)])


def pmf_error(p: Probabilities, q: Probabilities, smallest: float | None = None) -> float:
    """Return √Σ w (F_p − F_q)² in kT, w = (p + q)/2, with free energies F = −½ ln(p² + ε²).

    F is −ln p where p is well above ε, and −ln ε where it is well below: what a sample cannot resolve does not count.

    Parameters
    ----------
    p, q : ndarray, shape (bins,)
        Probabilities on the same grid.
    smallest : float, optional
        ε; :func:`smallest_probability` of the grid by default.
    """
    chosen = smallest_probability(len(p)) if smallest is None else smallest
    return float(np.sqrt(squared_pmf_error(p, q, chosen)))


def squared_pmf_error(
    p: Probabilities, q: Probabilities, smallest: float, chosen: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return Σ w (F_p − F_q)² in kT² of several pairs of distributions, see :func:`pmf_error`.

    Parameters
    ----------
    p, q : ndarray, shape (…, bins)
    smallest : float
    chosen : ndarray, shape (bins,), optional
        Bins over which is summed; all by default.

    Returns
    -------
    ndarray, shape (…)
    """
    difference = 0.5 * np.log((p**2 + smallest**2) / (q**2 + smallest**2))
    terms = 0.5 * (p + q) * difference**2
    return np.asarray((terms if chosen is None else np.where(chosen, terms, 0.0)).sum(-1))


def common_bins(p: Probabilities, q: Probabilities, smallest: float) -> NDArray[np.bool_]:
    """Return the bins that both sides fill, with five times the smallest probability or more: shape (bins,).

    A basin that one side lacks lies outside them, and so do rare bins.
    """
    return np.asarray(np.minimum(p, q) >= COMMON * smallest)


def jensen_shannon(p: Probabilities, q: Probabilities) -> float:
    """Return the Jensen–Shannon divergence of two distributions on the same grid, in nats (0 … ln 2)."""
    return float(jensen_shannon_divergences(p, q))


def jensen_shannon_divergences(p: Probabilities, q: Probabilities) -> NDArray[np.float64]:
    """Return Jensen–Shannon divergences in nats of several pairs of distributions (…, bins): shape (…)."""
    middle = 0.5 * (p + q)

    def relative_entropy(x: Probabilities) -> NDArray[np.float64]:
        ratio = np.divide(x, middle, out=np.ones_like(middle), where=np.broadcast_to(x > 0, middle.shape))
        return np.asarray((x * np.log(ratio)).sum(-1))

    return np.maximum(0.0, 0.5 * (relative_entropy(p) + relative_entropy(q)))


def wasserstein(p: Probabilities, q: Probabilities, width: float) -> float:
    """Return the 1-D Wasserstein distance of two distributions on a grid of bins of a width, in the width's unit.

    It is ∫|P − Q| of the cumulative distributions; with bins much finer than the distance the grid is not felt.
    """
    return float(wasserstein_distances(p, q, width))


def wasserstein_distances(
    p: Probabilities, q: Probabilities, width: float, *, periodic: bool = False
) -> NDArray[np.float64]:
    """Return Wasserstein distances of several pairs of distributions.

    On a circle it is the least over all places where the circle may be cut, ∫|P − Q − c| with c the median of P − Q
    (Rabin, Delon and Gousseau, J. Math. Imaging Vis. 41, 147 (2011)).

    Parameters
    ----------
    p, q : ndarray, shape (…, bins)
    width : float
        Of a bin.
    periodic : bool
        The grid is a circle.

    Returns
    -------
    ndarray, shape (…)
        In the width's unit.
    """
    difference = np.cumsum(p - q, axis=-1)
    if periodic:
        difference = difference - np.median(difference, axis=-1, keepdims=True)
    return np.asarray(np.abs(difference).sum(-1) * width)
