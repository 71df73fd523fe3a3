"""Machine-learned coarse-grained molecular dynamics in ASE.

The beads of a coarse-grained model are ordinary :class:`ase.Atoms`, and the learned free-energy surface is
an ordinary ASE calculator::

    atoms = ase_cg.read_beads("chignolin.pdb", "calpha")
    atoms.calc = ase_cg.CGCalculator("chignolin.safetensors")

The public names below are imported when they are first used, so that ``import ase_cg`` is fast and touches
nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_cg import analysis
    from ase_cg.analysis.compare import Comparison, analyze
    from ase_cg.analysis.markov_weights import markov_weights
    from ase_cg.beads.atoms import read_beads
    from ase_cg.beads.forcemap import optimal_force_map
    from ase_cg.beads.mapping import BeadMap
    from ase_cg.beads.resolution import Resolution
    from ase_cg.beads.topology import BeadTopology
    from ase_cg.calculator import CGCalculator
    from ase_cg.committee import CommitteeCalculator
    from ase_cg.data.dataset import Dataset
    from ase_cg.data.label_forces import label_forces
    from ase_cg.data.map import map_molecules, map_trajectory
    from ase_cg.dynamics.replicas import ReplicaSimulation
    from ase_cg.dynamics.simulate import simulate
    from ase_cg.errors import InputError, SimulationError
    from ase_cg.models.model import CGModel
    from ase_cg.models.priors.prior_set import PriorSet
    from ase_cg.pipeline import run
    from ase_cg.training.recipe import Recipe
    from ase_cg.training.trainer import train

_HOMES = {
    "BeadMap": "ase_cg.beads.mapping",
    "BeadTopology": "ase_cg.beads.topology",
    "CGCalculator": "ase_cg.calculator",
    "CGModel": "ase_cg.models.model",
    "CommitteeCalculator": "ase_cg.committee",
    "Comparison": "ase_cg.analysis.compare",
    "Dataset": "ase_cg.data.dataset",
    "InputError": "ase_cg.errors",
    "PriorSet": "ase_cg.models.priors.prior_set",
    "Recipe": "ase_cg.training.recipe",
    "ReplicaSimulation": "ase_cg.dynamics.replicas",
    "Resolution": "ase_cg.beads.resolution",
    "SimulationError": "ase_cg.errors",
    "analyze": "ase_cg.analysis.compare",
    "label_forces": "ase_cg.data.label_forces",
    "map_molecules": "ase_cg.data.map",
    "map_trajectory": "ase_cg.data.map",
    "markov_weights": "ase_cg.analysis.markov_weights",
    "optimal_force_map": "ase_cg.beads.forcemap",
    "read_beads": "ase_cg.beads.atoms",
    "run": "ase_cg.pipeline",
    "simulate": "ase_cg.dynamics.simulate",
    "train": "ase_cg.training.trainer",
}

__all__ = [
    "BeadMap",
    "BeadTopology",
    "CGCalculator",
    "CGModel",
    "CommitteeCalculator",
    "Comparison",
    "Dataset",
    "InputError",
    "PriorSet",
    "Recipe",
    "ReplicaSimulation",
    "Resolution",
    "SimulationError",
    "analysis",
    "analyze",
    "label_forces",
    "map_molecules",
    "map_trajectory",
    "markov_weights",
    "optimal_force_map",
    "read_beads",
    "run",
    "simulate",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "analysis":
        return importlib.import_module("ase_cg.analysis")
    if name == "__version__":
        from importlib.metadata import version

        return version("ase-cg")
    if name not in _HOMES:
        raise AttributeError(f"module 'ase_cg' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
