"""Means of correlated frames, their errors from blocks of time, and a test that many of them are zero at once."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FINEST = 128  # blocks
FEWEST = 16  # blocks, from which on an error can be estimated
SHORTEST = 10  # frames in a block


class BlockMeans(NamedTuple):
    """Weighted means of K quantities.

    Attributes
    ----------
    mean : ndarray, shape (K,)
    error : ndarray, shape (K,)
        Standard error.
    p : ndarray, shape (K,)
        Probability of a mean so far from zero if zero is its true value.
    gram : ndarray, shape (B, B)
        U Uᵀ, where Uᵀ U is the matrix of correlations between the K means; it has the same traces of powers.
    blocks : float
        Number of blocks of equal weight that would tell as much as the finest ones do.
    """

    mean: Floats
    error: Floats
    p: Floats
    gram: Floats
    blocks: float


def block_means(values: Floats, weights: Floats) -> BlockMeans | None:
    """Average frames that follow one another in time; None where there are too few of them for an error.

    Frames are cut into 128 blocks (fewer where they would have less than ten frames), then neighbouring blocks are
    joined, down to 16 of them; the largest of these errors is taken. Blocks that are shorter than the correlation time
    give too small errors, joined ones less so (Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989)).

    Parameters
    ----------
    values : ndarray, shape (F, K)
    weights : ndarray, shape (F,)
        Not negative.
    """
    from scipy import stats

    count = min(FINEST, len(values) // SHORTEST)
    if count < FEWEST or not weights.sum() > 0:
        return None
    edges = np.linspace(0, len(values), count + 1).astype(int)[:-1]
    share = weights / weights.sum()
    mean = share @ values
    # What each block adds to the error of the mean, and its weight.
    parts = np.add.reduceat(share[:, None] * (values - mean), edges)
    shares = np.add.reduceat(share, edges)
    found, best = _level(parts, shares)
    size = np.sqrt((parts**2).sum(0))
    unit = parts / np.where(size > 0, size, 1.0)
    gram = unit @ unit.T
    if found < FEWEST:
        return None
    degrees = np.full(len(mean), found - 1)
    while len(shares) // 2 >= FEWEST:
        odd = len(shares) % 2  # the last block is left as it is
        parts, shares = (_joined(array, odd) for array in (parts, shares))
        blocks, error = _level(parts, shares)
        if blocks < FEWEST:
            break
        larger = error > best
        best, degrees = np.where(larger, error, best), np.where(larger, blocks - 1, degrees)
    sure = best > 1e-9 * np.abs(values).max(0)  # not only rounding
    score = np.abs(mean) / np.where(sure, best, 1.0)
    p = np.where(sure, 2 * stats.t.sf(score, degrees), np.where(np.abs(mean) > 0, 0.0, 1.0))
    return BlockMeans(mean, best, p, gram, found)


def _level(parts: Floats, shares: Floats) -> tuple[float, Floats]:
    """Return the number of equal blocks that blocks are worth, and the error of the mean from them."""
    worth = float(shares.sum() ** 2 / (shares**2).sum())
    return worth, np.sqrt((parts**2).sum(0) * worth / max(worth - 1, 1e-12))


def _joined(array: Floats, odd: int) -> Floats:
    whole = array[: len(array) - odd]
    joined = whole[::2] + whole[1::2]
    return np.concatenate([joined, array[len(array) - odd :]]) if odd else joined


def joint_p(found: BlockMeans) -> float:
    """Return the probability of means so far from zero, taken together, if zero is the true value of all.

    The smaller of two, times 2: that of the most striking mean, times K (Bonferroni), and that of Σ z², a sum of
    squares of correlated normal numbers, whose distribution is nearly that of a shifted multiple of χ² with the same
    first three moments (Buckley and Eagleson, Austral. J. Statist. 30A, 150 (1988)). Correlations that are nothing but
    chance make it wider: the test errs towards no deviation.
    """
    from scipy import stats

    count = len(found.mean)
    if not count:
        return 1.0
    single = count * float(found.p.min())
    z_squared = stats.norm.isf(np.maximum(found.p, 1e-300) / 2) ** 2
    square = found.gram @ found.gram
    second, third = float(np.trace(square)), float((square * found.gram).sum())
    degrees = second**3 / third**2 if third > 0 else float(count)
    statistic = (float(z_squared.sum()) - count) * np.sqrt(degrees / max(second, 1e-12)) + degrees
    return min(1.0, 2 * min(single, float(stats.chi2.sf(statistic, degrees))))
