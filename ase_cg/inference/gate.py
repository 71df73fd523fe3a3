"""How far a fast form may be from the model itself."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError
from ase_cg.models.base import energy_and_forces
from ase_cg.models.model import CGModel, prepared_copy

GATE = 1e-5  # relative error of the forces
CHECKED_FRAMES = 8


class Gate:
    """The model's own forces on frames of its data, to compare others with.

    Parameters
    ----------
    model : CGModel
    topology : BeadTopology
        Of N beads.
    frames : ndarray, shape (F, N, 3)
        In Å.
    limit : float
        Greatest root-mean-square error of forces, relative to that of the forces.
    device : torch.device

    Raises
    ------
    InputError
        If the model's forces on the frames are not finite.
    """

    def __init__(
        self,
        model: CGModel,
        topology: BeadTopology,
        frames: NDArray[np.float64],
        limit: float,
        device: torch.device,
    ) -> None:
        self.limit = limit
        self.frames = torch.as_tensor(frames[:CHECKED_FRAMES], dtype=torch.float64, device=device)
        exact = prepared_copy(model, device, "float64")
        graph = exact.graph(topology)
        found = [energy_and_forces(exact, graph._replace(positions=x))[1] for x in self.frames]
        self.forces = torch.stack(found)
        if not bool(torch.isfinite(self.forces).all()):
            raise InputError("the model's forces on the frames it is checked with are not finite; give other frames")

    def error(self, function: Callable[[Tensor], tuple[Tensor, ...]], replicas: int) -> float:
        """Return the relative error of the forces of a function of positions (replicas, N, 3)."""
        found = []
        for start in range(0, len(self.frames), replicas):
            part = self.frames[start : start + replicas]
            padded = torch.cat([part, part[:1].expand(replicas - len(part), -1, -1)])
            found.append(function(padded)[1][: len(part)])
        difference = torch.cat(found).to(self.forces) - self.forces
        # Relative to the thermal scale where there are no forces at all.
        scale = self.forces.norm().clamp_min(torch.finfo(torch.float64).tiny)
        return float(difference.norm() / scale)


def frames_to_check(model: CGModel, topology: BeadTopology, frames: ArrayLike | None) -> NDArray[np.float64]:
    """Return frames (F, N, 3) in Å: those given, or those the model keeps.

    Raises
    ------
    InputError
        If there are none, or they do not fit the molecule.
    """
    if frames is None:
        frames = model.frames_of(topology)
    if frames is None:
        raise InputError(
            "the model's file holds no frames of its data to check the compiled forces with; give frames=…, positions "
            "of shape (F, N, 3) in Å"
        )
    found = np.asarray(frames, dtype=float)
    if found.ndim == 2:
        found = found[None]
    if found.ndim != 3 or found.shape[1:] != (topology.n_beads, 3) or not len(found):
        raise InputError(f"frames of shape {found.shape} do not fit (F, {topology.n_beads}, 3)")
    if not np.isfinite(found).all():
        raise InputError("the frames to check the compiled forces with have positions that are no numbers")
    return found
