"""Layers that backbones share: the output network of a bead, and fresh weights."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def output_network(features: int, hidden: Sequence[int], activation: type[nn.Module]) -> nn.Sequential:
    """Return the network that makes one energy of the features of a bead.

    Parameters
    ----------
    features : int
        Of a bead.
    hidden : sequence of int
        Widths of the hidden layers.
    activation : type
        Of the module after each hidden layer.
    """
    widths = [features, *hidden]
    layers = [layer for before, after in pairwise(widths) for layer in (nn.Linear(before, after), activation())]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1))


def reset_linear_layers(network: nn.Module) -> None:
    """Draw fresh weights of all linear layers of a network: Xavier for matrices, zero for biases."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
