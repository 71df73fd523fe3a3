"""Run a model: replicas of one or several molecules, resumable."""

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from ase_cg.data.graph import n_pairs
from ase_cg.dynamics.batch import CheckpointClock
from ase_cg.dynamics.output import all_done, begin, conclude, forget_leftovers, look, make_longer
from ase_cg.dynamics.prepare import prepare
from ase_cg.dynamics.run import run
from ase_cg.dynamics.segments import SegmentStore
from ase_cg.dynamics.settings import SimulationSettings, content_hash
from ase_cg.dynamics.starts import Group, grouped, read_start, start_file
from ase_cg.errors import InputError
from ase_cg.files import existing_file, file_hash, locked
from ase_cg.models.io import find_model
from ase_cg.models.model import CGModel
from ase_cg.threads import threads_for
from ase_cg.units import whole_ratio

PathLike = str | os.PathLike[str]
TEMPERATURE_TOLERANCE = 1.0  # K
CHECKPOINTS, CHECKPOINT_SECONDS = 50, 60.0  # a killed run repeats at most a fiftieth of it, or a minute


def simulate(
    model: PathLike,
    output: PathLike,
    *,
    start: PathLike | Sequence[PathLike],
    replicas: int | None = None,
    temperature: float | Sequence[float] | None = None,
    integrator: str = "langevin",
    time_step: str = "2 fs",
    friction: str = "1 /ps",
    duration: str = "100 ps",
    report_interval: str = "0.2 ps",
    exchange_interval: str | None = None,
    checkpoint_interval: str | None = None,
    seed: int = 0,
    topology: PathLike | None = None,
    minimize: bool = False,
    prior_only: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    compile: bool = False,  # noqa: A002 - as in CGModel.compile
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Simulate a model; replicas of a molecule run as one batch (:class:`ReplicaSimulation`).

    A replica that explodes is stopped with a warning, and the others go on. SIGTERM and SIGINT (Ctrl-C) end the
    simulation with a checkpoint, from which ``resume=True`` goes on bit by bit.

    Parameters
    ----------
    model : path
        Model file, or the name of one that comes with ase-cg.
    output : path
        Folder for ``replica_000.h5`` … (MDTraj's HDF5) and ``simulation.json``.
    start : path, or sequence of paths
        A structure file, from which all replicas start; a dataset (``dataset.h5``, or ``dataset.h5:molecule`` where it
        holds several), or a trajectory, from whose frames each draws one. Several are of one molecule or of several.
    replicas : int, optional
        Of each start; by default one for each temperature.
    temperature : float or sequence of float, optional
        In K; by default the model's. Several are those of the replicas, again and again.
    integrator : {"langevin", "overdamped", "verlet"}
    time_step, friction, duration, report_interval : str
        With units, such as ``"2 fs"``, ``"1 /ps"``, ``"100 ps"``, ``"0.2 ps"``.
    exchange_interval : str, optional
        Parallel tempering: how often neighbouring temperatures try to exchange, such as ``"1 ps"``.
    checkpoint_interval : str, optional
        Simulated time between checkpoints; by default a fiftieth of the duration or a minute, whichever is shorter.
    seed : int
    topology : path, optional
        Structure file of a starting trajectory that does not name its atoms.
    minimize : bool
        Relax the starts with the model before.
    prior_only : bool
        Leave the network out.
    device, dtype : str
    compile : bool
        Compile the model for these molecules and replicas first.
    resume : bool
        Go on with what the folder holds of the same simulation, finished or not, to a duration that may be longer than
        it was; return at once if all is done.
    overwrite : bool
        Discard what the folder holds of another run.
    quiet : bool

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If something given is wrong, the folder is not empty, or the disk is full.
    SimulationError
        If all replicas exploded.
    Interrupted
        After SIGTERM or SIGINT; a KeyboardInterrupt.
    """
    if resume and overwrite:
        raise InputError("resume and overwrite contradict each other: go on with what is there, or discard it")
    loaded = CGModel.load(model)
    if prior_only:
        loaded = loaded.prior_only()
    starts = [os.fspath(one) for one in ([start] if isinstance(start, str | os.PathLike) else start)]
    structure = None if topology is None else existing_file(topology, "topology")
    kelvin = _temperature(loaded, temperature)
    hashes = [content_hash(*start_file(one)) for one in starts]
    if not hashes:
        raise InputError("a simulation needs a start")
    settings = SimulationSettings(
        model=file_hash(find_model(model)),
        start=hashes if len(hashes) > 1 else hashes[0],
        replicas=len(kelvin) if replicas is None and isinstance(kelvin, list) else 1 if replicas is None else replicas,
        temperature=kelvin,
        time_step=time_step,
        friction=friction,
        duration=duration,
        report_interval=report_interval,
        seed=seed,
        prior_only=prior_only,
        device=device,
        dtype=dtype,
        form="compiled" if compile else "eager",
        integrator=integrator,
        exchange_interval=exchange_interval,
        topology=None if structure is None else file_hash(structure),
        minimize=minimize,
    )
    clock = _clock(settings, checkpoint_interval)
    folder = Path(output)
    going_on = look(folder, settings, resume=resume, overwrite=overwrite)
    if going_on and all_done(folder, settings):
        forget_leftovers(folder)
        conclude(folder, again=True)
        return folder
    _warn_of_temperatures(settings, loaded.card.temperature)
    groups = grouped(
        [
            read_start(loaded, one, settings.replicas, seed=seed, number=number, topology=structure)
            for number, one in enumerate(starts)
        ]
    )
    _run_groups(loaded, groups, folder, settings, clock, going_on=going_on, quiet=quiet)
    conclude(folder)
    return folder


def _run_groups(
    model: CGModel,
    groups: list[Group],
    folder: Path,
    settings: SimulationSettings,
    clock: CheckpointClock,
    *,
    going_on: bool,
    quiet: bool,
) -> None:
    """Run the replicas of each molecule from their starts, or from where the folder has them."""
    stores = [SegmentStore(folder / "segments" / str(number)) for number in range(len(groups))]
    with threads_for(max(len(group.positions) * n_pairs(group.topology.n_beads) for group in groups)):
        made = [
            prepare(model, group, settings, store if going_on else None, quiet=quiet)
            for group, store in zip(groups, stores, strict=True)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "segments"):
            if going_on:
                if all_done(folder, settings):  # another process has ended it in the meantime
                    return
                make_longer(folder, settings, stores)
            else:
                begin(folder, settings, model.card.temperature, groups)
            run(folder, made, stores, settings, clock, quiet=quiet)


def _temperature(model: CGModel, given: float | Sequence[float] | None) -> float | list[float]:
    if given is None:
        return model.card.temperature
    if isinstance(given, int | float):
        return float(given)
    values = [float(one) for one in given]
    if not values:
        raise InputError("the list of temperatures is empty")
    return values if len(values) > 1 else values[0]


def _clock(settings: SimulationSettings, interval: str | None) -> CheckpointClock:
    if interval is None:
        return CheckpointClock(max(1, settings.n_frames // CHECKPOINTS), CHECKPOINT_SECONDS)
    steps = whole_ratio(interval, settings.time_step, ("checkpoint_interval", "time_step"))
    return CheckpointClock(max(1, -(-steps // settings.steps_per_frame)), math.inf)


def _warn_of_temperatures(settings: SimulationSettings, model: float) -> None:
    other = [kelvin for kelvin in settings.temperatures if abs(kelvin - model) > TEMPERATURE_TOLERANCE]
    if other:
        warnings.warn(
            f"simulating at {', '.join(f'{kelvin:g}' for kelvin in other)} K a model that is a free energy at "
            f"{model:g} K: its averages belong to that temperature only",
            UserWarning,
            stacklevel=3,
        )
