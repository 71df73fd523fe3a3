"""``ase-cg simulate``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_cg.cli.options import EXPLODED, Device, ExplainedExit, Overwrite, Quiet
from ase_cg.errors import InputError


def simulate(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors), or the name of a shipped one.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the trajectories.")],
    start: Annotated[
        list[str],
        typer.Option(
            "--start",
            "-s",
            help="Structure file; or dataset (dataset.h5 or dataset.h5:molecule) or trajectory from whose frames "
            "replicas start. Repeat it for several molecules or conformations.",
        ),
    ],
    replicas: Annotated[
        int | None, typer.Option("--replicas", "-n", help="Of each start; by default 1, or one a temperature.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="In K; by default the model's.")] = None,
    temperatures: Annotated[
        str | None, typer.Option(help="Of the replicas, in K, divided by commas: 300,320,345.")
    ] = None,
    temperature_range: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Lowest and highest, in K: the replicas' temperatures lie between at equal ratios."),
    ] = None,
    exchange_interval: Annotated[
        str | None, typer.Option(help="Parallel tempering: time between exchanges, with its unit.")
    ] = None,
    integrator: Annotated[str, typer.Option(help="langevin, overdamped or verlet.")] = "langevin",
    time_step: Annotated[str, typer.Option(help="With its unit.")] = "2 fs",
    friction: Annotated[str, typer.Option(help="With its unit.")] = "1 /ps",
    duration: Annotated[str, typer.Option(help="Of each replica, with its unit.")] = "100 ps",
    report_interval: Annotated[str, typer.Option(help="Between frames, with its unit.")] = "0.2 ps",
    checkpoint_interval: Annotated[
        str | None, typer.Option(help="Simulated time, with its unit; by default a minute, or a 50th of the duration.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    topology: Annotated[
        Path | None, typer.Option(help="Structure file of a starting trajectory that names no atoms.")
    ] = None,
    minimize: Annotated[bool, typer.Option("--minimize", help="Relax the starts with the model before.")] = False,
    prior_only: Annotated[bool, typer.Option("--prior-only", help="Leave the network out.")] = False,
    device: Device = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    compile: Annotated[bool, typer.Option("--compile", help="Compile the model first.")] = False,  # noqa: A002
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what is there, perhaps to a longer duration.")
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Simulate replicas of one or several molecules; --resume goes on with a run, or makes it longer."""
    chosen = _temperatures(temperature, temperatures, temperature_range, replicas)
    from ase_cg.dynamics.interruption import Interrupted
    from ase_cg.dynamics.output import stopped_replicas
    from ase_cg.dynamics.simulate import simulate as simulate_model

    try:
        path = simulate_model(
            model,
            output,
            start=start,
            replicas=replicas,
            temperature=chosen,
            exchange_interval=exchange_interval,
            integrator=integrator,
            time_step=time_step,
            friction=friction,
            duration=duration,
            report_interval=report_interval,
            checkpoint_interval=checkpoint_interval,
            seed=seed,
            topology=topology,
            minimize=minimize,
            prior_only=prior_only,
            device=device,
            dtype=dtype,
            compile=compile,
            resume=resume,
            overwrite=overwrite,
            quiet=quiet,
        )
    except Interrupted as stop:
        typer.echo(f"ase-cg: {stop}", err=True)
        raise ExplainedExit(128 + stop.signal_number) from None
    typer.echo(f"wrote {path}")
    if stopped := stopped_replicas(path):
        numbers = ", ".join(str(entry["replica"]) for entry in stopped)
        typer.echo(f"ase-cg: {len(stopped)} replicas exploded and were stopped: {numbers}", err=True)
        raise ExplainedExit(EXPLODED)


def _temperatures(
    one: float | None, several: str | None, ends: tuple[float, float] | None, replicas: int | None
) -> float | list[float] | None:
    if sum(given is not None for given in (one, several, ends)) > 1:
        raise InputError("give one of --temperature, --temperatures and --temperature-range")
    if ends is not None:
        if replicas is None:
            raise InputError("--temperature-range needs --replicas, the number of temperatures")
        from ase_cg.dynamics.tempering import temperature_ladder

        return temperature_ladder(*ends, replicas)
    if several is None:
        return one
    try:
        return [float(kelvin) for kelvin in several.split(",")]
    except ValueError as error:
        raise InputError(f"--temperatures are numbers divided by commas, not {several!r}") from error
