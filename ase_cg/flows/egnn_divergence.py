"""The exact divergence of an EGNN without pushing every direction through every matrix.

Forward differentiation by all 3N coordinates at once (or along other directions), by hand. What a pair adds to a
displacement is one number, whose derivative by everything that enters the pair is one reverse pass, the same for all
directions; so is what squared distances do to messages. Only how messages follow features takes a product of matrices
for each pair and direction, and it is needed neither in the first layer (features do not depend on positions yet) nor
in the last. The whole is made of differentiable operations: the gradient of the divergence is one reverse pass more.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ase_cg.flows.egnn_follow import follow
from ase_cg.flows.egnn_layer import SOFTENING, EGNNLayer, off_diagonal


class Messages(NamedTuple):
    """What a layer's pairs send, and the slopes of it; all (B, N, N, F) but the first two, (B, N, N)."""

    strength: Tensor  # φ, how strongly a pair pushes
    gate: Tensor
    hidden: Tensor  # message = gate · hidden
    slope_first: Tensor  # of the two activations
    slope_second: Tensor
    pull: Tensor  # ∂φ/∂(what enters the first activation)


class Change(NamedTuple):
    """Derivatives along D directions, such as those of all coordinates."""

    moved: Tensor  # of displacements, (B, N, D, 3)
    features: Tensor | None  # (B, N, D, F); None before the first layer
    initial: Tensor | None  # of the first squared distances, (B, N, N, D)


def moves_and_divergence(
    layers: Sequence[EGNNLayer], features: Tensor, x: Tensor, directions: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return how far layers move the beads, (B, N, 3), and the divergence of that, (B,).

    Parameters
    ----------
    layers : sequence of EGNNLayer
    features : Tensor, shape (B, N, F)
        The first ones, which do not depend on positions.
    x : Tensor, shape (B, N, 3)
        Positions in Å.
    directions : Tensor, shape (D, N, 3), optional
        Orthonormal: the divergence is that in the space they span. By default those of all coordinates.
    """
    n_frames, n_beads = x.shape[:2]
    if directions is None:
        directions = torch.eye(3 * n_beads, dtype=x.dtype, device=x.device).reshape(3 * n_beads, n_beads, 3)
    one = directions.transpose(0, 1)
    moved, initial = torch.zeros_like(x), None
    change = Change(torch.zeros_like(one).expand(n_frames, -1, -1, -1), None, None)
    for layer in layers:
        pairs = x[:, :, None] + moved[:, :, None] - (x[:, None] + moved[:, None])
        squared = pairs.square().sum(-1)
        initial = squared if initial is None else initial
        messages = _messages(layer, features, squared, initial)
        weight = messages.strength / ((squared + SOFTENING).sqrt() + 1)
        change, received = _changed(layer, pairs, squared, messages, change, one)
        moved = moved + torch.einsum("bij,bijx->bix", weight, pairs)
        if layer.node is not None and received is not None:
            sent = (messages.gate[..., None] * messages.hidden).sum(2)
            features, follow = _nodes(layer.node, torch.cat([features, sent], -1), received, change.features)
            change = change._replace(features=follow)
    # A translation changes nothing, so taking the mean out of the moves would not change the trace.
    return moved, (change.moved * one).sum((1, 2, 3))


def _messages(layer: EGNNLayer, features: Tensor, squared: Tensor, initial: Tensor) -> Messages:
    others = off_diagonal(squared)
    second, inner, outer = _linear(layer.edge, 2), _linear(layer.coordinate, 0), _linear(layer.coordinate, 2)
    first, slope_first = _silu(layer.first(features, squared, initial))
    hidden, slope_second = _silu(second(first))
    gate = others * torch.sigmoid(layer.gate(hidden))[..., 0]
    bent, slope_bent = _silu(inner(gate[..., None] * hidden))
    bounded = torch.tanh(outer(bent)[..., 0])
    # Backwards from φ through the gated message.
    scale = layer.reach * others * (1 - bounded * bounded)
    onto_message = (slope_bent * (scale[..., None] * outer.weight[0])) @ inner.weight
    leak = gate * (1 - gate) * (hidden * onto_message).sum(-1)
    onto_hidden = gate[..., None] * onto_message + leak[..., None] * layer.gate.weight[0]
    pull = slope_first * ((slope_second * onto_hidden) @ second.weight)
    return Messages(layer.reach * others * bounded, gate, hidden, slope_first, slope_second, pull)


def _changed(
    layer: EGNNLayer, pairs: Tensor, squared: Tensor, messages: Messages, change: Change, one: Tensor
) -> tuple[Change, Tensor | None]:
    """Return the derivatives after a layer's move, and those of what beads receive, (B, N, D, F)."""
    near, start = layer.split()[2:]
    position = one + change.moved
    squared_change = 2 * _dot(pairs, position, -position)
    initial_change = squared_change if change.initial is None else change.initial
    push = (messages.pull @ near)[..., None] * squared_change + (messages.pull @ start)[..., None] * initial_change
    receiver = sender = None
    if change.features is not None:
        receiver, sender = change.features @ layer.split()[0].T, change.features @ layer.split()[1].T
        push = push + _dot(messages.pull, receiver, sender)
    distance = (squared + SOFTENING).sqrt()
    weight = messages.strength / (distance + 1)
    bend = weight / (2 * distance * (distance + 1))
    weight_change = push / (distance + 1)[..., None] - bend[..., None] * squared_change
    flat = position.flatten(2)
    moved = weight.sum(2)[..., None] * flat - weight @ flat
    moved = change.moved + moved.reshape(position.shape) + weight_change.transpose(2, 3) @ pairs
    received = None
    if layer.node is not None:
        received = _received(layer, messages, squared_change, change.initial, receiver, sender)
    return Change(moved, change.features, initial_change), received


def _received(
    layer: EGNNLayer,
    messages: Messages,
    squared_change: Tensor,
    initial_change: Tensor | None,
    receiver: Tensor | None,
    sender: Tensor | None,
) -> Tensor:
    """Return the derivative of Σ_j m_ij, (B, N, D, F)."""
    second = _linear(layer.edge, 2).weight
    onto_gate = layer.gate.weight[0]
    gate = messages.gate[..., None]
    leak = gate * (1 - gate) * messages.hidden
    near, start = layer.split()[2:]

    def by(direction: Tensor) -> Tensor:
        hidden = messages.slope_second * ((messages.slope_first * direction) @ second.T)
        return gate * hidden + leak * (hidden @ onto_gate)[..., None]

    if initial_change is None or receiver is None or sender is None:
        return squared_change.transpose(2, 3) @ by(near + start)
    found = squared_change.transpose(2, 3) @ by(near) + initial_change.transpose(2, 3) @ by(start)
    # The gate's answer to features is one number for each pair and direction, ...
    opened = _dot(messages.slope_first * ((messages.slope_second * onto_gate) @ second), receiver, sender)
    found = found + opened.transpose(2, 3) @ leak
    # ... the message's is the one product of matrices for each of them.
    return found + follow(gate * messages.slope_second, messages.slope_first, receiver, sender, second)


def _nodes(node: nn.Sequential, features: Tensor, received: Tensor, change: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return new features, (B, N, F), and their derivatives, from features and messages side by side."""
    size = received.shape[-1]
    first, second = _linear(node, 0), _linear(node, 2)
    hidden, slope = _silu(first(features))
    entering = received @ first.weight[:, size:].T
    if change is not None:
        entering = entering + change @ first.weight[:, :size].T
    follow = (slope[:, :, None] * entering) @ second.weight.T
    return features[..., :size] + second(hidden), follow if change is None else change + follow


def _dot(pairs: Tensor, receiver: Tensor, sender: Tensor) -> Tensor:
    """Return p_ij · (r_i + s_j) of each direction, (B, N, N, D), from p (B, N, N, K) and r, s (B, N, D, K)."""
    by_sender = pairs.transpose(1, 2) @ sender.transpose(2, 3)
    return pairs @ receiver.transpose(2, 3) + by_sender.transpose(1, 2)


def _silu(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x·sigmoid(x) and its slope."""
    sigmoid = torch.sigmoid(x)
    value = x * sigmoid
    return value, sigmoid + value * (1 - sigmoid)


def _linear(network: nn.Module, number: int) -> nn.Linear:
    return cast("nn.Linear", cast("nn.Sequential", network)[number])
