"""Noise of any size in a range: σ is drawn for each frame, and the label is the one that belongs to it."""

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from ase_cg.labels.base import required_forces, required_thermal_energy, second_moment
from ase_cg.labels.forces_and_noise import ForcesAndNoise
from ase_cg.labels.frame_noise import FrameNoise


class NoisedFrames(NamedTuple):
    """Training pairs and the noise they were made with.

    Attributes
    ----------
    positions, forces : Tensor, shape (B, N, 3)
        y in Å and f in eV/Å.
    noise_std : Tensor, shape (B,)
        σ of each frame in Å.
    """

    positions: Tensor
    forces: Tensor
    noise_std: Tensor


class RangeLabels(nn.Module):
    """y = x + ε with σ log-uniform in a range, f = α(σ) W₀F − (kT/σ²)(1 − α(σ)) ε, or without forces −(kT/σ²) ε.

    At each σ it is the label of :class:`ase_cg.labels.forces_and_noise.ForcesAndNoise`, or of
    :class:`ase_cg.labels.noise.Noise`. With S = Q λ Qᵀ, α(σ) = Q (1 + σ²λ/(kT)²)⁻¹ Qᵀ for all σ at once.

    Parameters
    ----------
    bounds : tuple of float
        Lowest and highest σ in Å.
    kT : float
        In eV.
    second_moment : Tensor of shape (N, N), optional
        S in (eV/Å)²; None for noise alone.
    """

    spectrum: Tensor
    modes: Tensor

    def __init__(self, bounds: tuple[float, float], kT: float, second_moment: Tensor | None) -> None:
        super().__init__()
        self.bounds, self.kT = bounds, kT
        self.with_forces = second_moment is not None
        if second_moment is not None:
            spectrum, modes = torch.linalg.eigh(second_moment.double())
            self.register_buffer("spectrum", spectrum.clamp_min(0))
            self.register_buffer("modes", modes)

    @classmethod
    def fit(
        cls,
        name: str,
        forces: Tensor | None,
        *,
        kT: float,
        bounds: tuple[float, float],
        weights: Tensor | None = None,
    ) -> Self:
        """Make the labels ``noise`` or ``forces_and_noise`` over a range.

        Parameters
        ----------
        name : str
        forces : Tensor of shape (F, N, 3), or None
            Of the training split, in eV/Å.
        kT : float
            In eV.
        bounds : tuple of float
            Lowest and highest σ in Å.
        weights : Tensor of shape (F,), optional

        Raises
        ------
        InputError
            If forces or `kT` are missing.
        """
        energy = required_thermal_energy(name, kT)
        if name != ForcesAndNoise.name:
            return cls(bounds, energy, None)
        return cls(bounds, energy, second_moment(required_forces(name, forces), weights))

    def variance(self) -> float:
        """Return the mean square of a label component at the lowest σ in (eV/Å)², as theory gives it."""
        return float(self.variance_at(torch.tensor([self.bounds[0]], dtype=torch.float64)))

    def variance_at(self, noise_std: Tensor) -> Tensor:
        """Return the mean square of a label component at each σ, shape (B,), in (eV/Å)², as theory gives it."""
        if not self.with_forces:
            return (self.kT / noise_std) ** 2
        return (self.spectrum.to(noise_std) * self._shares(noise_std)).mean(-1)

    def forward(self, x: Tensor, forces: Tensor | None, noise: FrameNoise) -> NoisedFrames:
        """Return noised positions, labels and σ, of positions and forces (B, N, 3)."""
        lowest, highest = self.bounds
        noise_std = (lowest * (noise.uniform() * math.log(highest / lowest)).exp()).to(x.dtype)
        wide = noise_std[:, None, None]
        epsilon = wide * noise.normal(x)
        pull = -(self.kT / wide**2) * epsilon
        if not self.with_forces:
            return NoisedFrames(x + epsilon, pull, noise_std)
        modes = self.modes.to(x.dtype)
        left = modes.T @ (required_forces(ForcesAndNoise.name, forces) - pull)
        # α F + (1 − α) pull
        labels = pull + modes @ (self._shares(noise_std)[:, :, None] * left)
        return NoisedFrames(x + epsilon, labels, noise_std)

    def _shares(self, noise_std: Tensor) -> Tensor:
        """Return the eigenvalues of α at each σ, shape (B, N)."""
        return 1 / (1 + (noise_std[:, None] / self.kT) ** 2 * self.spectrum.to(noise_std))
