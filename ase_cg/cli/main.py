"""The program ``ase-cg``."""

import sys
import warnings
from typing import Annotated

import typer

from ase_cg.cli.analyze import analyze
from ase_cg.cli.backmap import backmap
from ase_cg.cli.cache import cache_command
from ase_cg.cli.fit_priors import fit_priors_command
from ase_cg.cli.import_torchmdnet import import_torchmdnet_command
from ase_cg.cli.info import info
from ase_cg.cli.label_forces import label_forces_command
from ase_cg.cli.map import map_command
from ase_cg.cli.options import ExplainedExit
from ase_cg.cli.run import run
from ase_cg.cli.simulate import simulate
from ase_cg.cli.train import train
from ase_cg.cli.weights import weights_command
from ase_cg.errors import InputError, SimulationError

app = typer.Typer(
    help="Machine-learned coarse-grained molecular dynamics in ASE: map, train, simulate, analyze.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("map")(map_command)
app.command("label-forces")(label_forces_command)
app.command("weights")(weights_command)
app.command("fit-priors")(fit_priors_command)
app.command()(train)
app.command()(simulate)
app.command()(analyze)
app.command()(backmap)
app.command()(run)
app.command()(info)
app.command("import-torchmdnet")(import_torchmdnet_command)
app.command("cache")(cache_command)


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"ase-cg {version('ase-cg')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Machine-learned coarse-grained molecular dynamics in ASE: map, train, simulate, analyze."""


STOPPED = 130  # the shell's exit status for a program ended by Ctrl-C


def main() -> None:
    """Run the program: 0 if all went well, 2 if something given is wrong, 1 if a simulation failed."""
    warnings.showwarning = _show_warning
    try:
        app()
    except InputError as error:
        _end(error, 2)
    except SimulationError as error:
        _end(error, 1)
    except OSError as error:  # no room, no permission, a file where a folder should be: the system's own words
        _end(f"{error.filename}: {error.strerror}" if error.filename else error, 2)
    except ExplainedExit:
        raise
    except SystemExit as ended:
        if ended.code == STOPPED:  # typer turns Ctrl-C into it without a word
            _end("stopped; the same command goes on where it can (train, run) or starts anew", STOPPED)
        raise


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"ase-cg: warning: {message}", err=True)


def _end(message: object, status: int) -> None:
    typer.echo(f"ase-cg: {message}", err=True)
    sys.exit(status)
