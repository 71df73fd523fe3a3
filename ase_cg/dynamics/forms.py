"""How energies and forces of all replicas are evaluated: what a form must offer, and the eager one."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.dynamics.integrators import Advanced, Integrator
from ase_cg.models.base import energy_and_forces
from ase_cg.models.model import CGModel, prepared_copy

Step = Callable[[Tensor, Tensor, Tensor, Tensor], Advanced]


class Form(Protocol):
    """A model made ready for R replicas of one molecule.

    Rows are independent: what one replica does, not even NaN, shows in another. The tensors returned may be used
    again by the next call.
    """

    def energy_and_forces(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies (R,) in eV and forces (R, N, 3) in eV/Å at positions (R, N, 3) in Å, in double precision."""

    def make_step(self, integrator: Integrator) -> Step:
        """Return a function of positions, velocities, forces and noise that gives what the integrator gives."""


def plain_step(form: Form, integrator: Integrator) -> Step:
    """Return the step that calls the integrator as it is written."""
    evaluate = form.energy_and_forces

    def step(positions: Tensor, velocities: Tensor, forces: Tensor, noise: Tensor) -> Advanced:
        return integrator.advance(positions, velocities, forces, noise, evaluate)

    return step


class EagerForm:
    """The model as it was trained, evaluated in `dtype` at positions relative to each replica's centre.

    Parameters
    ----------
    model : CGModel
    topology : BeadTopology
        Of N beads.
    replicas : int
        R.
    device : torch.device
    dtype : {"float32", "float64"}
    """

    def __init__(self, model: CGModel, topology: BeadTopology, replicas: int, device: torch.device, dtype: str) -> None:
        self._model = prepared_copy(model, device, dtype)
        self._graph = self._model.graph(topology, replicas)

    def energy_and_forces(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies (R,) in eV and forces (R, N, 3) in eV/Å at positions (R, N, 3) in Å."""
        centred = positions - positions.mean(1, keepdim=True)
        graph = self._graph._replace(positions=centred.reshape(-1, 3).to(self._graph.positions.dtype))
        energies, forces = energy_and_forces(self._model, graph)
        return energies.to(torch.float64), forces.reshape(positions.shape).to(torch.float64)

    def make_step(self, integrator: Integrator) -> Step:
        """Return the step that calls the integrator as it is written."""
        return plain_step(self, integrator)
