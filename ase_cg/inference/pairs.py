"""All ordered pairs of beads as dense tensors, [replica, bead, bead]."""

from typing import NamedTuple

import torch
from torch import Tensor

FAR = 1e8  # Å²; where a bead meets itself it is taken to be this far away


class Pairs(NamedTuple):
    """Geometry of R replicas of N beads.

    Attributes
    ----------
    positions : Tensor, shape (R, N, 3)
        In Å, relative to the replica's centre.
    vectors : Tensor, shape (R, N, N, 3)
        From the first to the second bead, in Å.
    squared : Tensor, shape (R, N, N)
        Squared distance in Å²; 10⁸ where a bead meets itself.
    distance : Tensor, shape (R, N, N)
        Its root.
    """

    positions: Tensor
    vectors: Tensor
    squared: Tensor
    distance: Tensor


def find_pairs(positions: Tensor, itself: Tensor) -> Pairs:
    """Return all pairs of positions (R, N, 3); `itself` (N, N) is 10⁸ on the diagonal and 0 elsewhere."""
    vectors = positions[:, None] - positions[:, :, None]
    squared = (vectors * vectors).sum(-1) + itself
    # Two beads on one spot would give 0/0 in the gradient; a vanishing distance gives zero instead.
    return Pairs(positions, vectors, squared, torch.sqrt(squared.clamp_min(1e-12)))
