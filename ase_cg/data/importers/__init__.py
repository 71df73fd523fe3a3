"""Trajectories as streams of positions and forces: one reader a file format, one interface."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.data.importers.arrays import count_npy, count_npz, read_npy, read_npz
from ase_cg.data.importers.ase_files import read_ase
from ase_cg.data.importers.frames import Frames
from ase_cg.data.importers.hdf5 import count_hdf5, read_hdf5
from ase_cg.data.importers.lammps import read_lammps
from ase_cg.data.importers.mdtraj_files import read_mdtraj
from ase_cg.data.importers.trr import read_trr
from ase_cg.errors import InputError
from ase_cg.files import existing_file
from ase_cg.units import unit

READERS: dict[str, Callable[..., Iterator[Frames]]] = {
    **dict.fromkeys([".npz"], read_npz),
    **dict.fromkeys([".npy"], read_npy),
    **dict.fromkeys([".h5", ".hdf5"], read_hdf5),
    **dict.fromkeys([".trr"], read_trr),
    **dict.fromkeys([".lammpstrj", ".dump"], read_lammps),
    **dict.fromkeys([".traj", ".extxyz"], read_ase),
}
"""Readers by suffix; MDTraj reads everything else."""

_COUNTERS: dict[str, Callable[..., int | None]] = {
    ".npz": count_npz,
    ".npy": count_npy,
    ".h5": count_hdf5,
    ".hdf5": count_hdf5,
}


@dataclass(frozen=True)
class Source:
    """One trajectory file, of atoms or already of beads.

    Parameters
    ----------
    path : Path
        A file of :data:`READERS`, or anything else that MDTraj reads.
    topology : mdtraj.Topology
        Of n atoms.
    length_unit, force_unit : str or None
        Of files that do not declare theirs.
    forces : Path or None
        ``.npy`` file with the forces that belong to a ``.npy`` file of positions.
    group : str or None
        Which molecule of a file in mlcg's layout.
    read_forces : bool
        Whether forces are wanted.
    n_beads : int or None
        A file of so many particles holds beads already.
    atoms : ndarray of int, or None
        The atoms that matter, in order; the others are dropped from what is given.
    """

    path: Path
    topology: Any
    length_unit: str | None = None
    force_unit: str | None = None
    forces: Path | None = None
    group: str | None = None
    read_forces: bool = True
    n_beads: int | None = None
    atoms: NDArray[np.int64] | None = None

    def chunks(self) -> Iterator[Frames]:
        """Give positions and cells in Å and forces in eV/Å, some frames at a time.

        Raises
        ------
        InputError
            If the file is missing or truncated, a unit is not declared or contradicts the file, shapes do not fit, or
            values are not finite.
        """
        existing_file(self.path, "trajectory")
        reader = self._reader()
        if self.forces is not None and reader is not read_npy:
            raise InputError(f"{self.path} is no .npy file, so its forces cannot come from another file, {self.forces}")
        done = 0
        with_forces: bool | None = None
        for frames in reader(self):
            if with_forces is None:
                with_forces = frames.forces is not None
            if with_forces != (frames.forces is not None):
                raise InputError(f"{self.path}: frame {done} (counted from 0) differs in having forces")
            if len(frames.positions):
                yield self._checked(frames, done)
            done += len(frames.positions)

    def _reader(self) -> Callable[["Source"], Iterator[Frames]]:
        """Return the reader of the file; extended XYZ often goes by the name of plain XYZ."""
        suffix = self.path.suffix.lower()
        if suffix == ".xyz":
            with self.path.open(encoding="utf-8", errors="replace") as file:
                comment = [file.readline() for _ in range(2)][1]
            if "Properties=" in comment or "Lattice=" in comment:
                return read_ase
        return READERS.get(suffix, read_mdtraj)

    def _checked(self, raw: Frames, done: int) -> Frames:
        """Return frames in our units, of the atoms that matter."""
        frames = raw if self.read_forces else raw._replace(forces=None)
        self._check_shapes(frames)
        length = self._scale(frames.length_unit, self.length_unit, "positions", "length")
        force = None
        if frames.forces is not None:
            force = self._scale(frames.force_unit, self.force_unit, "forces", "force")
        kept = self.atoms if frames.positions.shape[1] == self.topology.n_atoms else None
        arrays: dict[str, Any] = {}
        for name, array, scale in (("positions", frames.positions, length), ("forces", frames.forces, force)):
            if array is None or scale is None:
                continue
            chosen = np.asarray(array if kept is None else array[:, kept], dtype=float) * scale
            if not np.isfinite(chosen).all():
                bad = done + int(np.flatnonzero(~np.isfinite(chosen).all((1, 2)))[0])
                raise InputError(f"{self.path}: {name} of frame {bad} (counted from 0) hold values that are no numbers")
            arrays[name] = chosen
        cells = None if frames.cells is None else np.asarray(frames.cells, dtype=float) * length
        if cells is not None and not np.isfinite(cells).all():
            bad = done + int(np.flatnonzero(~np.isfinite(cells).all((1, 2)))[0])
            raise InputError(f"{self.path}: the cell of frame {bad} (counted from 0) holds values that are no numbers")
        return Frames(arrays["positions"], arrays.get("forces"), cells, "Å", "eV/Å")

    def _check_shapes(self, frames: Frames) -> None:
        n, positions, forces = self.topology.n_atoms, frames.positions, frames.forces
        for name, array in (("positions", positions), ("forces", forces)):
            if array is not None and array.dtype.kind not in "fiu":
                raise InputError(f"{self.path} holds {name} that are no real numbers, but {array.dtype}")
        if positions.ndim != 3 or positions.shape[2] != 3 or positions.shape[1] not in {n, self.n_beads}:
            beads = "" if self.n_beads in {None, n} else f" and {self.n_beads} beads"
            raise InputError(
                f"{self.path} holds positions of shape {positions.shape}, but the topology has {n} atoms{beads}; "
                "give the topology that belongs to the trajectory"
            )
        if forces is not None and forces.shape != positions.shape:
            raise InputError(
                f"{self.path} holds forces of shape {forces.shape} for positions of shape {positions.shape}"
            )

    def _scale(self, own: str | None, given: str | None, what: str, dimension: Any) -> float:
        """Return the size of a unit; one that contradicts the file's own is refused."""
        if own is None and given is None:
            raise InputError(f"{self.path} does not say the unit of its {what}; give it with --{dimension}-unit")
        if own is not None and given is not None and unit(given, dimension) != unit(own, dimension):
            raise InputError(f"{self.path} has its {what} in {own} by definition; leave --{dimension}-unit out")
        return unit(str(own or given), dimension)

    def check_atoms(self, topology: Any) -> None:
        """Compare the atoms that a file names itself with those of the topology."""
        from ase_cg.beads.residues import ALIASES, PARENTS

        def standard(residue: str) -> str:
            name = ALIASES.get(residue, residue)
            return PARENTS.get(name, name)

        for own, given in zip(topology.atoms, self.topology.atoms, strict=False):
            if (own.name, standard(own.residue.name)) != (given.name, standard(given.residue.name)):
                raise InputError(
                    f"atom {own.index} is {own.residue.name}:{own.name} in {self.path}, but "
                    f"{given.residue.name}:{given.name} in the topology; give the one that belongs to the trajectory"
                )

    def count(self) -> int | None:
        """Return the number of frames where the file tells without being read, else None."""
        counter = _COUNTERS.get(self.path.suffix.lower())
        return None if counter is None else counter(self)
