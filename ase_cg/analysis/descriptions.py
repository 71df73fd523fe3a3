"""What a figure shows, in words, for those who do not see it."""

from typing import TYPE_CHECKING

import numpy as np

from ase_cg.analysis.figures import SERIES_LABELS
from ase_cg.analysis.intervals import FEATURE_FIGURES
from ase_cg.analysis.record import averages
from ase_cg.analysis.surfaces import RMSD_AND_SIZE, SURFACES
from ase_cg.analysis.table import shown_name

if TYPE_CHECKING:
    from ase_cg.analysis.compare import Comparison

TITLES = {
    "ramachandran": "Ramachandran free energies",
    "tica": "Free energies of the slow coordinates",
    "pca": "Free energies of the principal components",
    RMSD_AND_SIZE: "Free energies of RMSD and radius of gyration",
    "bonds": "Bond lengths",
    "angles": "Angles",
    "dihedrals": "Dihedrals",
    "order_parameters": "Size and nativeness",
    "timescales": "Implied timescales",
    "chapman_kolmogorov": "Chapman–Kolmogorov check",
    "rmsd_over_time": "RMSD over time",
    "radius_of_gyration_over_time": "Radius of gyration over time",
    "contacts": "Contact maps",
    "pareto": "Global against local accuracy",
}


def describe_figure(comparison: "Comparison", name: str) -> str:
    """Return what the figure of a name shows, with its main numbers."""
    if name in comparison.planes:
        return _surfaces(comparison, name)
    if name in comparison.grids:
        return _distributions(comparison, name)
    if name.endswith("_over_time"):
        return _over_time(comparison, name.removesuffix("_over_time"))
    return {
        "order_parameters": _order_parameters,
        "timescales": _timescales,
        "chapman_kolmogorov": _chapman_kolmogorov,
        "contacts": _contacts,
        "pareto": _pareto,
    }[name](comparison)


def _timescales(comparison: "Comparison") -> str:
    parts = []
    for key, found in comparison.kinetics.items():
        unit, scale = ("frames", 1.0) if found.frame_interval is None else ("ps", found.frame_interval)
        shown = [f"{scale * value:.3g}" for value in found.timescales if np.isfinite(value)]
        parts.append(f"{shown_name(key)} {', '.join(shown) or 'none'} {unit}")
    return f"Implied timescales against the lag. At the shortest lag: {'; '.join(parts)}."


def _chapman_kolmogorov(comparison: "Comparison") -> str:
    largest = [f"{shown_name(key)} {found.implied.largest_deviation:.3f}" for key, found in comparison.kinetics.items()]
    return (
        "Probability to still be in a macrostate after a lag, predicted by the Markov model of the shortest lag "
        f"(lines) and observed (points). Largest deviation of any transition probability: {'; '.join(largest)}."
    )


def _over_time(comparison: "Comparison", series: str) -> str:
    words = SERIES_LABELS[series].partition(" /")[0]
    means = [f"{shown_name(key)} {averages(ensemble)[series]:.2f} Å" for key, ensemble in comparison.ensembles.items()]
    return f"First trajectories of each ensemble over time: {words}. Means over all frames: {'; '.join(means)}."


def _pareto(comparison: "Comparison") -> str:
    front = ", ".join(shown_name(key) for key in comparison.pareto)
    return (
        "PMF error (across) against bond Wasserstein distance (up); grey lines are the floor. No other model beats "
        f"{front} in both."
    )


def _surfaces(comparison: "Comparison", name: str) -> str:
    grid = comparison.planes[name]
    scale, unit = (180 / np.pi, "°") if name == "ramachandran" else (1.0, "")
    centres = [0.5 * scale * (e[1:] + e[:-1]) for e in (grid.x_edges, grid.y_edges)]
    lowest = []
    for key, ensemble in comparison.ensembles.items():
        surface = grid.surface(ensemble.surfaces[name].probabilities())
        x, y = np.unravel_index(np.argmin(surface), surface.shape)
        lowest.append(f"{shown_name(key)} at ({centres[0][x]:.3g}{unit}, {centres[1][y]:.3g}{unit})")
    prefix = "" if name == comparison.main else f"{name}_"
    errors = [
        f"{shown_name(key)} {row[prefix + 'pmf_error_kT']['value']:.2f} kT"
        for key, row in comparison.rows.items()
        if row[prefix + "pmf_error_kT"]["value"] is not None
    ]
    return (
        f"Free energies in kT on {SURFACES[name]}, side by side on one scale. Lowest: {', '.join(lowest)}. PMF error: "
        f"{', '.join(errors)}."
    )


def _distributions(comparison: "Comparison", name: str) -> str:
    distances = _distances(comparison, name)
    return f"Distributions of each ensemble. Mean Wasserstein distance from the reference: {distances}."


def _distances(comparison: "Comparison", name: str) -> str:
    unit = comparison.grids[name].unit
    return ", ".join(
        f"{shown_name(key)} {row[FEATURE_FIGURES[name]]['value']:.4f} {unit}".rstrip()
        for key, row in comparison.rows.items()
        if row[FEATURE_FIGURES[name]]["value"] is not None
    )


def _order_parameters(comparison: "Comparison") -> str:
    words = {name: SERIES_LABELS[name].partition(" /")[0] for name in comparison.reference.series}
    parts = [f"{words[name]}: {_distances(comparison, name)}" for name in words]
    return f"Distributions of each ensemble. Wasserstein distance from the reference, of {'; of '.join(parts)}."


def _contacts(comparison: "Comparison") -> str:
    reference = comparison.reference.contacts
    parts = [
        f"{shown_name(key)} differs by at most {float(np.abs(ensemble.contacts - reference).max()):.2f}"
        for key, ensemble in comparison.models.items()
        if reference is not None and ensemble.contacts is not None
    ]
    return f"How often two beads are nearer than 8 Å. From the reference {'; '.join(parts)}."
