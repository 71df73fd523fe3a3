"""What a simulation writes: segments with checkpoints while it runs, MDTraj's HDF5 when it is done."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError, reason
from ase_cg.files import read_record, written_whole
from ase_cg.units import FEMTOSECOND

PICOSECOND = 1e3 * FEMTOSECOND
ANGSTROM_PER_NM = 10.0


class SegmentStore:
    """Frames and checkpoints of a running simulation.

    Every part is a file of its own that appears whole or not at all: first a segment of frames, then the
    checkpoint that counts it. Killed at any moment, a run continues from the checkpoint and has lost no frame
    that it counts.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "segments"

    def write(
        self, frames: NDArray[np.float32], times: NDArray[np.float64], arrays: dict[str, NDArray[Any]], text: str
    ) -> None:
        """Write frames (k, R, N, 3) in Å at `times` (k,) in ps, and the state after the last of them."""
        from safetensors.numpy import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        count = self.count()
        with written_whole(self._segment(count), overwrite=True) as partial:
            save_file({"frames": np.ascontiguousarray(frames), "times": times}, partial)
        tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        with written_whole(self._checkpoint, overwrite=True) as partial:
            save_file(tensors, partial, metadata={"segments": str(count + 1), "state": text})

    def count(self) -> int:
        """Return the number of segments that the checkpoint counts; 0 without one."""
        return self._read_checkpoint()[0] if self._checkpoint.exists() else 0

    def state(self) -> tuple[dict[str, NDArray[Any]], str] | None:
        """Return the state to continue from, or None."""
        if not self._checkpoint.exists():
            return None
        _, arrays, text = self._read_checkpoint()
        return arrays, text

    def frames(self) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return all frames (F, R, N, 3) in Å and their times (F,) in ps."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            parts = [load_file(self._segment(i)) for i in range(self.count())]
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"a segment in {self.folder} is missing or damaged ({reason(error)}); start again with --overwrite"
            ) from error
        return np.concatenate([part["frames"] for part in parts]), np.concatenate([part["times"] for part in parts])

    def remove(self) -> None:
        """Delete all segments; first the checkpoint, so that a kill in between leaves nothing that is counted."""
        self._checkpoint.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

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


def write_trajectory(
    path: Path, frames: NDArray[np.float32], times: NDArray[np.float64], topology: BeadTopology
) -> None:
    """Write frames (F, N, 3) in Å at times (F,) in ps as MDTraj's HDF5."""
    from mdtraj.formats import HDF5TrajectoryFile

    with written_whole(path, overwrite=True) as partial, HDF5TrajectoryFile(str(partial), "w") as file:
        file.topology = topology.to_mdtraj()
        file.write(coordinates=frames / ANGSTROM_PER_NM, time=times)


def replica_paths(folder: Path) -> list[Path]:
    """Return the finished trajectories of a simulation folder, in order."""
    return sorted(folder.glob("replica_*.h5"))


def read_simulation(folder: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Read a finished simulation.

    Returns
    -------
    frames : ndarray, shape (R, F, N, 3)
        In Å.
    settings : dict
        What ``simulation.json`` says, and ``beads``: the beads' labels as in :func:`bead_labels`.

    Raises
    ------
    InputError
        If the folder holds no simulation, an unfinished one, or damaged files.
    """
    import mdtraj

    record = folder / "simulation.json"
    if not record.is_file():
        raise InputError(f"{folder} holds no simulation; make one with `ase-cg simulate`")
    settings = read_record(record)
    paths = replica_paths(folder)
    if len(paths) != settings["replicas"]:
        raise InputError(f"the simulation in {folder} is not finished; continue it with the same `ase-cg simulate`")
    replicas = []
    topology = None
    for path in paths:
        try:
            loaded = mdtraj.load(str(path))
        except Exception as error:
            # PyTables raises whatever HDF5 meets; the user needs the file's name and the reason.
            raise InputError(
                f"{path} is truncated or damaged ({reason(error)}); simulate again with --overwrite"
            ) from error
        replicas.append(loaded.xyz * ANGSTROM_PER_NM)
        topology = loaded.topology
    return np.stack(replicas), settings | {"beads": _labels(topology)}


def bead_labels(topology: BeadTopology) -> list[str]:
    """Return the beads as a trajectory file names them, ``ALA2:CA``."""
    return _labels(topology.to_mdtraj())


def _labels(topology: Any) -> list[str]:
    return [f"{atom.residue.name}{atom.residue.resSeq}:{atom.name}" for atom in topology.atoms]
