"""Analysis against the all-atom reference."""

from ase_cg.analysis.compare import Comparison, analyze
from ase_cg.analysis.features import bond_lengths, dihedral_angles, ramachandran_angles
from ase_cg.analysis.metrics import jensen_shannon, pmf_error, wasserstein
from ase_cg.analysis.surfaces import Histogram, free_energy

__all__ = [
    "Comparison",
    "Histogram",
    "analyze",
    "bond_lengths",
    "dihedral_angles",
    "free_energy",
    "jensen_shannon",
    "pmf_error",
    "ramachandran_angles",
    "wasserstein",
]
