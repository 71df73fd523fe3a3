"""What a vector field of a continuous flow is, and its divergence: exact, or estimated with random directions."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

Normal = Callable[[Tensor], Tensor]  # draws standard normal numbers like a tensor whose first axis counts frames


class VectorField(nn.Module, ABC):
    """v(t, x) of beads in Å per unit of flow time: equivariant to rotations, blind to translations, mean-free."""

    @abstractmethod
    def forward(self, time: Tensor, x: Tensor, types: Tensor) -> Tensor:
        """Return the field.

        Parameters
        ----------
        time : Tensor, shape () or (B,)
            From 0 (noise) to 1 (data).
        x : Tensor, shape (B, N, 3)
            Positions in Å.
        types : Tensor of int64, shape (N,)
            Of the beads of the one molecule that all frames show.

        Returns
        -------
        Tensor, shape (B, N, 3)
        """

    def given(self, z: Tensor) -> "VectorField":  # noqa: ARG002 - for those that heed it
        """Return the field at conditionings z, shape (B, N, 3); here it does not depend on them."""
        return self

    def numbers_a_frame(self, n_beads: int) -> int:
        """Return the size of the largest array that the gradient of a frame's divergence takes."""
        return 3 * n_beads**3 * int(getattr(self, "features", 1))

    def with_divergence(
        self, time: Tensor, x: Tensor, types: Tensor, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the field and its exact divergence, shape (B,); both can be differentiated by `x`.

        Here by one vector–Jacobian product for each direction, all of them at once. Because the field is blind to
        translations and mean-free, this is also the divergence in the mean-free subspace.

        Parameters
        ----------
        time, x, types
            See :meth:`forward`.
        directions : Tensor, shape (D, N, 3), optional
            Orthonormal: the divergence is that in the space they span. By default those of all coordinates.
        """
        if directions is None:
            directions = torch.eye(x.shape[1] * 3, dtype=x.dtype, device=x.device).reshape(-1, *x.shape[1:])
        field, parts = self._along(time, x, types, directions[:, None].expand(-1, len(x), -1, -1))
        return field, parts.sum(0)

    def with_estimated_divergence(
        self, time: Tensor, x: Tensor, types: Tensor, probes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the field and Hutchinson's estimate of its divergence, the mean of qᵀ J q over probes q.

        It has no bias where ⟨q qᵀ⟩ = 1 on the mean-free subspace; with normal probes each has the variance
        2 tr(S²), S being the symmetric part of J.
        Source: Hutchinson, Communications in Statistics 19, 433 (1990).

        Parameters
        ----------
        time, x, types
            See :meth:`forward`.
        probes : Tensor, shape (K, B, N, 3)
            Such as :func:`normal_probes` draws.
        """
        field, parts = self._along(time, x, types, probes)
        return field, parts.mean(0)

    def _along(self, time: Tensor, x: Tensor, types: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the field and qᵀ J q of each direction q and frame, from directions of shape (K, B, N, 3)."""
        field, backward = torch.func.vjp(lambda at: self(time, at, types), x)[:2]
        (products,) = torch.func.vmap(backward)(directions)
        return field, (products * directions).sum((2, 3))


def drawn_by(generator: torch.Generator | None = None) -> Normal:
    """Return what draws normal numbers with a generator, by default PyTorch's own."""

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)

    return normal


def normal_probes(n_probes: int, like: Tensor, normal: Normal) -> Tensor:
    """Draw mean-free normal directions, shape (K, B, N, 3), for positions (B, N, 3)."""
    drawn = normal(like[:, None].expand(-1, n_probes, -1, -1))
    return centered(drawn.transpose(0, 1))


def centered(x: Tensor) -> Tensor:
    """Return positions, or noise, of shape (…, N, 3) with the mean over beads removed."""
    return x - x.mean(-2, keepdim=True)
