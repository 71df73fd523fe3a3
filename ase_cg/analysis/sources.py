"""Where frames come from: datasets and folders of simulations, read some frames at a time."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset import Dataset
from ase_cg.data.importers.frames import chunk_frames
from ase_cg.dynamics.trajectory import SAME_TEMPERATURE, is_growing, read_simulation_record, replica_paths
from ase_cg.errors import InputError
from ase_cg.mdtraj_hdf5 import TrajectoryFile

Floats = NDArray[np.float32]
_DATASETS = frozenset({".h5", ".hdf5"})


class Piece(NamedTuple):
    """Consecutive frames of one trajectory: its index and the frames from `start` to before `stop`."""

    trajectory: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of frames."""
        return self.stop - self.start


@dataclass(frozen=True)
class FrameSource:
    """Trajectories of one molecule, of which any frames can be read.

    Parameters
    ----------
    name : str
        What the report calls it.
    path : Path
        A dataset (``.h5``), or a folder of :func:`ase_cg.simulate`.
    beads : tuple of str
        Names of the beads, always with an atom name, such as ``ALA:CA``.
    pieces : tuple of Piece
        The frames that count, one piece a trajectory.
    files : tuple of Path
        One file a trajectory; empty for a dataset.
    frame_interval : float or None
        Between frames in ps, where the files say it.
    topology : BeadTopology or None
        Of a dataset.
    temperature : float or None
        In K.
    record : dict
        What is known of its origin.
    weighted : bool
        Whether the dataset has frame weights.
    left_out : tuple of str
        What does not count, and why; one sentence each.
    """

    name: str
    path: Path
    beads: tuple[str, ...]
    pieces: tuple[Piece, ...]
    files: tuple[Path, ...] = ()
    frame_interval: float | None = None
    topology: BeadTopology | None = None
    temperature: float | None = None
    record: dict[str, Any] | None = None
    weighted: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def n_frames(self) -> int:
        """Number of frames that count."""
        return sum(piece.length for piece in self.pieces)

    def chunks(self, pieces: Sequence[Piece] | None = None) -> Iterator[tuple[Piece, Floats]]:
        """Give the frames (F, N, 3) in Å, some at a time, and which they are.

        Parameters
        ----------
        pieces : sequence of Piece, optional
            By default all that count.

        Raises
        ------
        InputError
            If a file is truncated or damaged.
        """
        size = chunk_frames(len(self.beads))
        parts = [
            Piece(piece.trajectory, start, min(start + size, piece.stop))
            for piece in (self.pieces if pieces is None else pieces)
            for start in range(piece.start, piece.stop, size)
        ]
        if self.files:
            for part in parts:
                yield part, _read_replica(self.files[part.trajectory], slice(part.start, part.stop))
            return
        with Dataset.open(self.path) as dataset:
            molecule = dataset.only_molecule()
            starts = [frames.start for frames in molecule.trajectories()]
            for part in parts:
                first = starts[part.trajectory]
                yield part, molecule.coordinates(slice(first + part.start, first + part.stop))

    def weights(self) -> list[NDArray[np.float64]] | None:
        """Return the weights of the frames that count, one array a piece, or None without any."""
        if not self.weighted:
            return None
        with Dataset.open(self.path) as dataset:
            molecule = dataset.only_molecule()
            values, starts = molecule.weights(), [frames.start for frames in molecule.trajectories()]
        assert values is not None  # noqa: S101 - `weighted` says so
        return [values[starts[p.trajectory] + p.start : starts[p.trajectory] + p.stop] for p in self.pieces]

    def discarded(self, fraction: float) -> "FrameSource":
        """Return the source without the first part of each trajectory."""
        return replace(
            self,
            pieces=tuple(
                piece._replace(start=piece.start + int(fraction * piece.length))
                for piece in self.pieces
                if piece.length
            ),
        )

    def weighing(self) -> "FrameSource":
        """Return the source without the frames of weight 0 at both ends of a trajectory.

        Trajectories without any weight are left out. Frames of weight 0 between others stay, and weigh nothing.
        """
        weights = self.weights()
        if weights is None:
            return self
        kept, empty = [], {}
        for piece, own in zip(self.pieces, weights, strict=True):
            places = np.flatnonzero(own > 0)
            if len(places):
                first, last = piece.start + int(places[0]), piece.start + int(places[-1]) + 1
                kept.append(piece._replace(start=first, stop=last))
            else:
                kept.append(piece)
                empty[piece.trajectory] = f"trajectory {piece.trajectory} has no frame with a weight above 0"
        return replace(self, pieces=tuple(kept)).without(empty)

    def without(self, bad: dict[int, str]) -> "FrameSource":
        """Return the source without some of its trajectories, each with the sentence that says why."""
        return replace(
            self,
            pieces=tuple(piece for piece in self.pieces if piece.trajectory not in bad),
            left_out=(*self.left_out, *bad.values()),
        )


def open_source(path: str | os.PathLike[str], name: str) -> FrameSource:
    """Open a dataset of one molecule, or a folder of a finished simulation.

    Replicas that failed are left out, as are trajectories without frames.

    Raises
    ------
    InputError
        If there is neither, the simulation is not finished, or no trajectory has frames.
    """
    found = Path(path)
    if found.suffix in _DATASETS and not found.is_dir():
        source = _open_dataset(found, name)
    elif found.is_file():
        raise InputError(
            f"{found} is neither a dataset (.h5) nor a folder of `ase-cg simulate`; make a dataset with `ase-cg map`"
        )
    else:
        source = _open_simulation(found, name)
    empty = {p.trajectory: f"trajectory {p.trajectory} has no frames" for p in source.pieces if not p.length}
    source = source.without(empty)
    if not source.pieces:
        why = f": {'; '.join(source.left_out)}" if source.left_out else ""
        raise InputError(f"{found} holds no frames to analyze{why}; simulate again, or leave it out")
    return source


def _open_dataset(path: Path, name: str) -> FrameSource:
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        return FrameSource(
            name,
            path,
            beads=_bead_names(molecule.topology.to_mdtraj()),
            pieces=tuple(Piece(number, 0, length) for number, length in enumerate(molecule.trajectory_lengths)),
            topology=molecule.topology,
            temperature=molecule.temperature,
            record={"file": path.name, "sha256": dataset.hash(), "mapping": molecule.mapping},
            weighted=molecule.has_weights,
        )


def _open_simulation(folder: Path, name: str) -> FrameSource:
    if not (folder / "simulation.json").is_file():
        raise InputError(f"{folder} holds no simulation; make one with `ase-cg simulate`")
    record = read_simulation_record(folder)
    stopped = _stopped(record)
    paths = replica_paths(folder)
    expected = [entry["file"] for entry in record.get("trajectories", ())] or [
        f"replica_{number:03d}.h5" for number in range(record["replicas"])
    ]
    if is_growing(record) or set(expected) - {path.name for path in paths} - set(stopped):
        raise InputError(f"the simulation in {folder} is not finished; continue it with `ase-cg simulate … --resume`")
    chosen, temperature = _of_one_temperature(folder, record, paths)
    opened = [_open_replica(path) for path in chosen]
    beads = {header.beads for header in opened}
    if len(beads) > 1:
        raise InputError(f"{folder} is a simulation of several molecules; simulate the one of the reference alone")
    source = FrameSource(
        name,
        folder,
        beads=next(iter(beads), ()),
        pieces=tuple(Piece(place, 0, header.frames) for place, header in enumerate(opened)),
        files=tuple(chosen),
        frame_interval=next((header.interval for header in opened if header.interval), None),
        temperature=temperature,
        record=record,
    )
    return source.without({place: stopped[path.name] for place, path in enumerate(chosen) if path.name in stopped})


def _stopped(record: dict[str, Any]) -> dict[str, str]:
    """Return why each replica that was stopped was, one sentence each, by its file."""
    found = {}
    for entry in [*record.get("summary", {}).get("stopped", ()), *record.get("failures", ())]:
        why = f"step {entry.get('step', '?')}: {entry.get('reason', 'no reason recorded')}"
        file = entry.get("file", f"replica_{int(entry['replica']):03d}.h5")
        found[file] = f"replica {entry['replica']} failed at {why}"
    return found


def _of_one_temperature(folder: Path, record: dict[str, Any], paths: list[Path]) -> tuple[list[Path], float | None]:
    """Return the trajectories at the temperature of the model where there are several, and that temperature in K."""
    at = {entry["file"]: float(entry["temperature"]) for entry in record.get("trajectories", ())}
    kelvins = sorted(set(at.values()))
    if not kelvins:
        return paths, record.get("temperature")
    if len(kelvins) == 1:
        return paths, kelvins[0]
    wanted = float(record["model_temperature"])
    kept = [path for path in paths if abs(at[path.name] - wanted) <= SAME_TEMPERATURE]
    if not kept:
        shown = ", ".join(f"{kelvin:g}" for kelvin in kelvins)
        raise InputError(f"{folder} was simulated at {shown} K, and not at {wanted:g} K, the temperature of the model")
    return kept, wanted


class _Header(NamedTuple):
    beads: tuple[str, ...]
    frames: int
    interval: float | None


def _open_replica(path: Path) -> _Header:
    """Return what a file of MDTraj's HDF5 holds."""
    try:
        with TrajectoryFile(path) as file:
            beads, frames = _bead_names(file.topology), file.n_frames
            times = file.times(slice(0, 2))
    except InputError as error:
        raise _damaged(error) from error
    interval = None if times is None or len(times) < 2 else float(times[1]) - float(times[0])
    return _Header(beads, frames, interval)


def _bead_names(topology: Any) -> tuple[str, ...]:
    """Return the beads of an MDTraj topology without the numbers of their residues, in which files may differ."""
    return tuple(f"{atom.residue.name}:{atom.name}" for atom in topology.atoms)


def _read_replica(path: Path, frames: slice) -> Floats:
    try:
        with TrajectoryFile(path) as file:
            return file.positions(frames)
    except InputError as error:
        raise _damaged(error) from error


def _damaged(error: InputError) -> InputError:
    return InputError(f"{error}; simulate again with --overwrite")
