"""The objective of a network that knows the noise: forces of noised densities over a range of noise at once."""

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor

from ase_cg.data.graph import BeadGraph
from ase_cg.labels.frame_noise import FrameNoise
from ase_cg.labels.noise_range import RangeLabels
from ase_cg.models.base import energy_and_forces
from ase_cg.training.frames import Part
from ase_cg.training.objective import ForceMatching, Labelled


class RangeForceMatching(ForceMatching):
    """L = ⟨ (v(σ₀)/v(σ)) ‖F_network(y, σ) + F_prior(y, σ) − f‖² ⟩/(3N), with σ of each frame drawn from a range.

    v(σ) is the variance of the label in theory, so that all noise counts alike, and losses are of the size that they
    have at σ₀, the lowest noise.

    Parameters
    ----------
    backbone : NoiseConditioned
    priors : NoisedPriors
    labels : sequence of RangeLabels
        Of each molecule.
    topologies, vocabulary, settings, seed
        As of :class:`ase_cg.training.objective.ForceMatching`.
    """

    def labelled(self, part: Part, noise: FrameNoise) -> Labelled:
        """Return frames of one molecule with noise of their own and labels."""
        labels = cast(RangeLabels, self.labels[part.molecule])
        y, f, noise_std = labels(part.coordinates, part.forces, noise)
        return Labelled(y, f, labels.variance() / labels.variance_at(noise_std), noise_std)

    def forces(self, graph: BeadGraph, found: Sequence[Labelled], *, training: bool) -> Tensor:
        """Return the forces in eV/Å of priors and network at the noise of each frame."""
        noise_std = torch.cat([cast(Tensor, labelled.noise_std) for labelled in found])
        _, prior = energy_and_forces(partial(self.priors, noise_std=noise_std), graph)
        _, network = energy_and_forces(partial(self.backbone, noise_std=noise_std), graph, training=training)
        return network + prior
