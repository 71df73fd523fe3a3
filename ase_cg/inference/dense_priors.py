"""Priors in a dense layout: bonded terms with their parameters looked up, pair terms on all pairs."""

import math

import torch
from torch import Tensor, nn

from ase_cg.data.graph import BeadGraph
from ase_cg.inference.pairs import Pairs
from ase_cg.models.base import EnergyTerm
from ase_cg.models.priors.base import BondedPrior
from ase_cg.models.priors.repulsion import CLOSEST_SQUARED, Repulsion, switch
from ase_cg.models.priors.short_repulsion import ShortRepulsion


class DenseRepulsion(nn.Module):
    """A :class:`ase_cg.models.priors.repulsion.Repulsion` on all pairs, with σ = 0 for those that feel none.

    Parameters
    ----------
    term : Repulsion
    graph : BeadGraph
        Of one molecule.
    """

    sigma: Tensor

    def __init__(self, term: Repulsion, graph: BeadGraph) -> None:
        super().__init__()
        self.exponent, self.cutoff = term.exponent, term.cutoff
        keep, found = term.pairs_of(graph)
        i, j = graph.edges[:, keep]
        n = len(graph.positions)
        sigma = torch.zeros(n, n, dtype=found.dtype)
        sigma[i, j] = sigma[j, i] = found
        self.register_buffer("sigma", sigma)

    def forward(self, pairs: Pairs) -> Tensor:
        """Return the energy of each replica in eV, shape (R,)."""
        squared = pairs.squared.clamp_min(CLOSEST_SQUARED)
        energy = (self.sigma * self.sigma / squared) ** (self.exponent / 2)
        if not math.isinf(self.cutoff):
            energy = energy * switch(torch.sqrt(squared), self.cutoff)
        return energy.sum((1, 2)) / 2


class DenseShortRepulsion(nn.Module):
    """A :class:`ase_cg.models.priors.short_repulsion.ShortRepulsion` on all pairs, of which some feel none.

    Parameters
    ----------
    term : ShortRepulsion
    graph : BeadGraph
        Of one molecule.
    """

    feels: Tensor

    def __init__(self, term: ShortRepulsion, graph: BeadGraph) -> None:
        super().__init__()
        self._term = [term]  # not a part: its tables are those of types
        keep, _ = term.pairs_of(graph)
        i, j = graph.edges[:, keep]
        n = len(graph.positions)
        feels = torch.zeros(n, n, dtype=torch.bool)
        feels[i, j] = feels[j, i] = True
        self.register_buffer("feels", feels)
        for name in term.tables:
            table = getattr(term, name)[graph.bead_type[:, None], graph.bead_type]
            self.register_buffer(name, table)

    def forward(self, pairs: Pairs) -> Tensor:
        """Return the energy of each replica in eV, shape (R,)."""
        (term,) = self._term
        energy = term.pair_energies(pairs.squared, {name: getattr(self, name) for name in term.tables})
        return torch.where(self.feels, energy, 0.0).sum((1, 2)) / 2


class GraphTerm(nn.Module):
    """Any energy term, on the graph of R copies of the molecule.

    Parameters
    ----------
    term : EnergyTerm
    graph : BeadGraph
        Of R copies; its tensors are kept as they are, so that a term recognises them.
    """

    def __init__(self, term: EnergyTerm, graph: BeadGraph) -> None:
        super().__init__()
        self.term = term
        self.graph = graph
        self.rows = None
        if isinstance(term, BondedPrior):
            self.graph = term.view(graph)
            self.rows = term.rows_of(term.members(self.graph), graph.bead_type)

    def forward(self, pairs: Pairs) -> Tensor:
        """Return the energy of each replica in eV, shape (R,)."""
        replicas = len(pairs.positions)
        graph = self.graph._replace(positions=pairs.positions.reshape(-1, 3))
        if isinstance(self.term, BondedPrior) and self.rows is not None:
            # Copies stand one after the other, so no tuple has to be told which molecule it is of.
            return self.term.tuple_energies(graph, self.rows).reshape(replicas, -1).sum(1)
        return self.term.bead_energies(graph).reshape(replicas, -1).sum(1)
