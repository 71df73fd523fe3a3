"""The coarse-grained dataset: one HDF5 file, one group per molecule, read in streams."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.weights import check_weights
from ase_cg.errors import InputError, reason
from ase_cg.files import existing_file
from ase_cg.hdf5 import open_hdf5
from ase_cg.keys import (
    COORDINATE_MAP,
    COORDINATES,
    DATASET_ARRAYS,
    DATASET_FORMAT,
    DATASET_VERSION,
    FORCE_MAP,
    FORCES,
    FRAMES_SHA256,
    LABEL_SET_ARRAYS,
    MAPPED_ATOMS,
    NAME_PATTERN,
    SOURCE_FRAMES,
    TRAJECTORY_LENGTHS,
    WEIGHTS,
    WEIGHTS_RECORD,
)
from ase_cg.units import thermal_energy

Floats = NDArray[np.float32]
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
        self._frames_hash: str | None = None
        try:
            self.name = group.name.rsplit("/", 1)[-1]
            self.topology = BeadTopology.from_dict(json.loads(group.attrs["topology"]))
            self.temperature = _temperature(group, where)
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
        """Return bead positions in Å, shape (F, N, 3), of all frames or of a slice or sorted index array.

        Raises
        ------
        InputError
            If the file is damaged, or holds values that are no numbers in these frames.
        """
        return self._read(COORDINATES.name, frames)

    def forces(self, frames: slice | NDArray[np.int64] | None = None) -> Floats:
        """Return bead forces in eV/Å, shape (F, N, 3).

        Raises
        ------
        InputError
            If the molecule has none, the file is damaged, or it holds values that are no numbers in these frames.
        """
        if not self.has_forces:
            raise InputError(f"molecule {self.name!r} has no forces; map a trajectory with forces, or train on noise")
        return self._read(FORCES.name, frames)

    @property
    def has_weights(self) -> bool:
        """Whether frames have weights."""
        return WEIGHTS.name in self._group

    @property
    def weights_record(self) -> dict[str, Any]:
        """How the weights were made, where :meth:`ase_cg.analysis.MarkovWeights.write` made them; otherwise empty."""
        if not self.has_weights or WEIGHTS_RECORD not in self._group.attrs:
            return {}
        try:
            found = json.loads(self._group.attrs[WEIGHTS_RECORD])
        except (TypeError, ValueError) as error:
            raise InputError(f"{self._where}: the record of its weights is damaged: {reason(error)}") from error
        if not isinstance(found, dict):
            raise InputError(f"{self._where}: the record of its weights is damaged: it is no table")
        return found

    @property
    def _where(self) -> str:
        return f"dataset {self._group.file.filename}, molecule {self.name!r}"

    def weights(self) -> NDArray[np.float64] | None:
        """Return the weight of each frame, shape (F,), or None where all count the same.

        Raises
        ------
        InputError
            If one is negative or no number, or they belong to other frames.
        """
        if not self.has_weights:
            return None
        where = self._where
        weights = np.asarray(self._group[WEIGHTS.name], dtype=float)
        if weights.shape != (self.n_frames,):
            raise InputError(f"{where}: weights of shape {weights.shape} do not fit its {self.n_frames} frames")
        check_weights(weights, where)
        made_for = self.weights_record.get(FRAMES_SHA256)
        if made_for is not None and made_for != self.frames_hash():
            raise InputError(
                f"{where}: its weights were made for the frames of another dataset; make them again with `ase-cg "
                "weights … --overwrite`"
            )
        return weights

    def frames_hash(self) -> str:
        """Return the SHA-256 of bead names, trajectory lengths and all coordinates, in hexadecimal."""
        if self._frames_hash is None:
            digest = hashlib.sha256(json.dumps(list(self.topology.names)).encode())
            for key in (TRAJECTORY_LENGTHS, COORDINATES):
                self._add_array(digest, key.name)
            self._frames_hash = digest.hexdigest()
        return self._frames_hash

    def source_frames(self) -> NDArray[np.int64] | None:
        """Return the labelled dataset's frame that each frame was made from, shape (F,); None for other datasets."""
        return np.asarray(self._group[SOURCE_FRAMES.name]) if SOURCE_FRAMES.name in self._group else None

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

    def add_to(self, digest: "hashlib._Hash") -> None:
        """Add arrays and meaning to a hash: topology, temperature, resolution, divisions, frames, weights, maps."""
        meaning = [self.name, self.topology.to_dict(), self.temperature, self.resolution, self.force_map]
        digest.update(json.dumps(meaning, sort_keys=True).encode())
        for key in (*DATASET_ARRAYS, *LABEL_SET_ARRAYS):
            if key.name in self._group:
                self._add_array(digest, key.name)

    def _add_array(self, digest: "hashlib._Hash", name: str) -> None:
        """Add an array to a hash, in the type that it is read in: bytes of the file's own types and order differ."""
        stored = self._group[name]
        if name in (COORDINATES.name, FORCES.name):
            dtype = np.dtype("<f4")
        else:
            dtype = np.dtype("<i8" if stored.dtype.kind in "iu" else "<f8")
        digest.update(f"{name} {stored.shape} {dtype.str}".encode())
        for start in range(0, len(stored), GATHERED_ROWS):
            digest.update(np.ascontiguousarray(stored[start : start + GATHERED_ROWS], dtype=dtype).tobytes())

    def _read(self, name: str, frames: slice | NDArray[np.int64] | None) -> Floats:
        stored = self._group[name]
        try:
            if frames is None or isinstance(frames, slice):
                found = np.asarray(stored[slice(None) if frames is None else frames], dtype=np.float32)
            else:
                found = _gathered(stored, frames)
        except OSError as error:
            raise InputError(f"dataset {self._group.file.filename} is truncated or damaged: {reason(error)}") from error
        # `ase-cg map` refuses such frames; here something else wrote or changed the file.
        lost = np.flatnonzero(~np.isfinite(found).all((1, 2)))
        if len(lost):
            numbers = np.arange(self.n_frames)[slice(None) if frames is None else frames]
            raise InputError(
                f"dataset {self._group.file.filename}, molecule {self.name!r}: {name} of frame {numbers[lost[0]]} "
                "(counted from 0) hold values that are no numbers; map the trajectories again"
            )
        return found


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
            gathered[piece] = rows[frames[piece] - low]
    return gathered


def _check_format(file: h5py.File, path: Path) -> None:
    if file.attrs.get("format") != DATASET_FORMAT:
        raise InputError(f"{path} is an HDF5 file but no ase-cg dataset; make one with `ase-cg map`")
    version = file.attrs.get("version")
    if version != DATASET_VERSION:
        raise InputError(
            f"{path} is an ase-cg dataset of version {version}, this program reads version {DATASET_VERSION}"
        )


def _temperature(group: h5py.Group, where: str) -> float:
    found = group.attrs.get("temperature")
    try:
        temperature = float(found)
        thermal_energy(temperature)
    except (TypeError, ValueError) as error:  # an InputError, too, is a ValueError
        name = group.name.rsplit("/", 1)[-1]
        says = "no temperature" if found is None else f"the temperature {found}"
        raise InputError(
            f"{where} has {says} for molecule {name!r}, and forces need a positive one in K; map the trajectories again"
        ) from error
    return temperature


def _resolution(value: str | list[str] | dict[str, Any]) -> str | tuple[str, ...] | dict[str, Any]:
    return tuple(value) if isinstance(value, list) else value


class Dataset:
    """A coarse-grained dataset, open for reading.

    Use :meth:`open`, best as a context manager; :func:`ase_cg.data.dataset_writer.create_dataset` writes one.
    """

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file = file
        self.path = path
        where = f"dataset {path}"
        for name in file["molecules"]:
            if not re.fullmatch(NAME_PATTERN, name):  # files are named after molecules
                raise InputError(f"{where} holds a molecule {name!r}, which cannot be the name of one")
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
        file = open_hdf5(found)
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
        """Return the SHA-256 of what the dataset says: its arrays, and what decides their meaning.

        Neither the layout of the file, compression for one, nor the record of how it was made changes it.
        """
        digest = hashlib.sha256(f"{DATASET_FORMAT} {DATASET_VERSION}".encode())
        for name in sorted(self.molecules):
            self.molecules[name].add_to(digest)
        return digest.hexdigest()

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
