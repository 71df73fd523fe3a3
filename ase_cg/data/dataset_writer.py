"""Writing a coarse-grained dataset: whole or not at all."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset import Dataset
from ase_cg.data.guarded_file import GuardedFile
from ase_cg.data.weights import check_weights
from ase_cg.errors import InputError
from ase_cg.files import written_whole
from ase_cg.keys import (
    COORDINATE_MAP,
    COORDINATES,
    DATASET_FORMAT,
    DATASET_VERSION,
    FORCE_MAP,
    FORCES,
    FRAMES_SHA256,
    LOG_PROB,
    MAPPED_ATOMS,
    NAME_PATTERN,
    SOURCE_FRAMES,
    TRAJECTORY_LENGTHS,
    WEIGHTS,
    WEIGHTS_RECORD,
)
from ase_cg.units import thermal_energy

CHUNK_BYTES = 2**19


def chunk_length(n_beads: int) -> int:
    """Return how many frames lie together on disk: about half a megabyte."""
    return max(16, min(4096, CHUNK_BYTES // (12 * n_beads)))


class MoleculeWriter:
    """Appends frames of one molecule to a dataset that is being created."""

    def __init__(
        self,
        group: h5py.Group,
        topology: BeadTopology,
        check: Callable[[], None],
        *,
        with_forces: bool,
        weighted: bool,
        compress: bool,
    ) -> None:
        self._group = group
        self._check = check
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
            If a shape is wrong, forces or weights are missing or unexpected, a value is not finite, or a weight is
            negative.
        """
        if (weights is None) != (self._weights is None):
            raise InputError("either all frames of a molecule have weights or none has")
        if weights is not None and self._weights is not None:
            if weights.shape != (len(coordinates),):
                raise InputError(f"{weights.size} weights do not fit {len(coordinates)} frames")
            check_weights(np.asarray(weights, dtype=float), "weights", first=sum(self._lengths))
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
        if weights is not None and self._weights is not None:
            self._weights.append(np.array(weights, dtype=float))
        self._lengths[-1] += len(coordinates)
        self._check()

    def next_trajectory(self) -> None:
        """Begin another trajectory: the next frame does not follow the last in time."""
        if self._lengths[-1]:
            self._lengths.append(0)

    def finish(self) -> None:
        """Write the trajectory boundaries, and the weights."""
        lengths = [n for n in self._lengths if n]
        if not lengths:
            raise InputError("a molecule without frames cannot be written")
        self._group.create_dataset(TRAJECTORY_LENGTHS.name, data=np.array(lengths, dtype=np.int64))
        if self._weights is not None:
            weights = np.concatenate(self._weights)
            if not weights.sum() > 0:
                raise InputError("no frame of the molecule has a weight above zero")
            self._group.create_dataset(WEIGHTS.name, data=weights)

    def write_maps(
        self,
        atoms: NDArray[np.int64],
        coordinate_map: NDArray[np.float64],
        force_map: NDArray[np.float64],
    ) -> None:
        """Record the atoms (n,) that were mapped, and both maps (N, n)."""
        for key, array in ((MAPPED_ATOMS, atoms), (COORDINATE_MAP, coordinate_map), (FORCE_MAP, force_map)):
            self._group.create_dataset(key.name, data=array, compression="gzip")

    def write_source(self, frames: NDArray[np.int64], log_prob: NDArray[np.float64]) -> None:
        """Record which frames of another dataset were labelled, and the likelihood of each label; both (F,)."""
        for key, array in ((SOURCE_FRAMES, frames), (LOG_PROB, log_prob)):
            self._group.create_dataset(key.name, data=array)

    def write_report(self, report: dict[str, Any]) -> None:
        """Record what is known of the force map."""
        self._group.attrs["force_map_report"] = json.dumps(report)


class DatasetWriter:
    """A dataset being created; see :func:`create_dataset`."""

    def __init__(self, file: h5py.File, *, check: Callable[[], None], compress: bool = False) -> None:
        self._file = file
        self._check = check
        self._compress = compress
        file.attrs["format"] = DATASET_FORMAT
        file.attrs["version"] = DATASET_VERSION
        file.require_group("molecules")

    def check_name(self, name: str) -> None:
        """Raise :class:`InputError` if a name cannot be a molecule's or is taken."""
        if not re.fullmatch(NAME_PATTERN, name):
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
            group,
            topology,
            self._check,
            with_forces=force_map is not None,
            weighted=weighted,
            compress=self._compress,
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
        mode = "a" if add else "w"
        with GuardedFile(partial, mode) as guarded:
            with h5py.File(guarded, mode) as file:
                yield DatasetWriter(file, check=lambda: guarded.check(Path(path)), compress=compress)
            guarded.check(Path(path))


def write_weights(
    path: str | os.PathLike[str],
    weights: NDArray[np.float64],
    record: dict[str, Any],
    output: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write frame weights into a dataset of one molecule, or into a copy of it; whole or not at all.

    Parameters
    ----------
    path : path
    weights : ndarray, shape (F,)
    record : dict
        How they were made; its ``frames_sha256`` has to be that of the molecule.
    output : path, optional
        Of the copy.
    overwrite : bool
        Replace weights that are there, or an output that exists.

    Returns
    -------
    Path
        Of the file with the weights.

    Raises
    ------
    InputError
        If the weights do not belong to the dataset, or something would be overwritten.
    """
    with Dataset.open(path) as opened:
        molecule = opened.only_molecule()
        if weights.shape != (molecule.n_frames,) or record.get(FRAMES_SHA256) != molecule.frames_hash():
            raise InputError(f"the weights belong to other frames than those of {path}; make them from this dataset")
        if molecule.has_weights and output is None and not overwrite:
            raise InputError(f"{path} has frame weights already; replace them with --overwrite (overwrite=True)")
        name = molecule.name
    check_weights(weights, "weights")
    target = Path(path if output is None else output)
    with written_whole(target, overwrite=overwrite or output is None) as partial:
        shutil.copyfile(path, partial)
        with GuardedFile(partial, "a") as guarded:
            with h5py.File(guarded, "a") as file:
                group = file["molecules"][name]
                if WEIGHTS.name in group:
                    del group[WEIGHTS.name]
                group.create_dataset(WEIGHTS.name, data=weights)
                group.attrs[WEIGHTS_RECORD] = json.dumps(record)
            guarded.check(target)
    return target
