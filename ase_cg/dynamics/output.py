"""The folder of a simulation: what may be done with it, and what it says at the end."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ase_cg.dynamics.finish import trajectory_entries
from ase_cg.dynamics.segments import SegmentStore, remove_segments
from ase_cg.dynamics.settings import SimulationSettings, frames_of
from ase_cg.dynamics.starts import Group
from ase_cg.dynamics.trajectory import is_growing, read_simulation_record, replica_paths
from ase_cg.errors import InputError, SimulationError
from ase_cg.files import is_empty, locked, plain_name, refuse_links_out, write_record


def look(folder: Path, settings: SimulationSettings, *, resume: bool, overwrite: bool) -> bool:
    """Return whether there is something to go on with; raise where it may not be touched."""
    record = folder / "simulation.json"
    if is_empty(folder):
        return False
    refuse_links_out(folder)
    if not record.is_file():
        raise InputError(f"{folder} is not empty and holds no simulation; choose another folder")
    found = read_simulation_record(folder)
    if overwrite:
        return False
    settings.check_same(record)
    done = finished(folder)
    if not resume:
        raise InputError(
            f"{folder} holds this simulation already, {'finished' if done else 'unfinished'}; go on with --resume "
            "(resume=True), or discard it with --overwrite (overwrite=True)"
        )
    if (
        done
        and frames_of(found) < settings.n_frames
        and not any((folder / "segments").glob("*/checkpoint.safetensors"))
    ):
        raise InputError(
            f"{folder} holds a finished simulation of {found['duration']} without its last state, so it cannot be made "
            "longer; start another one, in another folder, from its trajectories"
        )
    # Where trajectories were deleted after the end, all is made again.
    return done or "summary" not in found


def finished(folder: Path) -> bool:
    """Whether a simulation folder holds all of its trajectories."""
    found = read_simulation_record(folder)
    expected = len(found.get("trajectories", range(found["replicas"])))
    whole = "summary" in found or not (is_growing(found) or (folder / "segments").exists())
    return whole and len(replica_paths(folder)) == expected


def all_done(folder: Path, settings: SimulationSettings) -> bool:
    """Whether a simulation is finished, and as long as it is to be."""
    return finished(folder) and frames_of(read_simulation_record(folder)) == settings.n_frames


def forget_leftovers(folder: Path) -> None:
    """Delete segments whose frames are in trajectories, if the disk was full when that was to be done."""
    parts = [path for path in (folder / "segments").glob("*") if any(path.glob("[0-9]*.safetensors"))]
    if parts and "summary" in read_simulation_record(folder):
        with locked(folder / "segments"):
            for path in parts:
                SegmentStore(path).forget_segments()


def make_longer(folder: Path, settings: SimulationSettings, stores: Sequence[SegmentStore]) -> None:
    """Say that a simulation that is there, finished or not, goes on to another duration, if it does."""
    record = read_simulation_record(folder)
    before = frames_of(record)
    if before == settings.n_frames:
        return
    if record.pop("summary", None) is not None:
        for store in stores:
            store.forget_segments()  # unless that was done at the end, which may have been a kill
        record["frames_before"] = before
    write_record(folder / "simulation.json", record | {"duration": settings.duration})


def begin(folder: Path, settings: SimulationSettings, model_temperature: float, groups: Sequence[Group]) -> None:
    """Discard what is there of a simulation, and say what begins."""
    paths, starts = replica_paths(folder), _starts(folder)  # before anything is removed: they may be refused
    entries = trajectory_entries(groups, settings)
    for entry in entries:
        plain_name(entry["file"], folder / "simulation.json")
    remove_segments(folder / "segments")
    for path in paths:
        path.unlink()
        path.with_name(f"stopped_{path.name}").unlink(missing_ok=True)
    for name in {"exchanges.h5", *(f"{start}_exchanges.h5" for start in starts)}:
        (folder / name).unlink(missing_ok=True)
    more = {"model_temperature": model_temperature, "trajectories": entries}
    write_record(folder / "simulation.json", asdict(settings) | more)


def _starts(folder: Path) -> set[str]:
    record = folder / "simulation.json"
    entries = read_simulation_record(folder).get("trajectories", []) if record.is_file() else []
    return {entry["start"] for entry in entries}


def stopped_replicas(folder: Path) -> list[dict[str, Any]]:
    """Return what ``simulation.json`` says of the replicas that exploded, an entry for each."""
    record = read_simulation_record(folder)
    entries: list[dict[str, Any]] = record.get("summary", {}).get("stopped", [])
    return entries


def conclude(folder: Path, *, again: bool = False) -> None:
    """Say what went wrong in a finished simulation."""
    record = read_simulation_record(folder)
    stopped = stopped_replicas(folder)
    if stopped and len(stopped) == len(record["trajectories"]):
        first = min(stopped, key=lambda stop: stop["step"])
        raise SimulationError(
            f"the simulation left the model's range: {len(stopped)} of {len(stopped)} replicas exploded, the first at "
            f"step {first['step']}: in replica {first['replica']} {first['reason']}; a smaller time step, other starts "
            f"or more data may help; what there is of them is in {folder}"
        )
    if stopped and again:
        warnings.warn(
            f"{len(stopped)} of {len(record['trajectories'])} replicas in {folder} exploded", UserWarning, stacklevel=3
        )
