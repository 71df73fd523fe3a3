"""Molecules that speed is measured on: compact chains with networks of random weights."""

from typing import Any

import numpy as np
import torch

from ase_cg.beads.topology import BeadTopology
from ase_cg.models.backbones import make_backbone
from ase_cg.models.model import CGModel, ModelCard
from ase_cg.models.priors.prior_set import PriorSet

SMALL: dict[str, dict[str, Any]] = {"schnet": {}, "painn": {}, "mace": {}}
PROTEIN: dict[str, dict[str, Any]] = {
    "schnet": {"cutoff": 12.0, "n_interactions": 4},
    "painn": {"cutoff": 12.0, "n_basis": 32, "n_interactions": 3},
    "mace": {"cutoff": 12.0, "n_basis": 10, "hidden_irreps": "64x0e + 64x1o", "avg_num_neighbors": 20.0},
}
SMALL_BEADS = 20  # up to here the sizes for dipeptides and peptides
N_TYPES = 20


def chain_model(name: str, n_beads: int) -> tuple[CGModel, BeadTopology, np.ndarray]:
    """A compact chain, a network with random weights, and conformations (64, N, 3) in Å."""
    rng = np.random.default_rng(0)
    names = tuple(f"T{i % N_TYPES:02d}" for i in range(n_beads))
    vocabulary = tuple(f"T{i:02d}" for i in range(N_TYPES))
    topology = BeadTopology(
        names,
        names,
        tuple(range(1, n_beads + 1)),
        (0,) * n_beads,
        (110.0,) * n_beads,
        tuple((i, i + 1) for i in range(n_beads - 1)),
    )
    frames = globule(n_beads, rng) + 0.15 * rng.standard_normal((64, n_beads, 3))
    torch.manual_seed(0)
    settings = (SMALL if n_beads <= SMALL_BEADS else PROTEIN)[name]
    backbone = make_backbone(name, N_TYPES, dict(settings))
    card = ModelCard(temperature=300.0, resolution="calpha", topologies=(topology,))
    model = CGModel(vocabulary, PriorSet([]), card, backbone=backbone, backbone_name=name)
    return model.requires_grad_(requires_grad=False), topology, frames


def globule(n_beads: int, rng: np.random.Generator) -> np.ndarray:
    """A self-avoiding chain with bonds of 3.8 Å, as dense as a protein."""
    while True:
        beads = [np.zeros(3)]
        for _ in range(n_beads - 1):
            directions = rng.standard_normal((400, 3))
            candidates = beads[-1] + 3.8 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
            gaps = np.linalg.norm(np.array(beads)[None, :-1] - candidates[:, None], axis=-1).min(1, initial=10.0)
            free = candidates[gaps > 4.2]
            if not len(free):
                break
            # Nearest to the centre among a few: compact, but not the densest packing.
            few = free[:8]
            beads.append(few[np.linalg.norm(few - np.mean(beads, axis=0), axis=1).argmin()])
        if len(beads) == n_beads:
            return np.array(beads)
