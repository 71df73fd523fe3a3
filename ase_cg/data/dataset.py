"""The coarse-grained dataset: one HDF5 file, one group per molecule, read in streams."""

import json
import os
import re
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
    COORDINATES,
    DATASET_FORMAT,
    DATASET_VERSION,
    FORCES,
    NAME_PATTERN,
    TRAJECTORY_LENGTHS,
    WEIGHTS,
)
from ase_cg.units import thermal_energy

Floats = NDArray[np.float32]


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
    resolution : str or tuple of str
    force_map : str or None
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

    def weights(self) -> NDArray[np.float64] | None:
        """Return the weight of each frame, shape (F,), or None where all count the same."""
        return np.asarray(self._group[WEIGHTS.name]) if WEIGHTS.name in self._group else None

    def trajectories(self) -> Iterator[slice]:
        """Give the frames of each trajectory."""
        start = 0
        for length in self.trajectory_lengths:
            yield slice(start, start + length)
            start += length

    def _read(self, name: str, frames: slice | NDArray[np.int64] | None) -> Floats:
        try:
            return np.asarray(self._group[name][slice(None) if frames is None else frames], dtype=np.float32)
        except OSError as error:
            raise InputError(f"dataset {self._group.file.filename} is truncated or damaged: {reason(error)}") from error


def _check_format(file: h5py.File, path: Path) -> None:
    if file.attrs.get("format") != DATASET_FORMAT:
        raise InputError(f"{path} is an HDF5 file but no ase-cg dataset; make one with `ase-cg map`")
    version = file.attrs.get("version")
    if version != DATASET_VERSION:
        raise InputError(
            f"{path} is an ase-cg dataset of version {version}, this program reads version {DATASET_VERSION}"
        )


def _resolution(value: str | list[str]) -> str | tuple[str, ...]:
    return value if isinstance(value, str) else tuple(value)


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
                    "resolution": molecule.resolution,
                    "bead_names": sorted(set(molecule.topology.names)),
                    "bonds": len(molecule.topology.bonds),
                    "mapping": molecule.mapping,
                }
                for name, molecule in self.molecules.items()
            },
        }


class MoleculeWriter:
    """Appends frames of one molecule to a dataset that is being created."""

    CHUNK_FRAMES = 256

    def __init__(self, group: h5py.Group, topology: BeadTopology, *, with_forces: bool) -> None:
        self._group = group
        self._shape = (topology.n_beads, 3)
        self._arrays = [COORDINATES, FORCES] if with_forces else [COORDINATES]
        self._lengths = [0]
        for key in self._arrays:
            created = group.create_dataset(
                key.name,
                shape=(0, *self._shape),
                maxshape=(None, *self._shape),
                chunks=(self.CHUNK_FRAMES, *self._shape),
                dtype=np.float32,
                compression="gzip",
                shuffle=True,
            )
            created.attrs["unit"] = key.unit

    def append(self, coordinates: NDArray[Any], forces: NDArray[Any] | None = None) -> None:
        """Append frames of the current trajectory: coordinates in Å, forces in eV/Å, both (F, N, 3).

        Raises
        ------
        InputError
            If a shape is wrong, forces are missing or unexpected, or a value is not finite.
        """
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


class DatasetWriter:
    """A dataset being created; see :func:`create_dataset`."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        file.attrs["format"] = DATASET_FORMAT
        file.attrs["version"] = DATASET_VERSION
        file.create_group("molecules")

    @contextmanager
    def molecule(
        self,
        name: str,
        topology: BeadTopology,
        *,
        temperature: float,
        resolution: str | tuple[str, ...],
        force_map: str | None = None,
        mapping: dict[str, Any] | None = None,
    ) -> Iterator[MoleculeWriter]:
        """Add a molecule; with a `force_map` every frame needs forces, and `mapping` says what it was made from.

        Raises
        ------
        InputError
            If the temperature is not positive, the name cannot be one, or nothing is appended.
        """
        thermal_energy(temperature)
        if not re.match(NAME_PATTERN, name):
            raise InputError(f"{name!r} cannot be a molecule's name: use letters, digits, _ . and -")
        group = self._file["molecules"].create_group(name)
        group.attrs["topology"] = json.dumps(topology.to_dict())
        group.attrs["temperature"] = float(temperature)
        group.attrs["resolution"] = json.dumps(resolution)
        group.attrs["mapping"] = json.dumps(mapping or {})
        if force_map is not None:
            group.attrs["force_map"] = force_map
        writer = MoleculeWriter(group, topology, with_forces=force_map is not None)
        yield writer
        writer.finish()


@contextmanager
def create_dataset(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[DatasetWriter]:
    """Create a dataset; the file appears only when the block ends without an error.

    Raises
    ------
    InputError
        If the file exists and `overwrite` is false.
    """
    with written_whole(path, overwrite=overwrite) as partial, h5py.File(partial, "w") as file:
        yield DatasetWriter(file)
