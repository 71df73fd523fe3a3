"""``ase-cg import-torchmdnet``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_cg.cli.options import Overwrite


def import_torchmdnet_command(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of a TorchMD-Net graph network (.ckpt).")],
    priors: Annotated[
        list[Path],
        typer.Option("--priors", help="TorchMD's prior force field (.yaml); more of them give what the first lacks."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model to write (.safetensors).")],
    topology: Annotated[
        list[Path] | None, typer.Option("--topology", "-t", help="PSF or PDB of a molecule the model is for.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of the model's data, in K.")] = 350.0,
    repulsion_cutoff: Annotated[
        float | None,
        typer.Option(help="In Å; the repulsion, which has none, ends there smoothly. Needed for periodic cells."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn a published TorchMD-Net network of Cα beads into a model."""
    from ase_cg.beads.atoms import read_topology
    from ase_cg.files import refuse_existing
    from ase_cg.models.torchmdnet import import_torchmdnet

    refuse_existing(output, overwrite=overwrite)
    topologies = [read_topology(path, "calpha") for path in topology or []]
    model = import_torchmdnet(checkpoint, priors, topologies, temperature=temperature)
    if repulsion_cutoff is not None:
        model = model.with_cutoff(repulsion_cutoff)
    model.save(output, overwrite=overwrite)
    typer.echo(f"wrote {output}: beads {', '.join(model.vocabulary)}")
