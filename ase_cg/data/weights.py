"""What comes beside the frames of a data set: weights, starts of trajectories, and the bead types of published sets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.errors import InputError, reason


def read_weights(path: Path) -> NDArray[np.float64]:
    """Read the weight of each frame from a ``.npy`` or text file, shape (F,).

    Raises
    ------
    InputError
        If the file cannot be read, or a weight is negative or no number, or all are zero.
    """
    try:
        weights = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as weights: {reason(error)}") from error
    weights = np.atleast_1d(weights).astype(float)
    if weights.ndim != 1:
        raise InputError(f"{path} holds an array of shape {weights.shape}, not one weight for each frame")
    check_weights(weights, str(path))
    if not weights.sum() > 0:
        raise InputError(f"{path} holds no weight above zero")
    return weights


def check_weights(weights: NDArray[np.float64], where: str, *, first: int = 0) -> None:
    """Check that weights, of frames from number `first` on, are numbers and not negative; `where` begins the message.

    Raises
    ------
    InputError
        If one is not.
    """
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if bad.size:
        raise InputError(
            f"{where}: the weight of frame {first + bad[0]} (counted from 0) is {weights[bad[0]]}; it must be ≥ 0"
        )


def read_trajectory_starts(path: Path) -> NDArray[np.int64]:
    """Read the number of the first frame of each trajectory, counted from 0, from a ``.npy`` file: shape (T,).

    Raises
    ------
    InputError
        If the file cannot be read, or the numbers are not whole, do not begin with 0 or do not increase.
    """
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as starts of trajectories: {reason(error)}") from error
    return check_trajectory_starts(found, str(path))


def check_trajectory_starts(found: NDArray[Any], path: str) -> NDArray[np.int64]:
    """Return the first frames of trajectories, shape (T,), as whole numbers; `path` begins the message of an error.

    Raises
    ------
    InputError
        If they are not whole, do not begin with 0 or do not increase.
    """
    if found.ndim != 1 or not found.size or found.dtype.kind not in "iuf":
        raise InputError(f"{path} holds an array of shape {found.shape} and type {found.dtype}, not a list of frames")
    starts = found.astype(np.int64) if np.isfinite(found).all() else np.empty(0, dtype=np.int64)
    if not np.array_equal(starts, found):
        raise InputError(f"{path} holds numbers that are no frames; give the first frame of each trajectory, from 0")
    if starts[0] != 0:
        raise InputError(f"{path} begins with frame {starts[0]}; the first trajectory starts at 0 (counted from 0)")
    back = np.flatnonzero(np.diff(starts) <= 0)
    if back.size:
        place = int(back[0])
        raise InputError(
            f"{path}: frame {starts[place + 1]} follows frame {starts[place]}; starts of trajectories increase"
        )
    return starts


def read_types(path: Path) -> NDArray[Any]:
    """Read the bead types of published data from a ``.npy`` file.

    Raises
    ------
    InputError
        If it is no such file.
    """
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as bead types: {reason(error)}") from error


def check_types(types: NDArray[Any], names: Sequence[str], where: str) -> None:
    """Check that the bead types of published data fit the topology: one for each bead, the same for the same name.

    Raises
    ------
    InputError
        If they do not.
    """
    if types.shape != (len(names),):
        raise InputError(f"{where} has bead types of shape {types.shape}, but the topology makes {len(names)} beads")
    by_name: dict[str, Any] = {}
    for bead, (name, kind) in enumerate(zip(names, types.tolist(), strict=True)):
        if by_name.setdefault(name, kind) != kind:
            raise InputError(
                f"{where} gives bead {bead} ({name}) type {kind}, but another {name} type {by_name[name]}; give the "
                "topology that belongs to it"
            )
