"""Writing files so that nothing half-written is left behind and nothing is overwritten silently."""

import errno
import hashlib
import json
import math
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ase_cg.errors import InputError

if sys.platform != "win32":
    import fcntl


def listed(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return one path or several as a list."""
    return [Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


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
        If the file exists and `overwrite` is false, or another process is writing it.
    """
    target = Path(path)
    refuse_existing(target, overwrite=overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: some writers choose the format by it.
    partial = target.with_name(f".partial-{target.name}")
    with locked(target):
        try:
            yield partial
            # Some writers make files that nobody else may read; whether others may is the user's to say, by the umask.
            partial.chmod(stat.S_IMODE(_lock_file(target).stat().st_mode))
            sync(partial)  # before the name: after a loss of power there is the whole file or the one before
            partial.replace(target)
            sync(target.parent)
        except OSError as error:
            if error.filename in {None, str(partial)} and error.errno is not None:
                error.filename = str(target)  # the user knows the file by this name only
            raise
        finally:
            partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk and not only in memory."""
    if sys.platform == "win32" and path.is_dir():
        return
    opened = os.open(path, os.O_RDONLY if sys.platform != "win32" else os.O_RDWR)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # file systems that have nothing to wait for
            raise
    finally:
        os.close(opened)


def _lock_file(target: Path) -> Path:
    return target.with_name(f".lock-{target.name}")


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Keep other processes from writing the same file or folder; the system frees the lock of a killed process.

    Raises
    ------
    InputError
        If another process holds it.
    """
    lock = _lock_file(target)
    with lock.open("w", encoding="utf-8") as file:
        if sys.platform == "win32":  # two writers are not told apart there
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{target} is being written by another process; wait for it, or name another file"
            ) from error
        if not lock.exists() or lock.stat().st_ino != os.fstat(file.fileno()).st_ino:
            # Its last owner ended, and removed it, between the two lines above.
            raise InputError(f"{target} was being written by another process until now; try again")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def refuse_input_as_output(output: Path, inputs: Iterable[Path], suffixes: tuple[str, ...]) -> None:
    """Raise :class:`InputError` if an output is one of the inputs, or has no suffix of its kind of file.

    An input must not be lost, not even where overwriting was allowed.
    """
    if output.suffix not in suffixes:
        raise InputError(f"{output} must end in {' or '.join(suffixes)}")
    for path in inputs:
        if output.exists() and path.exists() and output.samefile(path):
            raise InputError(f"{output} is an input and cannot be the output as well; name another file")


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise :class:`InputError` if `path` is a folder, or exists and may not be overwritten."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; choose another name, or allow it with --overwrite (overwrite=True)")


def read_record(path: Path) -> dict[str, Any]:
    """Read one of our own JSON records.

    Raises
    ------
    InputError
        If it is damaged.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); delete its folder, or discard it with --overwrite") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} is damaged; delete its folder, or discard it with --overwrite")
    return data


def write_record(path: Path, data: dict[str, Any]) -> None:
    """Write a JSON record, whole, over an older one."""
    with written_whole(path, overwrite=True) as partial:
        partial.write_text(json_text(data) + "\n", encoding="utf-8")


def json_text(data: Any) -> str:
    """Return data as JSON that every program reads: numbers that are not finite become null."""
    return json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path) -> dict[str, str]:
    """Return a file's name and the hash of its content, as records of what was used keep them."""
    return {"file": path.name, "sha256": file_hash(path)}
