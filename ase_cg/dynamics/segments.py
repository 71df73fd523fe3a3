"""What a running simulation keeps on disk: segments of frames, and the checkpoint that counts them."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.errors import InputError, reason
from ase_cg.files import save_tensors

Arrays = Mapping[str, NDArray[Any]]


class SegmentStore:
    """Frames and checkpoints of one running batch of replicas.

    Every part is a file of its own that appears whole or not at all: first a segment of frames, then the
    checkpoint that counts it. Killed at any moment, a run continues from the checkpoint and has lost no frame
    that it counts.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count: int | None = None

    def write_start(self, positions: NDArray[np.float64]) -> None:
        """Keep the positions (R, N, 3) in Å from which the replicas start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _save(self._start, {"positions": positions})

    def start(self) -> NDArray[np.float64] | None:
        """Return what :meth:`write_start` kept, or None."""
        return _load(self._start)["positions"] if self._start.exists() else None

    def write(self, frames: Arrays, state: Arrays, text: str) -> None:
        """Write a segment, whose arrays have one row a frame (or no arrays), and the state after the last of them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        count = self.count()
        if frames:
            _save(self._segment(count), frames)
            count += 1
        _save(self._checkpoint, state, {"segments": str(count), "state": text})
        self._count = count

    def count(self) -> int:
        """Return the number of segments that the checkpoint counts; 0 without one."""
        if self._count is None:
            self._count = self._read_checkpoint()[0] if self._checkpoint.exists() else 0
        return self._count

    def state(self) -> tuple[dict[str, NDArray[Any]], str] | None:
        """Return the state to continue from, or None."""
        if not self._checkpoint.exists():
            return None
        _, arrays, text = self._read_checkpoint()
        return arrays, text

    def segments(self, name: str, columns: slice | None = None) -> Iterator[NDArray[Any]]:
        """Give an array of each segment in turn, whole or some columns (replicas) of it.

        Raises
        ------
        InputError
            If a segment is missing or damaged.
        """
        for number in range(self.count()):
            yield _load(self._segment(number), name, columns)[name]

    def forget_segments(self) -> None:
        """Delete the segments, whose frames are in trajectories by now, and keep the state after the last of them."""
        if (kept := self.state()) is not None:
            _save(self._checkpoint, kept[0], {"segments": "0", "state": kept[1]})
        self._count = None
        for path in self.folder.glob("[0-9]*.safetensors"):
            path.unlink()

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def _start(self) -> Path:
        return self.folder / "start.safetensors"

    def _segment(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"

    def _read_checkpoint(self) -> tuple[int, dict[str, NDArray[Any]], str]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._checkpoint, framework="np") as file:
                metadata = file.metadata()
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            return int(metadata["segments"]), arrays, metadata["state"]
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise InputError(
                f"the checkpoint {self._checkpoint} is damaged: {reason(error)}; start again with --overwrite"
            ) from error


def remove_segments(folder: Path) -> None:
    """Delete all that was kept while running; checkpoints first, so that a kill in between leaves nothing counted."""
    for checkpoint in folder.glob("*/checkpoint.safetensors"):
        checkpoint.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _save(path: Path, arrays: Arrays, metadata: dict[str, str] | None = None) -> None:
    save_tensors(path, {name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata, overwrite=True)


def _load(path: Path, name: str | None = None, columns: slice | None = None) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            if name is None:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
            return {name: file.get_tensor(name) if columns is None else file.get_slice(name)[:, columns]}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}, a part of an unfinished simulation, is missing or damaged ({reason(error)}); start again with "
            "--overwrite"
        ) from error
