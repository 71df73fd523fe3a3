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
    numbering: Annotated[
        str | None,
        typer.Option(
            help="Numbers of residues in the network: multi-protein, torchmd-exp, or a table of residues and numbers "
            "(.json, .yaml)."
        ),
    ] = None,
    trained: Annotated[
        list[str] | None,
        typer.Option(help="Residue that the training data had, where the checkpoint cannot show it; may be repeated."),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of the model's data, in K.")] = 350.0,
    repulsion_cutoff: Annotated[
        float | None,
        typer.Option(help="Å at which the repulsion ends smoothly; without it, it has no end, and cells are refused."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn a published TorchMD-Net network of Cα beads into a model."""
    from ase_cg.beads.atoms import read_topology
    from ase_cg.files import refuse_existing
    from ase_cg.models.torchmdnet import import_torchmdnet

    refuse_existing(output, overwrite=overwrite)
    topologies = [read_topology(path, "calpha") for path in topology or []]
    model = import_torchmdnet(
        checkpoint,
        priors,
        topologies,
        numbering=numbering,
        trained=trained or (),
        temperature=temperature,
        repulsion_cutoff=repulsion_cutoff,
    )
    model.save(output, overwrite=overwrite)
    typer.echo(f"wrote {output}: beads {', '.join(model.vocabulary)}")
    left_out = model.card.provenance["beads_left_out"]
    if left_out:
        first = next(iter(left_out))
        typer.echo(f"left out: {', '.join(left_out)}; {first}, for instance: {left_out[first]}")
