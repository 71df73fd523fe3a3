"""Activations that compile to fast code."""

from typing import Any

import torch
from torch import Tensor

SATURATED = 15.0  # beyond it tanh is 1 in single precision and, to 2e-13, in double


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = 1 - 2 / (torch.exp(2 * x.clamp(-SATURATED, SATURATED)) + 1)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        result: Tensor = gradients[0] * (1 - y * y)
        return result


def tanh(x: Tensor) -> Tensor:
    """Return tanh x from one exponential: several times faster on a CPU than the library's, and as exact near ±1."""
    result: Tensor = _Tanh.apply(x)  # type: ignore[no-untyped-call]
    return result
