"""What an analysis leaves on disk: report, figures, table and numbers."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ase_cg.analysis import figures, time_figures
from ase_cg.analysis.figure_data import figure_data
from ase_cg.analysis.figures import Plot
from ase_cg.analysis.report import html_report, light_picture
from ase_cg.analysis.table import markdown_table
from ase_cg.files import write_record, written_whole

if TYPE_CHECKING:
    from ase_cg.analysis.compare import Comparison


def figures_of(comparison: "Comparison") -> Mapping[str, Plot]:
    """Return the figures that a comparison has, by the name of their files; each takes the comparison."""
    found: dict[str, Plot] = {}
    for name in sorted(comparison.planes, key=lambda name: name != comparison.main):
        found[name] = partial(figures.plot_surfaces, plane=name)
    for kind in ("bonds", "angles", "dihedrals"):
        if kind in comparison.grids:
            found[kind] = partial(figures.plot_distributions, kind=kind)
    found["order_parameters"] = figures.plot_order_parameters
    if comparison.kinetics:
        found["timescales"] = time_figures.plot_timescales
        found["chapman_kolmogorov"] = time_figures.plot_chapman_kolmogorov
    for name in ("rmsd", "radius_of_gyration"):
        if name in comparison.reference.series:
            found[f"{name}_over_time"] = partial(time_figures.plot_series, name=name)
            break
    if comparison.reference.contacts is not None and len(comparison.reference.contacts) > MIN_CONTACT_MAP:
        found["contacts"] = figures.plot_contacts
    if comparison.pareto:
        found["pareto"] = time_figures.plot_pareto
    return found


MIN_CONTACT_MAP = 6  # beads; in smaller molecules every bead touches every other


def write_analysis(comparison: "Comparison", folder: Path) -> None:
    """Write ``report.html``, each figure as PNG and SVG, ``figures.json``, ``table.md``, and last ``metrics.json``."""
    drawn = {}
    for name, plot in figures_of(comparison).items():
        axes = plot(comparison)
        figures.saved(axes, folder / f"{name}.png")
        axes[0].figure.set_layout_engine("none")  # it is laid out now, and need not be a second time
        figures.saved(axes, folder / f"{name}.svg")
        drawn[name] = light_picture(folder / f"{name}.png")
    with written_whole(folder / "figures.json", overwrite=True) as path:
        path.write_text(json.dumps(figure_data(comparison), ensure_ascii=False, allow_nan=False), encoding="utf-8")
    with written_whole(folder / "table.md", overwrite=True) as path:
        path.write_text(markdown_table(comparison) + "\n", encoding="utf-8")
    with written_whole(folder / "report.html", overwrite=True) as path:
        path.write_text(html_report(comparison, drawn), encoding="utf-8")
    write_record(folder / "metrics.json", comparison.to_dict())
