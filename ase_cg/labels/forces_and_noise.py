"""Forces and noise together, combined for least variance in closed form."""

from typing import Self

import torch
from torch import Tensor

from ase_cg.labels.base import (
    LabelSource,
    required_forces,
    required_noise_std,
    required_thermal_energy,
    second_moment,
)
from ase_cg.labels.frame_noise import FrameNoise


class ForcesAndNoise(LabelSource):
    """y = x + ε, f = α W₀F − (kT/σ²)(1 − α) ε, with α = (1 + σ²/(kT)² S)⁻¹ and S = ⟨(W₀F)(W₀F)ᵀ⟩.

    At y every label M F − (kT/σ²)(1 − M Cᵀ) ε has the same mean, the mean force of the noised density, for
    every valid M; this is the one of least variance, ⟨f²⟩ = tr(Sα)/N per component. S (N × N) averages over
    frames and dimensions. σ → 0 gives force matching, S → ∞ noise alone.
    Source: Durumeric et al., "Learning data efficient coarse-grained molecular dynamics from forces and noise"
    (2024); here with its optimum in closed form.

    Parameters
    ----------
    noise_std : float
        σ in Å.
    kT : float
        In eV.
    second_moment : Tensor, shape (N, N)
        S in (eV/Å)².
    """

    name = "forces_and_noise"
    needs_forces = True
    alpha: Tensor
    second_moment: Tensor

    def __init__(self, noise_std: float, kT: float, second_moment: Tensor) -> None:
        super().__init__()
        self.noise_std = noise_std
        self.kT = kT
        moment = second_moment.double()
        identity = torch.eye(len(moment), dtype=torch.float64, device=moment.device)
        alpha = torch.linalg.inv(identity + (noise_std / kT) ** 2 * moment)
        self.register_buffer("second_moment", moment)
        self.register_buffer("alpha", alpha)

    @classmethod
    def fit(cls, forces: Tensor | None, *, kT: float, noise_std: float | None, weights: Tensor | None = None) -> Self:
        """Compute S from the training split's mapped forces; see :meth:`LabelSource.fit`."""
        sigma, energy = required_noise_std(cls.name, noise_std), required_thermal_energy(cls.name, kT)
        return cls(sigma, energy, second_moment(required_forces(cls.name, forces), weights))

    def variance(self) -> float:
        """Return the theoretical mean square of a label component, tr(Sα)/N, in (eV/Å)²."""
        return float(torch.trace(self.second_moment @ self.alpha)) / len(self.alpha)

    def forward(self, x: Tensor, forces: Tensor | None, noise: FrameNoise) -> tuple[Tensor, Tensor]:
        """Return noised positions and the combined labels."""
        recorded = required_forces(self.name, forces)
        epsilon = self.noise_std * noise.normal(x)
        pull = -(self.kT / self.noise_std**2) * epsilon
        alpha = self.alpha.to(x.dtype)
        # α F + (1 − α) pull
        return x + epsilon, pull + torch.einsum("ij,bjx->bix", alpha, recorded - pull)
