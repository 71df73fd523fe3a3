"""The model as it is, operation by operation, on the beads of ASE's Atoms."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.cells import check_cell, reduction_of, shortest_lattice_vector
from ase_cg.data.graph import BeadGraph
from ase_cg.data.neighbors import ALL_PAIRS_LIMIT, NeighborList, coincident_pair
from ase_cg.errors import InputError
from ase_cg.keys import COINCIDENT
from ase_cg.models.model import CGModel
from ase_cg.models.priors.base import BondedPrior
from ase_cg.models.priors.harmonic import HarmonicBonds
from ase_cg.threads import threads_for

AMBIGUOUS = 0.2  # Å; where the next image of a bonded bead is not farther by so much, the two are not told apart


class EagerEvaluation:
    """Energies, forces and stress of one molecule; all but the positions is made once.

    Parameters
    ----------
    model : CGModel
        On its device and in its dtype.
    topology : BeadTopology
    """

    def __init__(self, model: CGModel, topology: BeadTopology) -> None:
        self._model = model
        self._graph = model.graph(topology)
        self._neighbors = NeighborList(model.cutoff)
        self._longest_bond = self._rest_length()
        self._bonds_at_once = 2 if self._has_wide_terms() else 1
        self._cell: NDArray[np.float64] | None = None
        self._reduction: NDArray[np.float64] | None = None
        self._shortest = math.inf
        self._coincident: tuple[int, int] | None = None

    def results(self, beads: Atoms, *, with_stress: bool) -> tuple[dict[str, Any], dict[str, float]]:
        """Return ASE's results by name, and the energies of the terms in eV."""
        graph = self._graph_at(beads)
        self._coincident = _on_one_spot(graph) if graph.cell is not None else None
        with torch.enable_grad(), threads_for(graph.edges.shape[1]):
            positions = graph.positions.requires_grad_(True)
            strain = torch.zeros(3, 3, dtype=positions.dtype, device=positions.device)
            strained, inputs = graph, [positions]
            if with_stress and graph.cell is not None:
                strain.requires_grad_(True)
                symmetric = (strain + strain.T) / 2
                strained = graph._replace(
                    positions=positions + positions @ symmetric, cell=graph.cell + graph.cell @ symmetric
                )
                inputs = [positions, strain]
            shares = self._model.bead_energies_by_term(strained)
            energies = torch.stack(list(shares.values())).sum(0)
            gradients = torch.autograd.grad(energies.sum(), inputs)
        per_bead = energies.detach().cpu().double().numpy()
        energy = float(per_bead.sum())
        results: dict[str, Any] = {
            "energy": energy,
            "free_energy": energy,
            "energies": per_bead,
            "forces": -gradients[0].cpu().double().numpy(),
        }
        if with_stress:
            from ase.stress import full_3x3_to_voigt_6_stress

            virial = gradients[1].cpu().double().numpy()
            results["stress"] = full_3x3_to_voigt_6_stress(virial / beads.get_volume())
        return results, {name: float(share.detach().sum()) for name, share in shares.items()}

    def coincident_pair(self, beads: Atoms) -> tuple[int, int] | None:
        """Return two beads on one spot, or None; images count. For periodic beads those of the last evaluation."""
        return self._coincident if beads.pbc.any() else coincident_pair(beads.arrays["positions"])

    def _rest_length(self) -> float:
        """Return the longest equilibrium length in Å of a bond; 0 without any."""
        bonds = next((term for term in self._model.priors.terms.values() if term.name == HarmonicBonds.name), None)
        if not isinstance(bonds, HarmonicBonds) or not self._graph.bonds.shape[1]:
            return 0.0
        return float(bonds.of_members(self._graph)["equilibrium"].max())

    def _has_wide_terms(self) -> bool:
        """Whether a term, such as impropers, takes vectors between beads that are two bonds apart."""
        bonds = {tuple(sorted(bond)) for bond in self._graph.bonds.T.tolist()}
        for term in self._model.priors.terms.values():
            if isinstance(term, BondedPrior):
                members = term.members(term.view(self._graph)).tolist()
                steps = [pair for first, second in pairwise(members) for pair in zip(first, second, strict=True)]
                if any(tuple(sorted(pair)) not in bonds for pair in steps):
                    return True
        return False

    def _reduced(self, cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the reduction of a cell that is not the last one, after it was checked."""
        if self._reduction is None or self._cell is None or not np.array_equal(self._cell, cell):
            check_cell(cell, pbc)
            self._shortest = shortest = shortest_lattice_vector(cell)
            narrowest = 2 * self._longest_bond * self._bonds_at_once
            if shortest < narrowest:
                raise InputError(
                    f"the cell repeats after {shortest:.3g} Å, but bonds are {self._longest_bond:.3g} Å long: which "
                    f"images they join cannot be told below {narrowest:.3g} Å; make the cell larger"
                )
            self._cell, self._reduction = cell.copy(), reduction_of(cell)
        return self._reduction

    def _graph_at(self, beads: Atoms) -> BeadGraph:
        graph = self._graph
        absolute = beads.arrays["positions"]
        dtype, device = graph.positions.dtype, graph.positions.device
        periodic = bool(beads.pbc.any())
        # Without a cutoff all pairs interact, however many there are.
        if periodic or (len(beads) > ALL_PAIRS_LIMIT and math.isfinite(self._model.cutoff)):
            cell = np.where(beads.pbc[:, None], beads.cell.array, 0.0)
            reduction = self._reduced(cell, beads.pbc) if periodic else None
            edges, images = self._neighbors.edges(absolute, cell, beads.pbc)
            graph = graph._replace(edges=edges.to(device))
            if periodic:
                graph = graph._replace(
                    cell=torch.as_tensor(cell[None], dtype=dtype, device=device),
                    edge_images=images.to(device, dtype),
                    reduction=torch.as_tensor(reduction, dtype=dtype, device=device)[None],
                )
        # Far from the origin single precision would be lost on the distance travelled.
        centred = absolute - absolute.mean(0)
        graph = graph._replace(positions=torch.as_tensor(centred, dtype=dtype, device=device))
        if periodic and graph.bonds.shape[1]:
            self._check_bonds(graph)
        return graph

    def _check_bonds(self, graph: BeadGraph) -> None:
        """Check that the image that each bond leads to is well told from the next one."""
        images, margins = graph.images_and_margins(*graph.bonds)
        del images
        doubtful = torch.nonzero(margins < AMBIGUOUS)
        if len(doubtful):
            i, j = graph.bonds[:, doubtful[0, 0]].tolist()
            raise InputError(
                f"beads {i} and {j} are bonded, but two images of {j} are about as far from {i}, so that the bond "
                f"cannot be told: the cell, which repeats after {self._shortest:.3g} Å, is too small for this bond"
            )


def _on_one_spot(graph: BeadGraph) -> tuple[int, int] | None:
    """Return the two beads of an edge shorter than 0.01 Å, or None."""
    vectors = graph.edge_vectors()
    near = torch.nonzero((vectors * vectors).sum(-1) < COINCIDENT**2)
    return None if not len(near) else (int(graph.edges[0, near[0, 0]]), int(graph.edges[1, near[0, 0]]))
