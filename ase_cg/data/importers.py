"""All-atom trajectories as streams of positions and forces."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.data.truncation import check_complete
from ase_cg.errors import InputError, reason
from ase_cg.files import existing_file
from ase_cg.units import unit

CHUNK_FRAMES = 1000
NM = 10.0  # Å; MDTraj's coordinates are in nm by definition

Chunk = tuple[NDArray[np.float64], NDArray[np.float64] | None]

_POSITION_NAMES = ("coordinates", "coords", "positions", "xyz")
_FORCE_NAMES = ("forces", "force", "Fs")


@dataclass(frozen=True)
class Source:
    """One all-atom trajectory file.

    Parameters
    ----------
    path : Path
        Anything MDTraj reads; MDTraj's HDF5 with a further array ``forces`` (its attribute ``units`` says in
        what); or ``.npz`` with positions and, perhaps, forces.
    topology : mdtraj.Topology
    length_unit, force_unit : str or None
        Of arrays that do not declare theirs (``.npz``, and forces without the attribute).
    """

    path: Path
    topology: Any
    length_unit: str | None = None
    force_unit: str | None = None

    def chunks(self) -> Iterator[Chunk]:
        """Give positions in Å and forces in eV/Å (or None), both (frames, n, 3), some frames at a time.

        Raises
        ------
        InputError
            If the file is missing or truncated, a unit is not declared, or shapes do not fit.
        """
        existing_file(self.path, "trajectory")
        readers = {".npz": self._npz, ".h5": self._hdf5, ".hdf5": self._hdf5}
        frame = 0
        for positions, forces in readers.get(self.path.suffix, self._mdtraj)():
            for name, array in (("positions", positions), ("forces", forces)):
                if array is not None and not np.isfinite(array).all():
                    bad = frame + int(np.flatnonzero(~np.isfinite(array).all((1, 2)))[0])
                    raise InputError(
                        f"{self.path}: {name} of frame {bad} (counted from 0) hold values that are no numbers"
                    )
            frame += len(positions)
            yield positions, forces

    def _agree(self, own: str) -> None:
        """Refuse a unit of length that contradicts the file's own."""
        if self.length_unit is not None and unit(self.length_unit, "length") != unit(own, "length"):
            raise InputError(f"{self.path} has its positions in {own} by definition; leave --length-unit out")

    def _scale(self, name: str | None, what: str, dimension: Any) -> float:
        if name is None:
            option = f"--{dimension}-unit"
            raise InputError(f"{self.path} does not say the unit of its {what}; give it with {option}")
        return unit(name, dimension)

    def _check(self, positions: Any, forces: Any) -> None:
        n = self.topology.n_atoms
        for name, array in (("positions", positions), ("forces", forces)):
            if array is not None and array.dtype.kind not in "fiu":
                raise InputError(f"{self.path} holds {name} that are no real numbers, but {array.dtype}")
        if positions.ndim != 3 or positions.shape[1:] != (n, 3):
            raise InputError(
                f"{self.path} holds positions of shape {positions.shape}, but the topology has {n} atoms; "
                "give the topology that belongs to the trajectory"
            )
        if forces is not None and forces.shape != positions.shape:
            raise InputError(
                f"{self.path} holds forces of shape {forces.shape} for positions of shape {positions.shape}"
            )

    def _check_atoms(self, topology: Any) -> None:
        """Compare the atoms that a file names itself with those of the topology."""
        for own, given in zip(topology.atoms, self.topology.atoms, strict=False):
            if (own.name, own.residue.name) != (given.name, given.residue.name):
                raise InputError(
                    f"atom {own.index} is {own.residue.name}:{own.name} in {self.path}, but "
                    f"{given.residue.name}:{given.name} in the topology; give the one that belongs to the trajectory"
                )

    def _npz(self) -> Iterator[Chunk]:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                positions = _first(file, _POSITION_NAMES)
                forces = _first(file, _FORCE_NAMES)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{self.path} cannot be read as .npz: {reason(error)}") from error
        except Exception as error:
            raise InputError(f"{self.path} is truncated or damaged: {reason(error)}") from error
        if positions is None:
            raise InputError(f"{self.path} has no array named {' or '.join(_POSITION_NAMES)}")
        self._check(positions, forces)
        length = self._scale(self.length_unit, "positions", "length")
        force = None if forces is None else self._scale(self.force_unit, "forces", "force")
        yield from _slices(positions, forces, length, force)

    def _hdf5(self) -> Iterator[Chunk]:
        import h5py

        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise InputError(f"{self.path} is no HDF5 file or is truncated: {reason(error)}") from error
        with file:
            if "coordinates" not in file:
                raise InputError(f"{self.path} is no trajectory in MDTraj's HDF5 form: it has no coordinates")
            positions, forces = file["coordinates"], file.get("forces")
            self._check(positions, forces)
            if "topology" in file:
                self._check_atoms(_hdf5_topology(self.path))
            own = _declared(positions, "nm") or "nm"
            length = unit(own, "length")
            self._agree(own)
            declared = None if forces is None else _declared(forces, self.force_unit)
            force = None if forces is None else self._scale(declared, "forces", "force")
            try:
                yield from _slices(positions, forces, length, force)
            except OSError as error:
                raise InputError(f"{self.path} is truncated or damaged: {reason(error)}") from error

    def _mdtraj(self) -> Iterator[Chunk]:
        import mdtraj

        self._agree("nm")
        structure_formats = {".pdb", ".gro", ".cif", ".pdbx", ".gsd", ".lh5", ".h5"}
        options = {} if self.path.suffix in structure_formats else {"top": self.topology}
        iterator = mdtraj.iterload(str(self.path), chunk=CHUNK_FRAMES, **options)
        frames = 0
        while True:
            try:
                chunk = next(iterator, None)
            except Exception as error:
                # MDTraj raises whatever its many parsers meet; the user needs the file's name and the reason.
                raise InputError(
                    f"{self.path} cannot be read with a topology of {self.topology.n_atoms} atoms: {reason(error)}"
                ) from error
            if chunk is None:
                check_complete(self.path, frames)
                return
            self._check(chunk.xyz, None)
            if not frames and not options:
                self._check_atoms(chunk.topology)
            frames += chunk.n_frames
            yield chunk.xyz.astype(float) * NM, None


def _declared(array: Any, otherwise: str | None) -> str | None:
    """Return the unit that an HDF5 array says it has."""
    units = array.attrs.get("units", otherwise)
    return units.decode() if isinstance(units, bytes) else None if units is None else str(units)


def _hdf5_topology(path: Path) -> Any:
    from mdtraj.formats import HDF5TrajectoryFile

    with HDF5TrajectoryFile(str(path)) as file:
        return file.topology


def _first(file: Any, names: tuple[str, ...]) -> NDArray[Any] | None:
    return next((file[name] for name in names if name in file), None)


def _slices(positions: Any, forces: Any, length: float, force: float | None) -> Iterator[Chunk]:
    for start in range(0, len(positions), CHUNK_FRAMES):
        frames = slice(start, start + CHUNK_FRAMES)
        yield (
            np.asarray(positions[frames], dtype=float) * length,
            None if forces is None or force is None else np.asarray(forces[frames], dtype=float) * force,
        )


def count_frames(path: str | os.PathLike[str]) -> int | None:
    """Return the number of frames of a trajectory where the file tells without being read, else None."""
    import h5py

    found = Path(path)
    if found.suffix in {".h5", ".hdf5"} and h5py.is_hdf5(found):
        with h5py.File(found, "r") as file:
            return len(file["coordinates"]) if "coordinates" in file else None
    return None
