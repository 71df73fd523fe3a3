"""Atomistic forces as labels: plain force matching."""

from typing import Self

from torch import Tensor

from ase_cg.errors import InputError
from ase_cg.labels.base import LabelSource, required_forces, second_moment
from ase_cg.labels.frame_noise import FrameNoise


class AtomisticForces(LabelSource):
    """The recorded, mapped forces at the recorded positions: y = x, f = W F.

    Parameters
    ----------
    mean_square : float
        Of a force component of the training split, in (eV/Å)².
    """

    name = "atomistic"
    needs_forces = True

    def __init__(self, mean_square: float) -> None:
        super().__init__()
        self._mean_square = mean_square

    @classmethod
    def fit(
        cls,
        forces: Tensor | None,
        *,
        kT: float,  # noqa: ARG003 - the contract
        noise_std: float | None,
        weights: Tensor | None = None,
    ) -> Self:
        """Check that there are forces and no noise; see :meth:`LabelSource.fit`."""
        recorded = required_forces(cls.name, forces)
        if noise_std:
            raise InputError("labels 'atomistic' add no noise; leave noise_std out, or use 'forces_and_noise'")
        return cls(float(second_moment(recorded, weights).diagonal().mean()))

    def variance(self) -> float:
        """Return the mean square of a recorded force component in (eV/Å)²."""
        return self._mean_square

    def forward(self, x: Tensor, forces: Tensor | None, noise: FrameNoise) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return the frames as they are."""
        return x, required_forces(self.name, forces)
