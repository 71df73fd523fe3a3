"""Chains with all priors and small networks, and a cache folder of the tests' own."""

import warnings

import numpy as np
import pytest
import torch

from ase_cg.beads.topology import BeadTopology
from ase_cg.models.backbones import make_backbone
from ase_cg.models.model import CGModel, ModelCard
from ase_cg.models.priors.prior_set import PriorSet
from ase_cg.units import thermal_energy

SMALL = {
    "schnet": {"features": 16, "n_filters": 12, "n_basis": 8, "cutoff": 9.0, "head": [16]},
    "painn": {"features": 8, "n_basis": 6, "cutoff": 9.0, "head": [8]},
    "mace": {"hidden_irreps": "4x0e + 4x1o", "n_basis": 4, "cutoff": 9.0, "radial_MLP": [8], "MLP_irreps": 4},
}
PRIORS = ("bonds", "angles", "dihedrals", "repulsion")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Compiled packages are shared by the tests of a session, and by nobody else."""
    folder = tmp_path_factory.getbasetemp() / "compiled"
    monkeypatch.setenv("ASE_CG_CACHE", str(folder))
    return folder


def chain(n_beads: int, *, spread: float = 0.15, frames: int = 60) -> tuple[BeadTopology, np.ndarray]:
    """A chain with a vocabulary of four on a helix, and conformations (frames, N, 3) around it in Å."""
    names = tuple("ABCD"[i % 4] for i in range(n_beads))
    bonds = tuple((i, i + 1) for i in range(n_beads - 1))
    numbers = tuple(range(1, n_beads + 1))
    topology = BeadTopology(names, names, numbers, (0,) * n_beads, (100.0,) * n_beads, bonds)
    turn = np.arange(n_beads) * 1.7
    helix = np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.9 * np.arange(n_beads)], axis=1)
    return topology, helix + spread * np.random.default_rng(0).standard_normal((frames, n_beads, 3))


def chain_model(name: str | None, n_beads: int, hyper: dict | None = None, priors=PRIORS) -> tuple[CGModel, np.ndarray]:
    """A model of a chain with random weights, and conformations of it."""
    topology, frames = chain(n_beads)
    vocabulary = tuple("ABCD")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few samples
        fitted = PriorSet.fit_positions(frames, topology, priors, vocabulary=vocabulary, kT=thermal_energy(300.0))
    backbone = None
    if name is not None:
        torch.manual_seed(0)
        backbone = make_backbone(name, 4, SMALL[name] | (hyper or {}))
        for parameter in backbone.parameters():  # biases are zero as they are drawn
            parameter.data += 0.05 * torch.randn_like(parameter)
    card = ModelCard(temperature=300.0, resolution="calpha", topologies=(topology,))
    model = CGModel(
        vocabulary, fitted, card, backbone=backbone, backbone_name=name, frames=[torch.tensor(frames[:8]).float()]
    )
    return model.requires_grad_(requires_grad=False), frames
