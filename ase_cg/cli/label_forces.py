"""``ase-cg label-forces``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_cg.cli.options import Overwrite, Quiet


def label_forces_command(
    trajectories: Annotated[list[Path], typer.Argument(help="All-atom trajectories saved without forces.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HDF5 trajectory to write, with forces.")],
    topology: Annotated[Path, typer.Option("--topology", "-t", help="Structure file with the same atoms.")],
    system: Annotated[Path | None, typer.Option(help="Serialized OpenMM system (.xml).")] = None,
    force_field: Annotated[
        list[str] | None, typer.Option(help="OpenMM's force-field file, such as amber14/protein.ff14SB.xml.")
    ] = None,
    selection: Annotated[str, typer.Option(help="MDTraj selection of the atoms to write.")] = "all",
    platform: Annotated[str | None, typer.Option(help="OpenMM's platform: CPU, CUDA, …")] = None,
    length_unit: Annotated[str | None, typer.Option(help="Of positions without a unit: Å or nm.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate the forces of trajectories that were saved without, by OpenMM."""
    from ase_cg.data.label_forces import label_forces

    path = label_forces(
        trajectories,
        output,
        topology=topology,
        system=system,
        force_field=force_field or [],
        selection=selection,
        platform=platform,
        length_unit=length_unit,
        overwrite=overwrite,
        quiet=quiet,
    )
    typer.echo(f"wrote {path}; map it with `ase-cg map {path} --topology {path} …`")
