"""``ase-cg analyze``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_cg.cli.options import Overwrite, Quiet
from ase_cg.errors import InputError


def analyze(
    simulations: Annotated[
        list[str],
        typer.Argument(
            metavar="SIMULATION...",
            help="Folders of `ase-cg simulate`, or datasets; NAME=FOLDER says what the table calls it.",
        ),
    ],
    reference: Annotated[Path, typer.Option("--reference", "-r", help="Dataset of the all-atom reference.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for report, figures, table and JSON.")],
    prior_simulation: Annotated[
        Path | None, typer.Option("--prior", help="Folder of `ase-cg simulate --prior-only`.")
    ] = None,
    native: Annotated[
        Path | None, typer.Option(help="Native structure (PDB, …): RMSD, native contacts, folding free energy.")
    ] = None,
    bins: Annotated[int, typer.Option(help="Of each coordinate of a surface.")] = 80,
    discard: Annotated[float, typer.Option(help="Fraction dropped from each simulated beginning.")] = 0.1,
    lag: Annotated[int, typer.Option(help="Of TICA and Markov model, in frames; 0 if frames are no time series.")] = 10,
    model_lag: Annotated[int | None, typer.Option(help="The same in frames of the simulations.")] = None,
    clusters: Annotated[int, typer.Option(help="Of the Markov models.")] = 100,
    macrostates: Annotated[int, typer.Option(help="Of the Markov models.")] = 2,
    backmap: Annotated[int, typer.Option(help="Frames of each whose atoms are rebuilt and energies compared.")] = 0,
    structure: Annotated[
        Path | None, typer.Option(help="All-atom structure for --backmap, which beads other than Cα need.")
    ] = None,
    reweight: Annotated[
        str, typer.Option(help="Whose frames its Markov model weights: none, reference or all.")
    ] = "none",
    surface: Annotated[
        str | None,
        typer.Option(help="Of the table: tica, pca, ramachandran or, with --native, rmsd_radius_of_gyration."),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Compare simulations with their all-atom reference."""
    from ase_cg.analysis.compare import analyze as analyze_simulation
    from ase_cg.cli.show import show_comparison

    comparison = analyze_simulation(
        _named(simulations),
        reference,
        output,
        prior_simulation=prior_simulation,
        native=native,
        bins=bins,
        discard=discard,
        lag=lag,
        model_lag=model_lag,
        clusters=clusters,
        macrostates=macrostates,
        backmap=backmap,
        structure=structure,
        reweight=reweight,
        surface=surface,
        overwrite=overwrite,
        quiet=quiet,
    )
    show_comparison(comparison, output)


def _named(given: list[str]) -> list[Path] | dict[str, Path]:
    """Return simulations by name where names were given, for all or none; a path with ``=`` that exists is a path."""
    pairs = [("", text, Path(text)) if Path(text).exists() else _divided(text) for text in given]
    if not any(name for name, _, _ in pairs):
        return [path for _, _, path in pairs]
    nameless = next((text for name, text, _ in pairs if not name), None)
    if nameless is not None:
        raise InputError(f"{nameless} has no name, but others have; write NAME={nameless}")
    names = [name for name, _, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two simulations are called {twice!r}; give each a name of its own")
    return {name: path for name, _, path in pairs}


def _divided(text: str) -> tuple[str, str, Path]:
    name, equals, path = text.partition("=")
    return (name, text, Path(path)) if equals else ("", text, Path(text))
