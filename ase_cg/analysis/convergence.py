"""How many independent frames there are, and whether they are enough."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Series = Sequence[NDArray[np.float64]]

ENOUGH_SAMPLES = 100  # independent frames; the error of a population is then below 0.05
WINDOW = 5  # Sokal, in: Functional Integration, 131 (1997)
AGREED = 1.1  # split R̂ above which trajectories do not agree (Gelman et al., Bayesian Data Analysis, 3rd ed., 11.4)


@dataclass(frozen=True)
class Convergence:
    """Whether trajectories have sampled a coordinate.

    Parameters
    ----------
    frames : int
    effective_samples : float
        Independent frames: Kish's number of equal weights, divided by the statistical inefficiency.
    r_hat : float or None
        Split R̂: how far halves of trajectories differ, 1 where they agree; None with frames too few to say.
    """

    frames: int
    effective_samples: float
    r_hat: float | None

    @property
    def doubts(self) -> list[str]:
        """Why the sampling is not converged, one clause each; empty where it is."""
        found = []
        if self.effective_samples < ENOUGH_SAMPLES:
            found.append(f"{self.effective_samples:.0f} independent frames, fewer than {ENOUGH_SAMPLES}")
        if self.r_hat is not None and self.r_hat > AGREED:
            found.append(f"halves of trajectories differ (split R̂ {self.r_hat:.2f}, above {AGREED})")
        return found

    @property
    def converged(self) -> bool:
        """Whether there is no doubt."""
        return not self.doubts

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "frames": self.frames,
            "effective_samples": self.effective_samples,
            "split_r_hat": self.r_hat,
            "converged": self.converged,
            "doubts": self.doubts,
        }


def convergence(series: Series, weights: Series | None = None) -> Convergence:
    """Judge the sampling of one coordinate, one array (F,) a trajectory, with the weights of frames where they differ.

    The inefficiency is that of the frames as they were sampled; weights count by Kish's formula.
    """
    frames = sum(len(x) for x in series)
    equal = float(frames)
    if weights is not None:
        w = np.concatenate(list(weights))
        equal = float(w.sum() ** 2 / (w**2).sum())
    return Convergence(frames, equal / statistical_inefficiency(series), split_r_hat(series))


def statistical_inefficiency(series: Series) -> float:
    """Return how many frames are worth one independent frame: 1 + 2 Σ ρ(t), at least 1.

    The autocorrelation ρ is that of all trajectories about their common mean, so that trajectories which stay where
    they began count as correlated throughout. It is summed until it falls to 0, or over five times the sum so far
    (Sokal's window).

    Parameters
    ----------
    series : list of ndarray, shape (F,)
        One a trajectory, of any lengths.
    """
    used = [np.asarray(x, dtype=float) for x in series if len(x)]
    mean = float(np.concatenate(used).mean())
    longest = max(len(x) for x in used)
    products, pairs = np.zeros(longest), np.zeros(longest)
    for x in used:
        n = len(x)
        spectrum = np.fft.rfft(x - mean, 2 * n)
        products[:n] += np.fft.irfft(np.abs(spectrum) ** 2, 2 * n)[:n]
        pairs[:n] += n - np.arange(n)
    variance = products[0] / pairs[0]
    if not variance > 0:
        return 1.0
    correlation = products / np.maximum(pairs, 1) / variance
    # Weighted with how many pairs there are, as the variance of a mean of finite trajectories is.
    share = pairs / pairs[0]
    sums = 1 + 2 * np.cumsum((correlation * share)[1:])
    ends = np.flatnonzero((correlation[1:] <= 0) | (np.arange(1, longest) >= WINDOW * sums))
    if not len(sums):
        return 1.0
    return float(max(1.0, sums[ends[0]] if len(ends) else sums[-1]))


def relaxation_time(series: Series) -> float:
    """Return the integrated autocorrelation time ½ + Σ ρ(t) of a coordinate in frames, one array (F,) a trajectory."""
    return 0.5 * statistical_inefficiency(series)


def split_r_hat(series: Series) -> float | None:
    """Return split R̂ of trajectories cut in halves; None with fewer than two halves of two frames.

    √(((n − 1)/n · W + B)/W) of the variance W within halves and B between their means, n the mean number of frames.
    Unlike in Bayesian practice halves are weighted by their frames, since trajectories may differ in length.
    """
    halves = [half for x in series for half in np.array_split(np.asarray(x, dtype=float), 2) if len(half) > 1]
    if len(halves) < 2:
        return None
    counts = np.array([len(half) for half in halves], dtype=float)
    means = np.array([half.mean() for half in halves])
    within = float(np.average([half.var(ddof=1) for half in halves], weights=counts))
    between = float(np.average((means - np.average(means, weights=counts)) ** 2, weights=counts))
    between *= len(halves) / (len(halves) - 1)
    if not within > 0:
        return None if not between > 0 else float("inf")
    n = counts.mean()
    return float(np.sqrt(((n - 1) / n * within + between) / within))
