"""From all-atom trajectories to a coarse-grained dataset."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ase_cg.beads.atoms import read_structure
from ase_cg.beads.forcemap import FORCE_MAPS
from ase_cg.beads.mapping import Resolution, bead_map
from ase_cg.data.dataset import MoleculeWriter, create_dataset
from ase_cg.data.importers import Source, count_frames
from ase_cg.errors import InputError
from ase_cg.files import existing_file, file_hash, refuse_existing
from ase_cg.progress import Progress

PathLike = str | os.PathLike[str]


def map_trajectory(
    trajectories: PathLike | Sequence[PathLike],
    output: PathLike,
    *,
    topology: PathLike,
    resolution: Resolution,
    temperature: float,
    force_map: str = "slice",
    name: str = "molecule",
    length_unit: str | None = None,
    force_unit: str | None = None,
    trajectory_length: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Map all-atom trajectories to beads and write them as a dataset.

    Frames are streamed: memory does not grow with the trajectory.

    Parameters
    ----------
    trajectories : path or sequence of paths
        Files as in :class:`ase_cg.data.importers.Source`; each is a trajectory of its own. Forces are mapped
        where the files have them.
    output : path
        The dataset to write (``.h5``).
    topology : path
        Structure file (PDB, …) with the atoms of the trajectories.
    resolution : str or sequence of str
        As in :func:`ase_cg.beads.mapping.bead_map`.
    temperature : float
        At which the trajectory was run, in K.
    force_map : {"slice"}
        How forces are mapped.
    name : str
        Of the molecule within the dataset.
    length_unit, force_unit : str, optional
        Of arrays that do not declare theirs.
    trajectory_length : int, optional
        A file is several trajectories of so many frames, one after the other.
    overwrite, quiet : bool

    Returns
    -------
    Path
        Of the dataset.

    Raises
    ------
    InputError
        If something does not fit; nothing is left behind then.
    """
    paths = [Path(p) for p in ([trajectories] if isinstance(trajectories, str | os.PathLike) else trajectories)]
    if not paths:
        raise InputError("no trajectory was given")
    if force_map not in FORCE_MAPS:
        raise InputError(f"unknown force map {force_map!r}; known are {', '.join(FORCE_MAPS)}")
    if trajectory_length is not None and trajectory_length < 1:
        raise InputError(f"trajectories of {trajectory_length} frames make no sense")
    refuse_existing(Path(output), overwrite=overwrite)
    for path in paths:
        existing_file(path, "trajectory")
    structure = read_structure(topology)
    mapped = bead_map(structure.topology, resolution)
    forces_to_beads = FORCE_MAPS[force_map](mapped)
    sources = [Source(path, structure.topology, length_unit, force_unit) for path in paths]
    has_forces = _first_has_forces(sources[0])
    frames = [count_frames(path) for path in paths]
    total = sum(n for n in frames if n) if all(frames) else 0
    with (
        create_dataset(output, overwrite=overwrite) as dataset,
        dataset.molecule(
            name,
            mapped.topology,
            temperature=temperature,
            resolution=mapped.resolution,
            force_map=force_map if has_forces else None,
            mapping=mapping_record(
                paths, topology, mapped.resolution, temperature, force_map, trajectory_length, length_unit, force_unit
            ),
        ) as molecule,
        Progress("Mapping frames", total, quiet=quiet) as progress,
    ):
        for source in sources:
            molecule.next_trajectory()
            done = 0
            for positions, forces in source.chunks():
                beads = mapped.apply(positions)
                bead_forces = None if forces is None else np.einsum("bn,fnx->fbx", forces_to_beads, forces)
                _append(molecule, beads, bead_forces, done, trajectory_length)
                done += len(beads)
                progress.advance(len(beads))
    return Path(output)


def mapping_record(
    trajectories: Sequence[Path],
    topology: PathLike,
    resolution: Resolution,
    temperature: float,
    force_map: str,
    trajectory_length: int | None,
    length_unit: str | None,
    force_unit: str | None,
) -> dict[str, Any]:
    """Return everything that decides a mapped dataset, JSON-safe; files by name and content."""
    return {
        "trajectories": [{"file": path.name, "sha256": file_hash(path)} for path in trajectories],
        "topology": {"file": Path(topology).name, "sha256": file_hash(Path(topology))},
        "resolution": resolution if isinstance(resolution, str) else list(resolution),
        "temperature": float(temperature),
        "force_map": force_map,
        "trajectory_length": trajectory_length,
        "length_unit": length_unit,
        "force_unit": force_unit,
    }


def _first_has_forces(source: Source) -> bool:
    for _, forces in source.chunks():
        return forces is not None
    raise InputError(f"{source.path} holds no frames")


def _append(
    molecule: MoleculeWriter,
    beads: np.ndarray,
    forces: np.ndarray | None,
    done: int,
    trajectory_length: int | None,
) -> None:
    """Append frames, starting a new trajectory at every multiple of `trajectory_length`."""
    start = 0
    while start < len(beads):
        stop = len(beads)
        if trajectory_length is not None:
            place = (done + start) % trajectory_length
            if place == 0:
                molecule.next_trajectory()
            stop = min(stop, start + trajectory_length - place)
        molecule.append(beads[start:stop], None if forces is None else forces[start:stop])
        start = stop
