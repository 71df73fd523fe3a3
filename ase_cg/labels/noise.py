"""Noise as label: denoising score matching in force units."""

from typing import Self

from torch import Tensor

from ase_cg.labels.base import LabelSource, required_noise_std, required_thermal_energy
from ase_cg.labels.frame_noise import FrameNoise


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
    def fit(
        cls,
        forces: Tensor | None,  # noqa: ARG003 - the contract
        *,
        kT: float,
        noise_std: float | None,
        weights: Tensor | None = None,  # noqa: ARG003
    ) -> Self:
        """Take σ and kT; see :meth:`LabelSource.fit`."""
        return cls(required_noise_std(cls.name, noise_std), required_thermal_energy(cls.name, kT))

    def variance(self) -> float:
        """Return the mean square of a label component, (kT/σ)², in (eV/Å)²."""
        return (self.kT / self.noise_std) ** 2

    def forward(self, x: Tensor, forces: Tensor | None, noise: FrameNoise) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return noised positions and the forces that pull back."""
        epsilon = self.noise_std * noise.normal(x)
        return x + epsilon, -(self.kT / self.noise_std**2) * epsilon
