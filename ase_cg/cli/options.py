"""Options that several commands share."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ase_cg.errors import InputError

EXPLODED = 1  # exit status where replicas exploded; the others' trajectories are whole

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Discard what the output holds already.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]


class ExplainedExit(SystemExit):
    """The end of a command that has said itself why it ends."""


def parse_resolution(text: str, *, termini: bool = False, residues: Sequence[str] = ()) -> Any:
    """Read a resolution: a name, a YAML file, ``graph:20``, or atoms divided by commas (``ACE:C,ALA:N,ALA:CA``)."""
    from ase_cg.beads.resolution import Resolution

    is_list = "," in text or (":" in text and not text.startswith("graph:"))
    resolution = Resolution.of([part.strip() for part in text.split(",")] if is_list else text)
    declared = dict(_declared(item) for item in residues)
    if not termini and not declared:
        return resolution
    data = resolution.model_dump(exclude_defaults=True)
    return data | ({"termini": True} if termini else {}) | {"residues": resolution.residues | declared}


def _declared(text: str) -> tuple[str, str]:
    residue, equals, counts_as = text.partition("=")
    if not residue or not equals:
        raise InputError(
            f"--residue {text} does not say what the residue counts as; write SEP=SER, or LIG= to leave it out"
        )
    return residue.strip(), counts_as.strip()
