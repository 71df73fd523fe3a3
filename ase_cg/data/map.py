"""From trajectories to a coarse-grained dataset."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.forcemap import ForceMapName
from ase_cg.beads.resolution import Resolution, ResolutionSpec
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.data.mapping_settings import ConstraintSource, MoleculeSettings
from ase_cg.data.molecule_mapping import MoleculeMapping
from ase_cg.errors import InputError
from ase_cg.files import existing_file, listed, refuse_existing, refuse_input_as_output
from ase_cg.settings import validated

PathLike = str | os.PathLike[str]
DATASET_SUFFIXES = (".h5", ".hdf5")


def map_trajectory(
    trajectories: PathLike | Sequence[PathLike],
    output: PathLike,
    *,
    topology: PathLike,
    resolution: ResolutionSpec | Resolution,
    temperature: float,
    force_map: ForceMapName | PathLike = "optimal",
    constraints: ConstraintSource = "detect",
    ridge: float = 0.0,
    name: str = "molecule",
    forces: Sequence[PathLike] = (),
    weights: Sequence[PathLike] = (),
    embeddings: PathLike | None = None,
    group: str | None = None,
    no_forces: bool = False,
    keep_broken: bool = False,
    length_unit: str | None = None,
    force_unit: str | None = None,
    trajectory_length: int | None = None,
    trajectory_starts: PathLike | Sequence[int] | NDArray[np.int64] | None = None,
    frame_interval: str | None = None,
    add: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Map trajectories of one molecule to beads and write them as a dataset.

    Frames are streamed: memory does not grow with the trajectory. The optimal force map takes two passes.

    Parameters
    ----------
    trajectories : path or sequence of paths
        Files as in :class:`ase_cg.data.importers.Source`; each is a trajectory of its own. Forces are mapped
        where the files have them.
    output : path
        The dataset to write (``.h5``).
    topology : path
        Structure file (PDB, mmCIF, PSF, prmtop, …) with the atoms of the trajectories.
    resolution : str, sequence of str, mapping, or path
        As in :meth:`ase_cg.beads.resolution.Resolution.of`.
    temperature : float
        At which the trajectory was run, in K.
    force_map : {"optimal", "constraint_sum", "slice"} or path
        How forces are mapped; see :mod:`ase_cg.beads.forcemap`. A path is that of a ``.npy`` file with a map W of
        shape (N, n) for N beads and n atoms of the topology, which has to be valid.
    constraints : {"detect", "hbonds", "none"}
        Which atoms rigid constraints tie together: found in the data, all bonds to hydrogen, or none.
    ridge : float
        Of the optimal force map, in (eV/Å)², for short trajectories.
    name : str
        Of the molecule within the dataset.
    forces : sequence of paths
        ``.npy`` files with the forces of ``.npy`` trajectories.
    weights : sequence of paths
        Files (``.npy`` or text) with the weight of each frame, for reweighted or enhanced-sampling data.
    embeddings : path, optional
        ``.npy`` file with the bead types of a published data set; they are compared with the topology.
    group : str, optional
        Which molecule of a file in mlcg's layout.
    no_forces : bool
        Leave recorded forces out.
    keep_broken : bool
        Do not put molecules together that the periodic box has cut.
    length_unit, force_unit : str, optional
        Of files that do not declare theirs.
    trajectory_length : int, optional
        A file is several trajectories of so many frames, one after the other.
    trajectory_starts : path or sequence of int, optional
        Number of the first frame of each trajectory in the file, counted from 0, where they differ in length; or a
        ``.npy`` file with them.
    frame_interval : str, optional
        Time between neighbouring frames, such as ``"1 ps"``; flows of transitions have to know it.
    add : bool
        Add the molecule to the dataset instead of making a new one.
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
    spec = Resolution.of(resolution).spec
    given = {
        "trajectories": listed(trajectories),
        "topology": topology,
        "resolution": list(spec) if isinstance(spec, tuple) else spec,
        "temperature": temperature,
        "force_map": force_map,
        "constraints": constraints,
        "ridge": ridge,
        "name": name,
        "forces": listed(forces),
        "weights": listed(weights),
        "embeddings": embeddings,
        "group": group,
        "no_forces": no_forces,
        "keep_broken": keep_broken,
        "length_unit": length_unit,
        "force_unit": force_unit,
        "trajectory_length": trajectory_length,
        "trajectory_starts": _plain(trajectory_starts),
        "frame_interval": frame_interval,
    }
    settings = validated(MoleculeSettings, given, "mapping")
    return map_molecules([settings], output, add=add, overwrite=overwrite, quiet=quiet)


def _plain(starts: PathLike | Sequence[int] | NDArray[np.int64] | None) -> Any:
    """Return the starts of trajectories as settings are written: a path, or a list."""
    return starts if starts is None or isinstance(starts, str | os.PathLike) else np.asarray(starts).tolist()


def map_molecules(
    molecules: Sequence[MoleculeSettings],
    output: PathLike,
    *,
    add: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Map several molecules into one dataset; see :func:`map_trajectory`.

    Raises
    ------
    InputError
        If something does not fit; the dataset is then as it was before.
    """
    if not add:
        refuse_existing(Path(output), overwrite=overwrite)
    elif not Path(output).is_file():
        raise InputError(f"{output} does not exist, so nothing can be added to it; leave --add out to make it")
    for settings in molecules:
        refuse_input_as_output(Path(output), settings.files, DATASET_SUFFIXES)
        for path in settings.files:
            existing_file(path, "input")
    with create_dataset(output, overwrite=overwrite, add=add) as dataset:
        for settings in molecules:
            dataset.check_name(settings.name)
        for settings in molecules:
            MoleculeMapping.of(settings).write(dataset, quiet=quiet)
    return Path(output)
