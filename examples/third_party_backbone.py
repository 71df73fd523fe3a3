# %% [markdown]
# # A backbone of your own
# A learned potential of bead pairs, checked by ase-cg's own tests, on top of fitted priors, in ASE. Registered in the
# entry-point group `ase_cg.backbones` of your package, a recipe can name it, and `ase-cg run` trains it.

# %%
from pathlib import Path

import numpy as np
import torch
from ase import units
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.velocitydistribution import thermalize_momenta

import ase_cg
from ase_cg.data.graph import BeadGraph
from ase_cg.models.base import Backbone
from ase_cg.testing import check_backbone


# %% Energies of beads are all it returns; sums over molecules and forces are inferred from them.
class GaussianPairs(Backbone):
    """Every pair of bead types has an energy Σ_k w_k exp(−(d − μ_k)²/2σ²), which fades to zero at the cutoff."""

    def __init__(self, n_types: int, *, cutoff: float = 12.0, n_gaussians: int = 16) -> None:
        super().__init__(cutoff, {"cutoff": cutoff, "n_gaussians": n_gaussians})
        self.register_buffer("centres", torch.linspace(0.0, cutoff, n_gaussians))
        self.weights = torch.nn.Parameter(0.01 * torch.randn(n_types, n_types, n_gaussians))

    def bead_energies(self, graph: BeadGraph) -> torch.Tensor:
        i, j = graph.edges  # each pair once
        distance = graph.edge_vectors().square().sum(-1).clamp_min(1e-12).sqrt()
        width = self.cutoff / len(self.centres)
        gaussians = torch.exp(-0.5 * ((distance[:, None] - self.centres) / width) ** 2)
        fade = (1 - (distance / self.cutoff).clamp(max=1) ** 2) ** 3
        first, second = graph.bead_type[i], graph.bead_type[j]
        weights = self.weights[first, second] + self.weights[second, first]
        half = 0.5 * fade * (weights * gaussians).sum(-1)
        return half.new_zeros(len(graph.positions)).index_add(0, i, half).index_add(0, j, half)


# %% Forces, symmetries, batches, cutoff, precision, training, saving: a sentence says what fails.
torch.manual_seed(0)
check_backbone(GaussianPairs(n_types=3), n_types=3)
print("meets all checks")

# %% On top of priors that were fitted to alanine dipeptide it runs like any other model.
fitted = ase_cg.CGModel.load("ala2_forces_and_noise")
backbone = GaussianPairs(len(fitted.vocabulary)).requires_grad_(requires_grad=False)
model = ase_cg.CGModel(fitted.vocabulary, fitted.priors, fitted.card, backbone=backbone)
atoms = ase_cg.read_beads(Path(__file__).parent / "data" / "ala2.pdb", model)
atoms.calc = ase_cg.CGCalculator(model)
rng = np.random.default_rng(0)
thermalize_momenta(atoms, 300, rng=rng)
LangevinBAOAB(atoms, 2 * units.fs, temperature_K=300, T_tau=1000 * units.fs, rng=rng).run(100)
print(f"{atoms.get_potential_energy():.3f} eV after 100 steps, of which", atoms.calc.term_energies)
