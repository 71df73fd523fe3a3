"""How messages follow features: the one contraction of an EGNN's divergence that costs, with its derivative by hand.

T_id = Σ_j g_ij ⊙ W (s_ij ⊙ (r_id + c_jd)) for all pairs ij and directions d. What lies between has the shape
(N, N, D, F) for each frame. It is made for as few frames at a time as fit into a CPU's cache, and made again for the
derivative: where it is kept, the whole takes half as long again.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_BYTES = {"cpu": 2**20, "cuda": 2**30}


def follow(gate: Tensor, slope: Tensor, receiver: Tensor, sender: Tensor, weight: Tensor) -> Tensor:
    """Return T, shape (B, N, D, F).

    Parameters
    ----------
    gate, slope : Tensor, shape (B, N, N, F)
        g and s.
    receiver, sender : Tensor, shape (B, N, D, F)
        r and c.
    weight : Tensor, shape (F, F)
        W, as of a linear layer.
    """
    return cast(Tensor, _Follow.apply(gate, slope, receiver, sender, weight))  # type: ignore[no-untyped-call] # of torch


class _Follow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, slope: Tensor, receiver: Tensor, sender: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate, slope, receiver, sender, weight)
        total = torch.empty_like(receiver)
        entering, left = _rooms(receiver)
        for rows in _chunks(receiver):
            e, h = entering[: len(total[rows])], left[: len(total[rows])]
            torch.add(receiver[rows, :, None], sender[rows, None], out=e)
            e *= slope[rows, :, :, None]
            torch.mm(e.flatten(0, 3), weight.T, out=h.view(-1, h.shape[-1]))
            h *= gate[rows, :, :, None]
            torch.sum(h, 2, out=total[rows])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        gate, slope, receiver, sender, weight = ctx.saved_tensors
        by_gate, by_slope = torch.empty_like(gate), torch.empty_like(slope)
        by_receiver, by_sender = torch.empty_like(receiver), torch.empty_like(sender)
        by_weight = torch.zeros_like(weight) if ctx.needs_input_grad[4] else None
        entering, left = _rooms(receiver)
        along = along.contiguous()
        for rows in _chunks(receiver):
            e, h = entering[: len(along[rows])], left[: len(along[rows])]
            flat = h.view(-1, h.shape[-1])
            back = along[rows, :, None]
            torch.add(receiver[rows, :, None], sender[rows, None], out=e)
            e *= slope[rows, :, :, None]
            torch.mm(e.flatten(0, 3), weight.T, out=flat)
            h *= back
            torch.sum(h, 3, out=by_gate[rows])
            torch.mul(back, gate[rows, :, :, None], out=h)
            if by_weight is not None:
                by_weight += flat.T @ e.flatten(0, 3)
            torch.mm(flat, weight, out=e.view(-1, e.shape[-1]))
            torch.add(receiver[rows, :, None], sender[rows, None], out=h)
            h *= e
            torch.sum(h, 3, out=by_slope[rows])
            e *= slope[rows, :, :, None]
            torch.sum(e, 2, out=by_receiver[rows])
            torch.sum(e, 1, out=by_sender[rows])
        return by_gate, by_slope, by_receiver, by_sender, by_weight


def _chunks(receiver: Tensor) -> list[slice]:
    size = _chunk_length(receiver)
    return [slice(start, start + size) for start in range(0, len(receiver), size)]


def _rooms(receiver: Tensor) -> tuple[Tensor, Tensor]:
    n_beads, directions, features = receiver.shape[1:]
    shape = (min(len(receiver), _chunk_length(receiver)), n_beads, n_beads, directions, features)
    return receiver.new_empty(shape), receiver.new_empty(shape)


def _chunk_length(receiver: Tensor) -> int:
    frame_bytes = receiver.element_size() * receiver[0].numel() * receiver.shape[1]
    return max(1, CHUNK_BYTES[receiver.device.type] // frame_bytes)
