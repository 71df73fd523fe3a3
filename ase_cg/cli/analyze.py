"""``ase-cg analyze``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_cg.cli.options import Overwrite, Quiet


def analyze(
    simulation: Annotated[Path, typer.Argument(help="Folder of `ase-cg simulate`.")],
    reference: Annotated[Path, typer.Option("--reference", "-r", help="Dataset of the all-atom reference.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for figures, table and JSON.")],
    prior_simulation: Annotated[
        Path | None, typer.Option("--prior", help="Folder of `ase-cg simulate --prior-only`.")
    ] = None,
    bins: Annotated[int, typer.Option(help="Of each dihedral.")] = 30,
    discard: Annotated[float, typer.Option(help="Fraction dropped from each beginning.")] = 0.1,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Compare a simulation with its all-atom reference."""
    from ase_cg.analysis.compare import analyze as analyze_simulation
    from ase_cg.cli.show import show_comparison

    comparison = analyze_simulation(
        simulation,
        reference,
        output,
        prior_simulation=prior_simulation,
        bins=bins,
        discard=discard,
        overwrite=overwrite,
        quiet=quiet,
    )
    show_comparison(comparison, output)
