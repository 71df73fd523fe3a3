"""The tables of a comparison, for people."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_cg.analysis.intervals import in_blocks_of_time, n_blocks
from ase_cg.analysis.record import averages, gyration_relaxation
from ase_cg.units import KCAL_PER_MOL, thermal_energy

if TYPE_CHECKING:
    from ase_cg.analysis.compare import Comparison
    from ase_cg.analysis.ensembles import Ensemble

Table = tuple[list[str], list[list[str]]]

NAMES = {"model": "trained model", "prior": "prior only", "floor": "floor: halves of the reference"}
COLUMNS = {
    "pmf_error_kT": ("PMF error / kT", "{:.2f}"),
    "jensen_shannon_nats": ("Jensen–Shannon / nats", "{:.4f}"),
    "bond_wasserstein_A": ("bond Wasserstein / Å", "{:.5f}"),
}
NOTHING: Mapping[str, Any] = {"value": None, "interval": None, "plug_in": None, "plug_in_at_floor": None, "doubt": None}
MORE_COLUMNS = {
    "pmf_error_common_kT": ("PMF error of common bins / kT", "{:.2f}"),
    "angle_wasserstein_rad": ("angles / rad", "{:.4f}"),
    "dihedral_wasserstein_rad": ("dihedrals / rad", "{:.4f}"),
    "radius_of_gyration_wasserstein_A": ("radius of gyration / Å", "{:.3f}"),
    "end_to_end_wasserstein_A": ("end-to-end distance / Å", "{:.3f}"),
    "rmsd_wasserstein_A": ("RMSD / Å", "{:.3f}"),
    "gdt_ts_wasserstein": ("GDT-TS", "{:.3f}"),
    "native_contacts_wasserstein": ("native contacts", "{:.3f}"),
    "ramachandran_jensen_shannon_nats": ("(φ, ψ) Jensen–Shannon / nats", "{:.4f}"),
    "tica_jensen_shannon_nats": ("TICA Jensen–Shannon / nats", "{:.4f}"),
    "rmsd_radius_of_gyration_jensen_shannon_nats": ("RMSD and radius of gyration Jensen–Shannon / nats", "{:.4f}"),
    "pca_jensen_shannon_nats": ("PCA Jensen–Shannon / nats", "{:.4f}"),
    "radius_of_gyration_jensen_shannon_nats": ("radius of gyration, Jensen–Shannon / nats", "{:.4f}"),
    "rmsd_jensen_shannon_nats": ("RMSD, Jensen–Shannon / nats", "{:.4f}"),
}
SAMPLED = COLUMNS | {
    key: column for key, column in MORE_COLUMNS.items() if key.startswith(("rmsd_j", "radius_of_gyration_j"))
}
AVERAGES = {
    "radius_of_gyration": ("radius of gyration / Å", "{:.3f}"),
    "end_to_end": ("end-to-end distance / Å", "{:.3f}"),
    "rmsd": ("RMSD / Å", "{:.3f}"),
    "gdt_ts": ("GDT-TS", "{:.3f}"),
    "native_contacts": ("native contacts", "{:.3f}"),
    "fraction_within_2.5_A": ("within 2.5 Å of native", "{:.3f}"),
}


def shown_name(name: str) -> str:
    """Return what a row is called for people."""
    return NAMES.get(name, name)


def table_cells(comparison: "Comparison", columns: Mapping[str, tuple[str, str]] = COLUMNS) -> Table:
    """Return the heading and the rows of the table of figures, as text."""
    present = {key: column for key, column in columns.items() if columns is COLUMNS or key in comparison.rows["floor"]}
    heading = ["", *[title for title, _ in present.values()]]
    rows = [
        [
            floor_name(comparison.reference) if name == "floor" else shown_name(name),
            *[_cell(row.get(column, NOTHING), style) for column, (_, style) in present.items()],
        ]
        for name, row in comparison.rows.items()
    ]
    return heading, rows


def floor_name(reference: "Ensemble") -> str:
    """Return what the row of the floor is called: it says which halves."""
    count = n_blocks(reference)
    kind = "blocks of time" if in_blocks_of_time(reference) else "trajectories"
    return f"{NAMES['floor']} ({count} {kind}), as sampled"


def _cell(figure: dict[str, Any], style: str) -> str:
    if figure["value"] is None:
        return "—"
    text = style.format(figure["value"])
    if figure["interval"] is not None:
        return text + " ({}–{})".format(*[style.format(end) for end in figure["interval"]])
    return text + (" (no interval)" if figure["doubt"] else "")


def sampled_cells(comparison: "Comparison") -> Table:
    """Return the table of figures that are not corrected, and the floor's at as many independent frames."""
    floor = comparison.rows["floor"]
    present = {key: column for key, column in SAMPLED.items() if floor.get(key, NOTHING)["value"] is not None}
    heading = [""]
    for title, _ in present.values():
        heading += [title, f"{title.partition(' /')[0]} at the floor's size", "floor"]
    rows = []
    for name, row in comparison.rows.items():
        if name != "floor":
            cells = [
                _plain(x, style)
                for key, (_, style) in present.items()
                for x in (row[key]["plug_in"], row[key]["plug_in_at_floor"], floor[key]["value"])
            ]
            rows.append([shown_name(name), *cells])
    return heading, rows


def _plain(value: float | None, style: str) -> str:
    return "—" if value is None else style.format(value)


def averages_cells(comparison: "Comparison") -> Table:
    """Return the table of means over frames."""
    found = {name: averages(ensemble) for name, ensemble in comparison.ensembles.items()}
    present = {key: column for key, column in AVERAGES.items() if key in found["reference"]}
    rows = [
        [shown_name(name), *[style.format(values[key]) for key, (_, style) in present.items()]]
        for name, values in found.items()
    ]
    return ["", *[title for title, _ in present.values()]], rows


def sampling_cells(comparison: "Comparison") -> Table:
    """Return the table of trajectories, frames and independent frames."""
    heading = [
        "",
        "trajectories",
        "frames",
        "independent frames",
        "split R̂",
        "converged",
        "relaxation of Rg",
        "D residues",
    ]
    rows = []
    for name, ensemble in comparison.ensembles.items():
        judged, relaxed = ensemble.convergence, gyration_relaxation(ensemble)
        rows.append(
            [
                shown_name(name),
                str(len(ensemble.source.pieces)),
                str(ensemble.frames),
                "—" if judged is None else f"{judged.effective_samples:.0f}",
                "—" if judged is None or judged.r_hat is None else f"{judged.r_hat:.2f}",
                "—" if judged is None else ("yes" if judged.converged else "no"),
                f"{relaxed['frames']:.3g} frames" if relaxed["ps"] is None else f"{relaxed['ps']:.3g} ps",
                "—" if ensemble.inverted is None else f"{100 * ensemble.inverted:.2g} %",
            ]
        )
    return heading, rows


def kinetics_cells(comparison: "Comparison") -> Table:
    """Return the table of what the Markov models say."""
    if not comparison.kinetics or comparison.space is None:
        return [], []
    n, native = comparison.space.n_macrostates, comparison.space.native
    states = [f"macrostate {i + 1}" + (" (native)" if i == native else "") for i in range(n)]
    heading = ["", "slowest timescale", *states, "Chapman–Kolmogorov deviation"]
    heading += [] if native is None else ["folding free energy / kT", "folding free energy / (kcal/mol)"]
    rows = []
    for name, found in comparison.kinetics.items():
        interval = found.frame_interval
        unit, scale = ("frames", 1.0) if interval is None else ("ps", interval)
        cells = [f"{_with_error(found.timescales[0] * scale, found.timescale_errors[0] * scale, '{:.3g}')} {unit}"]
        cells += [_with_error(p, e, "{:.3f}") for p, e in zip(found.populations, found.population_errors, strict=True)]
        cells.append(f"{found.implied.largest_deviation:.3f}")
        if native is not None:
            value, error = (np.nan if x is None else x for x in (found.free_energy, found.free_energy_error))
            kcal = None if found.temperature is None else thermal_energy(found.temperature) / KCAL_PER_MOL
            cells.append(_with_error(value, error, "{:.2f}"))
            cells.append("—" if kcal is None else _with_error(value * kcal, error * kcal, "{:.2f}"))
        rows.append([shown_name(name), *cells])
    return heading, rows


def backmapping_cells(comparison: "Comparison") -> Table:
    """Return the table of energies of rebuilt atoms."""
    if comparison.backmapping is None:
        return [], []
    heading = ["", "frames", "energy / (kcal/mol)", "median", "above the reference", "Wasserstein"]
    rows = [
        [
            shown_name(name),
            str(found["frames"]),
            f"{found['mean']:.1f} ± {found['mean_error']:.1f}",
            f"{found['median']:.1f}",
            "—" if name == "reference" else f"{found['above_reference']:.1f} ± {found['above_reference_error']:.1f}",
            "—" if name == "reference" else f"{found['wasserstein']:.1f}",
        ]
        for name, found in comparison.backmapping.summary().items()
    ]
    return heading, rows


def _with_error(value: float, error: float, style: str) -> str:
    if not np.isfinite(value):
        return "—"
    return f"{style.format(value)} ± {style.format(error) if np.isfinite(error) else 'unknown'}"


TABLES: Mapping[str, Callable[["Comparison"], Table]] = {
    "": table_cells,
    "As sampled, not corrected": sampled_cells,
    "More distances": lambda comparison: table_cells(comparison, MORE_COLUMNS),
    "Averages": averages_cells,
    "Kinetics": kinetics_cells,
    "Backmapping": backmapping_cells,
    "Sampling": sampling_cells,
}
"""All tables, by their headings."""


def markdown_table(comparison: "Comparison") -> str:
    """Return the table of figures in Markdown."""
    heading, rows = table_cells(comparison)
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
