"""Analysis against the all-atom reference."""

from ase_cg.analysis.compare import Comparison, analyze
from ase_cg.analysis.features import (
    bond_angles,
    bond_lengths,
    contact_map,
    dihedral_angles,
    end_to_end_distance,
    pair_distances,
    radius_of_gyration,
    ramachandran_angles,
)
from ase_cg.analysis.figures import plot_bonds, plot_contacts, plot_distributions, plot_order_parameters, plot_surfaces
from ase_cg.analysis.markov_weights import MarkovWeights, markov_weights
from ase_cg.analysis.metrics import jensen_shannon, pmf_error, wasserstein
from ase_cg.analysis.native import NativeStructure
from ase_cg.analysis.pareto import pareto_front
from ase_cg.analysis.surfaces import Histogram, free_energy
from ase_cg.analysis.time_figures import plot_chapman_kolmogorov, plot_pareto, plot_series, plot_timescales
from ase_cg.analysis.view import bead_colors, bead_radii, view_beads, write_viewer_settings

__all__ = [
    "Comparison",
    "Histogram",
    "MarkovWeights",
    "NativeStructure",
    "analyze",
    "bead_colors",
    "bead_radii",
    "bond_angles",
    "bond_lengths",
    "contact_map",
    "dihedral_angles",
    "end_to_end_distance",
    "free_energy",
    "jensen_shannon",
    "markov_weights",
    "pair_distances",
    "pareto_front",
    "plot_bonds",
    "plot_chapman_kolmogorov",
    "plot_contacts",
    "plot_distributions",
    "plot_order_parameters",
    "plot_pareto",
    "plot_series",
    "plot_surfaces",
    "plot_timescales",
    "pmf_error",
    "radius_of_gyration",
    "ramachandran_angles",
    "view_beads",
    "wasserstein",
    "write_viewer_settings",
]
