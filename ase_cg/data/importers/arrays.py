"""NumPy's files: ``.npz`` with named arrays, ``.npy`` with positions, and forces in another."""

import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.data.importers.frames import CELL_NAMES, FORCE_NAMES, POSITION_NAMES, Frames, chunk_frames
from ase_cg.errors import InputError, reason
from ase_cg.files import existing_file

if TYPE_CHECKING:
    from ase_cg.data.importers import Source


class ArrayStream:
    """An array of a ``.npy`` file or a member of a ``.npz`` file, read from its first row to its last.

    Parameters
    ----------
    file : binary file
    what : str
        Its name in error messages.
    """

    def __init__(self, file: IO[bytes], what: str) -> None:
        self._file, self._what = file, what
        try:
            version = np.lib.format.read_magic(file)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            self.shape, fortran, self.dtype = reader(file)
        except (ValueError, EOFError) as error:
            raise InputError(f"{what} is no NumPy array or is truncated: {reason(error)}") from error
        if self.dtype.hasobject:
            raise InputError(f"{what} holds Python objects, which are never loaded; save a plain array")
        if fortran and len(self.shape) > 1:
            raise InputError(f"{what} is stored column by column and cannot be streamed; save it in C order")

    def read(self, rows: int) -> NDArray[Any]:
        """Return the next rows."""
        shape = (rows, *self.shape[1:])
        size = int(np.prod(shape)) * self.dtype.itemsize
        try:
            data = self._file.read(size)
        except Exception as error:
            # A damaged archive raises whatever its decompression meets.
            raise InputError(f"{self._what} is truncated or damaged: {reason(error)}") from error
        if len(data) != size:
            raise InputError(f"{self._what} is truncated: its header claims {self.shape[0]} rows")
        return np.frombuffer(data, dtype=self.dtype).reshape(shape)


def read_npz(source: "Source") -> Iterator[Frames]:
    """Read positions, and perhaps forces and cells, by the names that are usual."""
    with ExitStack() as stack:
        archive = stack.enter_context(_archive(source.path))

        def stream(names: tuple[str, ...]) -> ArrayStream | None:
            for name in names:
                if f"{name}.npy" in archive.namelist():
                    try:
                        member = stack.enter_context(archive.open(f"{name}.npy"))
                    except (zipfile.BadZipFile, OSError) as error:
                        raise InputError(f"{source.path} is truncated or damaged: {reason(error)}") from error
                    return ArrayStream(member, f"{source.path} ({name})")
            return None

        positions = stream(POSITION_NAMES)
        if positions is None:
            raise InputError(f"{source.path} has no array named {' or '.join(POSITION_NAMES)}")
        yield from _together(source, positions, stream(FORCE_NAMES), stream(CELL_NAMES))


def read_npy(source: "Source") -> Iterator[Frames]:
    """Read positions, and the forces of the file that the source names for them."""
    with ExitStack() as stack:

        def stream(path: Path) -> ArrayStream:
            return ArrayStream(stack.enter_context(path.open("rb")), str(path))

        forces = None
        if source.forces is not None and source.read_forces:
            forces = stream(existing_file(source.forces, "file of forces"))
        yield from _together(source, stream(source.path), forces, None)


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path} is no .npz file or is truncated: {reason(error)}") from error


def _together(
    source: "Source", positions: ArrayStream, forces: ArrayStream | None, cells: ArrayStream | None
) -> Iterator[Frames]:
    if len(positions.shape) != 3:
        raise InputError(f"{source.path} holds positions of shape {positions.shape}, not (frames, atoms, 3)")
    if forces is not None and forces.shape != positions.shape:
        raise InputError(f"{source.path} holds forces of shape {forces.shape} for positions of shape {positions.shape}")
    n_frames = positions.shape[0]
    if cells is not None and cells.shape not in {(n_frames, 3), (n_frames, 3, 3)}:
        raise InputError(f"{source.path} holds cells of shape {cells.shape}, not ({n_frames}, 3, 3) or ({n_frames}, 3)")
    step = chunk_frames(positions.shape[1])
    for start in range(0, n_frames, step):
        rows = min(step, n_frames - start)
        yield Frames(
            positions.read(rows),
            None if forces is None else forces.read(rows),
            None if cells is None else _matrices(cells.read(rows)),
        )


def _matrices(cells: NDArray[Any]) -> NDArray[Any]:
    """Return cells (F, 3, 3) of lengths (F, 3)."""
    return cells if cells.ndim == 3 else np.einsum("fi,ij->fij", cells, np.eye(3))


def count_npz(source: "Source") -> int | None:
    """Return the number of frames that the header of the positions claims."""
    with _archive(source.path) as archive:
        for name in POSITION_NAMES:
            if f"{name}.npy" in archive.namelist():
                try:
                    with archive.open(f"{name}.npy") as member:
                        shape = ArrayStream(member, str(source.path)).shape
                except (zipfile.BadZipFile, OSError):
                    return None
                return int(shape[0]) if shape else None
    return None


def count_npy(source: "Source") -> int | None:
    """Return the number of frames that the header claims."""
    with source.path.open("rb") as file:
        shape = ArrayStream(file, str(source.path)).shape
    return int(shape[0]) if shape else None
