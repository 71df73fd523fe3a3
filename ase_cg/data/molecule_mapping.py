"""The mapping of one molecule: its sources, its bead map, its force map, frame by frame into the dataset."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.mapping import BeadMap, bead_map, linear_map, molecule_atoms
from ase_cg.beads.structure import Structure, read_structure
from ase_cg.data.dataset_writer import DatasetWriter, MoleculeWriter
from ase_cg.data.force_check import ForceChecker
from ase_cg.data.force_mapping import ForceMap, fit_force_map
from ase_cg.data.importers import Source
from ase_cg.data.importers.frames import Frames
from ase_cg.data.importers.hdf5 import mlcg_types
from ase_cg.data.mapping_settings import MoleculeSettings
from ase_cg.data.own_force_map import read_force_map
from ase_cg.data.weights import check_trajectory_starts, check_types, read_trajectory_starts, read_types, read_weights
from ase_cg.data.whole import WholeMolecules
from ase_cg.errors import InputError
from ase_cg.progress import Progress
from ase_cg.units import KCAL_PER_MOL


@dataclass(frozen=True)
class MoleculeMapping:
    """One molecule being mapped; see :meth:`of`."""

    settings: MoleculeSettings
    structure: Structure
    full_map: BeadMap
    atoms: NDArray[np.int64]

    @classmethod
    def of(cls, settings: MoleculeSettings) -> "MoleculeMapping":
        """Read the structure and make the bead map."""
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
        local = None if self._holds_beads(first) else self.full_map.restricted(self.atoms)
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
            checker = ForceChecker(beads, settings.temperature)
            square = self._write_frames(molecule, local, force_map, progress, checker)
            if force_map is not None:
                check = checker.result()
                report = force_map.report | {"rms": float(np.sqrt(square)) / KCAL_PER_MOL, "check": check.to_dict()}
                if check.suspicious:
                    warnings.warn(check.message(settings.name, beads.names), UserWarning, stacklevel=4)
                molecule.write_report(report)
                if local is not None:
                    molecule.write_maps(self.atoms, local.dense, force_map.matrix)

    def _write_frames(
        self,
        molecule: MoleculeWriter,
        local: BeadMap | None,
        force_map: ForceMap | None,
        progress: Progress,
        checker: ForceChecker,
    ) -> float:
        """Map and append all frames; return the mean square of a component of the mapped forces."""
        squares = count = 0.0
        starts = self._trajectory_starts()
        for number, source in enumerate(self._sources):
            molecule.next_trajectory()
            weights, done = self._weights(number, source), 0
            for frames in self._whole(source):
                beads, forces = self._on_beads(frames, local, force_map)
                part = None if weights is None else weights[done : done + len(beads)]
                done += len(beads)
                if part is not None and len(part) < len(beads):
                    break
                _append(molecule, beads, forces, part, self._divisions(starts, done - len(beads), done))
                progress.advance(len(beads))
                if forces is not None:
                    checker.add(beads, forces, part, frames.cells)
                    by_frame = (forces**2).mean((1, 2))
                    squares += float(by_frame.sum() if part is None else part @ by_frame)
                    count += float(len(beads) if part is None else part.sum())
            if weights is not None and len(weights) != done:
                raise InputError(
                    f"{self.settings.weights[number]} holds {len(weights)} weights, but {source.path} has another "
                    "number of frames"
                )
            if starts is not None and starts[-1] >= done:
                raise InputError(
                    f"{self._starts_name}: a trajectory starts at frame {starts[-1]} (counted from 0), "
                    f"but {source.path} has only {done} frames"
                )
        return squares / count if count else 0.0

    @staticmethod
    def _on_beads(
        frames: Frames, local: BeadMap | None, force_map: ForceMap | None
    ) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return positions and forces on beads, both (F, N, 3)."""
        if local is None:
            return frames.positions, frames.forces
        forces = None
        if frames.forces is not None and force_map is not None:
            forces = linear_map(force_map.matrix, frames.forces)
        return local.apply(frames.positions), forces

    def _holds_beads(self, first: Frames) -> bool:
        """Whether the files hold beads already: there are so many particles, or every particle is one."""
        matrix, beads = self.full_map.matrix, self.full_map.topology
        if first.positions.shape[1] == beads.n_beads != len(self.atoms):
            return True
        return bool(matrix.shape[0] == matrix.shape[1] == matrix.nnz and (matrix.diagonal() == 1).all())

    def _whole(self, source: Source) -> Iterator[Frames]:
        """Give frames with molecules put together."""
        together: WholeMolecules | None = None
        for frames in source.chunks():
            if self.settings.keep_broken or frames.cells is None:
                yield frames
                continue
            if together is None and frames.positions.shape[1] == len(self.atoms):
                together = WholeMolecules.of_atoms(self.structure.topology, self.atoms)
            elif together is None:
                beads = self.full_map.topology
                together = WholeMolecules(beads.bonds, beads.chains)
            yield frames._replace(positions=together(frames.positions, frames.cells))

    def _weights(self, number: int, source: Source) -> NDArray[np.float64] | None:
        if not self.settings.weights:
            return None
        weights = read_weights(self.settings.weights[number])
        count = source.count()
        if count is not None and count != len(weights):
            raise InputError(
                f"{self.settings.weights[number]} holds {len(weights)} weights for the {count} frames of {source.path}"
            )
        return weights

    def _trajectory_starts(self) -> NDArray[np.int64] | None:
        given = self.settings.trajectory_starts
        if given is None:
            return None
        if isinstance(given, Path):
            return read_trajectory_starts(given)
        return check_trajectory_starts(np.array(given), "trajectory_starts")

    @property
    def _starts_name(self) -> str:
        given = self.settings.trajectory_starts
        return str(given) if isinstance(given, Path) else "trajectory_starts"

    def _divisions(self, starts: NDArray[np.int64] | None, first: int, stop: int) -> NDArray[np.int64]:
        """Return the frames among `first` … `stop` − 1 at which another trajectory begins, counted from `first`."""
        if starts is None:
            length = self.settings.trajectory_length
            starts = np.empty(0, dtype=np.int64) if length is None else np.arange(0, stop, length)
        return starts[(starts >= first) & (starts < stop)] - first

    def _mean_weight(self) -> float:
        """Return the mean weight over the frames of all files: what files weigh beside each other counts."""
        if not self.settings.weights:
            return 1.0
        return float(np.concatenate([read_weights(path) for path in self.settings.weights]).mean())

    def _first_frames(self) -> Frames:
        for frames in self._sources[0].chunks():
            return frames
        raise InputError(f"{self._sources[0].path} holds no frames")

    def _force_map(self, first: Frames, local: BeadMap | None, total: int, *, quiet: bool) -> ForceMap | None:
        """Return the force map; None without forces. Forces on beads are taken as they are."""
        if first.forces is None:
            return None
        if local is None:
            if self.settings.force_map_file is not None:
                raise InputError(
                    f"force map {self.settings.force_map_file} has nothing to map: the forces are those on the beads "
                    "already; leave it out"
                )
            return ForceMap(np.eye(self.full_map.topology.n_beads), {"name": "as published"})
        with Progress(f"Fitting the force map of {self.settings.name}", total, quiet=quiet) as progress:
            mean = self._mean_weight()

            def chunks() -> Iterator[Frames]:
                for number, source in enumerate(self._sources):
                    weights, done = self._weights(number, source), 0
                    for frames in self._whole(source):
                        yield _weighted(frames, weights, done, mean)
                        done += len(frames.positions)
                        progress.advance(len(frames.positions))

            topology = self.structure.topology.subset(self.atoms)
            return fit_force_map(chunks, topology, local.dense, self.settings, self._own_force_map())

    def _own_force_map(self) -> NDArray[np.float64] | None:
        path = self.settings.force_map_file
        if path is None:
            return None
        return read_force_map(path, self.full_map.topology.n_beads, self.structure.topology.n_atoms, self.atoms)

    def _check_published_types(self) -> None:
        """Compare the bead types that come with published data with the topology."""
        names, settings = self.full_map.topology.names, self.settings
        if settings.embeddings is not None:
            check_types(read_types(settings.embeddings), names, str(settings.embeddings))
        for path in settings.trajectories:
            if path.suffix.lower() in {".h5", ".hdf5"}:
                types = mlcg_types(path, settings.group)
                if types is not None:
                    check_types(types, names, str(path))


def _weighted(frames: Frames, weights: NDArray[np.float64] | None, done: int, mean: float) -> Frames:
    """Return frames whose forces carry the root of their weight, so that their second moments are weighted."""
    if weights is None or frames.forces is None:
        return frames
    part = weights[done : done + len(frames.forces)] / mean
    if len(part) < len(frames.forces):
        return frames  # the mapping itself tells that the numbers differ
    return frames._replace(forces=frames.forces * np.sqrt(part)[:, None, None])


def _append(
    molecule: MoleculeWriter,
    beads: NDArray[Any],
    forces: NDArray[Any] | None,
    weights: NDArray[Any] | None,
    starts: NDArray[np.int64],
) -> None:
    """Append frames; at each of the sorted places `starts` among them another trajectory begins."""
    bounds = sorted({0, *starts.tolist(), len(beads)})
    for start, stop in pairwise(bounds):
        if start in starts:
            molecule.next_trajectory()
        part = slice(start, stop)
        molecule.append(
            beads[part], None if forces is None else forces[part], None if weights is None else weights[part]
        )
