"""HDF5 files: MDTraj's layout, with forces as a further array, and mlcg's layout of bead data."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.data.importers.frames import Frames, chunk_frames
from ase_cg.errors import InputError, hint, reason
from ase_cg.hdf5 import declared_unit, numeric_array, open_hdf5
from ase_cg.mdtraj_hdf5 import cell_arrays, cell_vectors, read_topology

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


def _mdtraj_arrays(source: "Source", file: Any) -> tuple[Any, Any, Any, str | None, str | None]:
    path = source.path
    positions = numeric_array(file, "coordinates", (None, None, 3), path)
    n_frames, n_atoms, _ = positions.shape
    forces = numeric_array(file, "forces", positions.shape, path) if "forces" in file else None
    if n_atoms == source.topology.n_atoms and (named := read_topology(file, path)) is not None:
        source.check_atoms(named)
    cells = cell_arrays(file, n_frames, path)
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
    positions = numeric_array(file[group], MLCG_COORDINATES, (None, None, 3), source.path)
    named = next((name for name in MLCG_FORCES if name in file[group]), None)
    forces = None if named is None else numeric_array(file[group], named, positions.shape, source.path)
    return positions, forces, None, None, None


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


def _slices(
    path: Path, positions: Any, forces: Any, cells: Any, length_unit: str | None, force_unit: str | None
) -> Iterator[Frames]:
    for start in range(0, len(positions), step := chunk_frames(positions.shape[1])):
        frames = slice(start, start + step)
        try:
            yield Frames(
                np.asarray(positions[frames]),
                None if forces is None else np.asarray(forces[frames]),
                None if cells is None else cell_vectors(cells[0][frames], cells[1][frames]),
                length_unit,
                force_unit,
            )
        except OSError as error:
            raise InputError(f"{path} is truncated or damaged: {reason(error)}") from error


def count_hdf5(source: "Source") -> int | None:
    """Return the number of frames."""
    with open_hdf5(source.path) as file:
        if source.group is None and "coordinates" in file:
            return len(file["coordinates"])
        names = mlcg_molecules(file)
        group = source.group or (names[0] if len(names) == 1 else None)
        return len(file[group][MLCG_COORDINATES]) if group in names else None
