"""The coarse-grained dataset: one HDF5 file, one group per molecule, read in streams."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError, reason
from ase_cg.files import existing_file, file_hash, written_whole
from ase_cg.keys import (
    COORDINATE_MAP,
    COORDINATES,
    DATASET_FORMAT,
    DATASET_VERSION,
    FORCE_MAP,
    FORCES,
    MAPPED_ATOMS,
    NAME_PATTERN,
    TRAJECTORY_LENGTHS,
    WEIGHTS,
)
from ase_cg.units import thermal_energy

Floats = NDArray[np.float32]
CHUNK_BYTES = 2**19
WORTH_SKIPPING = 256  # frames; a shorter gap is read and dropped
GATHERED_ROWS = 16384  # frames read in one piece where some of them are picked


class Molecule:
    """Frames of one molecule in a dataset; arrays are read from disk when they are asked for.

    Attributes
    ----------
    name : str
    topology : BeadTopology
        Of N beads.
    temperature : float
        In K.
    trajectory_lengths : tuple of int
        Frames of each trajectory; the frames lie one after the other.
    resolution : str, tuple of str, or dict
    force_map : str or None
    force_map_report : dict
        What is known of the force map: constraint groups, residuals in kcal/mol/Å, validity.
    mapping : dict
        What it was mapped from, and how.
    """

    def __init__(self, group: h5py.Group, where: str) -> None:
        self._group = group
        try:
            self.name = group.name.rsplit("/", 1)[-1]
            self.topology = BeadTopology.from_dict(json.loads(group.attrs["topology"]))
            self.temperature = float(group.attrs["temperature"])
            self.resolution = _resolution(json.loads(group.attrs["resolution"]))
            self.force_map: str | None = group.attrs.get("force_map")
            self.force_map_report: dict[str, Any] = json.loads(group.attrs.get("force_map_report", "{}"))
            self.mapping: dict[str, Any] = json.loads(group.attrs["mapping"])
            self.trajectory_lengths = tuple(int(n) for n in group[TRAJECTORY_LENGTHS.name])
            shape = group[COORDINATES.name].shape
        except KeyError as error:
            raise InputError(f"{where} is damaged: {error.args[0]}") from error
        if shape != (sum(self.trajectory_lengths), self.topology.n_beads, 3):
            raise InputError(f"{where} is damaged: coordinates of shape {shape} do not fit its topology")

    @property
    def n_frames(self) -> int:
        """Number of frames F."""
        return sum(self.trajectory_lengths)

    @property
    def has_forces(self) -> bool:
        """Whether forces were recorded."""
        return FORCES.name in self._group

    def coordinates(self, frames: slice | NDArray[np.int64] | None = None) -> Floats:
        """Return bead positions in Å, shape (F, N, 3), of all frames or of a slice or sorted index array."""
        return self._read(COORDINATES.name, frames)

    def forces(self, frames: slice | NDArray[np.int64] | None = None) -> Floats:
        """Return bead forces in eV/Å, shape (F, N, 3).

        Raises
        ------
        InputError
            If the molecule has none.
        """
        if not self.has_forces:
            raise InputError(f"molecule {self.name!r} has no forces; map a trajectory with forces, or train on noise")
        return self._read(FORCES.name, frames)

    @property
    def has_weights(self) -> bool:
        """Whether frames have weights."""
        return WEIGHTS.name in self._group

    def weights(self) -> NDArray[np.float64] | None:
        """Return the weight of each frame, shape (F,), or None where all count the same."""
        return np.asarray(self._group[WEIGHTS.name]) if self.has_weights else None

    def maps(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]] | None:
        """Return the atoms (n,) that were mapped, their coordinate map (N, n) and their force map (N, n).

        None where the molecule has no forces, or they came as forces on beads.
        """
        if FORCE_MAP.name not in self._group:
            return None
        atoms, positions, forces = (np.asarray(self._group[k.name]) for k in (MAPPED_ATOMS, COORDINATE_MAP, FORCE_MAP))
        return atoms, positions, forces

    def trajectories(self) -> Iterator[slice]:
        """Give the frames of each trajectory."""
        start = 0
        for length in self.trajectory_lengths:
            yield slice(start, start + length)
            start += length

    def _read(self, name: str, frames: slice | NDArray[np.int64] | None) -> Floats:
        stored = self._group[name]
        try:
            if frames is None or isinstance(frames, slice):
                return np.asarray(stored[slice(None) if frames is None else frames], dtype=np.float32)
            return _gathered(stored, frames)
        except OSError as error:
            raise InputError(f"dataset {self._group.file.filename} is truncated or damaged: {reason(error)}") from error


def _gathered(stored: Any, frames: NDArray[np.int64]) -> Floats:
    """Read frames of sorted indices, run by run: HDF5 is slow where it has to pick rows one by one."""
    gathered = np.empty((len(frames), *stored.shape[1:]), dtype=np.float32)
    breaks = np.flatnonzero(np.diff(frames) > WORTH_SKIPPING) + 1
    for places in np.split(np.arange(len(frames)), breaks):
        if not len(places):
            continue
        wanted = frames[places]
        # Runs in which some rows are skipped are read whole in pieces, and picked from in memory.
        for piece in np.split(places, np.flatnonzero(np.diff(wanted // GATHERED_ROWS)) + 1):
            low, high = int(frames[piece[0]]), int(frames[piece[-1]]) + 1
            rows = np.asarray(stored[low:high], dtype=np.float32)
            gathered[piece] = rows if len(rows) == len(piece) else rows[frames[piece] - low]
    return gathered


def _check_format(file: h5py.File, path: Path) -> None:
    if file.attrs.get("format") != DATASET_FORMAT:
        raise InputError(f"{path} is an HDF5 file but no ase-cg dataset; make one with `ase-cg map`")
    version = file.attrs.get("version")
    if version != DATASET_VERSION:
        raise InputError(
            f"{path} is an ase-cg dataset of version {version}, this program reads version {DATASET_VERSION}"
        )


def _resolution(value: str | list[str] | dict[str, Any]) -> str | tuple[str, ...] | dict[str, Any]:
    return tuple(value) if isinstance(value, list) else value


class Dataset:
    """A coarse-grained dataset, open for reading.

    Use :meth:`open`, best as a context manager; :func:`create_dataset` writes one.
    """

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file = file
        self.path = path
        where = f"dataset {path}"
        self.molecules = {name: Molecule(file["molecules"][name], where) for name in file["molecules"]}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a dataset.

        Raises
        ------
        InputError
            If the file is missing, truncated, no dataset of ours, or of another version.
        """
        found = existing_file(path, "dataset")
        try:
            file = h5py.File(found, "r")
        except OSError as error:
            raise InputError(f"{found} is no HDF5 file or is truncated: {reason(error)}") from error
        try:
            _check_format(file, found)
            return cls(file, found)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; arrays already read stay."""
        self._file.close()

    def only_molecule(self) -> Molecule:
        """Return the molecule of a dataset that holds one.

        Raises
        ------
        InputError
            If there are several.
        """
        if len(self.molecules) != 1:
            raise InputError(
                f"dataset {self.path} holds {len(self.molecules)} molecules ({', '.join(self.molecules)}), "
                "and here exactly one is needed"
            )
        return next(iter(self.molecules.values()))

    def hash(self) -> str:
        """Return the SHA-256 of the file."""
        return file_hash(self.path)

    def info(self) -> dict[str, Any]:
        """Return what the dataset holds, as plain values."""
        return {
            "path": str(self.path),
            "molecules": {
                name: {
                    "beads": molecule.topology.n_beads,
                    "frames": molecule.n_frames,
                    "trajectories": len(molecule.trajectory_lengths),
                    "temperature_K": molecule.temperature,
                    "forces": molecule.has_forces,
                    "force_map": molecule.force_map,
                    "force_map_report": molecule.force_map_report,
                    "weights": molecule.has_weights,
                    "resolution": molecule.resolution,
                    "bead_names": sorted(set(molecule.topology.names)),
                    "bonds_count": len(molecule.topology.bonds),
                    "mapping": molecule.mapping,
                }
                for name, molecule in self.molecules.items()
            },
        }


def chunk_length(n_beads: int) -> int:
    """Return how many frames lie together on disk: about half a megabyte."""
    return max(16, min(4096, CHUNK_BYTES // (12 * n_beads)))


class MoleculeWriter:
    """Appends frames of one molecule to a dataset that is being created."""

    def __init__(
        self, group: h5py.Group, topology: BeadTopology, *, with_forces: bool, weighted: bool, compress: bool
    ) -> None:
        self._group = group
        self._shape = (topology.n_beads, 3)
        self._arrays = [COORDINATES, FORCES] if with_forces else [COORDINATES]
        self._weights: list[NDArray[np.float64]] | None = [] if weighted else None
        self._lengths = [0]
        for key in self._arrays:
            created = group.create_dataset(
                key.name,
                shape=(0, *self._shape),
                maxshape=(None, *self._shape),
                chunks=(chunk_length(topology.n_beads), *self._shape),
                dtype=np.float32,
                **({"compression": "gzip", "shuffle": True} if compress else {}),
            )
            created.attrs["unit"] = key.unit

    def append(
        self, coordinates: NDArray[Any], forces: NDArray[Any] | None = None, weights: NDArray[Any] | None = None
    ) -> None:
        """Append frames of the current trajectory: coordinates in Å, forces in eV/Å, both (F, N, 3), weights (F,).

        Raises
        ------
        InputError
            If a shape is wrong, forces or weights are missing or unexpected, or a value is not finite.
        """
        if (weights is None) != (self._weights is None):
            raise InputError("either all frames of a molecule have weights or none has")
        if weights is not None and self._weights is not None:
            if weights.shape != (len(coordinates),):
                raise InputError(f"{weights.size} weights do not fit {len(coordinates)} frames")
            self._weights.append(np.array(weights, dtype=float))
        given = [coordinates] if forces is None else [coordinates, forces]
        if len(given) != len(self._arrays):
            raise InputError("either all frames of a molecule have forces or none has")
        for key, array in zip(self._arrays, given, strict=True):
            if array.shape != (len(coordinates), *self._shape):
                raise InputError(f"{key.name} of shape {array.shape} do not fit {self._shape[0]} beads")
            bad = np.flatnonzero(~np.isfinite(array).all((1, 2)))
            if bad.size:
                frame = sum(self._lengths) + int(bad[0])
                raise InputError(f"{key.name} of frame {frame} (counted from 0) hold values that are no numbers")
        for key, array in zip(self._arrays, given, strict=True):
            stored = self._group[key.name]
            stored.resize(len(stored) + len(array), axis=0)
            stored[len(stored) - len(array) :] = array
        self._lengths[-1] += len(coordinates)

    def next_trajectory(self) -> None:
        """Begin another trajectory: the next frame does not follow the last in time."""
        if self._lengths[-1]:
            self._lengths.append(0)

    def finish(self) -> None:
        """Write the trajectory boundaries."""
        lengths = [n for n in self._lengths if n]
        if not lengths:
            raise InputError("a molecule without frames cannot be written")
        self._group.create_dataset(TRAJECTORY_LENGTHS.name, data=np.array(lengths, dtype=np.int64))
        if self._weights is not None:
            self._group.create_dataset(WEIGHTS.name, data=np.concatenate(self._weights))

    def write_maps(
        self,
        atoms: NDArray[np.int64],
        coordinate_map: NDArray[np.float64],
        force_map: NDArray[np.float64],
        report: dict[str, Any],
    ) -> None:
        """Record the atoms (n,) that were mapped, both maps (N, n), and what is known of the force map."""
        for key, array in ((MAPPED_ATOMS, atoms), (COORDINATE_MAP, coordinate_map), (FORCE_MAP, force_map)):
            self._group.create_dataset(key.name, data=array, compression="gzip")
        self._group.attrs["force_map_report"] = json.dumps(report)


class DatasetWriter:
    """A dataset being created; see :func:`create_dataset`."""

    def __init__(self, file: h5py.File, *, compress: bool = False) -> None:
        self._file = file
        self._compress = compress
        file.attrs["format"] = DATASET_FORMAT
        file.attrs["version"] = DATASET_VERSION
        file.require_group("molecules")

    def check_name(self, name: str) -> None:
        """Raise :class:`InputError` if a name cannot be a molecule's or is taken."""
        if not re.match(NAME_PATTERN, name):
            raise InputError(f"{name!r} cannot be a molecule's name: use letters, digits, _ . and -")
        if name in self._file["molecules"]:
            raise InputError(f"the dataset has a molecule {name!r} already; give this one another name (--name)")

    @contextmanager
    def molecule(
        self,
        name: str,
        topology: BeadTopology,
        *,
        temperature: float,
        resolution: str | tuple[str, ...] | dict[str, Any],
        force_map: str | None = None,
        mapping: dict[str, Any] | None = None,
        weighted: bool = False,
    ) -> Iterator[MoleculeWriter]:
        """Add a molecule; with a `force_map` every frame needs forces, and `mapping` says what it was made from.

        Raises
        ------
        InputError
            If the temperature is not positive, the name cannot be one or is taken, or nothing is appended.
        """
        thermal_energy(temperature)
        self.check_name(name)
        group = self._file["molecules"].create_group(name)
        group.attrs["topology"] = json.dumps(topology.to_dict())
        group.attrs["temperature"] = float(temperature)
        group.attrs["resolution"] = json.dumps(resolution)
        group.attrs["mapping"] = json.dumps(mapping or {})
        if force_map is not None:
            group.attrs["force_map"] = force_map
        writer = MoleculeWriter(
            group, topology, with_forces=force_map is not None, weighted=weighted, compress=self._compress
        )
        yield writer
        writer.finish()


@contextmanager
def create_dataset(
    path: str | os.PathLike[str], *, overwrite: bool = False, add: bool = False, compress: bool = False
) -> Iterator[DatasetWriter]:
    """Create a dataset, or add to one; the file appears, or changes, only when the block ends without an error.

    Compression with gzip saves a fifth of the room and makes writing and reading eight times as slow.

    Raises
    ------
    InputError
        If the file exists and neither `overwrite` nor `add` is true, `add` is true and it is no dataset, another
        process is writing it, or the disk is full.
    """
    if add:
        Dataset.open(path).close()
    with written_whole(path, overwrite=overwrite or add) as partial:
        if add:
            shutil.copyfile(path, partial)
        try:
            with h5py.File(partial, "a" if add else "w") as file:
                yield DatasetWriter(file, compress=compress)
        except (OSError, RuntimeError) as error:
            # HDF5 tells a full disk in the middle of a sentence of its own; on closing as a RuntimeError.
            if (isinstance(error, OSError) and error.errno is None) or "rite" in str(error):
                raise InputError(f"{path} could not be written ({_cause(error)}); nothing of it was kept") from error
            raise


def _cause(error: BaseException) -> str:
    """Return the system's own words out of an error of HDF5."""
    found = re.search(r"error message = '([^']+)'", str(error))
    return found[1] if found else reason(error)
