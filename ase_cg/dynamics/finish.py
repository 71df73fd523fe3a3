"""From the segments of a simulation that is done to its trajectories."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ase_cg.data.guarded_file import GuardedFile
from ase_cg.dynamics.batch import Batch
from ase_cg.dynamics.settings import SimulationSettings
from ase_cg.dynamics.starts import Group
from ase_cg.dynamics.trajectory import PICOSECOND, Energies, TrajectoryWriter, write_trajectory
from ase_cg.errors import InputError
from ase_cg.files import written_whole
from ase_cg.hdf5 import numeric_array, open_hdf5
from ase_cg.units import quantity

FILES_AT_ONCE = 32


def trajectory_entries(groups: Sequence[Group], settings: SimulationSettings) -> list[dict[str, Any]]:
    """Return what ``simulation.json`` says of each trajectory, by the numbers of the replicas.

    With one start the files are ``replica_000.h5`` …, with several the name of the start comes before.
    """
    several = len({start for group in groups for start in group.starts}) > 1
    entries = {}
    for group in groups:
        for number, start, label in zip(group.numbers.tolist(), group.starts, group.labels, strict=True):
            entries[number] = {
                "file": f"{start}_replica_{number:03d}.h5" if several else f"replica_{number:03d}.h5",
                "molecule": group.name,
                "start": start,
                "conformation": label,
                "temperature": settings.temperatures[number % settings.replicas % len(settings.temperatures)],
            }
    return [entries[number] for number in sorted(entries)]


def summary(batches: Sequence[Batch], entries: Sequence[dict[str, Any]], speed: dict[str, float]) -> dict[str, Any]:
    """Return what is said of a simulation that is done: stopped replicas, exchanges, speed."""
    stopped = [
        stop.to_dict() | {"file": entries[stop.replica]["file"]}
        for batch in batches
        for stop in batch.simulation.stopped.values()
    ]
    exchanges = {batch.group.name: batch.tempering.statistics() for batch in batches if batch.tempering is not None}
    return {"stopped": stopped, **({"exchanges": exchanges} if exchanges else {}), **speed}


def check_frames(folder: Path, batch: Batch, entries: Sequence[dict[str, Any]], *, before: int, alone: bool) -> None:
    """Raise :class:`InputError` where the frames up to the state that a batch goes on from are not all there."""
    needed = [folder / entries[number]["file"] for number in batch.group.numbers]
    if batch.tempering is not None:
        needed.append(_walkers_file(folder, batch, alone=alone))
    missing = [path for path in needed if not path.is_file()]
    if before and (missing or batch.store.state() is None):
        what = missing[0] if missing else batch.store.folder / "checkpoint.safetensors"
        raise InputError(
            f"{what} is missing, which a simulation of {before} frames needs to become longer; start again with "
            "--overwrite (overwrite=True)"
        )
    found = min(before, batch.reports_done) + sum(len(times) for times in batch.store.segments("times"))
    if found != batch.reports_done:
        raise InputError(
            f"{folder} holds {found} of the {batch.reports_done} frames that its last state has behind it; start again "
            "with --overwrite (overwrite=True)"
        )


def _walkers_file(folder: Path, batch: Batch, *, alone: bool) -> Path:
    return folder / ("exchanges.h5" if alone else f"{batch.group.name}_exchanges.h5")


def write_results(folder: Path, batch: Batch, entries: Sequence[dict[str, Any]], *, before: int, alone: bool) -> None:
    """Write the trajectories of a batch, the last steps of replicas that were stopped, and who was exchanged.

    The first frames, as many as `before`, are in the files already.
    """
    files = [folder / entries[number]["file"] for number in batch.group.numbers]
    for first in range(0, len(files), FILES_AT_ONCE):
        _write_trajectories(batch, files, slice(first, min(first + FILES_AT_ONCE, len(files))), before)
    step_time = quantity(batch.settings.time_step, "time") / PICOSECOND
    for place, stop in batch.simulation.stopped.items():
        if len(stop.last_steps):
            path = files[place].with_name(f"stopped_{files[place].name}")
            write_trajectory(path, stop.last_frames, step_time * np.array(stop.last_steps), batch.group.topology)
    if batch.tempering is not None and batch.reports_done:
        _write_walkers(_walkers_file(folder, batch, alone=alone), batch, before)


def _write_trajectories(batch: Batch, files: Sequence[Path], some: slice, before: int) -> None:
    places = range(len(files))[some]
    stopped = batch.simulation.stopped
    per_frame = batch.settings.steps_per_frame
    ends = [stopped[p].last_good_step // per_frame if p in stopped else batch.reports_done for p in places]
    with ExitStack() as stack:
        writers = []
        for place, end in zip(places, ends, strict=True):
            partial = stack.enter_context(written_whole(files[place], overwrite=True))
            after = (files[place], min(before, end)) if before and end else None
            writers.append(TrajectoryWriter(partial, batch.group.topology, after))
            stack.callback(writers[-1].abandon)  # does nothing to one that is closed
        for place, writer, end in zip(places, writers, ends, strict=True):
            if end == 0:  # a file needs a frame: where the replica started
                writer.write(batch.group.positions[place][None], np.zeros(1))
        done = before
        names = ("frames", "potential", "kinetic")
        segments = zip(batch.store.segments("times"), *(batch.store.segments(n, some) for n in names), strict=True)
        for times, frames, potential, kinetic in segments:
            for column, (writer, end) in enumerate(zip(writers, ends, strict=True)):
                kept = slice(0, max(0, min(len(times), end - done)))
                if kept.stop:
                    energies = Energies(potential[kept, column], kinetic[kept, column])
                    writer.write(frames[kept, column], times[kept], energies)
            done += len(times)
        for writer in writers:  # what fails here leaves the files of before, and the segments
            writer.close()


def _write_walkers(path: Path, batch: Batch, before: int) -> None:
    import h5py

    found = {"time": list(batch.store.segments("times")), "walker": list(batch.store.segments("walkers"))}
    if before:
        replicas = found["walker"][0].shape[1] if found["walker"] else None
        with open_hdf5(path) as file:
            shapes = {"time": (None,), "walker": (None, replicas)}
            earlier = {name: numeric_array(file, name, shape, path)[:before] for name, shape in shapes.items()}
            found = {name: [earlier[name], *parts] for name, parts in found.items()}
    walkers = np.concatenate(found["walker"])
    with written_whole(path, overwrite=True) as partial, GuardedFile(partial, "w") as guarded:
        with h5py.File(guarded, "w") as file:
            file["time"] = np.concatenate(found["time"])
            file["time"].attrs["units"] = "ps"
            file["walker"] = walkers
            file["replica"] = batch.group.numbers
            file["temperature"] = batch.simulation.temperatures
            file["temperature"].attrs["units"] = "K"
        if guarded.failure is not None:
            raise OSError(guarded.failure.errno, guarded.failure.strerror, str(path)) from guarded.failure
