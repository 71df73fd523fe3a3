"""The trajectories of a finished simulation: MDTraj's HDF5, one file a replica."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import units as ase_units
from ase.units import kB
from numpy.typing import NDArray

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.importers.frames import chunk_frames
from ase_cg.data.trajectory_writer import Hdf5TrajectoryWriter
from ase_cg.errors import InputError, hint, reason
from ase_cg.files import plain_name, read_record, written_whole
from ase_cg.mdtraj_hdf5 import SCALARS, TrajectoryFile
from ase_cg.units import FEMTOSECOND

PICOSECOND = 1e3 * FEMTOSECOND
ANGSTROM_PER_NM = 10.0
EV_PER_KJ_PER_MOL = ase_units.kJ / ase_units.mol
SAME_TEMPERATURE = 1.0  # K
MOST_REPLICAS = 10**6  # of which a record can be true


class Energies(NamedTuple):
    """Potential and kinetic energies in eV of some frames, each of shape (F,)."""

    potential: NDArray[np.float64]
    kinetic: NDArray[np.float64]


class TrajectoryWriter:
    """Writes a new HDF5 file of MDTraj, some frames at a time.

    Parameters
    ----------
    path : Path
    topology : BeadTopology
        Of N beads.
    after : tuple of Path and int, optional
        A file of this kind, and how many of its frames come first, just as they are.
    """

    def __init__(self, path: Path, topology: BeadTopology, after: tuple[Path, int] | None = None) -> None:
        self._freedom = 3 * topology.n_beads
        self._file = Hdf5TrajectoryWriter(path, topology.to_mdtraj())
        try:
            if after is not None:
                self._copy_first_frames(*after)
        except BaseException:
            self._file.abandon()
            raise

    def _copy_first_frames(self, source: Path, frames: int) -> None:
        """Copy arrays that we know and nothing else: the file may come from somebody else."""
        with TrajectoryFile(source) as file:
            if file.n_frames < frames:
                raise InputError(f"{source} holds {file.n_frames} frames of the {frames} that were written to it")
            for start in range(0, frames, size := chunk_frames(file.n_atoms)):
                for name, array in file.stored(slice(start, min(start + size, frames))).items():
                    self._file.extend(name, array, SCALARS.get(name, "nanometers"))

    def write(self, frames: NDArray[Any], times: NDArray[np.float64], energies: Energies | None = None) -> None:
        """Append frames (F, N, 3) in Å at times (F,) in ps.

        Raises
        ------
        OSError
            If they could not be written, as on a full disk.
        """
        more = {}
        if energies is not None:
            more = {
                "potentialEnergy": energies.potential / EV_PER_KJ_PER_MOL,
                "kineticEnergy": energies.kinetic / EV_PER_KJ_PER_MOL,
                "temperature": 2 * energies.kinetic / (self._freedom * kB),
            }
        self._file.extend("coordinates", np.asarray(frames, dtype=np.float32) / ANGSTROM_PER_NM, "nanometers")
        for name, values in ({"time": times} | more).items():
            self._file.extend(name, values, SCALARS[name])

    def close(self) -> None:
        """Close the file, and make sure that all frames are in it.

        Raises
        ------
        OSError
            If any is not.
        """
        self._file.close()

    def abandon(self) -> None:
        """Close a file that is of no use; one that was closed stays as it is."""
        self._file.abandon()


def write_trajectory(path: Path, frames: NDArray[Any], times: NDArray[np.float64], topology: BeadTopology) -> None:
    """Write frames (F, N, 3) in Å at times (F,) in ps as MDTraj's HDF5."""
    with written_whole(path, overwrite=True) as partial:
        writer = TrajectoryWriter(partial, topology)
        try:
            writer.write(frames, times)
            writer.close()
        finally:
            writer.abandon()


def read_simulation_record(folder: Path) -> dict[str, Any]:
    """Read ``simulation.json`` of a folder, which somebody else may have made.

    Raises
    ------
    InputError
        If it is damaged, or names files that are not in the folder.
    """
    path = folder / "simulation.json"
    record = read_record(path)
    summary = record.get("summary", {})
    try:
        for entry in record.get("trajectories", []):
            _check_entry(entry, path)
        for entry in [*summary.get("stopped", []), *record.get("failures", [])]:
            int(entry["replica"])
            plain_name(entry.get("file", "replica_000.h5"), path)
        count = record["replicas"]
        if not isinstance(count, int) or not 1 <= count <= MOST_REPLICAS:
            raise InputError(f"{path} is damaged: it counts {count!r} replicas; discard the folder with --overwrite")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged ({reason(error)}); delete its folder") from error
    return record


def _check_entry(entry: Mapping[str, Any], path: Path) -> None:
    """Raise where what is said of a trajectory cannot be: files are removed and replaced by these names."""
    if not plain_name(entry["file"], path).endswith(".h5"):
        raise InputError(f"{path} names a trajectory {entry['file']!r}, which is no .h5 file; delete its folder")
    plain_name(entry["start"], path)
    plain_name(entry["molecule"], path)
    float(entry["temperature"])


def replica_paths(folder: Path) -> list[Path]:
    """Return the finished trajectories of a simulation folder, in order."""
    record = folder / "simulation.json"
    entries = read_simulation_record(folder).get("trajectories") if record.is_file() else None
    if entries is None:
        return sorted(folder.glob("replica_*.h5"))
    return [folder / entry["file"] for entry in entries if (folder / entry["file"]).is_file()]


def is_growing(record: Mapping[str, Any]) -> bool:
    """Whether a finished simulation is being made longer, so that its trajectories are those of the shorter one."""
    return "frames_before" in record and "summary" not in record


def read_simulation(
    folder: Path, *, start: str | None = None, temperature: float | None = None
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Read a finished simulation.

    Parameters
    ----------
    folder : Path
    start : str, optional
        Read the replicas of this start only; needed where there are several molecules.
    temperature : float, optional
        In K; read the replicas at this temperature only. Where there are several, by default that of the model.

    Returns
    -------
    frames : ndarray, shape (R, F, N, 3)
        In Å; without replicas that were stopped, of which a warning counts the number.
    settings : dict
        What ``simulation.json`` says, and ``beads``: the beads' labels as in :func:`bead_labels`.

    Raises
    ------
    InputError
        If the folder holds no simulation, an unfinished one, or damaged files; or what was asked for is not there.
    """
    record = folder / "simulation.json"
    if not record.is_file():
        raise InputError(f"{folder} holds no simulation; make one with `ase-cg simulate`")
    settings = read_simulation_record(folder)
    paths = replica_paths(folder)
    if is_growing(settings) or len(paths) != len(settings.get("trajectories", range(settings["replicas"]))):
        raise InputError(f"the simulation in {folder} is not finished; continue it with `ase-cg simulate … --resume`")
    chosen = paths if "trajectories" not in settings else _chosen(folder, settings, start, temperature)
    stopped = {entry["file"] for entry in settings.get("summary", {}).get("stopped", [])}
    whole = [path for path in chosen if path.name not in stopped]
    if not whole:
        raise InputError(f"all replicas of the simulation in {folder} exploded; there is nothing to analyze")
    if len(whole) < len(chosen):
        warnings.warn(
            f"{len(chosen) - len(whole)} of {len(chosen)} replicas in {folder} exploded and are left out",
            UserWarning,
            stacklevel=2,
        )
    frames = []
    for path in whole:
        try:
            with TrajectoryFile(path) as file:
                frames.append(file.positions())
                topology = file.topology
        except InputError as error:
            raise InputError(f"{error}; simulate again with --overwrite") from error
    return np.stack(frames), settings | {"beads": _labels(topology)}


def _chosen(folder: Path, settings: dict[str, Any], start: str | None, temperature: float | None) -> list[Path]:
    entries = settings["trajectories"]
    starts = list(dict.fromkeys(entry["start"] for entry in entries))
    if start is not None:
        if start not in starts:
            raise InputError(f"the simulation in {folder} has no start {start!r}; {hint(start, starts)}")
        entries = [entry for entry in entries if entry["start"] == start]
    molecules = list(dict.fromkeys(entry["molecule"] for entry in entries))
    if len(molecules) > 1:
        raise InputError(
            f"the simulation in {folder} is of several molecules ({', '.join(molecules)}); say which start to read"
        )
    temperatures = sorted({entry["temperature"] for entry in entries})
    if temperature is None and len(temperatures) == 1:
        return [folder / entry["file"] for entry in entries]
    kelvin = settings["model_temperature"] if temperature is None else temperature
    kept = [entry for entry in entries if abs(entry["temperature"] - kelvin) <= SAME_TEMPERATURE]
    if not kept:
        shown = ", ".join(f"{t:g}" for t in temperatures)
        raise InputError(
            f"the simulation in {folder} is at {shown} K, and not at {kelvin:g} K; say at which to read it"
        )
    return [folder / entry["file"] for entry in kept]


def bead_labels(topology: BeadTopology) -> list[str]:
    """Return the beads as a trajectory file names them, ``ALA2:CA``."""
    return _labels(topology.to_mdtraj())


def _labels(topology: Any) -> list[str]:
    return atom_labels(topology.atoms)


def atom_labels(atoms: Iterable[Any]) -> list[str]:
    """Return atoms of MDTraj as ``ALA2:CA``."""
    return [f"{atom.residue.name}{atom.residue.resSeq}:{atom.name}" for atom in atoms]
