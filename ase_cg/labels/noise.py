"""Noise as label: denoising score matching in force units."""

from typing import Self

import torch
from torch import Tensor

from ase_cg.labels.base import LabelSource, draw_noise, required_noise_std


class Noise(LabelSource):
    """y = x + ε with ε ~ N(0, σ²) per coordinate, f = −(kT/σ²) ε.

    Its mean given y is the mean force of the noised density, −∇U_σ with U_σ = −kT ln(p * N(0, σ²)).
    No forces are needed. Source: Vincent, Neural Computation 23, 1661 (2011), in force units.

    Parameters
    ----------
    noise_std : float
        σ in Å.
    kT : float
        In eV.
    """

    name = "noise"
    needs_forces = False

    def __init__(self, noise_std: float, kT: float) -> None:
        super().__init__()
        self.noise_std = noise_std
        self.kT = kT

    @classmethod
    def fit(cls, forces: Tensor | None, *, kT: float, noise_std: float | None) -> Self:  # noqa: ARG003 - the contract
        """Take σ; see :meth:`LabelSource.fit`."""
        return cls(required_noise_std(cls.name, noise_std), kT)

    def forward(self, x: Tensor, forces: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return noised positions and the forces that pull back."""
        epsilon = self.noise_std * draw_noise(x, generator)
        return x + epsilon, -(self.kT / self.noise_std**2) * epsilon
