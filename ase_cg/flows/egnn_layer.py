"""One round of messages of an EGNN."""

from typing import cast

import torch
from torch import Tensor, nn

SOFTENING = 1e-8  # Å², of distances, so that they have a derivative at 0


class EGNNLayer(nn.Module):
    """One round of messages.

    Parameters
    ----------
    features : int
    reach : float
        How far a pair moves a bead at most, in Å.
    last : bool
        Then features are not needed any more.
    """

    def __init__(self, features: int, reach: float, *, last: bool) -> None:
        super().__init__()
        self.reach = reach
        self.edge = nn.Sequential(nn.Linear(2 * features + 2, features), nn.SiLU(), nn.Linear(features, features))
        self.gate = nn.Linear(features, 1)
        self.coordinate = nn.Sequential(nn.Linear(features, features), nn.SiLU(), nn.Linear(features, 1, bias=False))
        # Begins near the identity, as the published networks did.
        nn.init.xavier_uniform_(cast("nn.Linear", self.coordinate[2]).weight, gain=0.001)
        self.node = (
            None if last else nn.Sequential(nn.Linear(2 * features, features), nn.SiLU(), nn.Linear(features, features))
        )

    def forward(self, pairs: Tensor, features: Tensor, squared: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far beads move, (B, N, 3), and their new features, (B, N, F)."""
        others = off_diagonal(pairs)
        hidden = nn.functional.silu(self.edge[2](nn.functional.silu(self.first(features, squared, initial))))
        message = hidden * torch.sigmoid(self.gate(hidden))
        weight = self.reach * torch.tanh(self.coordinate(message))[..., 0] * others
        weight = weight / ((squared + SOFTENING).sqrt() + 1)
        shift = torch.einsum("bij,bijx->bix", weight, pairs)
        if self.node is None:
            return shift, features
        received = torch.einsum("ij,bijf->bif", others, message)
        return shift, features + self.node(torch.cat([features, received], -1))

    def first(self, features: Tensor, squared: Tensor, initial: Tensor) -> Tensor:
        """Return what enters the first activation of each pair, (B, N, N, F), by parts and not pair by pair."""
        receiver, sender, near, start = self.split()
        bias = cast("nn.Linear", self.edge[0]).bias
        of_beads = (features @ receiver.T + bias)[:, :, None] + (features @ sender.T)[:, None]
        return of_beads + squared[..., None] * near + initial[..., None] * start

    def split(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the parts of the first matrix: of both beads, (F, F), and of both squared distances, (F,)."""
        weight = cast("nn.Linear", self.edge[0]).weight
        size = len(weight)
        return weight[:, :size], weight[:, size : 2 * size], weight[:, -2], weight[:, -1]


def off_diagonal(pairs: Tensor) -> Tensor:
    """Return 1 for pairs of two beads and 0 for a bead with itself, shape (N, N)."""
    return 1 - torch.eye(pairs.shape[1], dtype=pairs.dtype, device=pairs.device)
