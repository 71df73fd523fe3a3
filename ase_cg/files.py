"""Writing files so that nothing half-written is left behind and nothing is overwritten silently."""

import errno
import hashlib
import json
import math
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
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
        partial.unlink(missing_ok=True)  # what a killed process left; a link is not followed
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


def save_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    metadata: dict[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write arrays or tensors as safetensors, whole or not at all.

    Parameters
    ----------
    path : path
    tensors : mapping of str to ndarray, or of str to Tensor
        On the CPU.
    metadata : dict, optional
    overwrite : bool

    Raises
    ------
    InputError
        If the file exists and `overwrite` is false, or another process is writing it.
    OSError
        If it could not be written, as on a full disk.
    """
    import numpy as np
    from safetensors import SafetensorError

    if all(isinstance(one, np.ndarray) for one in tensors.values()):
        from safetensors.numpy import save_file
    else:
        from safetensors.torch import save_file
    with written_whole(path, overwrite=overwrite) as partial:
        try:
            save_file(dict(tensors), partial, metadata=metadata)
        except SafetensorError as error:  # it hides the system's error in its words
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code), os.fspath(path)) from error


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
    refuse_link(lock)
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


def refuse_link(path: Path) -> None:
    """Raise :class:`InputError` if a file that is to be written is a link: what it leads to may be anybody's."""
    if path.is_symlink():
        raise InputError(f"{path} is a link to {path.readlink()}, which is not written through; remove it")


def is_empty(folder: Path) -> bool:
    """Whether a folder is not there, or holds nothing but what a killed process of ours left in its first moments."""
    ours = (".lock-", ".partial-")
    return not folder.exists() or all(path.name.startswith(ours) for path in folder.iterdir())


def refuse_links_out(folder: Path) -> None:
    """Raise :class:`InputError` if anything below a folder is a link to outside of it.

    A folder of ours holds none; one that somebody else made may, and files are removed and replaced in it.
    """
    root = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent) / name for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise InputError(f"{path} is a link to outside of {folder}; remove it, or choose another folder")


def plain_name(name: Any, record: Path) -> str:
    """Return a name that a record gives, if it can be that of a file in the record's own folder.

    Parameters
    ----------
    name : object
        As it was read.
    record : Path
        Where it was read, for the message.

    Raises
    ------
    InputError
        If it is no text, empty, absolute, leads elsewhere, or has characters that no name of ours has.
    """
    bad = not isinstance(name, str) or name in {"", ".", ".."} or any(not one.isprintable() for one in name)
    if bad or not PurePosixPath(name).name == PureWindowsPath(name).name == name:
        raise InputError(
            f"{record} names a file {name!r}, and only plain names of files in its own folder are accepted; the folder "
            "is damaged or was tampered with, so choose another one"
        )
    return str(name)


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
