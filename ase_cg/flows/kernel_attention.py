"""Transformer over beads whose attention is a function of distances alone."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn


class KernelTransformer(nn.Module):
    """Blocks of attention w_ij ∝ exp(−(d_ij/ℓ)²), one head for each ℓ, and of networks bead by bead.

    Source: Klein et al., "Timewarp: transferable acceleration of molecular dynamics by learning time-coarsened
    dynamics" (NeurIPS 2023).

    Parameters
    ----------
    inputs, outputs : int
        Features of a bead.
    embedding : int
        Features between the blocks.
    n_blocks : int
    length_scales : sequence of float
        Each ℓ in Å.
    """

    def __init__(
        self, inputs: int, outputs: int, *, embedding: int, n_blocks: int, length_scales: Sequence[float]
    ) -> None:
        super().__init__()
        self.enter = _network(inputs, embedding, embedding)
        self.mix = nn.ModuleList(nn.Linear(embedding * len(length_scales), embedding) for _ in range(n_blocks))
        self.change = nn.ModuleList(_network(embedding, 2 * embedding, embedding) for _ in range(n_blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(embedding) for _ in range(2 * n_blocks))
        self.leave = _network(embedding, embedding, outputs)
        # Begins at zero, so that a flow begins as the identity.
        last = cast("nn.Linear", self.leave[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, features: Tensor, attention: Tensor) -> Tensor:
        """Return new features, from features (B, N, inputs) and :func:`kernel_attention`."""
        hidden = self.enter(features)
        for number, (mix, change) in enumerate(zip(self.mix, self.change, strict=True)):
            heads = torch.einsum("bhij,bjf->bihf", attention, self.norms[2 * number](hidden)).flatten(2)
            hidden = hidden + mix(heads)
            hidden = hidden + change(self.norms[2 * number + 1](hidden))
        return cast(Tensor, self.leave(hidden))


def kernel_attention(x: Tensor, length_scales: Tensor) -> Tensor:
    """Return normalised attention of each bead to all, (B, H, N, N), from positions (B, N, 3) and H length scales."""
    squared = (x[:, :, None] - x[:, None]).square().sum(-1)
    weights = torch.exp(-squared[:, None] / length_scales[:, None, None].square())
    return weights / weights.sum(-1, keepdim=True)


def _network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))
