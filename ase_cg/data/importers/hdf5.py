"""HDF5 files: MDTraj's layout, with forces as a further array, and mlcg's layout of bead data."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.data.importers.frames import Frames, chunk_frames
from ase_cg.errors import InputError, hint, reason

if TYPE_CHECKING:
    from ase_cg.data.importers import Source

MLCG_COORDINATES = "cg_coords"
MLCG_FORCES = ("cg_forces", "cg_delta_forces")
MLCG_TYPES = "cg_embeds"


def read_hdf5(source: "Source") -> Iterator[Frames]:
    """Read MDTraj's HDF5, or one molecule of a file in mlcg's layout."""
    with open_hdf5(source.path) as file:
        if source.group is None and "coordinates" in file:
            arrays = _mdtraj_arrays(source, file)
        else:
            arrays = _mlcg_arrays(source, file)
        yield from _slices(source.path, *arrays)


def open_hdf5(path: Path) -> Any:
    """Open an HDF5 file for reading."""
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is no HDF5 file or is truncated: {reason(error)}") from error


def _mdtraj_arrays(source: "Source", file: Any) -> tuple[Any, Any, Any, str | None, str | None]:
    positions, forces = file["coordinates"], file.get("forces")
    if positions.ndim != 3:
        raise InputError(f"{source.path} holds positions of shape {positions.shape}, not (frames, atoms, 3)")
    if "topology" in file and positions.shape[1] == source.topology.n_atoms:
        source.check_atoms(_topology(source.path))
    cells = None
    if "cell_lengths" in file and "cell_angles" in file:
        cells = (file["cell_lengths"], file["cell_angles"])
    declared = None if forces is None else declared_unit(forces)
    return positions, forces, cells, declared_unit(positions) or "nm", declared


def _mlcg_arrays(source: "Source", file: Any) -> tuple[Any, Any, Any, str | None, str | None]:
    names = mlcg_molecules(file)
    if not names:
        raise InputError(
            f"{source.path} is no trajectory: it has neither 'coordinates' (MDTraj's layout) nor groups with "
            f"{MLCG_COORDINATES!r} (mlcg's)"
        )
    group = source.group or (names[0] if len(names) == 1 else None)
    if group is None:
        raise InputError(f"{source.path} holds {len(names)} molecules; say which with --group, such as {names[0]!r}")
    if group not in names:
        raise InputError(f"{source.path} has no molecule {group!r}; {hint(group, names)}")
    forces = next((file[group][name] for name in MLCG_FORCES if name in file[group]), None)
    return file[group][MLCG_COORDINATES], forces, None, None, None


def mlcg_molecules(file: Any) -> list[str]:
    """Return the paths of the groups that hold molecules in mlcg's layout."""
    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if name.rsplit("/", 1)[-1] == MLCG_COORDINATES and hasattr(item, "shape"):
            found.append(name.rpartition("/")[0])

    file.visititems(visit)
    return found


def mlcg_types(path: Path, group: str | None) -> NDArray[Any] | None:
    """Return the bead types of a molecule in mlcg's layout, shape (N,), or None where the file has none."""
    with open_hdf5(path) as file:
        names = mlcg_molecules(file)
        if not names or "coordinates" in file:
            return None
        attributes = file[group if group in names else names[0]].attrs
        return np.asarray(attributes[MLCG_TYPES]) if MLCG_TYPES in attributes else None


def declared_unit(array: Any) -> str | None:
    """Return the unit that an HDF5 array says it has."""
    units = array.attrs.get("units")
    return units.decode() if isinstance(units, bytes) else None if units is None else str(units)


def _topology(path: Path) -> Any:
    from mdtraj.formats import HDF5TrajectoryFile

    with HDF5TrajectoryFile(str(path)) as file:
        return file.topology


def _slices(
    path: Path, positions: Any, forces: Any, cells: Any, length_unit: str | None, force_unit: str | None
) -> Iterator[Frames]:
    if forces is not None and forces.shape != positions.shape:
        raise InputError(f"{path} holds forces of shape {forces.shape} for positions of shape {positions.shape}")
    for start in range(0, len(positions), step := chunk_frames(positions.shape[1])):
        frames = slice(start, start + step)
        try:
            yield Frames(
                np.asarray(positions[frames]),
                None if forces is None else np.asarray(forces[frames]),
                None if cells is None else _vectors(cells[0][frames], cells[1][frames]),
                length_unit,
                force_unit,
            )
        except OSError as error:
            raise InputError(f"{path} is truncated or damaged: {reason(error)}") from error


def _vectors(lengths: NDArray[Any], angles: NDArray[Any]) -> NDArray[Any] | None:
    from mdtraj.utils import lengths_and_angles_to_box_vectors

    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        return None
    return np.stack(lengths_and_angles_to_box_vectors(*lengths.T, *angles.T), axis=1)


def count_hdf5(source: "Source") -> int | None:
    """Return the number of frames."""
    with open_hdf5(source.path) as file:
        if source.group is None and "coordinates" in file:
            return len(file["coordinates"])
        names = mlcg_molecules(file)
        group = source.group or (names[0] if len(names) == 1 else None)
        return len(file[group][MLCG_COORDINATES]) if group in names else None
