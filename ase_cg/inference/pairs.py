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
    vectors : Tensor, shape (3, R, N, N)
        From the first to the second bead, in Å; the components in front, so that loops run along the beads.
    squared : Tensor, shape (R, N, N)
        Squared distance in Å²; 10⁸ where a bead meets itself.
    distance : Tensor, shape (R, N, N)
        Its root.
    """

    positions: Tensor
    vectors: Tensor
    squared: Tensor
    distance: Tensor


def find_pairs(components: Tensor, itself: Tensor) -> Pairs:
    """Return all pairs of positions (3, R, N); `itself` (N, N) is 10⁸ on the diagonal and 0 elsewhere."""
    vectors = components[:, :, None] - components[:, :, :, None]
    squared = (vectors * vectors).sum(0) + itself
    # Two beads on one spot would give 0/0 in the gradient; a vanishing distance gives zero instead.
    return Pairs(components.permute(1, 2, 0), vectors, squared, torch.sqrt(squared.clamp_min(1e-12)))
