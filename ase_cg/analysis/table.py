"""The table of a comparison, for people."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_cg.analysis.compare import Comparison

NAMES = {"model": "trained model", "prior": "prior only", "floor": "floor: halves of the reference"}
COLUMNS = {
    "pmf_error_kT": ("PMF error / kT", "{:.2f}"),
    "jensen_shannon_nats": ("Jensen–Shannon / nats", "{:.4f}"),
    "bond_wasserstein_A": ("bond Wasserstein / Å", "{:.5f}"),
}


def table_cells(comparison: "Comparison") -> tuple[list[str], list[list[str]]]:
    """Return the heading and the rows of the table, as text."""
    heading = ["", *[title for title, _ in COLUMNS.values()]]
    rows = [
        [NAMES[name], *[_cell(row[column], style) for column, (_, style) in COLUMNS.items()]]
        for name, row in comparison.rows.items()
    ]
    return heading, rows


def _cell(figure: dict[str, Any], style: str) -> str:
    if figure["value"] is None:
        return "—"
    text = style.format(figure["value"])
    if figure["interval"] is not None:
        text += " ({}–{})".format(*[style.format(end) for end in figure["interval"]])
    return text


def markdown_table(comparison: "Comparison") -> str:
    """Return the table in Markdown."""
    heading, rows = table_cells(comparison)
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
