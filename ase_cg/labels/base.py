"""What a label source is: it turns mapped frames into pairs of positions and forces to fit."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ase_cg.errors import InputError


class LabelSource(nn.Module, ABC):
    """Turns a batch of mapped frames into training pairs.

    Every valid label has the mean force at y as its conditional expectation given y; sources differ in the
    density they target and in their variance.

    Attributes
    ----------
    name : str
        The word in the recipe.
    needs_forces : bool
        Whether recorded forces are needed.
    noise_std : float
        Standard deviation in Å of the noise added to the positions; 0 where there is none.
    """

    name: ClassVar[str]
    needs_forces: ClassVar[bool]
    noise_std: float = 0.0

    @classmethod
    @abstractmethod
    def fit(cls, forces: Tensor | None, *, kT: float, noise_std: float | None) -> Self:
        """Make the source from the training split.

        Parameters
        ----------
        forces : Tensor of shape (F, N, 3), or None
            Mapped forces in eV/Å.
        kT : float
            In eV.
        noise_std : float, optional
            In Å.

        Raises
        ------
        InputError
            If forces or `noise_std` are missing, or given where they mean nothing.
        """

    @abstractmethod
    def forward(self, x: Tensor, forces: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return positions y and labels f, both (B, N, 3), from positions x and forces of the same shape.

        Noise is drawn from `generator`, afresh at every call.
        """


def required_noise_std(name: str, noise_std: float | None) -> float:
    """Return `noise_std`, or raise :class:`InputError` where it is missing or not positive."""
    if noise_std is None or not noise_std > 0:
        raise InputError(f"labels {name!r} need noise_std, a positive standard deviation in Å, not {noise_std}")
    return float(noise_std)


def required_forces(name: str, forces: Tensor | None) -> Tensor:
    """Return `forces`, or raise :class:`InputError` where there are none."""
    if forces is None:
        raise InputError(f"labels {name!r} need recorded forces, and the dataset has none; labels 'noise' do not")
    return forces


def draw_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers shaped like a tensor, on its device."""
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
