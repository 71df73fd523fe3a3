"""Radial functions: smooth cutoffs and bases of a distance."""

import math

import torch
from torch import Tensor, nn


def cosine_cutoff(distance: Tensor, cutoff: float, lower: float = 0.0) -> Tensor:
    """Return (1 + cos(πd/d_c))/2 inside the cutoff and 0 beyond: continuous with its first derivative.

    With a lower cutoff d_l it is (1 − cos(2π(d − d_l)/(d_c − d_l)))/2 between the two, and 0 below and beyond.
    """
    if lower > 0:
        inside = 0.5 * (1.0 - torch.cos((distance - lower) * (2 * math.pi / (cutoff - lower))))
        return torch.where((distance < cutoff) & (distance > lower), inside, torch.zeros_like(inside))
    inside = 0.5 * (torch.cos(distance * (math.pi / cutoff)) + 1.0)
    return torch.where(distance < cutoff, inside, torch.zeros_like(inside))


class ExpNormalBasis(nn.Module):
    """Exponential-normal radial functions, φ_k(d) = C(d) exp(−β_k (exp(−α(d − d_l)) − μ_k)²).

    Centres μ_k are even in the inner exponential between its values at d_c and at d_l, with α = 5/(d_c − d_l), so that
    short distances are resolved more finely. Source: Unke and Meuwly, PhysNet, J. Chem. Theory Comput. 15, 3678
    (2019), Eq. 7, with the scaled exponent that TorchMD-Net uses.

    Parameters
    ----------
    cutoff : float
        d_c in Å.
    size : int
        Number of functions K.
    trainable : bool
        Train centres and widths.
    lower : float
        d_l in Å, where the scale of distances begins.
    """

    means: Tensor
    betas: Tensor

    def __init__(self, cutoff: float, size: int, *, trainable: bool = False, lower: float = 0.0) -> None:
        super().__init__()
        self.cutoff, self.lower = cutoff, lower
        self.alpha = 5.0 / (cutoff - lower)
        start = math.exp(-(cutoff - lower) * self.alpha)
        means = torch.linspace(start, 1.0, size)
        betas = torch.full((size,), (2.0 / size * (1.0 - start)) ** -2)
        if trainable:
            self.means, self.betas = nn.Parameter(means), nn.Parameter(betas)
        else:
            self.register_buffer("means", means)
            self.register_buffer("betas", betas)

    def forward(self, distance: Tensor) -> Tensor:
        """Map distances (e,) in Å to features (e, K)."""
        envelope = cosine_cutoff(distance, self.cutoff)
        shifted = torch.exp(-self.alpha * (distance - self.lower))[:, None] - self.means
        return envelope[:, None] * torch.exp(-self.betas * shifted * shifted)
