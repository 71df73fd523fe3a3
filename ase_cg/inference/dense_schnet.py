"""SchNet in a dense layout: tabulated filters, and what does not depend on positions multiplied out beforehand."""

from itertools import repeat
from typing import cast

import torch
from torch import Tensor, nn

from ase_cg.inference.activation import tanh
from ase_cg.inference.convolution import Convolution, Product
from ase_cg.inference.pairs import Pairs
from ase_cg.inference.tabulate import COEFFICIENTS, MAX_NUMBERS, Radial, RadialTable, by_type
from ase_cg.models.backbones.radial import cosine_cutoff
from ase_cg.models.backbones.schnet import Interaction, SchNet

ONE = (Product(out=0, filter=0, angular=None, feature=0),)
MAX_MERGED = 3  # layers; with more of them merged products cost more than they save


class DenseSchNet(nn.Module):
    """:class:`ase_cg.models.backbones.schnet.SchNet` for one molecule.

    The first convolution sees the features of bead types only, so the matrix that follows it goes into a table for each
    type of neighbour. What a layer adds to the features goes through the matrices of its readers in one product.

    Parameters
    ----------
    network : SchNet
        In double precision.
    bead_type : Tensor, shape (N,)
    intervals : int
        Of the tables.
    fold : bool
        Whether matrices may go into tables for each type.
    """

    sent: Tensor

    def __init__(self, network: SchNet, bead_type: Tensor, intervals: int, *, fold: bool = True) -> None:
        super().__init__()
        layers = [cast("Interaction", layer) for layer in network.interactions]
        embedded = network.embedding(bead_type)
        sent = layers[0].inward(embedded)
        types, which = torch.unique(bead_type, return_inverse=True)
        weight = cast("nn.Linear", layers[0].outward[0]).weight
        self.folded = fold and len(types) * COEFFICIENTS * intervals * len(weight) <= MAX_NUMBERS
        tables = [RadialTable([_filters(network, layer)], network.cutoff, intervals) for layer in layers]
        offset = None
        if self.folded:
            folded = [(weight * sent[bead_type == t][0]).T[None] for t in types]
            tables[0], offset = by_type(tables[0], folded, which)
            sent = torch.ones(1, len(weight), dtype=weight.dtype)
        offsets = [offset, *[None for _ in tables[1:]]]
        self.convolutions = nn.ModuleList(
            Convolution(*parts) for parts in zip(tables, repeat(ONE), offsets, strict=False)
        )
        self.register_buffer("sent", sent[None, None])
        self.merged = len(layers) <= MAX_MERGED
        self._multiply_out(network, layers, embedded)
        self.head = nn.ModuleList(list(network.head)[1:])

    def _multiply_out(self, network: SchNet, layers: list[Interaction], embedded: Tensor) -> None:
        """Prepare the matrices: `into` each layer and the head from the features, `onto` them from each layer."""
        head = cast("nn.Linear", network.head[0])
        readers = [*[layer.inward.weight for layer in layers[1:]], head.weight]
        biases = [*[torch.zeros_like(weight[:, 0]) for weight in readers[:-1]], head.bias]
        self.inner = nn.ModuleList(cast("nn.Linear", layer.outward[0]) for layer in layers)
        last = [cast("nn.Linear", layer.outward[2]) for layer in layers]
        self.widths = [len(weight) for weight in readers]
        if self.merged:
            start = [embedded @ weight.T + bias for weight, bias in zip(readers, biases, strict=True)]
            outputs = []
            for number, linear in enumerate(last):
                for reader in range(number, len(readers)):
                    start[reader] = start[reader] + readers[reader] @ linear.bias
                outputs.append(_linear(torch.cat([weight @ linear.weight for weight in readers[number:]])))
            self.outer = nn.ModuleList(outputs)
        else:
            start = [embedded]
            self.outer = nn.ModuleList(last)
            self.readers = nn.ModuleList(_linear(w, b) for w, b in zip(readers, biases, strict=True))
        self.start = nn.ParameterList(start)

    def forward(self, pairs: Pairs) -> Tensor:
        """Return the energy of each replica in eV, shape (R,)."""
        held = list(self.start)
        sent = self.sent
        layers = zip(self.convolutions, self.inner, self.outer, strict=True)
        for number, (convolution, inner, outer) in enumerate(layers):
            linear = cast("nn.Linear", inner)
            first = number == 0 and self.folded
            received = convolution(pairs.distance, None, sent)[0]
            hidden = tanh(received + linear.bias if first else linear(received))
            added = outer(hidden)
            if self.merged:
                parts = added.split(self.widths[number:], dim=-1)
                held = [value + part for value, part in zip(held, parts, strict=True)]
                read, held = held[0], held[1:]
            else:
                held = [held[0] + added]
                read = self.readers[number](held[0])
            sent = read[None]
        for layer in self.head:
            read = tanh(read) if isinstance(layer, nn.Tanh) else layer(read)
        return cast("Tensor", read).sum((1, 2))


def _filters(network: SchNet, layer: Interaction) -> Radial:
    def filters(distance: Tensor) -> Tensor:
        envelope = cosine_cutoff(distance, network.cutoff, network.cutoff_lower)
        return cast("Tensor", layer.filters(network.basis(distance))) * envelope[:, None]

    return filters


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    made.weight = nn.Parameter(weight)
    if bias is not None:
        made.bias = nn.Parameter(bias)
    return made
