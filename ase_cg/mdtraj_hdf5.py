"""MDTraj's layout of HDF5, read by h5py: MDTraj's own reader is PyTables, which runs code that a file holds.

The layout is described in MDTraj's documentation ("HDF5 format"): arrays `coordinates` (F, n, 3), `time` (F,),
`cell_lengths` and `cell_angles` (F, 3), and the topology as JSON.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ase_cg.errors import InputError, reason
from ase_cg.files import existing_file
from ase_cg.hdf5 import check_storage, declared_unit, numeric_array, open_hdf5
from ase_cg.units import unit

SUFFIXES = frozenset({".h5", ".hdf5"})
NM = 10.0  # Å
_PICOSECONDS = {"ps": 1.0, "picoseconds": 1.0, "picosecond": 1.0, "fs": 1e-3, "femtoseconds": 1e-3, "nanoseconds": 1e3}
SCALARS = {
    "time": "picoseconds",
    "potentialEnergy": "kilojoules_per_mole",
    "kineticEnergy": "kilojoules_per_mole",
    "temperature": "kelvin",
}
"""Arrays (F,) of one number a frame, and their units as MDTraj names them."""
_LARGEST_TOPOLOGY = 2**30  # bytes of JSON; 100 an atom


def refuse_unpickling(path: str | os.PathLike[str]) -> None:
    """Raise :class:`InputError` for files that MDTraj would read through PyTables, and that are not read here."""
    if Path(path).name.lower().endswith(".lh5"):
        raise InputError(
            f"{path}: MSMBuilder's .lh5 files are not read, because their reader runs code that a file holds; convert "
            "it to DCD or XTC where it comes from"
        )


class TrajectoryFile:
    """A trajectory in MDTraj's HDF5, open for reading; use it as a context manager.

    Parameters
    ----------
    path : path

    Attributes
    ----------
    n_frames, n_atoms : int

    Raises
    ------
    InputError
        If the file is missing, damaged, or has other arrays than a trajectory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = existing_file(path, "trajectory")
        self._file = open_hdf5(self.path)
        try:
            self._positions = numeric_array(self._file, "coordinates", (None, None, 3), self.path)
            self.n_frames, self.n_atoms = self._positions.shape[:2]
            self._scale = unit(declared_unit(self._positions) or "nm", "length")
        except BaseException:
            self._file.close()
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

    @property
    def topology(self) -> Any:
        """The :class:`mdtraj.Topology` of the atoms.

        Raises
        ------
        InputError
            If the file has none, a damaged one, or one of other atoms than its positions.
        """
        found = read_topology(self._file, self.path)
        if found is None:
            raise InputError(f"{self.path} does not say what its atoms are")
        if found.n_atoms != self.n_atoms:
            raise InputError(f"{self.path} is damaged: {found.n_atoms} atoms and positions of {self.n_atoms}")
        return found

    def positions(self, frames: slice = slice(None)) -> NDArray[np.float32]:
        """Return some frames (F, n, 3) in Å."""
        return np.asarray(self._read(self._positions, frames), dtype=np.float32) * np.float32(self._scale)

    def times(self, frames: slice = slice(None)) -> NDArray[Any] | None:
        """Return the times (F,) of some frames in ps, or None where the file has none."""
        if "time" not in self._file:
            return None
        array = numeric_array(self._file, "time", (self.n_frames,), self.path)
        name = declared_unit(array) or "ps"
        if name not in _PICOSECONDS:
            raise InputError(f"{self.path} has its times in {name!r}, which is not known")
        values = np.asarray(self._read(array, frames))
        return values if _PICOSECONDS[name] == 1 else values * _PICOSECONDS[name]

    def stored(self, frames: slice) -> dict[str, NDArray[Any]]:
        """Return all arrays of a simulation's trajectory as they are stored, in the file's own units."""
        arrays = {"coordinates": self._positions} | {
            name: numeric_array(self._file, name, (self.n_frames,), self.path) for name in SCALARS if name in self._file
        }
        return {name: self._read(array, frames) for name, array in arrays.items()}

    def cells(self, frames: slice = slice(None)) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Return the lengths in Å and angles in degrees of cells, each (F, 3), or None where there are none."""
        arrays = cell_arrays(self._file, self.n_frames, self.path)
        if arrays is None:
            return None
        lengths, angles = (self._read(array, frames) for array in arrays)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            return None  # placeholders
        return lengths * unit(declared_unit(arrays[0]) or "nm", "length"), angles

    def _read(self, array: Any, frames: slice) -> NDArray[Any]:
        try:
            values: NDArray[Any] = array[frames]
        except Exception as error:
            # HDF5 raises whatever it meets in a damaged file; the user needs the file's name and the reason.
            raise InputError(f"{self.path} is truncated or damaged: {reason(error)}") from error
        return values


def load_trajectory(path: str | os.PathLike[str], *, first_frame_only: bool = False) -> Any:
    """Read a file as :class:`mdtraj.Trajectory` (nm, ps), as :func:`mdtraj.load` does.

    Raises
    ------
    InputError
        If it is damaged, or does not say what its atoms are.
    """
    import mdtraj

    with TrajectoryFile(path) as file:
        some = slice(0, 1) if first_frame_only else slice(None)
        made = mdtraj.Trajectory(file.positions(some) / np.float32(NM), file.topology, time=file.times(some))
        if (cells := file.cells(some)) is not None:
            made.unitcell_lengths, made.unitcell_angles = cells[0] / NM, cells[1]
        return made


def cell_arrays(file: Any, n_frames: int, path: Path) -> tuple[Any, Any] | None:
    """Return the arrays of the lengths and angles of cells, each (F, 3), not read yet."""
    if "cell_lengths" not in file or "cell_angles" not in file:
        return None
    lengths, angles = (numeric_array(file, name, (n_frames, 3), path) for name in ("cell_lengths", "cell_angles"))
    return lengths, angles


def cell_vectors(lengths: NDArray[Any], angles: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return cell vectors (F, 3, 3) of lengths and angles (F, 3) in degrees; None where lengths are placeholders."""
    from mdtraj.utils import lengths_and_angles_to_box_vectors

    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        return None
    return np.stack(lengths_and_angles_to_box_vectors(*lengths.T, *angles.T), axis=1)


def read_topology(file: Any, path: Path) -> Any:
    """Return the :class:`mdtraj.Topology` that an open file holds, or None.

    Raises
    ------
    InputError
        If it is damaged.
    """
    import h5py

    if "topology" not in file:
        return None
    stored = file["topology"]
    if not isinstance(stored, h5py.Dataset) or stored.dtype.kind != "S" or stored.shape not in {(), (1,)}:
        raise InputError(f"{path} is damaged: its topology is no text")
    check_storage(stored, f"{path} (topology)", min(path.stat().st_size, _LARGEST_TOPOLOGY))
    try:
        text = stored[()] if stored.shape == () else stored[0]
        return _topology_of(json.loads(text.decode()))
    except Exception as error:
        # Whatever a text can be other than a topology; the user needs the file's name and the reason.
        raise InputError(f"{path} is damaged: its topology cannot be read ({reason(error)})") from error


def _topology_of(data: Mapping[str, Any]) -> Any:
    """Make a topology of MDTraj's JSON."""
    from mdtraj import Topology
    from mdtraj.core.topology import bond_name_to_type

    topology = Topology()
    for chain_data in sorted(data["chains"], key=lambda entry: int(entry["index"])):
        chain = topology.add_chain()
        chain.chain_id = chain_data.get("chain_id")
        for entry in sorted(chain_data["residues"], key=lambda entry: int(entry["index"])):
            number = None if entry.get("resSeq") is None else int(entry["resSeq"])
            segment = _text(entry.get("segmentID", ""))
            residue = topology.add_residue(_text(entry["name"]), chain, resSeq=number, segment_id=segment)
            for atom in sorted(entry["atoms"], key=lambda atom: int(atom["index"])):
                charge = atom.get("formal_charge")
                topology.add_atom(_text(atom["name"]), _element(atom["element"]), residue, formal_charge=charge)
    atoms = list(topology.atoms)
    known = data.get("bond_metadata") or [{}] * len(data["bonds"])
    for (first, second), more in zip(data["bonds"], known, strict=True):
        if not (0 <= first < len(atoms) and 0 <= second < len(atoms) and first != second):
            raise InputError(f"a bond of atoms {first} and {second} of {len(atoms)}")
        kind = None if more.get("type") is None else bond_name_to_type(more["type"])
        topology.add_bond(atoms[first], atoms[second], order=more.get("order"), type=kind)
    return topology


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{value!r} is no name")
    return value


def _element(symbol: Any) -> Any:
    from mdtraj.core import element

    try:
        return element.get_by_symbol(_text(symbol))
    except KeyError:
        return element.virtual
