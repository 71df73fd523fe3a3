"""Averages over an epoch."""

import torch
from torch import Tensor
from torchmetrics import Metric


class WeightedAverage(Metric):
    """Σ wᵢ xᵢ / Σ wᵢ over the batches of an epoch and all processes, in double precision.

    torchmetrics' own mean leaves NaN out, which must be seen, or forgets the weights where it keeps them.
    """

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, total: Tensor, weight: Tensor) -> None:
        """Add Σ wᵢ xᵢ and Σ wᵢ of a batch."""
        self.total = self.total + total
        self.weight = self.weight + weight

    def compute(self) -> Tensor:
        """Return the average."""
        return self.total / self.weight
