"""Run batches of replicas to their end, writing as they go."""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from ase_cg.dynamics.batch import Batch, CheckpointClock
from ase_cg.dynamics.finish import check_frames, summary, write_results
from ase_cg.dynamics.heating import HeatingWatch
from ase_cg.dynamics.interruption import Interrupted, StopRequest, stop_requests
from ase_cg.dynamics.replicas import ReplicaSimulation
from ase_cg.dynamics.segments import SegmentStore
from ase_cg.dynamics.settings import SimulationSettings
from ase_cg.dynamics.starts import Group
from ase_cg.dynamics.tempering import ParallelTempering
from ase_cg.dynamics.trajectory import read_simulation_record
from ase_cg.dynamics.writer import BackgroundWriter
from ase_cg.errors import InputError
from ase_cg.files import write_record
from ase_cg.progress import Progress
from ase_cg.units import FEMTOSECOND, quantity

NS_PER_DAY = 86_400 / (1e6 * FEMTOSECOND)  # of ASE time units a second


def run(
    folder: Path,
    made: Sequence[tuple[Group, ReplicaSimulation]],
    stores: Sequence[SegmentStore],
    settings: SimulationSettings,
    clock: CheckpointClock,
    *,
    quiet: bool,
) -> None:
    """Run all groups to their end, from where the stores left off, and write the results.

    Raises
    ------
    InputError
        If the disk is full.
    Interrupted
        After SIGTERM or SIGINT.
    """
    batches = []
    for number, ((group, simulation), store) in enumerate(zip(made, stores, strict=True)):
        tempering = None
        if settings.exchange_interval is not None:
            ladders = simulation.n_replicas // len(settings.temperatures)
            tempering = ParallelTempering(simulation, ladders=ladders, seed=settings.seed, number=number)
        if store.start() is None:
            store.write_start(group.positions)
        batches.append(Batch(group, simulation, tempering, settings, store))
    record = read_simulation_record(folder)
    before, alone = record.get("frames_before", 0), len(batches) == 1
    for batch in batches:
        check_frames(folder, batch, record["trajectories"], before=before, alone=alone)
    try:
        speed = _advance(batches, settings, clock, quiet=quiet)
        for batch in batches:
            write_results(folder, batch, record["trajectories"], before=before, alone=alone)
        write_record(folder / "simulation.json", record | {"summary": summary(batches, record["trajectories"], speed)})
        # Only now: every trajectory was read again, and has its name.
        for store in stores:
            store.forget_segments()
    except OSError as error:
        kept = min(batch.reports_kept for batch in batches)
        raise InputError(
            f"{error.filename or folder} could not be written ({error.strerror or error}); all {kept} frames reported "
            "until the last checkpoint are kept: make room, and go on with --resume (resume=True)"
        ) from error


def _advance(
    batches: list[Batch], settings: SimulationSettings, clock: CheckpointClock, *, quiet: bool
) -> dict[str, float]:
    """Go on to the end, and return the speed."""
    constant = settings.integrator == "verlet" or not quantity(settings.friction, "rate")
    watches = [HeatingWatch(batch.simulation, constant_energy=constant) for batch in batches]
    for watch, batch in zip(watches, batches, strict=True):
        if not batch.simulation.steps_done:
            _warn(watch.first_look())
    meter = _Meter(batches, settings)
    with (
        BackgroundWriter() as writer,
        stop_requests() as request,
        Progress(_title(batches, settings), settings.n_frames * len(batches), quiet=quiet) as progress,
    ):
        progress.skip(sum(batch.reports_done for batch in batches))
        while not all(batch.done for batch in batches):
            for batch, watch in zip(batches, watches, strict=True):
                if batch.done:
                    continue
                if not batch.advance(request):
                    _end_early(batches, writer, request, settings)
                _warn(watch.look())
                progress.advance(note=meter.note())
            if clock.due(batches):
                for batch in batches:
                    batch.checkpoint(writer)
        for batch in batches:
            batch.checkpoint(writer)
        writer.wait()
    return meter.speed()


def _end_early(
    batches: Sequence[Batch], writer: BackgroundWriter, request: StopRequest, settings: SimulationSettings
) -> None:
    for batch in batches:
        batch.checkpoint(writer)
    writer.wait()
    done = min(batch.reports_done for batch in batches)
    raise Interrupted(
        f"stopped after {done} of {settings.n_frames} frames, all of which are kept; the same command with --resume "
        "(resume=True) goes on",
        request.signal_number or 0,
    )


def _warn(message: str | None) -> None:
    if message is not None:
        warnings.warn(message, UserWarning, stacklevel=5)


def _title(batches: Sequence[Batch], settings: SimulationSettings) -> str:
    count = sum(batch.simulation.n_replicas for batch in batches)
    molecules = "" if len(batches) == 1 else f" of {len(batches)} molecules"
    prior = " of the prior" if settings.prior_only else ""
    return f"Simulating {count} replica{'s' if count > 1 else ''}{molecules}{prior}"


class _Meter:
    """Speed and temperature, for the progress line."""

    INTERVAL = 0.5  # s

    def __init__(self, batches: Sequence[Batch], settings: SimulationSettings) -> None:
        self._batches = batches
        self._time_step = quantity(settings.time_step, "time")
        self._before = [batch.simulation.steps_done for batch in batches]
        self._started = time.perf_counter()
        self._last = 0.0
        self._note = ""

    def speed(self) -> dict[str, float]:
        """Return steps a second, and simulated ns a day of all replicas together."""
        seconds = max(time.perf_counter() - self._started, 1e-9)
        steps = [b.simulation.steps_done - before for b, before in zip(self._batches, self._before, strict=True)]
        moved = sum(n * b.simulation.n_replicas for n, b in zip(steps, self._batches, strict=True))
        return {
            "steps_per_second": sum(steps) / seconds,
            "ns_per_day": moved * self._time_step / seconds * NS_PER_DAY,
        }

    def note(self) -> str:
        """Return the speed, and the mean temperature of the replicas that run."""
        now = time.perf_counter()
        if now - self._last < self.INTERVAL:
            return self._note
        self._last = now
        temperatures = [
            float(kelvin)
            for batch in self._batches
            for place, kelvin in enumerate(batch.simulation.kinetic_temperatures())
            if place not in batch.simulation.stopped
        ]
        speed = self.speed()
        self._note = f"{speed['steps_per_second']:.3g} steps/s, {speed['ns_per_day']:.3g} ns/day"
        if temperatures:
            self._note += f", {sum(temperatures) / len(temperatures):.0f} K"
        return self._note
