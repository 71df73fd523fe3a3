"""Estimates of figures between two samples without the bias of finite sampling, with their errors.

A figure that is a distance is too large between samples: noise of either side adds to it, by about as much as one over
the number of independent frames. Blocks (trajectories, or pieces of time longer than the relaxation) are independent,
so leaving each of them out once tells both this bias and the spread, whatever the correlation within blocks and the
weights of frames.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Figure = Callable[[Array, Array], Array]

DIVISIONS = 16  # into random halves
CELLS_AT_ONCE = 2_000_000  # of histograms with a block left out
# Bins of few frames have a bias that falls slower than 1/n. For densities with Gaussian tails in two dimensions it is
# (a + b ln n)/n, of which the jackknife leaves b/n and two halves leave 1.39 b/n: their difference times 2.6 would be
# b/n. Twice varies less, and covered best with itself as an error (benchmarks/coverage.py).
SECOND_ORDER = 2.0


@dataclass(frozen=True)
class Estimate:
    """Figures between two distributions, of which samples are known.

    Parameters
    ----------
    plug_in : ndarray, shape (…)
        Between the samples as they are: biased upwards.
    corrected : ndarray, shape (…)
        Without the bias; may be below 0.
    error : ndarray, shape (…)
        Standard error of ``plug_in`` by the jackknife; not a number with fewer than two blocks on a side.
    freedom : ndarray, shape (…)
        Degrees of freedom of the error.
    ambiguity : ndarray, shape (…)
        How far two ways to find the bias are apart, which counts as a standard error, too.
    """

    plug_in: Array
    corrected: Array
    error: Array
    freedom: Array
    ambiguity: Array

    def interval(self, coverage: float = 0.95) -> tuple[Array, Array]:
        """Return both ends of the interval that covers the true value, which is no less than 0, so often.

        A squared distance δ², measured with noise of covariance Σ, has the variance 4 δᵀΣδ + 2 tr Σ² and the bias
        tr Σ. So the variance at a true value λ is s² (4 λ + 2 bias), with s² = error²/(4 plug_in); the interval holds
        those λ of which the measured value is within so many standard deviations (as Wilson's interval of a share
        does). The error at the measured value alone is far too small where that happens to be small. The upper end is
        no more than (√plug_in + quantile · s)², beyond which a distance cannot be.
        """
        from scipy.stats import t

        quantile = t.ppf(0.5 + coverage / 2, np.maximum(self.freedom, 1.0))
        bias = np.maximum(0.0, self.plug_in - self.corrected)
        positive = self.plug_in > 0
        scale = np.divide(self.error**2, 4 * self.plug_in, out=np.zeros_like(self.error), where=positive)
        c = quantile**2 * scale

        def half(measured: Array) -> Array:
            square = 4 * c**2 + 4 * c * measured + 2 * c * bias + (quantile * self.ambiguity) ** 2
            return np.asarray(np.sqrt(np.maximum(0.0, square)))

        above = np.maximum(0.0, self.corrected)  # a value below 0 is as good as 0, not better
        low = self.corrected + 2 * c - half(self.corrected)
        farthest = (np.sqrt(self.plug_in) + np.sqrt(c)) ** 2 + quantile * self.ambiguity
        return np.maximum(0.0, low), np.asarray(np.minimum(above + 2 * c + half(above), farthest))


def estimate(figure: Figure, one: Array, other: Array, *, second_order: bool = False) -> Estimate:
    """Return figures between the distributions of which two sets of blocks are samples.

    The bias is that of the delete-one jackknife for blocks of unequal weight (Busing, Meijer and van der Leeden, Stat.
    Comput. 9, 3 (1999)), of each side, and the variance the sum of both. It is compared with the bias by halves of
    both sides.

    Parameters
    ----------
    figure : callable
        Takes probabilities p and q, shapes (…, bins) or (…, features, bins), and returns figures (…) or (…, m). It has
        to be smooth where p equals q: a squared distance, not a distance.
    one, other : ndarray, shape (T, bins) or (T, features, bins)
        Weight of each block in each bin; T may differ.
    second_order : bool
        Correct for bins of few frames, too, as the figure's bias is (a + b ln n)/n: of divergences.

    Returns
    -------
    Estimate
    """
    sides = [counts[totals(counts) > 0] for counts in (one, other)]
    p, q = (probabilities(counts.sum(0)) for counts in sides)
    plain = np.asarray(figure(p, q))
    if min(len(counts) for counts in sides) < 2:
        return Estimate(plain, plain, np.full_like(plain, np.nan), np.ones_like(plain), np.zeros_like(plain))
    first, first_variance = _left_out(lambda x: figure(x, q), sides[0], plain)
    second, second_variance = _left_out(lambda x: figure(p, x), sides[1], plain)
    by_blocks = plain - first - second
    by_halves = 2 * plain - mean_of_parts(figure, sides[0], sides[1])
    apart = (by_halves - by_blocks) * (SECOND_ORDER if second_order else 1.0)
    variance = first_variance + second_variance
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = variance**2 / sum(
            v**2 / (len(x) - 1) for v, x in zip((first_variance, second_variance), sides, strict=True)
        )
    freedom = np.where(np.isfinite(freedom), freedom, min(len(x) for x in sides) - 1.0)
    corrected = by_blocks - apart if second_order else by_blocks
    return Estimate(plain, corrected, np.sqrt(variance), freedom, np.abs(apart))


def probabilities(counts: Array) -> Array:
    """Return counts (…, bins) divided by their sums."""
    return np.asarray(counts / counts.sum(-1, keepdims=True))


def totals(counts: Array) -> Array:
    """Return the weight of each block: shape (T,)."""
    return np.asarray(counts.reshape(len(counts), -1).sum(1))


def _left_out(figure: Callable[[Array], Array], counts: Array, plain: Array) -> tuple[Array, Array]:
    """Return bias and variance of a figure from leaving out one block after the other, on one side."""
    n, total, weights = len(counts), counts.sum(0), totals(counts)
    step = max(1, CELLS_AT_ONCE // total.size)
    values = np.concatenate(
        [figure(probabilities(total - counts[start : start + step])) for start in range(0, n, step)]
    )
    share = (weights / weights.sum()).reshape(-1, *[1] * plain.ndim)
    unbiased = n * plain - ((1 - share) * values).sum(0)
    pseudo = plain / share - (1 / share - 1) * values
    variance = ((pseudo - unbiased) ** 2 / (1 / share - 1)).mean(0)
    return plain - unbiased, variance


def mean_of_parts(
    figure: Figure, one: Array, other: Array, sizes: tuple[int, int] | None = None, divisions: int = DIVISIONS
) -> Array:
    """Return the mean of a figure between random parts of two sets of blocks, halves of both by default.

    Parameters
    ----------
    figure : callable
    one, other : ndarray, shape (T, …)
    sizes : tuple of (int, int), optional
        Blocks drawn of each; halves are both used, the half and the rest.
    divisions : int
    """
    rng = np.random.default_rng(0)
    values = []
    for _ in range(divisions):
        places = [rng.permutation(len(counts)) for counts in (one, other)]
        cuts = [len(counts) // 2 for counts in (one, other)] if sizes is None else list(sizes)
        pairs = [[place[:cut] for place, cut in zip(places, cuts, strict=True)]]
        if sizes is None:
            pairs.append([place[cut:] for place, cut in zip(places, cuts, strict=True)])
        for a, b in pairs:
            drawn = one[a].sum(0), other[b].sum(0)
            if all((x.sum(-1) > 0).all() for x in drawn):
                values.append(figure(probabilities(drawn[0]), probabilities(drawn[1])))
    return np.asarray(np.mean(values, axis=0)) if values else np.asarray(np.nan)


def effective_samples(counts: Array, *, cumulative: bool = False) -> float:
    """Return how many independent frames would have varied as much as blocks do: Σ p(1 − p)/Σ var(p).

    The variance of each bin's probability is that of a ratio, between blocks; so it knows the correlation of frames
    and their weights.

    Parameters
    ----------
    counts : ndarray, shape (T, bins) or (T, features, bins)
    cumulative : bool
        Of cumulative distributions, which is what Wasserstein distances feel.

    Returns
    -------
    float
        Infinite where all blocks agree; not a number with fewer than two blocks.
    """
    used = counts[totals(counts) > 0]
    n = len(used)
    if n < 2:
        return float("nan")
    sums = used.sum(-1, keepdims=True)
    used = np.cumsum(used, axis=-1) if cumulative else used
    p = used.sum(0) / sums.sum(0)
    squares = np.zeros_like(p)
    for block, weight in zip(used, sums, strict=True):  # one by one: histograms of all features are large
        squares += (block - weight * p) ** 2
    variance = n / (n - 1) * squares / sums.sum(0) ** 2
    spread = float((p * (1 - p)).sum())
    return spread / float(variance.sum()) if variance.sum() > 0 else float("inf")


def effective_bins(probability: Array) -> float:
    """Return how many bins a distribution (bins,) fills: the exponential of its entropy."""
    filled = probability[probability > 0]
    return float(np.exp(-(filled * np.log(filled)).sum()))
