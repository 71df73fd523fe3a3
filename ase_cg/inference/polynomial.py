"""Sums of products of a few components, written out term by term."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ase_cg.inference.irreps import NEGLIGIBLE, monomials


class Harmonics(nn.Module):
    """Real spherical harmonics of unit vectors as polynomials, degree by degree from 0 on.

    Parameters
    ----------
    coefficients : sequence of Tensor
        Of degree l: shape (2l + 1, monomials of degree l).
    """

    def __init__(self, coefficients: Sequence[Tensor]) -> None:
        super().__init__()
        self.coefficients = [part.tolist() for part in coefficients]

    def forward(self, unit: Tensor) -> Tensor:
        """Map unit vectors (3, …) to harmonics (components, …)."""
        made: list[Tensor] = []
        for degree, rows in enumerate(self.coefficients):
            powers = [_power(unit, exponents) for exponents in monomials(degree)]
            for row in rows:
                terms = [c * power for c, power in zip(row, powers, strict=True) if c]
                made.append(torch.stack(terms).sum(0) if len(terms) > 1 else terms[0])
        return torch.stack(made)


def _power(unit: Tensor, exponents: tuple[int, int, int]) -> Tensor:
    result = torch.ones_like(unit[0])
    for axis, exponent in enumerate(exponents):
        for _ in range(exponent):
            result = result * unit[axis]
    return result


class SymmetricContraction(nn.Module):
    """MACE's symmetric contraction of a bead's features with themselves, to one degree.

    out_m,c = Σ_ν Σ_k w^ν_k,c Σ U^ν_m,a…,k x_a,c · … (ν factors). Equal products of components are taken once.

    Parameters
    ----------
    module : mace.modules.symmetric_contraction.Contraction
        In double precision.
    bead_type : Tensor, shape (N,)
    degree : int
        l of the result.
    """

    weights: Tensor

    def __init__(self, module: Any, bead_type: Tensor, degree: int) -> None:
        super().__init__()
        weights: list[Tensor] = []
        # For each component of the result: weight number → {product of components: coefficient}.
        self.terms: list[dict[int, dict[tuple[int, ...], float]]] = [{} for _ in range(2 * degree + 1)]
        for nu in range(1, module.correlation + 1):
            values = module.weights_max if nu == module.correlation else module.weights[module.correlation - 1 - nu]
            basis = module.U_tensors(nu)
            basis = basis[None] if degree == 0 else basis
            for k in range(basis.shape[-1]):
                for m in range(2 * degree + 1):
                    found = _products(basis[m, ..., k])
                    if found:
                        self.terms[m][len(weights)] = found
                weights.append(values[:, k][bead_type])
        self.register_buffer("weights", torch.stack(weights).detach())

    def forward(self, x: Tensor) -> Tensor:
        """Map features (components, R, N, C) to (2l + 1, R, N, C)."""
        known: dict[tuple[int, ...], Tensor] = {}
        made = []
        for groups in self.terms:
            total: Tensor | None = None
            for number, group in groups.items():
                inner: Tensor | None = None
                for which, coefficient in group.items():
                    term = coefficient * _product(x, which, known)
                    inner = term if inner is None else inner + term
                assert inner is not None  # noqa: S101 - groups are never empty
                weighted = self.weights[number] * inner
                total = weighted if total is None else total + weighted
            made.append(torch.zeros_like(x[0]) if total is None else total)
        return torch.stack(made)


def _products(basis: Tensor) -> dict[tuple[int, ...], float]:
    """Return coefficients by sorted component numbers, of a tensor with one axis for each factor."""
    collected: defaultdict[tuple[int, ...], float] = defaultdict(float)
    for place in basis.nonzero().tolist():
        collected[tuple(sorted(place))] += float(basis[tuple(place)])
    return {which: value for which, value in sorted(collected.items()) if abs(value) > NEGLIGIBLE}


def _product(x: Tensor, which: tuple[int, ...], known: dict[tuple[int, ...], Tensor]) -> Tensor:
    if which not in known:
        known[which] = x[which[0]] if len(which) == 1 else _product(x, which[:-1], known) * x[which[-1]]
    return known[which]
