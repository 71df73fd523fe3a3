"""The EGNN vector field: all pairs of beads in a dense layout."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from ase_cg.errors import InputError
from ase_cg.flows.egnn_divergence import moves_and_divergence
from ase_cg.flows.egnn_layer import EGNNLayer
from ase_cg.flows.field import VectorField, centered


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
        return centered(moved)

    def with_divergence(
        self, time: Tensor, x: Tensor, types: Tensor, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the field and its exact divergence; see :meth:`VectorField.with_divergence`."""
        layers = [cast("EGNNLayer", layer) for layer in self.layers]
        features = self.embed(time.to(x), types).expand(len(x), -1, -1)
        moved, divergence = moves_and_divergence(layers, features, x, directions)
        return centered(moved), divergence
