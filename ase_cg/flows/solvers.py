"""Solvers of ordinary differential equations: fixed steps of RK4 here, adaptive ones from torchdiffeq."""

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ase_cg.errors import InputError

State = tuple[Tensor, ...]
Slope = Callable[[Tensor, State], State]


def rk4(slope: Slope, state: State, times: Sequence[float]) -> State:
    """Go through `times`, from the first to the last, with one step of the classical Runge–Kutta method for each pair.

    Parameters
    ----------
    slope : callable
        Of time, shape (), and state; returns what changes per time.
    state : tuple of Tensor
    times : sequence of float
        Falling times go backwards.
    """
    for start, end in pairwise(times):
        step = end - start
        first = slope(_time(start, state), state)
        second = slope(_time(start + step / 2, state), _moved(state, first, step / 2))
        third = slope(_time(start + step / 2, state), _moved(state, second, step / 2))
        fourth = slope(_time(end, state), _moved(state, third, step))
        state = tuple(
            y + step / 6 * (a + 2 * (b + c) + d)
            for y, a, b, c, d in zip(state, first, second, third, fourth, strict=True)
        )
    return state


def require_torchdiffeq() -> None:
    """Say so where adaptive solvers are not installed.

    Raises
    ------
    InputError
    """
    if find_spec("torchdiffeq") is None:
        raise InputError("adaptive solvers need torchdiffeq: pip install 'ase-cg[flows]'; 'rk4' does not")


def adaptive(
    slope: Slope, state: State, start: float, end: float, *, tolerance: float, method: str = "dopri5"
) -> State:
    """Go from one time to another with torchdiffeq, which chooses the steps by their error.

    Raises
    ------
    InputError
        If torchdiffeq is not installed.
    ArithmeticError
        If the solver fails: its step became too small.
    """
    require_torchdiffeq()
    import torchdiffeq

    times = torch.tensor([start, end], dtype=state[0].dtype, device=state[0].device)
    try:
        found = torchdiffeq.odeint(slope, state, times, rtol=tolerance, atol=tolerance, method=method)
    except AssertionError as error:
        raise ArithmeticError(f"the flow cannot be integrated to {tolerance:g}: {error}") from error
    return tuple(part[-1] for part in found)


def gauss_nodes(n_nodes: int) -> tuple[list[float], list[float]]:
    """Return nodes in (0, 1) and weights of Gauss–Legendre quadrature, exact for polynomials of degree 2n − 1."""
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    return [float(x) for x in (nodes + 1) / 2], [float(w) for w in weights / 2]


def divided(start: float, end: float, n_steps: int) -> list[float]:
    """Return the n + 1 times of n equal steps."""
    return [start + (end - start) * step / n_steps for step in range(n_steps)] + [end]


class Clock:
    """Flow times in small steps where the path is narrow: t(u) = 1 − w sinh((1 − u) asinh(1/w)), from 0 to 1.

    A field that takes noise of variance Σ² away, of which a share w² stays, changes with (1 − t)² + w²: it is smooth in
    the complex plane up to t = 1 ± iw, and in u far beyond. Fewer steps, and fewer nodes of a quadrature, do then.

    Parameters
    ----------
    width : float
        w, above 0; large ones give equal steps.
    """

    def __init__(self, width: float) -> None:
        self._width, self._rate = width, math.asinh(1 / width)

    def times(self, start: float, end: float, n_steps: int) -> list[float]:
        """Return the n + 1 times of steps that are equal in u, between two values of u."""
        return [self.time(u) for u in divided(start, end, n_steps)]

    def time(self, u: float) -> float:
        """Return t(u)."""
        return 1 - self._width * math.sinh((1 - u) * self._rate)

    def speed(self, u: float) -> float:
        """Return dt/du."""
        return self._width * self._rate * math.cosh((1 - u) * self._rate)


def _time(value: float, state: State) -> Tensor:
    return torch.tensor(value, dtype=state[0].dtype, device=state[0].device)


def _moved(state: State, slope: State, step: float) -> State:
    return tuple(y + step * k for y, k in zip(state, slope, strict=True))
