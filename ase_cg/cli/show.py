"""How results appear in the terminal."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from ase_cg.analysis.compare import Comparison


LOG_WIDTH = 130  # columns; a log file has no width of its own, and numbers must not be cut


def console() -> "Console":
    """Return the terminal, or what is printed to instead, which has a width of its own."""
    from rich.console import Console

    made = Console()
    return made if made.is_terminal else Console(width=LOG_WIDTH)


def show_comparison(comparison: "Comparison", folder: Path) -> None:
    """Print the table of a comparison, and where its files are."""
    from rich.table import Table

    from ase_cg.analysis.table import table_cells

    heading, rows = table_cells(comparison)
    table = Table(*heading, title=f"surface: {comparison.main or 'none'}")
    for row in rows:
        table.add_row(*row)
    out = console()
    out.print(table)
    for note in comparison.notes:
        out.print(f"note: {note}", soft_wrap=True, highlight=False, markup=False)
    out.print(f"report.html, figures, table and JSON are in {folder}", soft_wrap=True, highlight=False, markup=False)
