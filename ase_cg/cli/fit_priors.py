"""``ase-cg fit-priors``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_cg.cli.options import Overwrite
from ase_cg.errors import InputError


def fit_priors_command(
    dataset: Annotated[Path, typer.Argument(help="Dataset of beads (.h5).")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Parameters to read (.yaml), or a model of priors alone (.safetensors)."),
    ],
    priors: Annotated[
        str, typer.Option(help="Priors, divided by commas: bonds, angles, dihedrals, repulsion, …")
    ] = "bonds,angles",
    noise_std: Annotated[float, typer.Option(help="Standard deviation in Å of noise added to the frames.")] = 0.0,
    overwrite: Overwrite = False,
) -> None:
    """Fit priors to a dataset."""
    from ase_cg.beads.atoms import standard_vocabulary
    from ase_cg.data.dataset import Dataset
    from ase_cg.models.model import CGModel, ModelCard
    from ase_cg.models.priors.prior_set import PriorSet

    if output.suffix not in {".yaml", ".yml", ".safetensors"}:
        raise InputError(f"{output} must end in .yaml or .safetensors")
    names = [name.strip() for name in priors.split(",")]
    with Dataset.open(dataset) as data:
        molecules = list(data.molecules.values())
        vocabulary = standard_vocabulary([name for molecule in molecules for name in molecule.topology.names])
        fitted = PriorSet.fit(data, names, vocabulary=vocabulary, noise_std=noise_std)
        if output.suffix == ".safetensors":
            first = molecules[0]
            card = ModelCard(first.temperature, first.resolution, tuple(molecule.topology for molecule in molecules))
            CGModel(vocabulary, fitted, card).save(output, overwrite=overwrite)
        else:
            fitted.to_yaml(output, vocabulary, overwrite=overwrite)
    typer.echo(f"wrote {output}")
