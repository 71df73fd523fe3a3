"""What every part of the energy is: a term that gives each bead a share."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ase_cg.data.graph import BeadGraph


class EnergyTerm(nn.Module, ABC):
    """A part of the energy; priors and backbones alike.

    A subclass gives the energy of each bead; sums over molecules and forces are inferred from it. It must not
    depend on the number of molecules in the graph, and the energy of an isolated bead must be constant.
    """

    @abstractmethod
    def bead_energies(self, graph: BeadGraph) -> Tensor:
        """Return the share of each bead in eV, shape (n,)."""

    def forward(self, graph: BeadGraph) -> Tensor:
        """Return the energy of each molecule in eV, shape (n_molecules,)."""
        return sum_over_molecules(self.bead_energies(graph), graph)


def sum_over_molecules(per_bead: Tensor, graph: BeadGraph) -> Tensor:
    """Sum a quantity of beads, shape (n,), over molecules: shape (n_molecules,)."""
    return per_bead.new_zeros(graph.n_molecules).index_add(0, graph.molecule, per_bead)


def energy_and_forces(term: nn.Module, graph: BeadGraph, *, training: bool = False) -> tuple[Tensor, Tensor]:
    """Differentiate a term once.

    Parameters
    ----------
    term : Module
        Maps a graph to energies of shape (n_molecules,).
    graph : BeadGraph
    training : bool
        Keep the graph of the derivative, so that a loss on forces can be differentiated.

    Returns
    -------
    energy : Tensor, shape (n_molecules,)
        In eV.
    forces : Tensor, shape (n, 3)
        In eV/Å.
    """
    with torch.enable_grad():
        positions = graph.positions.detach().requires_grad_(True)
        energy = term(graph._replace(positions=positions))
        (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=training)
    return (energy, -gradient) if training else (energy.detach(), -gradient)


class Backbone(EnergyTerm):
    """An energy term with trainable weights that is made from hyper-parameters by name.

    A subclass takes ``n_types`` (size of the vocabulary) and its hyper-parameters as keyword arguments with
    defaults, and calls ``super().__init__(cutoff, hyper_parameters)`` with those it was given.

    Parameters
    ----------
    cutoff : float
        Distance in Å beyond which beads do not interact; energies and forces go to zero there smoothly.
    hyper_parameters : dict
        JSON-safe; the model file keeps them to build the backbone again.

    Attributes
    ----------
    n_types : int, optional
        Size of the vocabulary, where the subclass says it: a model with more bead names is refused.
    """

    n_types: int | None = None

    def __init__(self, cutoff: float, hyper_parameters: dict[str, object]) -> None:
        super().__init__()
        self.cutoff = float(cutoff)
        self.hyper_parameters = hyper_parameters
