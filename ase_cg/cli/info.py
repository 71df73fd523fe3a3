"""``ase-cg info``."""

from pathlib import Path
from typing import Annotated

import typer


def info(
    path: Annotated[
        Path,
        typer.Argument(
            help="A dataset (.h5), a model (.safetensors or the name of a shipped one), or the folder of a training, a "
            "simulation or a run."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, as JSON.")] = False,
) -> None:
    """Show what a dataset, a model or a run holds, and what is suspicious about it."""
    from ase_cg.analysis.describe import describe
    from ase_cg.cli.show_info import show_info
    from ase_cg.files import json_text

    described = describe(path)
    if as_json:
        typer.echo(json_text(described))
    else:
        show_info(described)
