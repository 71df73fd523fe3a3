"""Priors of noised data as a function of the noise."""

import math
from collections.abc import Callable
from typing import Self, cast

import torch
from torch import Tensor, nn

from ase_cg.data.graph import BeadGraph
from ase_cg.models.priors.prior_set import PriorSet

SPACING = 2**0.5  # ratio of neighbouring noise levels, at most


class NoisedPriors(nn.Module):
    """U(y, σ) = Σ_k w_k(σ) U_k(y): priors fitted to data at some levels of noise, interpolated linearly in ln σ.

    Any prior can be interpolated so. Between levels a factor of √2 apart a harmonic one is too stiff by 6 % at most,
    and what the priors leave is for the network.

    Parameters
    ----------
    sets : dict of float to PriorSet
        By the noise σ in Å; two or more.
    """

    levels: Tensor

    def __init__(self, sets: dict[float, PriorSet]) -> None:
        super().__init__()
        ordered = sorted(sets)
        self.register_buffer("levels", torch.tensor(ordered, dtype=torch.float64).log(), persistent=False)
        self.sets = nn.ModuleList(sets[level] for level in ordered)

    @classmethod
    def fit(
        cls, bounds: tuple[float, float], known: dict[float, PriorSet], fitted: Callable[[float], PriorSet]
    ) -> Self:
        """Fit priors at levels of noise.

        Parameters
        ----------
        bounds : tuple of float
            Lowest and highest σ in Å.
        known : dict of float to PriorSet
            Of levels between them that are fitted already, and become levels here.
        fitted : callable
            Fits priors to data with noise of some σ.
        """
        lowest, highest = bounds
        intervals = math.ceil(math.log(highest / lowest, SPACING) - 1e-9)
        between = [lowest * (highest / lowest) ** (number / intervals) for number in range(1, intervals)]
        return cls({level: fitted(level) for level in (lowest, *between, highest) if level not in known} | known)

    def forward(self, graph: BeadGraph, noise_std: Tensor) -> Tensor:
        """Return the energy of each molecule in eV; `noise_std` in Å and the result are of shape (n_molecules,)."""
        weights = self._weights(noise_std)
        return torch.stack([weights[:, k] * cast(PriorSet, terms)(graph) for k, terms in enumerate(self.sets)]).sum(0)

    def _weights(self, noise_std: Tensor) -> Tensor:
        """Return the weight of each level, shape (n_molecules, levels)."""
        levels = self.levels.to(noise_std)
        place = noise_std.log().clamp(float(levels[0]), float(levels[-1]))
        above = torch.searchsorted(levels, place).clamp(1, len(levels) - 1)
        share = ((place - levels[above - 1]) / (levels[above] - levels[above - 1]))[:, None]
        weights = torch.zeros(len(noise_std), len(levels), dtype=noise_std.dtype, device=noise_std.device)
        weights.scatter_(1, above[:, None] - 1, 1 - share)
        return weights.scatter_(1, above[:, None], share)
