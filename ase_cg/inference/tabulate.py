"""Functions of a distance as tables of polynomials."""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

Radial = Callable[[Tensor], Tensor]
MAX_NUMBERS = 8_000_000  # in a table with a part for each bead type; larger ones leave the processor's cache
COEFFICIENTS = 6
ROUNDING = 1e-12  # the last knot is taken within the cutoff, where the curvature is that of the inside
NEAR_ZERO = 1e-3  # of the first interval; a basis may be 0/0 at zero itself


class Knots(NamedTuple):
    """Where each pair of beads stands in a table.

    Attributes
    ----------
    row : Tensor of int64, shape (R, N, N)
        First row of its interval.
    fraction : Tensor, shape (R, N, N)
        Place t within the interval, 0 ≤ t < 1.
    """

    row: Tensor
    fraction: Tensor


class RadialTable(nn.Module):
    """Quintic Hermite interpolation of functions that vanish, with their slopes, at the cutoff.

    In each of K intervals of width h the functions are Σ_q c_q t^q, q = 0 … 5, with values, slopes and curvatures those
    of the functions at both knots: two continuous derivatives, and an error of h⁶/46080 times the sixth derivative. A
    cubic needs intervals so narrow that the table leaves the processor's cache. The coefficients are rounded one by
    one, so that in single precision a slope loses no digits to the difference of two values.

    Parameters
    ----------
    functions : sequence of callable
        Each maps distances (k,) in Å, in double precision, to values (k, C).
    cutoff : float
        In Å.
    intervals : int
        K.

    Attributes
    ----------
    rows : Tensor, shape ((K + 1) · 6 · P, C)
        Row (k · 6 + q) · P + p holds the coefficients of t^q in interval k of function p. Interval K is zero.
    """

    rows: Tensor

    def __init__(self, functions: Sequence[Radial], cutoff: float, intervals: int) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.intervals = intervals
        self.n_functions = len(functions)
        self.per_angstrom = intervals / cutoff
        knots = torch.linspace(0.0, cutoff, intervals + 1, dtype=torch.float64)
        knots[0] = NEAR_ZERO * knots[1]
        knots[-1] = cutoff * (1 - ROUNDING)
        polynomials = torch.stack([_polynomials(function, knots) for function in functions], dim=2)
        beyond = torch.zeros_like(polynomials[:1])
        self.register_buffer("rows", torch.cat([polynomials, beyond]).flatten(0, 2))

    def find(self, distance: Tensor, offset: Tensor | None = None) -> Knots:
        """Return the places of distances (R, N, N) in Å; `offset` (N,) counts rows to begin at for each second bead."""
        place = (distance.detach() * self.per_angstrom).clamp(0, self.intervals)
        interval = place.to(torch.int64)
        row = interval * (COEFFICIENTS * self.n_functions)
        return Knots(_apart(row if offset is None else row + offset), _apart(place - interval))

    def values(self, knots: Knots, which: int) -> Tensor:
        """Return function `which`, shape (R, N, N, C)."""
        c = self._coefficients(knots, which)
        return _horner(c, knots.fraction[..., None])

    def slopes(self, knots: Knots, which: int) -> Tensor:
        """Return the derivative of function `which` by the distance, shape (R, N, N, C), in its unit per Å."""
        c = self._coefficients(knots, which)
        return _horner([q * c[q] for q in range(1, COEFFICIENTS)], knots.fraction[..., None]) * self.per_angstrom

    def _coefficients(self, knots: Knots, which: int) -> list[Tensor]:
        # The compiler proves from the bounds that no index is negative, and leaves its check away.
        first = knots.row.clamp(0, len(self.rows) - COEFFICIENTS * self.n_functions)
        return [self.rows[first + (q * self.n_functions + which)] for q in range(COEFFICIENTS)]


def _horner(coefficients: Sequence[Tensor], t: Tensor) -> Tensor:
    total = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        total = coefficient + t * total
    return total


def by_type(table: RadialTable, weights: Sequence[Tensor], which: Tensor) -> tuple[RadialTable, Tensor]:
    """Multiply a table with matrices of its own for each bead type.

    Parameters
    ----------
    table : RadialTable
        Of P functions with C channels.
    weights : sequence of Tensor, each of shape (P, C, C')
        One for each bead type.
    which : Tensor, shape (N,)
        Which of them each bead takes.

    Returns
    -------
    table : RadialTable
        The types' tables one after the other.
    offset : Tensor, shape (N,)
        First row of each bead, for :meth:`RadialTable.find`.
    """
    made = copy.deepcopy(table)
    parts = table.rows.reshape(-1, table.n_functions, table.rows.shape[1])
    multiplied = [torch.einsum("kpc,pcd->kpd", parts, weight).flatten(0, 1) for weight in weights]
    made.rows = torch.cat(multiplied)
    return made, which * len(multiplied[0])


def _polynomials(function: Radial, knots: Tensor) -> Tensor:
    """Return the coefficients of t^q in each interval, shape (K, 6, C)."""
    width = knots[2] - knots[1]
    with torch.enable_grad():
        distance = knots.detach().requires_grad_(True)
        values = function(distance)
        slopes = _derivative(values, distance)
        curvatures = _derivative(slopes, distance)
    p, v, a = values.detach(), width * slopes.detach(), width**2 * curvatures.detach()
    rise, v0, v1, a0, a1 = p[1:] - p[:-1], v[:-1], v[1:], a[:-1], a[1:]
    coefficients = [
        p[:-1],
        v0,
        a0 / 2,
        10 * rise - 6 * v0 - 4 * v1 - 1.5 * a0 + 0.5 * a1,
        -15 * rise + 8 * v0 + 7 * v1 + 1.5 * a0 - a1,
        6 * rise - 3 * v0 - 3 * v1 - 0.5 * a0 + 0.5 * a1,
    ]
    return torch.stack(coefficients, dim=1)


def _derivative(values: Tensor, distance: Tensor) -> Tensor:
    """Return the derivative of each channel, shape (k, C): the gradient of a weighted sum, derived by the weights."""
    if not values.requires_grad:
        return torch.zeros_like(values)
    weights = torch.ones_like(values, requires_grad=True)
    (gradient,) = torch.autograd.grad(values, distance, weights, create_graph=True)
    (derivative,) = torch.autograd.grad(gradient.sum(), weights, create_graph=True)
    return derivative


def realized(tensor: Tensor) -> Tensor:
    """Return a tensor as it is, but have the compiler write it to memory once rather than compute it in every loop."""
    return torch.as_strided(tensor, tensor.shape, tensor.stride())


def _apart(tensor: Tensor) -> Tensor:
    """Return a tensor in memory with gaps between its elements.

    Where neighbours' places lie side by side, the compiler vectorizes over neighbours, gathering from the table one
    number at a time; it should vectorize over the channels, which lie side by side in the table.
    """
    return realized(torch.stack([tensor, tensor], dim=-1))[..., 0]
