"""Fields that see the conditioning: beads and those of the conditioning, side by side in one network."""

from typing import cast

import torch
from torch import Tensor

from ase_cg.flows.field import VectorField, centered


class ConditionalField(VectorField):
    """v(t, x, z): what a field over 2N beads, those of x and of z, moves the first N by.

    A network over all pairs so sees the distances within both conformations and between them, and moves beads along
    their distances to those of z. Both conformations are centred: the field is blind to translations of either, and
    turns with a rotation of both.

    Parameters
    ----------
    field : VectorField
        Of twice as many types; bead i of z has the type of bead i of x and `n_types` more.
    n_types : int
    """

    def __init__(self, field: VectorField, n_types: int) -> None:
        super().__init__()
        self.field, self.n_types = field, n_types

    def given(self, z: Tensor) -> VectorField:
        """Return the field at conditionings z, shape (B, N, 3)."""
        return _Given(self, z)

    def forward(self, time: Tensor, x: Tensor, types: Tensor) -> Tensor:
        """Not to be used without a conditioning; see :meth:`given`."""
        raise NotImplementedError("a conditional field needs a conditioning: field.given(z)")

    def numbers_a_frame(self, n_beads: int) -> int:
        """Return the size of the largest array: half the directions of a molecule of 2N beads."""
        return self.field.numbers_a_frame(2 * n_beads) // 2


class _Given(VectorField):
    """A conditional field at one conditioning for each frame."""

    def __init__(self, conditional: ConditionalField, z: Tensor) -> None:
        super().__init__()
        self.inner, self.n_types, self.z = conditional.field, conditional.n_types, centered(z)

    def forward(self, time: Tensor, x: Tensor, types: Tensor) -> Tensor:
        both, kinds = self._together(x, types)
        return centered(cast(Tensor, self.inner(time, both, kinds))[:, : x.shape[1]])

    def with_divergence(
        self, time: Tensor, x: Tensor, types: Tensor, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the field and its divergence in the mean-free subspace: x moves, z stays."""
        n_beads = x.shape[1]
        if directions is None:
            directions = mean_free_directions(x)
        still = torch.cat([directions, torch.zeros_like(directions)], 1)
        field, divergence = self.inner.with_divergence(time, *self._together(x, types), still)
        return centered(field[:, :n_beads]), divergence

    def _together(self, x: Tensor, types: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([centered(x), self.z], 1), torch.cat([types, types + self.n_types])


def mean_free_directions(like: Tensor) -> Tensor:
    """Return an orthonormal basis of mean-free displacements, (3N − 3, N, 3), for positions (B, N, 3).

    Of beads by Helmert: the first n of them against the next.
    """
    n_beads = like.shape[1]
    rows = torch.zeros(n_beads - 1, n_beads, dtype=like.dtype, device=like.device)
    for n in range(1, n_beads):
        rows[n - 1, :n], rows[n - 1, n] = 1.0, -float(n)
    rows = rows / rows.norm(dim=1, keepdim=True)
    axes = torch.eye(3, dtype=like.dtype, device=like.device)
    return torch.einsum("ki,cd->kcid", rows, axes).reshape(-1, n_beads, 3)
