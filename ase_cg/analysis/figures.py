"""Figures of a comparison, as matplotlib axes.

Each function draws into ``axes`` where they are given, otherwise into a figure of its own, and returns the axes; the
figure is ``axes[0].figure``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.ensembles import Grid
from ase_cg.analysis.record import feature_names
from ase_cg.analysis.table import shown_name
from ase_cg.files import written_whole

if TYPE_CHECKING:
    from ase_cg.analysis.compare import Comparison

VISIBLE = 5e-4  # of the frames, that may lie beyond either end of an axis
COLORS = ("tab:blue", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:olive", "tab:cyan")
DRAWN = 80  # points of a curve
MAX_PANELS = 20
SERIES_LABELS = {
    "rmsd": "RMSD / Å",
    "radius_of_gyration": "radius of gyration / Å",
    "end_to_end": "end-to-end distance / Å",
    "native_contacts": "fraction of native contacts",
    "gdt_ts": "GDT-TS",
}


def saved(axes: Sequence[Any], path: Path) -> None:
    """Write the figure of some axes, in the format of the path's suffix."""
    with written_whole(path, overwrite=True) as partial:
        axes[0].figure.savefig(partial, dpi=150, format=path.suffix[1:])


def styles(comparison: "Comparison") -> dict[str, dict[str, Any]]:
    """Return how each ensemble is drawn: the reference black, the prior orange, models in colours of their own."""
    found: dict[str, dict[str, Any]] = {"reference": {"color": "black", "lw": 1.4, "label": "reference"}}
    for number, name in enumerate(name for name in comparison.ensembles if name not in {"reference", "prior"}):
        found[name] = {"color": COLORS[number % len(COLORS)], "ls": "--", "lw": 1.2, "label": shown_name(name)}
    if "prior" in comparison.ensembles:
        found["prior"] = {"color": "tab:orange", "lw": 1.0, "label": shown_name("prior")}
    return {name: found[name] for name in comparison.ensembles}


def new_axes(columns: int, rows: int = 1, size: tuple[float, float] = (3.2, 2.8), **options: Any) -> list[Any]:
    """Return axes of a new figure that belongs to no window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    return list(figure.subplots(rows, columns, squeeze=False, **options).ravel())


def plot_surfaces(comparison: "Comparison", plane: str | None = None, axes: Sequence[Any] | None = None) -> list[Any]:
    """Draw the free energies of all ensembles side by side, in kT on one scale.

    Parameters
    ----------
    comparison : Comparison
    plane : str, optional
        ``ramachandran``, ``tica``, ``pca`` or ``rmsd_radius_of_gyration``; by default the one of the table.
    axes : sequence of matplotlib axes, optional
        One for each ensemble.
    """
    name = plane or comparison.main or next(iter(comparison.planes))
    grid = comparison.planes[name]
    drawn = list(new_axes(len(comparison.ensembles), size=(3.6, 3.8), sharey=True) if axes is None else axes)
    surfaces = {
        key: grid.surface(ensemble.surfaces[name].probabilities()) for key, ensemble in comparison.ensembles.items()
    }
    deepest = max(surface[np.isfinite(surface)].max() for surface in surfaces.values())
    scale = 180 / np.pi if name == "ramachandran" else 1.0
    extent = [scale * end for edges in (grid.x_edges, grid.y_edges) for end in (edges[0], edges[-1])]
    image: Any = None
    for axis, (key, surface) in zip(drawn, surfaces.items(), strict=False):
        image = axis.imshow(
            np.where(np.isfinite(surface), surface, np.nan).T,
            origin="lower",
            extent=extent,
            vmin=0,
            vmax=max(deepest, 1e-6),
            cmap="viridis",
            aspect="auto",
        )
        axis.set_title(shown_name(key))
        axis.set_xlabel(grid.labels[0] + (" / °" if name == "ramachandran" else ""))
        if name == "ramachandran":
            axis.set_xticks([-180, -90, 0, 90, 180])
            axis.set_yticks([-180, -90, 0, 90, 180])
    drawn[0].set_ylabel(grid.labels[1] + (" / °" if name == "ramachandran" else ""))
    drawn[0].figure.colorbar(image, ax=drawn, label="free energy / kT", shrink=0.8)
    return drawn


def plot_distributions(comparison: "Comparison", kind: str, axes: Sequence[Any] | None = None) -> list[Any]:
    """Draw the distribution of every bond, angle or dihedral.

    Parameters
    ----------
    comparison : Comparison
    kind : {"bonds", "angles", "dihedrals"}
    axes : sequence of matplotlib axes, optional
        One for each feature; by default of the first twenty.
    """
    names = feature_names(comparison, kind)
    count = min(len(names), MAX_PANELS)
    columns = min(5, count)
    drawn = list(new_axes(columns, -(-count // columns), (2.6, 2.2)) if axes is None else axes)
    grid = comparison.grids[kind]
    for number, (axis, title) in enumerate(zip(drawn[:count], names, strict=False)):
        _draw_curves(comparison, kind, number, axis)
        axis.set_title(title, fontsize=7)
        axis.set_xlabel("°" if grid.unit == "rad" else grid.unit, fontsize=8)
    for axis in drawn[count:]:
        axis.set_visible(False)
    drawn[0].legend(fontsize=6, loc="upper right")
    return drawn


def plot_bonds(comparison: "Comparison", axes: Sequence[Any] | None = None) -> list[Any]:
    """Draw the distribution of every bond length."""
    return plot_distributions(comparison, "bonds", axes)


def plot_order_parameters(
    comparison: "Comparison", names: Sequence[str] | None = None, axes: Sequence[Any] | None = None
) -> list[Any]:
    """Draw the distributions of figures of single frames.

    Parameters
    ----------
    comparison : Comparison
    names : sequence of str, optional
        Of ``radius_of_gyration``, ``end_to_end``, ``rmsd``, ``gdt_ts``, ``native_contacts``; by default all there are.
    axes : sequence of matplotlib axes, optional
        One for each.
    """
    chosen = list(comparison.reference.series if names is None else names)
    columns = min(3, len(chosen))
    drawn = list(new_axes(columns, -(-len(chosen) // columns), (3.4, 2.4)) if axes is None else axes)
    for axis, name in zip(drawn, chosen, strict=False):
        _draw_curves(comparison, name, 0, axis)
        axis.set_xlabel(SERIES_LABELS[name], fontsize=8)
    for axis in drawn[len(chosen) :]:
        axis.set_visible(False)
    drawn[0].legend(fontsize=6, loc="upper right")
    return drawn


def _draw_curves(comparison: "Comparison", kind: str, number: int, axis: Any) -> None:
    """Draw one feature of a kind, a curve an ensemble."""
    x, curves = density_curves(comparison, kind, number)
    for curve, style in zip(curves, styles(comparison).values(), strict=True):
        axis.plot(x, curve, **style)
    axis.tick_params(labelsize=7)
    axis.set_yticks([])


def density_curves(
    comparison: "Comparison", kind: str, number: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return places (n,) and densities (ensembles, n) of one feature of a kind, as they are drawn."""
    probabilities = [ensemble.distributions[kind].probabilities()[number] for ensemble in comparison.ensembles.values()]
    return _curves(comparison.grids[kind], np.stack(probabilities))


def _curves(grid: Grid, probabilities: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return places (n,) and densities (ensembles, n) where anything can be seen; angles in degrees.

    Bins are joined: the fine grid is for distances between distributions, not for the eye.
    """
    below = np.cumsum(probabilities, axis=1)
    seen = np.flatnonzero(((below > VISIBLE) & (below - probabilities < 1 - VISIBLE)).any(0))
    first, last = int(seen[0]), int(seen[-1]) + 1
    group = max(1, -(-(last - first) // DRAWN))
    count = min(-(-(last - first) // group), probabilities.shape[1] // group)
    first = min(first, probabilities.shape[1] - count * group)
    chosen = slice(first, first + count * group)
    scale = 180 / np.pi if grid.unit == "rad" else 1.0
    centres = (grid.edges[:-1] + grid.width / 2)[chosen].reshape(-1, group).mean(1)
    densities = probabilities[:, chosen].reshape(len(probabilities), count, group).sum(2)
    return scale * centres, densities / (grid.width * group * scale)


def plot_contacts(comparison: "Comparison", axes: Sequence[Any] | None = None) -> list[Any]:
    """Draw how often Cα beads touch (8 Å), one map an ensemble."""
    drawn = list(new_axes(len(comparison.ensembles), size=(3.2, 3.4), sharey=True) if axes is None else axes)
    image: Any = None
    for axis, (name, ensemble) in zip(drawn, comparison.ensembles.items(), strict=False):
        contacts = ensemble.contacts
        if contacts is None:
            axis.set_visible(False)
            continue
        last = len(contacts) + 0.5
        image = axis.imshow(contacts, origin="lower", vmin=0, vmax=1, cmap="magma_r", extent=(0.5, last, 0.5, last))
        axis.set_title(shown_name(name))
        axis.set_xlabel("bead")
    drawn[0].set_ylabel("bead")
    drawn[0].figure.colorbar(image, ax=drawn, label="probability of a contact", shrink=0.8)
    return drawn


Plot = Callable[..., list[Any]]
