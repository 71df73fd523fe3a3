"""A network that knows the noise of the data it is asked about."""

import copy
import math

import torch
from torch import Tensor, nn

from ase_cg.data.graph import BeadGraph
from ase_cg.errors import InputError
from ase_cg.models.base import Backbone

HIDDEN = 64


class NoiseConditioned(nn.Module):
    """U(y, σ): the noise shifts what the network begins with, the features of a bead by its type.

    At a fixed σ the shift is part of those features, so that :meth:`at` gives an ordinary backbone that knows nothing
    of noise. The shift of each type is a small network of ln σ.

    Parameters
    ----------
    backbone : Backbone
        Trained here.
    n_types : int
        Size of the vocabulary.
    bounds : tuple of float
        Lowest and highest σ in Å.

    Raises
    ------
    InputError
        If the backbone has no features that depend on the type alone.
    """

    def __init__(self, backbone: Backbone, n_types: int, bounds: tuple[float, float]) -> None:
        super().__init__()
        self.backbone = backbone
        self.bounds = bounds
        self.n_types = n_types
        # Asked for here, so that a backbone without it is found out at once.
        features = backbone.type_features().shape[1]
        self.shift = nn.Sequential(nn.Linear(1, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, n_types * features))

    def shifts(self, noise_std: Tensor) -> Tensor:
        """Return the shifts of the features of each type at each σ (B,) in Å, shape (B, n_types, F)."""
        lowest, highest = self.bounds
        scaled = 2 * (noise_std / lowest).log() / math.log(highest / lowest) - 1
        shifts: Tensor = self.shift(scaled[:, None])
        return shifts.reshape(len(noise_std), self.n_types, -1)

    def forward(self, graph: BeadGraph, noise_std: Tensor) -> Tensor:
        """Return the energy of each molecule in eV; `noise_std` in Å and the result are of shape (n_molecules,)."""
        shift = self.shifts(noise_std)[graph.molecule, graph.bead_type]
        handle = self.backbone.embedding_layer.register_forward_hook(lambda *found: found[2] + shift)
        try:
            energies: Tensor = self.backbone(graph)
        finally:
            handle.remove()
        return energies

    def at(self, noise_std: float) -> Backbone:
        """Return the backbone of a fixed σ in Å; this one is left as it is.

        Raises
        ------
        InputError
            If σ is outside the range of the training.
        """
        lowest, highest = self.bounds
        if not lowest <= noise_std <= highest:
            raise InputError(f"the network was trained with noise of {lowest:g} to {highest:g} Å, not {noise_std} Å")
        frozen = copy.deepcopy(self.backbone)
        with torch.no_grad():
            level = torch.tensor([noise_std]).to(next(self.shift.parameters()))
            frozen.set_type_features(frozen.type_features() + self.shifts(level)[0])
        return frozen
