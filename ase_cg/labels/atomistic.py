"""Atomistic forces as labels: plain force matching."""

from typing import Self

import torch
from torch import Tensor

from ase_cg.errors import InputError
from ase_cg.labels.base import LabelSource, required_forces


class AtomisticForces(LabelSource):
    """The recorded, mapped forces at the recorded positions: y = x, f = W F."""

    name = "atomistic"
    needs_forces = True

    @classmethod
    def fit(cls, forces: Tensor | None, *, kT: float, noise_std: float | None) -> Self:  # noqa: ARG003 - the contract
        """Check that there are forces and no noise; see :meth:`LabelSource.fit`."""
        required_forces(cls.name, forces)
        if noise_std:
            raise InputError("labels 'atomistic' add no noise; leave noise_std out, or use 'forces_and_noise'")
        return cls()

    def forward(self, x: Tensor, forces: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return the frames as they are."""
        return x, required_forces(self.name, forces)
