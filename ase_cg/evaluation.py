"""The model as it is, operation by operation, on the beads of ASE's Atoms."""

from typing import Any

import numpy as np
import torch
from ase import Atoms

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import BeadGraph
from ase_cg.data.neighbors import ALL_PAIRS_LIMIT, NeighborList
from ase_cg.models.model import CGModel
from ase_cg.threads import threads_for


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

    def results(self, beads: Atoms, *, with_stress: bool) -> tuple[dict[str, Any], dict[str, float]]:
        """Return ASE's results by name, and the energies of the terms in eV."""
        graph = self._graph_at(beads)
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

    def _graph_at(self, beads: Atoms) -> BeadGraph:
        graph = self._graph
        absolute = beads.arrays["positions"]
        dtype, device = graph.positions.dtype, graph.positions.device
        periodic = bool(beads.pbc.any())
        if periodic or len(beads) > ALL_PAIRS_LIMIT:
            cell = np.where(beads.pbc[:, None], beads.cell.array, 0.0)
            edges, images = self._neighbors.edges(absolute, cell, beads.pbc)
            graph = graph._replace(edges=edges.to(device))
            if periodic:
                graph = graph._replace(
                    cell=torch.as_tensor(cell[None], dtype=dtype, device=device),
                    edge_images=images.to(device, dtype),
                )
        # Far from the origin single precision would be lost on the distance travelled.
        centred = absolute - absolute.mean(0)
        return graph._replace(positions=torch.as_tensor(centred, dtype=dtype, device=device))
