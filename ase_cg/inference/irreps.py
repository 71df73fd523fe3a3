"""The matrices and coefficients of e3nn's modules, read off by feeding them unit vectors.

What is read off does not depend on e3nn's conventions of order, sign and normalisation: they are in the numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

NEGLIGIBLE = 1e-12


class Block(NamedTuple):
    """One part of e3nn's features: `channels` × (2 `degree` + 1) numbers, the components of a channel side by side."""

    start: int
    channels: int
    degree: int

    def place(self, channel: int, component: int) -> int:
        """Return the place of a number within the features."""
        return self.start + channel * (2 * self.degree + 1) + component


def blocks(irreps: Any) -> list[Block]:
    """Return the parts of e3nn's irreps in order."""
    return [
        Block(where.start, part.mul, part.ir.l) for where, part in zip(irreps.slices(), irreps, strict=True) if part.mul
    ]


def mixing(linear: Callable[[Tensor], Tensor], given: Block, made: Block, width: int) -> Tensor:
    """Return how an equivariant linear map mixes channels, shape (channels of `given`, channels of `made`).

    Parameters
    ----------
    linear : callable
        Maps features (n, width) to features.
    given, made : Block
        Of what goes in and of what comes out; of the same degree.
    width : int
        Numbers of the features that go in.
    """
    units = torch.zeros(given.channels, width, dtype=torch.float64)
    for channel in range(given.channels):
        units[channel, given.place(channel, 0)] = 1.0
    columns = [made.place(channel, 0) for channel in range(made.channels)]
    return linear(units)[:, columns]


def coupling(product: Any, path: int, parts: tuple[Block, Block, Block]) -> Tensor:
    """Return the coefficients of one path of a tensor product, shape (2l₁ + 1, 2l₂ + 1, 2l₃ + 1).

    Parameters
    ----------
    product : e3nn.o3.TensorProduct
        With weights given for each path and channel ("uvu").
    path : int
        Number of the path.
    parts : tuple of Block
        Of both factors and of the result.
    """
    first, second, result = parts
    sizes = [2 * part.degree + 1 for part in parts]
    n = sizes[0] * sizes[1]
    left = torch.zeros(n, product.irreps_in1.dim, dtype=torch.float64)
    right = torch.zeros(n, product.irreps_in2.dim, dtype=torch.float64)
    weights = torch.zeros(n, product.weight_numel, dtype=torch.float64)
    weights[:, path * first.channels] = 1.0
    for row in range(n):
        left[row, first.place(0, row // sizes[1])] = 1.0
        right[row, second.place(0, row % sizes[1])] = 1.0
    columns = [result.place(0, component) for component in range(sizes[2])]
    return _clean(product(left, right, weights)[:, columns].reshape(sizes))


def monomials(degree: int) -> list[tuple[int, int, int]]:
    """Return the exponents of x, y and z in all monomials of a degree."""
    return [(a, b, degree - a - b) for a in range(degree, -1, -1) for b in range(degree - a, -1, -1)]


def harmonic_coefficients(harmonics: Callable[[Tensor], Tensor], block: Block) -> Tensor:
    """Return spherical harmonics of one degree as polynomials of a unit vector, shape (2l + 1, monomials)."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    points = points / points.norm(dim=-1, keepdim=True)
    powers = torch.stack(
        [points.pow(torch.tensor(exponents)).prod(-1) for exponents in monomials(block.degree)], dim=-1
    )
    columns = slice(block.start, block.start + 2 * block.degree + 1)
    solution = torch.linalg.lstsq(powers, harmonics(points)[:, columns]).solution
    return _clean(solution.T)


def _clean(values: Tensor) -> Tensor:
    return torch.where(values.abs() < NEGLIGIBLE, 0.0, values)
