"""The EGNN vector field: all pairs of beads in a dense layout."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from ase_cg.errors import InputError
from ase_cg.flows.field import VectorField

SOFTENING = 1e-8  # Å², of distances, so that they have a derivative at 0


class EGNN(VectorField):
    """E(n)-equivariant graph network over all pairs; the field is what its layers move the beads by.

    Messages m_ij from features, squared distance and squared distance before the first layer, weighted by a gate;
    beads move along x_i − x_j by at most `reach` Å in all layers together, features gain what node networks make of
    Σ_j m_ij. Source: Satorras, Hoogeboom and Welling, "E(n) equivariant graph neural networks" (ICML 2021), as used by
    Klein et al., "Operator forces for coarse-grained molecular dynamics" (2025).

    Parameters
    ----------
    n_types : int
        How many types of beads there are; where each bead of a molecule is a type of its own, beads are told apart.
    features : int
    n_layers : int
    reach : float
        In Å.
    """

    def __init__(self, n_types: int, *, features: int = 64, n_layers: int = 5, reach: float = 15.0) -> None:
        super().__init__()
        if min(n_types, features, n_layers) < 1 or not (reach > 0 and math.isfinite(reach)):
            raise InputError("an EGNN needs at least one type, feature and layer, and a reach above 0 Å")
        self.n_types, self.features, self.n_layers, self.reach = n_types, features, n_layers, reach
        self.embedding = nn.Linear(n_types + 1, features)
        self.layers = nn.ModuleList(
            EGNNLayer(features, reach / n_layers, last=number == n_layers - 1) for number in range(n_layers)
        )

    def settings(self) -> dict[str, int | float]:
        """Return the arguments that make a field of the same shape."""
        return {
            "n_types": self.n_types,
            "features": self.features,
            "n_layers": self.n_layers,
            "reach": self.reach,
        }

    def embed(self, time: Tensor, types: Tensor) -> Tensor:
        """Return the first features, from types and time, shape (1 or B, N, F)."""
        weight = self.embedding.weight
        of_types = weight[:, types].T + self.embedding.bias
        return of_types + time.reshape(-1, 1, 1) * weight[:, -1]

    def forward(self, time: Tensor, x: Tensor, types: Tensor) -> Tensor:
        """Return the field; see :meth:`VectorField.forward`."""
        features = self.embed(time.to(x), types).expand(len(x), -1, -1)
        moved, initial = torch.zeros_like(x), None
        for layer in self.layers:
            pairs = x[:, :, None] + moved[:, :, None] - (x[:, None] + moved[:, None])
            squared = pairs.square().sum(-1)
            initial = squared if initial is None else initial
            shift, features = layer(pairs, features, squared, initial)
            moved = moved + shift
        return moved - moved.mean(1, keepdim=True)


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
        nn.init.xavier_uniform_(self.coordinate[2].weight, gain=0.001)
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
        of_beads = (features @ receiver.T + self.edge[0].bias)[:, :, None] + (features @ sender.T)[:, None]
        return of_beads + squared[..., None] * near + initial[..., None] * start

    def split(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the parts of the first matrix: of both beads, (F, F), and of both squared distances, (F,)."""
        weight = cast("nn.Linear", self.edge[0]).weight
        size = len(weight)
        return weight[:, :size], weight[:, size : 2 * size], weight[:, -2], weight[:, -1]


def off_diagonal(pairs: Tensor) -> Tensor:
    """Return 1 for pairs of two beads and 0 for a bead with itself, shape (N, N)."""
    return 1 - torch.eye(pairs.shape[1], dtype=pairs.dtype, device=pairs.device)
