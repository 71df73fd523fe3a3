"""Distances between distributions."""

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float64]
EMPTY = 1e-6  # stands for the probability of a bin that one side has never visited


def pmf_error(p: Probabilities, q: Probabilities) -> float:
    """Return √Σ w (ln p − ln q)², w = (p + q)/2, in kT.

    Summed over bins filled in either; a bin empty on one side counts as 10⁻⁶ there.

    Parameters
    ----------
    p, q : ndarray, shape (bins,)
        Probabilities on the same grid.
    """
    filled = (p > 0) | (q > 0)
    a, b = (np.where(x[filled] > 0, x[filled], EMPTY) for x in (p, q))
    return float(np.sqrt((0.5 * (p + q)[filled] * (np.log(a) - np.log(b)) ** 2).sum()))


def jensen_shannon(p: Probabilities, q: Probabilities) -> float:
    """Return the Jensen–Shannon divergence of two distributions on the same grid, in nats (0 … ln 2)."""
    middle = 0.5 * (p + q)

    def relative_entropy(x: Probabilities) -> float:
        filled = x > 0
        return float((x[filled] * np.log(x[filled] / middle[filled])).sum())

    return max(0.0, 0.5 * (relative_entropy(p) + relative_entropy(q)))


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
