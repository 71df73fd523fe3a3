"""``ase-cg weights``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ase_cg.cli.options import Overwrite, Quiet

if TYPE_CHECKING:
    from ase_cg.analysis.markov_weights import MarkovWeights


def weights_command(
    dataset: Annotated[Path, typer.Argument(help="Dataset of one molecule (.h5), whose trajectories are known.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A copy with weights (.h5); by default the dataset gets them.")
    ] = None,
    lag: Annotated[
        str, typer.Option(help="Frames, or a time such as '10 ns' where the dataset knows its frames'.")
    ] = "1",
    clusters: Annotated[int, typer.Option(help="States of the Markov model.")] = 60,
    macrostates: Annotated[int, typer.Option(help="Whose populations judge convergence.")] = 2,
    native: Annotated[
        Path | None, typer.Option(help="Native structure: the fraction of frames near it is shown as well.")
    ] = None,
    drop_disconnected: Annotated[
        bool, typer.Option("--drop-disconnected", help="Give frames of clusters that are not connected no weight.")
    ] = False,
    resamples: Annotated[int, typer.Option(help="Of the trajectories, for standard errors.")] = 50,
    seed: Annotated[int, typer.Option(help="Of clusters and resampling.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, as JSON.")] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Weigh frames of adaptive sampling by a Markov state model, so that they represent the equilibrium."""
    from ase_cg.analysis.markov_weights import weigh
    from ase_cg.files import json_text

    found = weigh(
        dataset,
        output,
        overwrite=overwrite,
        lag=lag,
        clusters=clusters,
        macrostates=macrostates,
        native=native,
        drop_disconnected=drop_disconnected,
        resamples=resamples,
        seed=seed,
        quiet=quiet or as_json,
    )
    if as_json:
        typer.echo(json_text(found.to_dict()))
        return
    _show(found)
    typer.echo(f"wrote {dataset if output is None else output}")


def _show(found: "MarkovWeights") -> None:
    """Print populations, their convergence, and what is in doubt."""
    typer.echo(
        f"lag {found.lag} frames, {found.clusters} clusters; the weights are worth {found.effective_frames:.0f} of "
        f"{sum(len(w) for w in found.weights)} frames; {found.crossings} crossings between macrostates"
    )
    rows = zip(found.names, found.raw, found.populations, found.errors, found.intervals, strict=True)
    for name, raw, p, error, ends in rows:
        typer.echo(
            f"{name}: {raw:.3f} of the frames, {p:.3f} ± {error:.3f} in equilibrium "
            f"(95 % interval {ends[0]:.3f} to {ends[1]:.3f})"
        )
    for what, table in (("lag (frames)", found.by_lag), ("clusters", found.by_clusters)):
        typer.echo(f"populations by {what} of {', '.join(found.names)}:")
        for key, value in table.items():
            shown = value if isinstance(value, str) else "  ".join(f"{p:.3f}" for p in value)
            typer.echo(f"  {key:>6}  {shown}")
    for note in found.notes:
        typer.echo(f"note: {note}")
