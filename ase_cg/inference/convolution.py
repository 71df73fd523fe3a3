"""The sum over neighbours that every network here is made of, with tabulated filters, in a dense layout."""

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ase_cg.inference import native
from ase_cg.inference.tabulate import Knots, RadialTable, realized


class Product(NamedTuple):
    """One product of the sum: out[o] += coefficient · Y[m] · W_p ∘ feature[k].

    Attributes
    ----------
    out : int
        o, component of the result.
    filter : int
        p, function of the table.
    angular : int or None
        m, component of the angular part; None for 1.
    feature : int
        k, component of the features.
    coefficient : float
    odd : bool
        Whether Y[m] changes its sign with the direction.
    """

    out: int
    filter: int
    angular: int | None
    feature: int
    coefficient: float = 1.0
    odd: bool = False

    @property
    def numbers(self) -> list[int]:
        """The numbers o, p, m, k, with −1 for no angular part."""
        return [self.out, self.filter, -1 if self.angular is None else self.angular, self.feature]

    @property
    def coefficients(self) -> list[float]:
        """The coefficient in a pair's direction and in the opposite one."""
        return [self.coefficient, -self.coefficient if self.odd else self.coefficient]


class Convolution(nn.Module):
    """Sum over neighbours, out_i,o,c = Σ_j Σ a · Y_m(i, j) · W_p,c(d_ij) · s_j,k,c over products (o, p, m, k, a).

    Neither the filters nor the products are kept: the derivative computes them again, which costs less than the memory.

    Parameters
    ----------
    table : RadialTable
        The filters W.
    products : sequence of Product
    offset : Tensor of int64, shape (N,), optional
        First row in the table of each second bead.

    Attributes
    ----------
    native : bool
        Whether it is done by :mod:`ase_cg.inference.native`, on a processor, rather than by PyTorch's operations; not
        with an offset.
    """

    offset: Tensor
    numbers: Tensor
    coefficients: Tensor

    def __init__(self, table: RadialTable, products: Iterable[Product], offset: Tensor | None = None) -> None:
        super().__init__()
        self.native = False
        self.table = table
        self.products = tuple(products)
        self.n_out = 1 + max(product.out for product in self.products)
        self.register_buffer("offset", torch.zeros(0, dtype=torch.int64) if offset is None else offset)
        self.register_buffer("numbers", torch.tensor([product.numbers for product in self.products]))
        self.register_buffer("coefficients", torch.tensor([product.coefficients for product in self.products]).double())

    @property
    def is_simple(self) -> bool:
        """Whether it is one product, without an angular part, with the same table for all beads."""
        return len(self.products) == 1 and self.products[0].angular is None and not len(self.offset)

    def forward(self, distance: Tensor, angular: Tensor | None, features: Tensor) -> Tensor:
        """Return the sum.

        Parameters
        ----------
        distance : Tensor, shape (R, N, N)
            In Å.
        angular : Tensor of shape (M, R, N, N), optional
            Y of each pair.
        features : Tensor, shape (K, R, N, C)

        Returns
        -------
        Tensor, shape (O, R, N, C)
        """
        if self.native:
            return native.convolve(self, distance, angular, features)
        knots = self.table.find(distance, self.offset if len(self.offset) else None)
        # The distance carries the derivative, the knots its place in the table.
        result: Tensor = _Convolve.apply(distance, angular, features, knots.row, knots.fraction, self)  # type: ignore[no-untyped-call]
        return result


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        distance: Tensor,
        angular: Tensor | None,
        features: Tensor,
        row: Tensor,
        fraction: Tensor,
        spec: Convolution,
    ) -> Tensor:
        ctx.save_for_backward(angular, features, row, fraction)
        ctx.spec = spec
        knots = Knots(row, fraction)
        parts = []
        for out in range(spec.n_out):
            mine = [product for product in spec.products if product.out == out]
            parts.append(_over_pairs(spec, knots, mine, angular, lambda p: features[p.feature][:, None]).sum(2))
        del distance
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        angular, features, row, fraction = ctx.saved_tensors
        spec: Convolution = ctx.spec
        knots = Knots(row, fraction)
        gradient = realized(gradients[0].contiguous())
        to_features = None
        if ctx.needs_input_grad[2]:
            parts = []
            for k in range(len(features)):
                mine = [product for product in spec.products if product.feature == k]
                over = _over_pairs(spec, knots, mine, angular, lambda p: gradient[p.out][:, :, None])
                parts.append(over.sum(1))
            to_features = torch.stack(parts)
        to_angular = None
        if angular is not None and ctx.needs_input_grad[1]:
            parts = []
            for m in range(len(angular)):
                mine = [product for product in spec.products if product.angular == m]
                over = _over_pairs(
                    spec, knots, mine, None, lambda p: features[p.feature][:, None] * gradient[p.out][:, :, None]
                )
                parts.append(over.sum(-1))
            to_angular = torch.stack(parts)
        to_distance = _over_pairs(
            spec,
            knots,
            spec.products,
            angular,
            lambda p: features[p.feature][:, None] * gradient[p.out][:, :, None],
            slopes=True,
        ).sum(-1)
        return to_distance, to_angular, to_features, None, None, None


def _over_pairs(
    spec: Convolution, knots: Knots, products: Any, angular: Tensor | None, factor: Any, *, slopes: bool = False
) -> Tensor:
    """Return Σ a · Y_m · W_p ∘ factor over products, shape (R, N, N, C), filter by filter."""
    evaluate = spec.table.slopes if slopes else spec.table.values
    total: Any = None
    for which in sorted({product.filter for product in products}):
        inner: Any = None
        for product in products:
            if product.filter != which:
                continue
            term = factor(product)
            if product.coefficient != 1.0:
                term = term * product.coefficient
            if angular is not None and product.angular is not None:
                term = term * angular[product.angular][..., None]
            inner = term if inner is None else inner + term
        weighted = evaluate(knots, which) * inner
        total = weighted if total is None else total + weighted
    return torch.zeros_like(knots.fraction)[..., None] if total is None else cast("Tensor", total)
