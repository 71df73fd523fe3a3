"""What a label source is: it turns mapped frames into pairs of positions and forces to fit."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Self

from torch import Tensor, nn

from ase_cg.errors import InputError
from ase_cg.labels.frame_noise import FrameNoise


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
    def fit(cls, forces: Tensor | None, *, kT: float, noise_std: float | None, weights: Tensor | None = None) -> Self:
        """Make the source from the training split.

        Parameters
        ----------
        forces : Tensor of shape (F, N, 3), or None
            Mapped forces in eV/Å.
        kT : float
            In eV.
        noise_std : float, optional
            In Å.
        weights : Tensor of shape (F,), optional
            Of the frames; by default all count the same.

        Raises
        ------
        InputError
            If forces, `noise_std` or `kT` are missing, or given where they mean nothing.
        """

    @abstractmethod
    def forward(self, x: Tensor, forces: Tensor | None, noise: FrameNoise) -> tuple[Tensor, Tensor]:
        """Return positions y and labels f, both (B, N, 3), from positions x and forces of the same shape.

        All that is random comes from `noise`, which belongs to the same B frames.
        """

    @abstractmethod
    def variance(self) -> float:
        """Return the mean square of a label component in (eV/Å)², as theory gives it for the training split."""


def required_noise_std(name: str, noise_std: float | None) -> float:
    """Return `noise_std`, or raise :class:`InputError` where it is missing or not positive."""
    if noise_std is None or not (noise_std > 0 and math.isfinite(noise_std)):
        raise InputError(f"labels {name!r} need noise_std, a positive standard deviation in Å, not {noise_std}")
    return float(noise_std)


def required_thermal_energy(name: str, kT: float | None) -> float:
    """Return `kT`, or raise :class:`InputError` where it is missing or not positive."""
    if kT is None or not (kT > 0 and math.isfinite(kT)):
        raise InputError(f"labels {name!r} need the temperature of the data: noise pulls back with kT/σ²")
    return float(kT)


def required_forces(name: str, forces: Tensor | None) -> Tensor:
    """Return `forces`, or raise :class:`InputError` where there are none."""
    if forces is None:
        raise InputError(f"labels {name!r} need recorded forces, and the dataset has none; labels 'noise' do not")
    return forces


def second_moment(forces: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return S = ⟨F Fᵀ⟩, averaged over frames and dimensions, shape (N, N), in double precision.

    Parameters
    ----------
    forces : Tensor, shape (F, N, 3)
    weights : Tensor of shape (F,), optional
    """
    recorded = forces.double()
    if weights is None:
        return _products(recorded, recorded) / (3 * len(recorded))
    weight = weights.to(recorded)
    return _products(weight[:, None, None] * recorded, recorded) / (3 * weight.sum())


def _products(one: Tensor, other: Tensor) -> Tensor:
    n_beads = one.shape[1]
    # As one product of matrices: an order of magnitude faster than by frames.
    return one.transpose(0, 1).reshape(n_beads, -1) @ other.transpose(0, 1).reshape(n_beads, -1).T
