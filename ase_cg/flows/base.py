"""What a conditional flow is: samples of a kernel k(x | z), their likelihood, and its gradient."""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from ase_cg.flows.field import Normal, centered
from ase_cg.flows.orientation import oriented


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
    """A kernel k(x | z): one that undoes noise, z = x + σ_n ε, or of transitions, z being an earlier frame.

    Attributes
    ----------
    noise_std : float
        σ_n in Å; 0 where the conditioning is the frame itself, or an earlier one.
    prior_std : float
        In Å, of the noise that samples begin with; 0 where σ_n is that.
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
    def score(self, x: Tensor, z: Tensor, types: Tensor, normal: Normal | None = None) -> Scored:
        """Return likelihood and score of given positions, at what following them there and back makes of them.

        Parameters
        ----------
        x : Tensor, shape (B, N, 3)
            In Å.
        z, types, normal
            See :meth:`draw`.
        """

    @abstractmethod
    def numbers_a_frame(self, n_beads: int) -> int:
        """Return the size of the largest array that scoring a frame makes."""

    @property
    def width(self) -> float:
        """All noise together, in Å."""
        return math.hypot(self.noise_std, self.prior_std)

    def pair(self, x: Tensor, earlier: Tensor, normal: Normal) -> tuple[Tensor, Tensor]:
        """Return positions and conditionings of a transition from earlier frames; see :func:`oriented`."""
        return oriented(x, earlier, normal, width=self.width)

    def add_noise(self, x: Tensor, normal: Normal) -> Tensor:
        """Return conditionings z = x + σ_n ε, mean-free, of positions (B, N, 3) in Å."""
        return centered(x) + self.noise_std * centered(normal(x))
