"""From trajectories to a coarse-grained dataset."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.forcemap import ForceMapName
from ase_cg.beads.mapping import BeadMap, bead_map, linear_map, molecule_atoms
from ase_cg.beads.resolution import Resolution, ResolutionSpec
from ase_cg.beads.structure import Structure, read_structure
from ase_cg.data.dataset_writer import DatasetWriter, MoleculeWriter, create_dataset
from ase_cg.data.force_mapping import ForceMap, fit_force_map
from ase_cg.data.importers import Source
from ase_cg.data.importers.frames import Frames
from ase_cg.data.importers.hdf5 import mlcg_types
from ase_cg.data.mapping_settings import ConstraintSource, MoleculeSettings
from ase_cg.data.weights import check_types, read_weights
from ase_cg.data.whole import WholeMolecules
from ase_cg.errors import InputError
from ase_cg.files import existing_file, refuse_existing
from ase_cg.progress import Progress
from ase_cg.settings import validated

PathLike = str | os.PathLike[str]


def map_trajectory(
    trajectories: PathLike | Sequence[PathLike],
    output: PathLike,
    *,
    topology: PathLike,
    resolution: ResolutionSpec | Resolution,
    temperature: float,
    force_map: ForceMapName = "optimal",
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
    force_map : {"optimal", "constraint_sum", "slice"}
        How forces are mapped; see :mod:`ase_cg.beads.forcemap`.
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

    def listed(paths: PathLike | Sequence[PathLike]) -> list[Path]:
        return [Path(p) for p in ([paths] if isinstance(paths, str | os.PathLike) else paths)]

    spec = Resolution.of(resolution).spec
    given = {
        "trajectories": listed(trajectories),
        "topology": Path(topology),
        "resolution": list(spec) if isinstance(spec, tuple) else spec,
        "temperature": temperature,
        "force_map": force_map,
        "constraints": constraints,
        "ridge": ridge,
        "name": name,
        "forces": listed(forces),
        "weights": listed(weights),
        "embeddings": None if embeddings is None else Path(embeddings),
        "group": group,
        "no_forces": no_forces,
        "keep_broken": keep_broken,
        "length_unit": length_unit,
        "force_unit": force_unit,
        "trajectory_length": trajectory_length,
    }
    settings = validated(MoleculeSettings, given, "mapping")
    return map_molecules([settings], output, add=add, overwrite=overwrite, quiet=quiet)


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
    for settings in molecules:
        for path in [*settings.trajectories, *settings.forces, *settings.weights, settings.topology]:
            existing_file(path, "input")
    with create_dataset(output, overwrite=overwrite, add=add) as dataset:
        for settings in molecules:
            dataset.check_name(settings.name)
        for settings in molecules:
            _Mapping.of(settings).write(dataset, quiet=quiet)
    return Path(output)


@dataclass(frozen=True)
class _Mapping:
    """One molecule being mapped."""

    settings: MoleculeSettings
    structure: Structure
    full_map: BeadMap
    atoms: NDArray[np.int64]

    @classmethod
    def of(cls, settings: MoleculeSettings) -> "_Mapping":
        structure = read_structure(settings.topology)
        mapped = bead_map(structure.topology, settings.resolution)
        return cls(settings, structure, mapped, molecule_atoms(structure.topology, mapped))

    @property
    def _sources(self) -> list[Source]:
        settings = self.settings
        return [
            Source(
                path,
                self.structure.topology,
                settings.length_unit,
                settings.force_unit,
                settings.forces[number] if settings.forces else None,
                settings.group,
                not settings.no_forces,
                self.full_map.topology.n_beads,
                self.atoms,
            )
            for number, path in enumerate(settings.trajectories)
        ]

    def write(self, dataset: DatasetWriter, *, quiet: bool) -> None:
        """Map all frames into a molecule of the dataset."""
        settings, beads = self.settings, self.full_map.topology
        first = self._first_frames()
        self._check_published_types()
        counts = [source.count() for source in self._sources]
        total = sum(n for n in counts if n) if all(counts) else 0
        already_beads = first.positions.shape[1] == beads.n_beads != len(self.atoms)
        local = None if already_beads else self.full_map.restricted(self.atoms)
        force_map = self._force_map(first, local, total, quiet=quiet)
        with (
            dataset.molecule(
                settings.name,
                beads,
                temperature=settings.temperature,
                resolution=self.full_map.resolution,
                force_map=None if force_map is None else force_map.report["name"],
                mapping=settings.record(),
                weighted=bool(settings.weights),
            ) as molecule,
            Progress(f"Mapping {settings.name}", total, quiet=quiet) as progress,
        ):
            if force_map is not None and local is not None:
                molecule.write_maps(self.atoms, local.dense, force_map.matrix, force_map.report)
            for number, source in enumerate(self._sources):
                molecule.next_trajectory()
                weights = read_weights(settings.weights[number]) if settings.weights else None
                done = 0
                for frames in self._whole(source):
                    positions = frames.positions if local is None else local.apply(frames.positions)
                    forces = frames.forces
                    if forces is not None and force_map is not None and local is not None:
                        forces = linear_map(force_map.matrix, forces)
                    part = None if weights is None else weights[done : done + len(positions)]
                    _append(molecule, positions, forces, part, done, settings.trajectory_length)
                    done += len(positions)
                    progress.advance(len(positions))
                if weights is not None and len(weights) != done:
                    raise InputError(
                        f"{settings.weights[number]} holds {len(weights)} weights for the {done} frames of "
                        f"{source.path}"
                    )

    def _whole(self, source: Source) -> Iterator[Frames]:
        """Give frames with molecules put together."""
        together = None if self.settings.keep_broken else WholeMolecules(self.structure.topology, self.atoms)
        for frames in source.chunks():
            usable = together is not None and frames.cells is not None and frames.positions.shape[1] == len(self.atoms)
            if usable and together is not None and frames.cells is not None:
                yield frames._replace(positions=together(frames.positions, frames.cells))
            else:
                yield frames

    def _first_frames(self) -> Frames:
        for frames in self._sources[0].chunks():
            return frames
        raise InputError(f"{self._sources[0].path} holds no frames")

    def _force_map(self, first: Frames, local: BeadMap | None, total: int, *, quiet: bool) -> ForceMap | None:
        """Return the force map; None without forces. Forces on beads are taken as they are."""
        if first.forces is None:
            return None
        if local is None:
            return ForceMap(np.eye(self.full_map.topology.n_beads), {"name": "as published"})
        with Progress(f"Fitting the force map of {self.settings.name}", total, quiet=quiet) as progress:

            def chunks() -> Iterator[Frames]:
                for source in self._sources:
                    for frames in self._whole(source):
                        yield frames
                        progress.advance(len(frames.positions))

            topology = self.structure.topology.subset(self.atoms)
            return fit_force_map(chunks, topology, local.dense, self.settings)

    def _check_published_types(self) -> None:
        """Compare the bead types that come with published data with the topology."""
        names, settings = self.full_map.topology.names, self.settings
        if settings.embeddings is not None:
            check_types(np.load(settings.embeddings, allow_pickle=False), names, str(settings.embeddings))
        for path in settings.trajectories:
            if path.suffix.lower() in {".h5", ".hdf5"}:
                types = mlcg_types(path, settings.group)
                if types is not None:
                    check_types(types, names, str(path))


def _append(
    molecule: MoleculeWriter,
    beads: NDArray[Any],
    forces: NDArray[Any] | None,
    weights: NDArray[Any] | None,
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
        part = slice(start, stop)
        molecule.append(
            beads[part], None if forces is None else forces[part], None if weights is None else weights[part]
        )
        start = stop
