"""PaiNN in a dense layout, with tabulated filters."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from ase_cg.inference.convolution import Convolution, Product
from ase_cg.inference.pairs import Pairs
from ase_cg.inference.tabulate import RadialTable
from ase_cg.models.backbones.painn import SOFT_DIRECTION, SOFT_NORM, Message, PaiNN, Update
from ase_cg.models.backbones.radial import cosine_cutoff

AXES = range(3)
# Component 0 of the sum is what the scalars receive, 1 to 3 what the vectors do.
FIRST = (Product(0, 0, None, 0), *(Product(1 + x, 1, x, 1, odd=True) for x in AXES))
LATER = (*FIRST, *(Product(1 + x, 2, None, 2 + x) for x in AXES))


class DensePaiNN(nn.Module):
    """:class:`ase_cg.models.backbones.painn.PaiNN` for one molecule.

    Parameters
    ----------
    network : PaiNN
        In double precision.
    bead_type : Tensor, shape (N,)
    intervals : int
        Of the tables.
    """

    embedded: Tensor
    sent: Tensor

    def __init__(self, network: PaiNN, bead_type: Tensor, intervals: int) -> None:
        super().__init__()
        self.messages, self.updates, self.head = network.messages, network.updates, network.head
        convolutions: list[Convolution] = []
        start = 0
        for width, message in zip(network.widths, self.messages, strict=True):
            features = cast("Message", message).features
            starts = range(start, start + width, features)
            functions = [_filter(network, slice(first, first + features)) for first in starts]
            table = RadialTable(functions, network.cutoff, intervals)
            convolutions.append(Convolution(table, LATER if convolutions else FIRST))
            start += width
        self.convolutions = nn.ModuleList(convolutions)
        self.features = cast("Message", self.messages[0]).features
        embedded = network.embedding(bead_type)
        self.register_buffer("embedded", embedded[None])
        # What the first layer sends depends on the bead types only.
        self.register_buffer("sent", cast("Message", self.messages[0]).net(embedded[None]))

    def forward(self, pairs: Pairs) -> Tensor:
        """Return the energy of each replica in eV, shape (R,)."""
        angular = pairs.vectors / torch.sqrt(pairs.squared + SOFT_DIRECTION**2)
        s, v = self.embedded, None
        for number, layer in enumerate(self.messages):
            parts = (self.sent if number == 0 else cast("Message", layer).net(s)).split(self.features, dim=-1)
            features = [parts[0], parts[1]]
            if v is not None:
                features += [parts[2] * v[x] for x in AXES]
            received = self.convolutions[number](pairs.distance, angular, torch.stack(features))
            s = s + received[0]
            v = received[1:] if v is None else v + received[1:]
            s, v = _update(cast("Update", self.updates[number]), s, v)
        return cast("Tensor", self.head(s)).sum((1, 2))


def _update(update: Update, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Do what the layer does, with the vectors' components in front: v is (3, R, N, F)."""
    left, right = update.mix(v).split(update.features, dim=-1)
    norm = torch.sqrt((right * right).sum(0) + SOFT_NORM)
    parts = update.net(torch.cat([s.expand_as(norm), norm], dim=-1)).split(update.features, dim=-1)
    s = s + parts[0] + parts[1] * (left * right).sum(0)
    return s, v if update.last else v + parts[2] * left


def _filter(network: PaiNN, columns: slice) -> Callable[[Tensor], Tensor]:
    def values(distance: Tensor) -> Tensor:
        linear = network.filters
        filters = network.basis(distance) @ linear.weight[columns].T + linear.bias[columns]
        return cast("Tensor", filters * cosine_cutoff(distance, network.cutoff)[:, None])

    return values
