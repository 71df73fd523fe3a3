"""Writing MDTraj's layout of HDF5, and making sure that what was written is there."""

import errno
import json
import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ase_cg.data.guarded_file import GuardedFile
from ase_cg.errors import InputError, reason
from ase_cg.hdf5 import open_hdf5

CHUNK_BYTES = 2**18  # HDF5 compresses, and reads, so much at a time


class Hdf5TrajectoryWriter:
    """A new HDF5 trajectory, which :func:`mdtraj.load` reads; use it as a context manager.

    Parameters
    ----------
    path : Path
        A file of this name is replaced.
    topology : mdtraj.Topology

    Notes
    -----
    Written by h5py through :class:`GuardedFile`: PyTables, which MDTraj uses, drops the error of a write that fails
    while the file is closed (a full disk).
    """

    def __init__(self, path: Path, topology: Any) -> None:
        import h5py

        self._path = path
        self._rows: dict[str, tuple[int, int]] = {}  # how many there are, and the checksum of the last
        self._guard = GuardedFile(path, "w")
        self._file = h5py.File(self._guard, "w")
        try:
            self._write_header(topology)
            self._raise_failure()
        except BaseException:
            self.abandon()
            raise

    def _write_header(self, topology: Any) -> None:
        import mdtraj
        from mdtraj.formats import HDF5TrajectoryFile

        about = {"conventions": "Pande", "conventionVersion": "1.1", "program": "MDTraj", "application": "ase-cg"}
        for name, text in (about | {"programVersion": mdtraj.__version__, "title": "title"}).items():
            self._file.attrs[name] = np.bytes_(text.encode())
        text = json.dumps(HDF5TrajectoryFile.convert_topology_to_dict(topology))
        self._file["topology"] = np.array([text.encode("ascii")])

    def extend(self, name: str, rows: NDArray[Any], units: str) -> None:
        """Append rows (F, …) to an array of 32-bit numbers, which is made with its unit if there is none yet.

        Raises
        ------
        OSError
            If they could not be written.
        """
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        shape = rows.shape[1:]
        if name not in self._file:
            chunk = max(1, CHUNK_BYTES // max(1, 4 * int(np.prod(shape))))
            made = self._file.create_dataset(
                name,
                (0, *shape),
                np.float32,
                maxshape=(None, *shape),
                chunks=(min(chunk, 1024), *shape),
                compression="gzip",
                compression_opts=1,
                shuffle=True,
            )
            made.attrs["units"] = np.bytes_(units.encode())
        stored = self._file[name]
        before = len(stored)
        try:
            stored.resize(before + len(rows), axis=0)
            stored[before:] = rows
        except OSError:
            self._raise_failure()  # it says why; HDF5 does not
            raise
        if len(rows):
            self._rows[name] = (before + len(rows), _checksum(rows[-1]))
        self._raise_failure()

    def close(self) -> None:
        """Close the file, have it on the disk, and compare it with what was written.

        Raises
        ------
        OSError
            If anything of it is not there.
        """
        if self._guard.closed:
            return
        try:
            self._file.close()
            self._raise_failure()
            os.fsync(self._guard.fileno())
        finally:
            self._guard.close()
        self._compare()

    def _compare(self) -> None:
        """Raise where the number of rows, or the last one, is not what was written."""
        path = str(self._path)
        try:
            with open_hdf5(path) as file:
                there = {name: (len(file[name]), _checksum(file[name][-1])) for name in self._rows}
        except (InputError, KeyError, OSError) as error:
            raise OSError(errno.EIO, f"it cannot be read again: {reason(error)}", path) from error
        for name, written in self._rows.items():
            if there[name] != written:
                raise OSError(errno.EIO, f"what was written of {name} is not what is there", path)

    def _raise_failure(self) -> None:
        if (failure := self._guard.failure) is not None:
            raise OSError(failure.errno, failure.strerror, str(self._path)) from failure

    def abandon(self) -> None:
        """Close a file that is of no use."""
        self._file.close()
        self._guard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()


def _checksum(row: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(row).tobytes())
