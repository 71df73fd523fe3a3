"""Opening HDF5 files that somebody else may have made: checked before anything is read or allocated."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_cg.errors import InputError, reason

if TYPE_CHECKING:
    import h5py

DEFLATE, SHUFFLE, FLETCHER32, SZIP, LZF = 1, 2, 3, 4, 32000
_COMPRESSING = frozenset({DEFLATE, SZIP, LZF})
_FILTERS = _COMPRESSING | {SHUFFLE, FLETCHER32}
_LARGEST_RATIO = 1100  # deflate makes data smaller by a factor of 1032 at most
_LARGEST_CHUNK = 512 * 2**20  # bytes that HDF5 unpacks at once
_LARGEST_UNIT = 64  # bytes of an attribute that names a unit


def open_hdf5(path: str | os.PathLike[str]) -> "h5py.File":
    """Open an HDF5 file for reading.

    HDF5 itself runs no code that a file holds (PyTables does: it unpickles attributes and objects, so it is never used
    here). What HDF5 does follow are links and data that lie in other files, so these are refused.

    Parameters
    ----------
    path : path

    Raises
    ------
    InputError
        If it is no HDF5 file, damaged, or any of it lies in another file.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        what = "is truncated or damaged" if h5py.is_hdf5(path) else "is no HDF5 file or is truncated"
        raise InputError(f"{path} {what}: {reason(error)}") from error
    try:
        _check_contained(file, path)
    except InputError:
        file.close()
        raise
    except Exception as error:
        # HDF5 raises whatever it meets in a damaged file; the user needs the file's name and the reason.
        file.close()
        raise InputError(f"{path} is truncated or damaged: {reason(error)}") from error
    return file


def _check_contained(file: "h5py.File", path: str | os.PathLike[str]) -> None:
    """Raise where a link leads to another file, or an array is stored in one; arrays are not read."""
    import h5py

    waiting: list[h5py.Group] = [file]
    seen = set()
    while waiting:
        group = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:  # groups may contain each other
            continue
        seen.add(address)
        for name in group:
            where = f"{path} ({group.name.rstrip('/')}/{name})"
            kind = group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type
            if kind == h5py.h5l.TYPE_SOFT:
                continue  # leads to a place in this file
            if kind != h5py.h5l.TYPE_HARD:
                raise InputError(f"{where} is a link to another file, which is not followed; copy the data into one")
            item = group[name]
            if isinstance(item, h5py.Group):
                waiting.append(item)
            elif isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
                raise InputError(f"{where} is stored in another file, which is not opened; copy the data into one")


def numeric_array(
    parent: "h5py.Group", name: str, shape: tuple[int | None, ...], path: str | os.PathLike[str]
) -> "h5py.Dataset":
    """Return an array of numbers, not read yet.

    Parameters
    ----------
    parent : h5py.Group
        Of a file opened by :func:`open_hdf5`.
    name : str
    shape : tuple
        As it must be; None is any length.
    path : path
        Of the file, for messages.

    Raises
    ------
    InputError
        If it is missing, no array of plain numbers, of another shape, larger than the file can hold, or compressed in a
        way that needs a plug-in.
    """
    import h5py

    where = f"{path} ({parent.name.rstrip('/')}/{name})"
    try:
        item = parent.get(name)
        found = item if isinstance(item, h5py.Dataset) else None
        kind, size = (None, 0) if found is None else (found.dtype.kind, found.dtype.itemsize)
        actual = None if found is None else found.shape
    except Exception as error:
        # HDF5 raises whatever it meets in a damaged file; the user needs the array's name and the reason.
        raise InputError(f"{where} is damaged: {reason(error)}") from error
    if found is None:
        raise InputError(f"{where} is {'missing' if item is None else 'no array'}")
    if kind not in {"f", "i", "u"} or size > 8:
        raise InputError(f"{where} holds {found.dtype} and not numbers; objects are never loaded")
    fits = actual is not None and len(actual) == len(shape)
    if actual is None or not fits or any(n is not None and n != m for n, m in zip(shape, actual, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise InputError(f"{where} has the shape {actual}, not ({wanted})")
    check_storage(found, where, Path(path).stat().st_size)
    return found


def check_storage(array: "h5py.Dataset", where: str, file_size: int) -> None:
    """Raise :class:`InputError` where an array claims more than the file holds, or needs a filter that is a plug-in."""
    settings = array.id.get_create_plist()
    filters = [settings.get_filter(number)[0] for number in range(settings.get_nfilters())]
    compressing = [code for code in filters if code in _COMPRESSING]
    unknown = sorted(set(filters) - _FILTERS)
    if unknown or len(compressing) > 1:
        what = f"filter {unknown[0]}, which is a plug-in" if unknown else "several compressions at once"
        raise InputError(f"{where} is stored with {what}, and is not read; store it uncompressed or with gzip")
    claimed = math.prod(array.shape) * array.dtype.itemsize
    held = array.id.get_storage_size()
    chunk = math.prod(array.chunks) * array.dtype.itemsize if array.chunks else 0
    too_large = claimed > held * (_LARGEST_RATIO if compressing else 1)
    if held > file_size or too_large or chunk > _LARGEST_CHUNK:
        raise InputError(
            f"{where} claims {claimed} bytes in chunks of {chunk}, of which the file holds {held}; it is truncated or "
            "damaged"
        )


def declared_unit(array: Any) -> str | None:
    """Return the unit that an HDF5 array says it has.

    Raises
    ------
    InputError
        If its attribute is no short text.
    """
    if "units" not in array.attrs:
        return None
    found = array.attrs.get_id("units")
    value = None
    if found.shape in {(), (1,)} and found.get_storage_size() <= _LARGEST_UNIT:
        value = array.attrs["units"]
        value = value if found.shape == () else value[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise InputError(f"{array.file.filename} ({array.name}) has a unit that is no text")
    return value
