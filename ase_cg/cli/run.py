"""``ase-cg run``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_cg.cli.options import EXPLODED, ExplainedExit, Overwrite, Quiet


def run(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML).")],
    folder: Annotated[
        Path | None, typer.Option("--folder", "-f", help="For everything; by default runs/<name>.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Map, train, simulate and analyze; the same command again resumes where it was stopped."""
    from ase_cg.training.recipe import Recipe

    # Before the heavy imports: a mistake in the recipe is said at once.
    read = Recipe.read(recipe)
    from ase_cg.cli.show import show_comparison
    from ase_cg.dynamics.output import stopped_replicas
    from ase_cg.pipeline import run as run_recipe

    place = folder or Path("runs") / read.name
    show_comparison(run_recipe(read, place, overwrite=overwrite, quiet=quiet), place / "analysis")
    if stopped_replicas(place / "simulation"):
        raise ExplainedExit(EXPLODED)  # warnings have said which
