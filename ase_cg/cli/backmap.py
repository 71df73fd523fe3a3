"""``ase-cg backmap``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_cg.cli.options import Overwrite, Quiet


def backmap(
    source: Annotated[Path, typer.Argument(help="Folder of `ase-cg simulate`, or a dataset.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="all.pdb, or all.xtc (its first frame then also as all.pdb).")
    ],
    structure: Annotated[
        Path | None, typer.Option(help="All-atom structure of the molecule; without it Cα beads give the backbone.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="How many, evenly spaced; by default all.")] = None,
    minimize: Annotated[bool, typer.Option(help="Minimise around the beads in OpenMM.")] = True,
    side_chains: Annotated[
        bool, typer.Option("--side-chains", help="Complete a backbone with PDBFixer, where installed.")
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Rebuild the atoms of frames of beads."""
    from ase_cg.analysis.write_atoms import write_atoms

    energies = write_atoms(
        source,
        output,
        structure=structure,
        frames=frames,
        minimize=minimize,
        side_chains=side_chains,
        overwrite=overwrite,
        quiet=quiet,
    )
    if energies is not None:
        typer.echo(f"{len(energies)} frames, energies {energies.mean():.1f} ± {energies.std():.1f} kcal/mol")
    typer.echo(f"wrote {output}")
