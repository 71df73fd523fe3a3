"""Writing files so that nothing half-written is left behind and nothing is overwritten silently."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ase_cg.errors import InputError


def existing_file(path: str | os.PathLike[str], what: str) -> Path:
    """Return the path of a file that must be there.

    Raises
    ------
    InputError
        If it is not, naming `what` was looked for.
    """
    found = Path(path)
    if not found.is_file():
        raise InputError(f"{what} {found} does not exist" if not found.exists() else f"{what} {found} is no file")
    return found


@contextmanager
def written_whole(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Give a path to write to; the file appears under its own name only when the block ends well.

    Raises
    ------
    InputError
        If the file exists and `overwrite` is false.
    """
    target = Path(path)
    refuse_existing(target, overwrite=overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: some writers choose the format by it.
    partial = target.with_name(f".partial-{os.getpid()}-{target.name}")
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise :class:`InputError` if `path` exists and may not be overwritten."""
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; choose another name, or allow it with --overwrite (overwrite=True)")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
