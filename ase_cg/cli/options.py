"""Options that several commands share."""

from typing import Annotated

import typer

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Discard what the output holds already.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]


def parse_resolution(text: str) -> str | list[str]:
    """Read a resolution: a name, or atoms divided by commas (``ACE:C,ALA:N,ALA:CA``)."""
    return [part.strip() for part in text.split(",")] if "," in text or ":" in text else text
