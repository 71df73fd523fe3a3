"""Beads closer than the compiled form was checked for: the model itself takes over, and says so once."""

import math
import warnings

import torch
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.inference.gate import pair_distances
from ase_cg.models.base import energy_and_forces
from ase_cg.models.model import CGModel, prepared_copy


class CloseBeads:
    """The model as it is, for conformations with beads closer than a limit.

    Parameters
    ----------
    model : CGModel
    topology : BeadTopology
        Of N beads.
    limit : float
        In Å: down to this distance the compiled form has been checked.
    device : torch.device
    dtype : str
    """

    def __init__(self, model: CGModel, topology: BeadTopology, limit: float, device: torch.device, dtype: str) -> None:
        self.limit = limit
        self._squared = limit * limit
        self._made_of = (model, topology, device, dtype)
        self._exact: CGModel | None = None
        self._told = False
        # Of steps on a GPU, where looking at each would cost as much as the step.
        self._noted = torch.full((), math.inf, dtype=torch.float64, device=device)

    def within(self, nearest: Tensor) -> bool:
        """Return whether the least squared distance in Å², a tensor of no dimension, is below the limit's."""
        return nearest.item() < self._squared

    def exact(self, positions: Tensor, energies: Tensor, forces: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies (R,) and forces (R, N, 3), those of replicas with close beads by the model itself."""
        apart = pair_distances(positions).amin(1)
        rows = torch.nonzero(apart < self.limit)[:, 0].tolist()
        energies, forces = energies.clone(), forces.clone()
        for row in rows:
            energies[row], forces[row] = self._evaluated(positions[row])
        if rows:
            self._tell(float(apart[rows].min()), "such conformations are evaluated without it, more slowly")
        return energies, forces

    def note(self, nearest: Tensor) -> None:
        """Remember a least squared distance for :meth:`report`, without waiting for the device."""
        self._noted = torch.minimum(self._noted, nearest)

    def report(self) -> None:
        """Warn, once, if a distance that was noted is below the limit."""
        if not self._told and self.within(self._noted):
            found = math.sqrt(self._noted.item())
            self._tell(found, "forces of those steps may be off by more; repeat what matters without --compile")

    def _evaluated(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        model, topology, device, dtype = self._made_of
        if self._exact is None:
            self._exact = prepared_copy(model, device, dtype)
            self._graph = self._exact.graph(topology)
        # Far from the origin single precision would be lost on the distance travelled.
        centred = (positions - positions.mean(0)).to(self._graph.positions.dtype)
        energy, forces = energy_and_forces(self._exact, self._graph._replace(positions=centred))
        return energy[0].double(), forces.double()

    def _tell(self, distance: float, consequence: str) -> None:
        if self._told:
            return
        self._told = True
        warnings.warn(
            f"two beads came within {distance:.2f} Å of each other, and the compiled form of the model has been "
            f"checked down to {self.limit:.2f} Å: {consequence}",
            UserWarning,
            stacklevel=2,
        )
