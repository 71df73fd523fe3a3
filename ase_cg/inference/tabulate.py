"""Functions of a distance as tables of cubic polynomials."""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

Radial = Callable[[Tensor], Tensor]
MAX_NUMBERS = 8_000_000  # in a table with a part for each bead type; larger ones leave the processor's cache
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
    """Cubic Hermite interpolation of functions that vanish, with their slopes, at the cutoff.

    In each of K intervals of width h the functions are Σ_q c_q t^q, with values and slopes those of the functions at
    both knots: continuous with the first derivative, and with an error of h⁴/384 times the fourth derivative. The
    coefficients are rounded one by one, so that in single precision a slope loses no digits to the difference of two
    values.

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
    rows : Tensor, shape ((K + 1) · 4 · P, C)
        Row (k · 4 + q) · P + p holds the coefficients of t^q in interval k of function p. Interval K is zero.
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
        polynomials = torch.stack([_polynomials(function, knots) for function in functions], dim=2)
        beyond = torch.zeros_like(polynomials[:1])
        self.register_buffer("rows", torch.cat([polynomials, beyond]).flatten(0, 2))

    def find(self, distance: Tensor, offset: Tensor | None = None) -> Knots:
        """Return the places of distances (R, N, N) in Å; `offset` (N,) counts rows to begin at for each second bead."""
        place = (distance.detach() * self.per_angstrom).clamp(0, self.intervals)
        interval = place.to(torch.int64)
        row = interval * (4 * self.n_functions)
        return Knots(_apart(row if offset is None else row + offset), _apart(place - interval))

    def values(self, knots: Knots, which: int) -> Tensor:
        """Return function `which`, shape (R, N, N, C)."""
        t = knots.fraction[..., None]
        c = self._coefficients(knots, which)
        return c[0] + t * (c[1] + t * (c[2] + t * c[3]))

    def slopes(self, knots: Knots, which: int) -> Tensor:
        """Return the derivative of function `which` by the distance, shape (R, N, N, C), in its unit per Å."""
        t = knots.fraction[..., None]
        c = self._coefficients(knots, which)
        return (c[1] + t * (2 * c[2] + t * (3 * c[3]))) * self.per_angstrom

    def _coefficients(self, knots: Knots, which: int) -> list[Tensor]:
        # The compiler proves from the bounds that no index is negative, and leaves its check away.
        first = knots.row.clamp(0, len(self.rows) - 4 * self.n_functions)
        return [self.rows[first + (q * self.n_functions + which)] for q in range(4)]


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
    """Return the coefficients of t^q in each interval, shape (K, 4, C)."""
    with torch.enable_grad():
        distance = knots.detach().requires_grad_(True)
        values = function(distance)
        # The derivative of each channel in one pass: the gradient of a weighted sum, derived by the weights.
        weights = torch.ones_like(values, requires_grad=True)
        (gradient,) = torch.autograd.grad(values, distance, weights, create_graph=True)
        (slopes,) = torch.autograd.grad(gradient.sum(), weights)
    values = values.detach()
    slopes = slopes * (knots[2] - knots[1])
    rise = values[1:] - values[:-1]
    left, right = slopes[:-1], slopes[1:]
    return torch.stack([values[:-1], left, 3 * rise - 2 * left - right, left + right - 2 * rise], dim=1)


def realized(tensor: Tensor) -> Tensor:
    """Return a tensor as it is, but have the compiler write it to memory once rather than compute it in every loop."""
    return torch.as_strided(tensor, tensor.shape, tensor.stride())


def _apart(tensor: Tensor) -> Tensor:
    """Return a tensor in memory with gaps between its elements.

    Where neighbours' places lie side by side, the compiler vectorizes over neighbours, gathering from the table one
    number at a time; it should vectorize over the channels, which lie side by side in the table.
    """
    return realized(torch.stack([tensor, tensor], dim=-1))[..., 0]
