"""Compiled packages kept on disk, in a folder of the user's own, up to a size."""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ase_cg.errors import InputError
from ase_cg.files import file_hash, locked, written_whole

LIMIT = 2 * 1024**3  # bytes
OTHERS_MAY_WRITE = 0o022
POLL = 0.2  # s
KEY = re.compile("[0-9a-f]{32}")
COMPILERS = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}  # PyTorch's compilers, and folders
UNFINISHED = 3600.0  # s, after which a file that is not whole is nobody's


@dataclass(frozen=True)
class Entry:
    """One compiled function: its package, and what is known of it.

    Attributes
    ----------
    package : Path
    record : Path
        JSON, written last: an entry without it is not whole.
    """

    package: Path
    record: Path

    def read(self) -> dict[str, Any] | None:
        """Return the record, or None if the entry is not there, or not as it was written."""
        try:
            found: dict[str, Any] = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        try:
            _check_owner(self.package, self.package.parent)
            # A damaged file is not for the system to load: it may end the process.
            if file_hash(self.package) != found.pop("sha256", None):
                return None
        except OSError:  # another process may have cleared the cache
            return None
        with suppress(OSError):  # of a folder that can only be read
            os.utime(self.record)  # when it was last used decides what is deleted first
        return found

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from making the entry, and wait for one that does."""
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(locked(self.package.with_suffix("")))
                    break
                except InputError:
                    time.sleep(POLL)
            yield

    def write(self, record: dict[str, Any]) -> None:
        """Write the record, after the package, and delete the oldest entries beyond the limit."""
        self.package.chmod(0o600)  # whatever the umask: code that others may write to is not run
        with written_whole(self.record, overwrite=True) as partial:
            whole = record | {"sha256": file_hash(self.package)}
            partial.write_text(json.dumps(whole, indent=1), encoding="utf-8")
        prune(LIMIT)


def cache_folder() -> Path:
    """Return the folder of compiled packages: ``$ASE_CG_CACHE``, or ``ase-cg`` in the user's cache folder."""
    given, base = os.environ.get("ASE_CG_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        found = Path(given).expanduser() if given else (Path(base) if base else Path.home() / ".cache") / "ase-cg"
    except RuntimeError as error:  # a user without a home
        raise InputError("your home folder is not known; set ASE_CG_CACHE to a folder for compiled models") from error
    return found.absolute()


def make_folder(folder: Path) -> None:
    """Make the folder, for its user alone, if it is not there.

    Raises
    ------
    InputError
        If it cannot be written, or others can write to it: an existing folder is left as it is.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.is_symlink():
            _check_owner(folder)
        folder.mkdir(mode=0o700, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(
            f"{folder}, the folder of compiled models, cannot be written ({error.strerror}); set ASE_CG_CACHE to a "
            "folder of your own, or do without compiling"
        ) from error
    _check_owner(folder)


def entry(key: str, suffix: str = ".pt2") -> Entry:
    """Return the place of an entry."""
    folder = cache_folder()
    return Entry(folder / f"{key}{suffix}", folder / f"{key}.json")


def make_key(**parts: Any) -> str:
    """Return a name that differs whenever something differs that the compiled code depends on."""
    import torch

    machine = {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": _processor(),
        "source": _source_hash(),
    }
    text = json.dumps(parts | machine, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cached_size() -> tuple[int, int]:
    """Return how many packages there are and how many bytes they take."""
    packages = [_size(path) for path in _packages()]
    return len(packages), sum(packages)


def clear() -> tuple[int, int]:
    """Delete all packages; returns what :func:`cached_size` did before."""
    found = cached_size()
    for path in [*_files("*.json"), *_packages()]:
        path.unlink(missing_ok=True)
    for part in COMPILERS.values():
        shutil.rmtree(cache_folder() / part, ignore_errors=True)  # a link is left as it is
    _delete_unfinished()
    return found


def _delete_unfinished() -> None:
    """Delete what killed processes left half written; what is younger may still be written to."""
    folder = cache_folder()
    for path in [one for one in folder.glob(".partial-*") if KEY.search(one.name)] if folder.is_dir() else []:
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > UNFINISHED:
                path.unlink()


def prune(limit: int) -> None:
    """Delete the packages that were not used for longest, until the rest take no more than `limit` bytes."""
    # Whole entries, and what killed processes left.
    _delete_unfinished()
    total = 0
    for package in sorted(_packages(), key=_last_used, reverse=True):
        total += _size(package)
        if total > limit:
            package.with_suffix(".json").unlink(missing_ok=True)
            package.unlink(missing_ok=True)


def _files(pattern: str) -> list[Path]:
    """Return the cache's files, by the names that :func:`make_key` gives; others in the folder are not ours."""
    folder = cache_folder()
    return [path for path in sorted(folder.glob(pattern)) if KEY.fullmatch(path.stem)] if folder.is_dir() else []


def _packages() -> list[Path]:
    return [*_files("*.pt2"), *_files("*.so")]


def _size(path: Path) -> int:
    # Another process may have deleted it.
    return path.stat().st_size if path.is_file() else 0


def _last_used(package: Path) -> float:
    record = package.with_suffix(".json")
    return next((path.stat().st_mtime for path in (record, package) if path.is_file()), 0.0)


@contextmanager
def compiler_folders() -> Iterator[None]:
    """Let PyTorch's compilers keep what they make below the cache, for this block only.

    By default that is a folder in the shared temporary folder whose name everybody knows: prepared by somebody else,
    its libraries would be loaded.

    Raises
    ------
    InputError
        If the folder cannot be written, or others can write to it.
    """
    folder = cache_folder()
    given = {name: folder / part for name, part in COMPILERS.items()}
    for one in (folder, *given.values()):
        make_folder(one)
    before = {name: os.environ.get(name) for name in given}
    os.environ.update({name: str(path) for name, path in given.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check_owner(*paths: Path) -> None:
    """Refuse native code that somebody else may have written."""
    if os.name != "posix":
        return
    for path in paths:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise InputError(
                f"{path} is a link, which is not followed to compiled code; set ASE_CG_CACHE to the folder itself"
            )
        if found.st_uid != os.getuid() or found.st_mode & OTHERS_MAY_WRITE:
            raise InputError(
                f"{path} belongs to another user or can be written by others, so compiled code in it is not run; "
                "correct its owner and mode, or set ASE_CG_CACHE to a folder of your own"
            )


@cache
def _source_hash() -> str:
    """Return a hash of the package's source: another version may compile to other code."""
    import ase_cg

    digest = hashlib.sha256()
    root = Path(ase_cg.__file__).parent
    for folder in ("inference", "models", "dynamics"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        import platform

        return platform.processor()
    wanted = ("model name", "flags", "Features")
    return hashlib.sha256("".join(sorted({x for x in lines if x.startswith(wanted)})).encode()).hexdigest()
