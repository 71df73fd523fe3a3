"""A model in the dense layout [replica, bead, …] of one topology."""

import copy

import torch
from torch import Tensor, nn

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import BeadGraph
from ase_cg.inference.convolution import Convolution
from ase_cg.inference.dense_mace import DenseMACE
from ase_cg.inference.dense_painn import DensePaiNN
from ase_cg.inference.dense_priors import DenseRepulsion, DenseShortRepulsion, GraphTerm
from ase_cg.inference.dense_schnet import DenseSchNet
from ase_cg.inference.pairs import FAR, Pairs, find_pairs
from ase_cg.inference.tabulate import realized
from ase_cg.models.backbones.mace import MACE
from ase_cg.models.backbones.painn import PaiNN
from ase_cg.models.backbones.schnet import SchNet
from ase_cg.models.base import EnergyTerm
from ase_cg.models.model import CGModel
from ase_cg.models.priors.repulsion import Repulsion
from ase_cg.models.priors.short_repulsion import ShortRepulsion


class DenseModel(nn.Module):
    """Energies and forces of R replicas of one molecule, in tensors of shapes that never change.

    Parameters
    ----------
    model : CGModel
    topology : BeadTopology
        Of N beads.
    replicas : int
        R.
    dtype : torch.dtype
        Of the evaluation.
    intervals : int
        Of the tables of radial functions.
    device : torch.device
    native : bool
        Whether sums over neighbours are done by :mod:`ase_cg.inference.native`.
    simple_only : bool
        Whether only those of one product are, and matrices still go into tables for each bead type.
    """

    itself: Tensor

    def __init__(
        self,
        model: CGModel,
        topology: BeadTopology,
        replicas: int,
        dtype: torch.dtype,
        intervals: int,
        device: torch.device | str = "cpu",
        *,
        native: bool = False,
        simple_only: bool = False,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        # Prepared in double precision, so that what is multiplied out beforehand is rounded once.
        exact = copy.deepcopy(model).to("cpu", torch.float64).eval().requires_grad_(requires_grad=False)
        self.register_buffer("itself", FAR * torch.eye(topology.n_beads, dtype=torch.float64))
        one = exact.graph(topology)
        terms: list[EnergyTerm] = list(exact.priors.terms.values())  # type: ignore[arg-type]
        if exact.backbone is not None:
            terms.append(exact.backbone)
        fold = simple_only or not native
        self.terms = nn.ModuleList(_dense(term, one, intervals, fold=fold) or term for term in terms)
        self.to(device, dtype).requires_grad_(requires_grad=False)
        for module in self.modules():
            if isinstance(module, Convolution):
                module.native = native and (module.is_simple or not simple_only)
        # What has no dense form of its own is evaluated on the graph of all copies.
        copies = exact.graph(topology, replicas).to(device, dtype)
        for number, term in enumerate(self.terms):
            if isinstance(term, EnergyTerm):
                self.terms[number] = GraphTerm(term, copies)

    def forward(self, components: Tensor) -> Tensor:
        """Return the energy of each replica in eV, shape (R,), at positions (3, R, N) in Å, in `dtype`."""
        return self._of_pairs(find_pairs(components, self.itself))

    def _of_pairs(self, pairs: Pairs) -> Tensor:
        energies = [term(pairs) for term in self.terms]
        return torch.stack(energies).sum(0)

    def energy_and_forces(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies (R,) in eV and forces (R, N, 3) in eV/Å at positions (R, N, 3), all in double precision."""
        return self.energy_forces_and_nearest(positions)[:2]

    def energy_forces_and_nearest(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return energies and forces as :meth:`energy_and_forces` does, and the least squared distance in Å², ().

        It is that of all pairs of beads in all replicas whose positions are numbers.
        """
        # Far from the origin single precision would be lost on the distance travelled.
        centred = (positions - positions.mean(1, keepdim=True)).to(self.dtype)
        components = realized(centred.permute(2, 0, 1).contiguous())
        with torch.enable_grad():
            components = components.detach().requires_grad_(True)
            pairs = find_pairs(components, self.itself)
            energy = self._of_pairs(pairs)
            (gradient,) = torch.autograd.grad(energy.sum(), components)
        each = pairs.squared.detach().amin((1, 2))
        nearest = torch.where(each == each, each, FAR).amin().double()  # noqa: PLR0124 - NaN differs from itself
        return energy.detach().double(), -gradient.permute(1, 2, 0).double().contiguous(), nearest


def _dense(term: EnergyTerm, graph: BeadGraph, intervals: int, *, fold: bool) -> nn.Module | None:
    """Return the dense form of a term on one molecule, or None if it has none."""
    if isinstance(term, ShortRepulsion):
        return DenseShortRepulsion(term, graph)
    if isinstance(term, Repulsion):
        return DenseRepulsion(term, graph)
    if isinstance(term, SchNet):
        return DenseSchNet(term, graph.bead_type, intervals, fold=fold)
    if isinstance(term, PaiNN):
        return DensePaiNN(term, graph.bead_type, intervals)
    if isinstance(term, MACE):
        return DenseMACE(term, graph.bead_type, intervals, fold=fold)
    return None
