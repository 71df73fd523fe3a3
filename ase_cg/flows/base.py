"""What a conditional flow is: samples of a kernel k(x | z), their likelihood, and its gradient."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from ase_cg.flows.field import Normal, centered


class Scored(NamedTuple):
    """Samples of a kernel with what is known of them.

    Attributes
    ----------
    x : Tensor, shape (B, N, 3)
        In Å, mean-free.
    log_prob : Tensor, shape (B,)
        ln k(x | z), a density in the mean-free subspace, per Å to the power of its dimension.
    score : Tensor, shape (B, N, 3)
        ∇ₓ ln k(x | z) per Å, with the gradient of the log-determinant.
    """

    x: Tensor
    log_prob: Tensor
    score: Tensor


class ConditionalFlow(nn.Module, ABC):
    """A kernel k(x | z) that undoes noise: z = x + σ_n ε.

    Attributes
    ----------
    noise_std : float
        σ_n in Å.
    prior_std : float
        In Å, of the noise that samples begin with; 0 where there is none.
    """

    noise_std: float
    prior_std: float = 0.0

    @abstractmethod
    def draw(self, z: Tensor, types: Tensor, normal: Normal | None = None) -> Tensor:
        """Draw one sample for each conditioning, (B, N, 3) in Å, mean-free.

        Parameters
        ----------
        z : Tensor, shape (B, N, 3)
            In Å; the mean over beads does not matter.
        types : Tensor of int64, shape (N,)
        normal : callable, optional
            Draws all that is random; see :func:`ase_cg.flows.field.drawn_by`.
        """

    @abstractmethod
    def sample(self, z: Tensor, types: Tensor, normal: Normal | None = None) -> Scored:
        """Draw one sample for each conditioning, with its likelihood and score; see :meth:`draw`."""

    @abstractmethod
    def numbers_a_frame(self, n_beads: int) -> int:
        """Return the size of the largest array that scoring a frame makes."""

    def add_noise(self, x: Tensor, normal: Normal) -> Tensor:
        """Return conditionings z = x + σ_n ε, mean-free, of positions (B, N, 3) in Å."""
        return centered(x) + self.noise_std * centered(normal(x))
