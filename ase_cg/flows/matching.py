"""Flow matching: what the field of a continuous flow is fitted to."""

from typing import NamedTuple

import torch
from torch import Tensor

from ase_cg.flows.field import Normal, centered


class Matched(NamedTuple):
    """Points on paths, and the velocities to fit there.

    Attributes
    ----------
    time : Tensor, shape (B,)
    y : Tensor, shape (B, N, 3)
        In Å, mean-free.
    velocity : Tensor, shape (B, N, 3)
        In Å per unit of flow time.
    """

    time: Tensor
    y: Tensor
    velocity: Tensor


def matched(x: Tensor, normal: Normal, *, noise_std: float, prior_std: float, path_std: float) -> Matched:
    """Draw a time and a point on a path for each frame.

    With z = x − x₁, x₁ ~ N(0, σ_n²), x₀ ~ N(0, σ_p²): paths lead from z + x₀ to z + x₁ = x, and the field is shown
    y = z + (1 − t) x₀ + t x₁ + s ε, all noise mean-free. The velocity x₁ − x₀ has the mean
    (1 − t)(σ_n² + σ_p²) ∇ ln p_t given y, where p_t is the density of data with noise of variance
    (1 − t)²(σ_n² + σ_p²) + s². Source: Klein et al., "Operator forces for coarse-grained molecular dynamics" (2025),
    after Lipman et al., "Flow matching for generative modeling" (ICLR 2023).

    Parameters
    ----------
    x : Tensor, shape (B, N, 3)
        Frames in Å.
    normal : callable
        Draws all that is random.
    noise_std, prior_std, path_std : float
        σ_n, σ_p and s in Å.
    """
    time = torch.special.ndtr(normal(x[:, 0, :1]))
    removed = noise_std * centered(normal(x))
    start = prior_std * centered(normal(x))
    jitter = path_std * centered(normal(x))
    t = time[:, :, None]
    y = centered(x) - removed + (1 - t) * start + t * removed + jitter
    return Matched(time[:, 0], y, removed - start)


def matched_pair(x: Tensor, z: Tensor, normal: Normal, *, prior_std: float, path_std: float) -> Matched:
    """Draw a time and a point on a path for each transition.

    Paths lead from z + x₀, x₀ ~ N(0, σ_p²), to x; the field is shown y = (1 − t)(z + x₀) + t x + s ε, and z itself. The
    mean of the velocity x − z − x₀ given y, t and z carries the density of the start into k(x | z) with noise of s.

    Parameters
    ----------
    x, z : Tensor, shape (B, N, 3)
        Mean-free, in Å; see :func:`ase_cg.flows.orientation.oriented`.
    normal : callable
        Draws all that is random.
    prior_std, path_std : float
        σ_p and s in Å.
    """
    time = torch.special.ndtr(normal(x[:, 0, :1]))
    start = z + prior_std * centered(normal(x))
    t = time[:, :, None]
    y = (1 - t) * start + t * x + path_std * centered(normal(x))
    return Matched(time[:, 0], y, x - start)
