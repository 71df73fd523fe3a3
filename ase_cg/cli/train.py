"""``ase-cg train``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_cg.cli.options import Overwrite, Quiet


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model, checkpoints and logs.")],
    dataset: Annotated[
        Path | None, typer.Option("--dataset", "-d", help="Dataset of beads; by default the recipe's.")
    ] = None,
    allow_inconsistent_forces: Annotated[
        bool,
        typer.Option("--allow-inconsistent-forces", help="Train on forces that do not belong to their positions."),
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train a model; the same command again continues a training that was stopped."""
    from ase_cg.training.recipe import Recipe

    # Before the heavy import: a mistake in the recipe is said at once.
    read = Recipe.read(recipe)
    from ase_cg.training.distributed import find_launch
    from ase_cg.training.trainer import train as train_recipe

    path = train_recipe(
        read,
        output,
        dataset=dataset,
        allow_inconsistent_forces=allow_inconsistent_forces,
        overwrite=overwrite,
        quiet=quiet,
    )
    launch = find_launch()
    if launch is None or launch.environment.global_rank() == 0:
        typer.echo(f"wrote {path}")
