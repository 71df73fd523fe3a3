"""``ase-cg simulate``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_cg.cli.options import Device, Overwrite, Quiet


def simulate(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors), or the name of a shipped one.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the trajectories.")],
    start: Annotated[
        Path, typer.Option("--start", "-s", help="Structure file, or dataset from whose frames replicas start.")
    ],
    replicas: Annotated[int, typer.Option("--replicas", "-n", help="1 runs through ASE, more as one batch.")] = 1,
    temperature: Annotated[float | None, typer.Option(help="In K; by default the model's.")] = None,
    time_step: Annotated[str, typer.Option(help="With its unit.")] = "2 fs",
    friction: Annotated[str, typer.Option(help="With its unit.")] = "1 /ps",
    duration: Annotated[str, typer.Option(help="Of each replica, with its unit.")] = "100 ps",
    report_interval: Annotated[str, typer.Option(help="Between frames, with its unit.")] = "0.2 ps",
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    prior_only: Annotated[bool, typer.Option("--prior-only", help="Leave the network out.")] = False,
    device: Device = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Simulate a model; the same command again continues a run that was stopped."""
    from ase_cg.dynamics.simulate import simulate as simulate_model

    path = simulate_model(
        model,
        output,
        start=start,
        replicas=replicas,
        temperature=temperature,
        time_step=time_step,
        friction=friction,
        duration=duration,
        report_interval=report_interval,
        seed=seed,
        prior_only=prior_only,
        device=device,
        dtype=dtype,
        overwrite=overwrite,
        quiet=quiet,
    )
    typer.echo(f"wrote {path}")
