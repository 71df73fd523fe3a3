"""The graph that every energy term sees, built once per topology; only positions change during a run."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ase_cg.beads.atoms import bead_types
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.cells import nearest_images, reduction_of
from ase_cg.errors import InputError


class BeadGraph(NamedTuple):
    """One or several molecules as tensors.

    Attributes
    ----------
    positions : Tensor, shape (n, 3)
        In Å.
    bead_type : Tensor, shape (n,)
        Index into the vocabulary.
    molecule : Tensor, shape (n,)
        Which molecule each bead belongs to, 0 … n_molecules − 1.
    n_molecules : int
    edges : Tensor, shape (2, e)
        Pairs of beads that may interact, each pair **once**.
    bonds, angles, dihedrals : Tensor, shapes (2, b), (3, a), (4, d)
    cell : Tensor of shape (n_molecules, 3, 3), or None
        Rows are cell vectors in Å; zero rows where the system is not periodic.
    edge_images : Tensor of shape (e, 3), or None
        Cell images S: the edge's vector is ``positions[j] + S @ cell − positions[i]``.
    reduction : Tensor of shape (n_molecules, 3, 3), or None
        Of the cells, see :func:`ase_cg.data.cells.reduction_of`; found anew at each use where it is not given.
    """

    positions: Tensor
    bead_type: Tensor
    molecule: Tensor
    n_molecules: int
    edges: Tensor
    bonds: Tensor
    angles: Tensor
    dihedrals: Tensor
    cell: Tensor | None = None
    edge_images: Tensor | None = None
    reduction: Tensor | None = None

    def edge_vectors(self) -> Tensor:
        """Return the vector from the first to the second bead of each edge, shape (e, 3), in Å.

        Raises
        ------
        InputError
            If there is a cell, but not the images that edges lead to.
        """
        i, j = self.edges
        vectors = self.positions[j] - self.positions[i]
        if self.cell is None:
            return vectors
        if self.edge_images is None:
            raise InputError(
                "a graph with a cell needs edge_images beside its edges: "
                "ase_cg.data.neighbors.half_neighbor_list finds both"
            )
        return vectors + torch.einsum("es,esx->ex", self.edge_images, self.cell[self.molecule[i]])

    def bonded_vectors(self, i: Tensor, j: Tensor) -> Tensor:
        """Return the vectors from beads `i` to beads `j`, to the nearest image where the system is periodic."""
        vectors = self.positions[j] - self.positions[i]
        if self.cell is None:
            return vectors
        return vectors + torch.einsum("es,esx->ex", self.bonded_images(i, j), self.cell[self.molecule[i]])

    def bonded_images(self, i: Tensor, j: Tensor) -> Tensor:
        """Return the cell images S that bring beads `j` nearest to beads `i`, shape (m, 3), of a periodic system."""
        return self.images_and_margins(i, j)[0]

    def images_and_margins(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """Return these images, and by how many Å the next image is farther away, shape (m,)."""
        assert self.cell is not None  # noqa: S101 - callers ask for images of periodic systems only
        with torch.no_grad():
            reduction = self.reduction
            if reduction is None:
                found = np.stack([reduction_of(one) for one in self.cell.detach().cpu().double().numpy()])
                reduction = torch.from_numpy(found).to(self.cell)
            return nearest_images(self.positions[j] - self.positions[i], self.cell, reduction, self.molecule[i])

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "BeadGraph":
        """Return the graph on a device, with floating-point tensors of a dtype."""

        def moved(value: object) -> object:
            if not isinstance(value, Tensor):
                return value
            return value.to(device, dtype) if value.is_floating_point() else value.to(device)

        return BeadGraph(*[moved(value) for value in self])  # type: ignore[arg-type]


def all_pairs(n: int) -> Tensor:
    """Return all pairs of n beads, each once, shape (2, n(n−1)/2)."""
    return torch.triu_indices(n, n, offset=1)


def n_pairs(n: int) -> int:
    """Return the number of pairs of n beads."""
    return n * (n - 1) // 2


def _index_tensor(rows: Sequence[tuple[int, ...]], width: int) -> Tensor:
    return torch.tensor(rows, dtype=torch.long).reshape(-1, width).T.contiguous()


def topology_graph(topology: BeadTopology, vocabulary: Sequence[str], copies: int = 1) -> BeadGraph:
    """Make the graph of some copies of a molecule, with zero positions and all pairs as edges.

    Parameters
    ----------
    topology : BeadTopology
        Of N beads.
    vocabulary : sequence of str
        Bead names in the order of the model's types.
    copies : int
        Molecules in the graph; bead b of copy c has index c·N + b.

    Raises
    ------
    InputError
        If a bead is not in the vocabulary.
    """
    n = topology.n_beads
    offsets = torch.arange(copies) * n

    def repeated(index: Tensor) -> Tensor:
        return (index[:, None, :] + offsets[None, :, None]).reshape(index.shape[0], -1)

    return BeadGraph(
        positions=torch.zeros(copies * n, 3),
        bead_type=torch.from_numpy(bead_types(topology.names, vocabulary)).repeat(copies),
        molecule=torch.arange(copies).repeat_interleave(n),
        n_molecules=copies,
        edges=repeated(all_pairs(n)),
        bonds=repeated(_index_tensor(topology.bonds, 2)),
        angles=repeated(_index_tensor(topology.angles, 3)),
        dihedrals=repeated(_index_tensor(topology.dihedrals, 4)),
    )


def concatenate(graphs: Sequence[BeadGraph]) -> BeadGraph:
    """Join non-periodic graphs into one, molecules in order.

    Raises
    ------
    ValueError
        If a graph is periodic.
    """
    if any(graph.cell is not None for graph in graphs):
        raise ValueError("periodic graphs are not joined")
    bead_offsets = [0, *torch.tensor([len(g.positions) for g in graphs]).cumsum(0).tolist()]
    molecule_offsets = [0, *torch.tensor([g.n_molecules for g in graphs]).cumsum(0).tolist()]

    def indices(name: str) -> Tensor:
        return torch.cat([getattr(g, name) + o for g, o in zip(graphs, bead_offsets, strict=False)], dim=-1)

    return BeadGraph(
        positions=torch.cat([g.positions for g in graphs]),
        bead_type=torch.cat([g.bead_type for g in graphs]),
        molecule=torch.cat([g.molecule + o for g, o in zip(graphs, molecule_offsets, strict=False)]),
        n_molecules=int(molecule_offsets[-1]),
        edges=indices("edges"),
        bonds=indices("bonds"),
        angles=indices("angles"),
        dihedrals=indices("dihedrals"),
    )
