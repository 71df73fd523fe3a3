"""A file whose failing writes are remembered instead of raised in the middle of HDF5."""

import io
from pathlib import Path
from typing import Any

from ase_cg.errors import InputError


class GuardedFile(io.FileIO):
    """A file for HDF5 to write to.

    HDF5 ends the process with a fault when a write fails and its objects are let go of afterwards. Here a failing
    write (a full disk, a quota) is remembered, further ones are dropped, and :meth:`check` tells.

    Parameters
    ----------
    path : Path
    mode : {"w", "a"}
        A new file, or one that is added to.
    """

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path, "w+" if mode == "w" else "r+")
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of the data, unless a write has failed before."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while len(rest) and self.failure is None:
                rest = rest[super().write(rest) or 0 :]
        except OSError as error:
            self.failure = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Change the size of the file."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0

    def check(self, path: Path) -> None:
        """Raise :class:`InputError`, naming `path`, if a write has failed."""
        if self.failure is not None:
            raise InputError(
                f"{path} could not be written ({self.failure.strerror}); nothing of it was kept"
            ) from self.failure
