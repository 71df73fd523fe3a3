"""``ase-cg map``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_cg.cli.options import Overwrite, Quiet, parse_resolution


def map_command(
    trajectories: Annotated[list[Path], typer.Argument(help="All-atom trajectories: anything MDTraj reads, or .npz.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The dataset to write (.h5).")],
    topology: Annotated[Path, typer.Option("--topology", "-t", help="Structure file with the same atoms.")],
    temperature: Annotated[float, typer.Option(help="Of the trajectories, in K.")],
    resolution: Annotated[
        str, typer.Option("--resolution", "-r", help="calpha, or atoms such as ACE:C,ALA:N,ALA:CA.")
    ] = "calpha",
    force_map: Annotated[str, typer.Option(help="How forces are mapped: slice.")] = "slice",
    name: Annotated[str, typer.Option(help="Of the molecule.")] = "molecule",
    length_unit: Annotated[str | None, typer.Option(help="Of .npz positions: Å or nm.")] = None,
    force_unit: Annotated[str | None, typer.Option(help="Of .npz forces, such as kcal/mol/Å.")] = None,
    trajectory_length: Annotated[
        int | None, typer.Option(help="A file is several trajectories of so many frames.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Map all-atom trajectories to a dataset of beads."""
    from ase_cg.data.map import map_trajectory

    path = map_trajectory(
        list(trajectories),
        output,
        topology=topology,
        resolution=parse_resolution(resolution),
        temperature=temperature,
        force_map=force_map,
        name=name,
        length_unit=length_unit,
        force_unit=force_unit,
        trajectory_length=trajectory_length,
        overwrite=overwrite,
        quiet=quiet,
    )
    typer.echo(f"wrote {path}")
