"""Figures of a comparison."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_cg.analysis.surfaces import free_energy
from ase_cg.files import written_whole

if TYPE_CHECKING:
    from ase_cg.analysis.compare import Comparison, Ensemble

VISIBLE = 1e-3  # of the highest density: where the axis of a bond length begins and ends
COLORS = {"reference": "black", "trained model": "tab:blue", "prior only": "tab:orange"}


def saved(figure: Any, path: Path) -> None:
    """Write a matplotlib figure as PNG."""
    with written_whole(path, overwrite=True) as partial:
        figure.savefig(partial, dpi=150, format="png")


def _ensembles(comparison: "Comparison") -> "dict[str, Ensemble]":
    found = {"reference": comparison.reference, "trained model": comparison.model}
    return found | ({} if comparison.prior is None else {"prior only": comparison.prior})


def plot_surfaces(comparison: "Comparison") -> Any:
    """Return a matplotlib figure with the Ramachandran free energies side by side, in kT on one scale."""
    from matplotlib.figure import Figure

    ensembles = _ensembles(comparison)
    figure = Figure(figsize=(3.6 * len(ensembles) + 1.2, 4.4), layout="constrained")
    axes = figure.subplots(1, len(ensembles), sharey=True, squeeze=False)[0]
    bins = comparison.bins
    surfaces = {
        name: free_energy(ensemble.surface.probabilities()).reshape(bins, bins)
        for name, ensemble in ensembles.items()
        if ensemble.surface is not None
    }
    deepest = max(surface[np.isfinite(surface)].max() for surface in surfaces.values())
    image: Any = None
    for axis, (name, surface) in zip(axes, surfaces.items(), strict=True):
        image = axis.imshow(
            np.where(np.isfinite(surface), surface, np.nan).T,
            origin="lower",
            extent=(-180, 180, -180, 180),
            vmin=0,
            vmax=deepest,
            cmap="viridis",
        )
        axis.set_title(name)
        axis.set_xlabel("φ / °")
        axis.set_xticks([-180, -90, 0, 90, 180])
        axis.set_yticks([-180, -90, 0, 90, 180])
    axes[0].set_ylabel("ψ / °")
    figure.colorbar(image, ax=axes, label="free energy / kT", shrink=0.8)
    return figure


def plot_bonds(comparison: "Comparison") -> Any:
    """Return a matplotlib figure with the distribution of every bond length."""
    from matplotlib.figure import Figure

    bonds = comparison.topology.bonds
    columns = min(5, len(bonds))
    rows = -(-len(bonds) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    centres = 0.5 * (comparison.bond_edges[1:] + comparison.bond_edges[:-1])
    group = 10  # bins drawn together: the fine grid is for the distances, not for the eye
    usable = len(centres) // group * group
    x = centres[:usable].reshape(-1, group).mean(1)
    width = (comparison.bond_edges[1] - comparison.bond_edges[0]) * group
    for number, (axis, (i, j)) in enumerate(zip(axes, bonds, strict=False)):
        drawn: list[Any] = []
        for name, ensemble in _ensembles(comparison).items():
            p = ensemble.bonds[number].probabilities()[:usable].reshape(-1, group).sum(1) / width
            drawn.append(p)
            axis.plot(x, p, color=COLORS[name], lw=1.2, label=name, ls="--" if name == "trained model" else "-")
        axis.set_title(f"{comparison.topology.names[i]} – {comparison.topology.names[j]}", fontsize=8)
        visible = x[np.max(drawn, axis=0) > VISIBLE * np.max(drawn)]
        axis.set_xlim(visible[0], visible[-1])
        axis.set_xlabel("Å", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_yticks([])
    for axis in axes[len(bonds) :]:
        axis.set_visible(False)
    axes[0].legend(fontsize=6, loc="upper right")
    return figure
