"""Forces for trajectories that were saved without: evaluated again by OpenMM."""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.structure import NM, read_structure
from ase_cg.data.importers import Source
from ase_cg.data.importers.frames import Frames
from ase_cg.data.trajectory_writer import Hdf5TrajectoryWriter
from ase_cg.data.whole import WholeMolecules
from ase_cg.errors import InputError, reason
from ase_cg.files import existing_file, listed, refuse_existing, refuse_input_as_output, written_whole
from ase_cg.progress import Progress

PathLike = str | os.PathLike[str]
ROUNDED_FORMATS = frozenset({".xtc", ".pdb", ".gro"})  # to 0.01 Å or so


def label_forces(
    trajectories: PathLike | Sequence[PathLike],
    output: PathLike,
    *,
    topology: PathLike,
    system: PathLike | None = None,
    force_field: Sequence[str] = (),
    selection: str = "all",
    platform: str | None = None,
    length_unit: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Evaluate the forces of an OpenMM system on all frames of an all-atom trajectory.

    Parameters
    ----------
    trajectories : path or sequence of paths
        Files as in :class:`ase_cg.data.importers.Source`, of all atoms of the system.
    output : path
        MDTraj's HDF5 with a further array ``forces`` in kJ/mol/nm, which :func:`ase_cg.map_trajectory` reads; it is
        its own topology.
    topology : path
        Structure file with the same atoms, hydrogens and solvent included.
    system : path, optional
        An OpenMM system, serialized as XML, that the trajectories were run with.
    force_field : sequence of str
        Instead of `system`: OpenMM's force-field files, such as ``amber14/protein.ff14SB.xml`` and
        ``implicit/obc2.xml``. Without constraints; particle-mesh Ewald with a cutoff of 1 nm where the trajectory has
        a cell, no cutoff where it has none or the solvent is implicit.
    selection : str
        MDTraj selection of the atoms that are written; ``"not water"`` keeps the file small.
    platform : str, optional
        OpenMM's platform (CPU, CUDA, …); by default the fastest.
    length_unit : str, optional
        Of files that do not declare theirs.
    overwrite, quiet : bool

    Returns
    -------
    Path
        Of the output.

    Raises
    ------
    InputError
        If something does not fit, or a force is no number; nothing is left behind then.

    Notes
    -----
    Forces along constrained bonds are not part of OpenMM's forces, as is usual in trajectories that were saved with
    forces; the force maps take constraints into account.
    """
    paths = listed(trajectories)
    if not paths:
        raise InputError("no trajectory was given")
    refuse_existing(Path(output), overwrite=overwrite)
    others = [Path(topology), *([] if system is None else [Path(system)])]
    refuse_input_as_output(Path(output), [*paths, *others], (".h5", ".hdf5"))
    structure = read_structure(topology)
    sources = [Source(path, structure.topology, length_unit, read_forces=False) for path in paths]
    cell = _first_cell(sources[0])
    context = _context(structure.topology, system, force_field, platform, cell)
    everything = np.arange(structure.topology.n_atoms)
    # Bonded forces know no images: molecules have to be whole; how they lie to each other does not matter.
    whole = WholeMolecules.of_atoms(structure.topology, everything, pieces_together=False)
    kept = _selected(structure.topology, selection)
    _warn_of_rounding(paths)
    counts = [source.count() for source in sources]
    total = sum(n for n in counts if n) if all(counts) else 0
    with (
        written_whole(output, overwrite=overwrite) as partial,
        Progress("Evaluating forces", total, quiet=quiet) as progress,
        Hdf5TrajectoryWriter(partial, structure.topology.subset(kept)) as file,
    ):
        for source in sources:
            for positions, forces, cells in _labelled(source, context, whole, periodic=cell is not None):
                _append(file, positions[:, kept], forces[:, kept], cells)
                progress.advance(len(positions))
    return Path(output)


def _first_cell(source: Source) -> NDArray[np.float64] | None:
    first = next(source.chunks(), None)
    if first is None:
        raise InputError(f"{source.path} holds no frames")
    return None if first.cells is None else first.cells[0]


def _warn_of_rounding(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.suffix.lower() in ROUNDED_FORMATS:
            warnings.warn(
                f"{path} keeps positions to about 0.01 Å: forces of stiff bonds that were not constrained get a noise "
                "of several kcal/mol/Å",
                UserWarning,
                stacklevel=3,
            )


def _openmm() -> Any:
    try:
        import openmm
    except ModuleNotFoundError as error:
        raise InputError(
            "evaluating forces needs OpenMM, which is not installed; pip install 'ase-cg[openmm]'"
        ) from error
    return openmm


def _selected(topology: Any, selection: str) -> NDArray[np.int64]:
    try:
        kept = np.asarray(topology.select(selection), dtype=np.int64)
    except Exception as error:
        # MDTraj's parser raises many kinds of errors for a selection it cannot read.
        raise InputError(f"selection {selection!r} cannot be read: {reason(error)}") from error
    if not len(kept):
        raise InputError(f"selection {selection!r} matches no atom")
    return kept


def _context(
    topology: Any,
    system: PathLike | None,
    force_field: Sequence[str],
    platform: str | None,
    cell: NDArray[np.float64] | None,
) -> Any:
    openmm = _openmm()
    if (system is None) == (not force_field):
        raise InputError("give either an OpenMM system (--system) or force-field files (--force-field)")
    made = _read_system(Path(system)) if system is not None else _make_system(topology, force_field, cell)
    if made.getNumParticles() != topology.n_atoms:
        raise InputError(
            f"the system has {made.getNumParticles()} particles, but the topology {topology.n_atoms} atoms"
        )
    if cell is None and made.usesPeriodicBoundaryConditions():
        raise InputError("the system is periodic, but the trajectory has no cell; its frames cannot be evaluated")
    integrator = openmm.VerletIntegrator(0.001)  # a context needs one; no step is made
    try:
        chosen = () if platform is None else (openmm.Platform.getPlatformByName(platform),)
        return openmm.Context(made, integrator, *chosen)
    except openmm.OpenMMException as error:
        names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
        raise InputError(f"OpenMM cannot use this system here ({reason(error)}); it has {', '.join(names)}") from error


def _read_system(path: Path) -> Any:
    openmm = _openmm()
    text = existing_file(path, "OpenMM system").read_text(encoding="utf-8")
    try:
        made = openmm.XmlSerializer.deserialize(text)
    except (openmm.OpenMMException, ValueError) as error:
        raise InputError(f"{path} is no serialized OpenMM system: {reason(error)}") from error
    if not isinstance(made, openmm.System):
        raise InputError(f"{path} holds an OpenMM {type(made).__name__}, not a System")
    return made


def _make_system(topology: Any, force_field: Sequence[str], cell: NDArray[np.float64] | None) -> Any:
    from openmm import app, unit

    implicit = any(name.startswith("implicit/") for name in force_field)
    try:
        field, made = app.ForceField(*force_field), topology.to_openmm()
        if cell is None or implicit:
            return field.createSystem(made, nonbondedMethod=app.NoCutoff)
        made.setPeriodicBoxVectors(_reduced(cell) * unit.nanometer)
        return field.createSystem(made, nonbondedMethod=app.PME, nonbondedCutoff=1 * unit.nanometer)
    except Exception as error:
        # OpenMM's force fields raise many kinds of errors for files and residues that they do not know.
        raise InputError(f"no system can be made with {', '.join(force_field)}: {reason(error)}") from error


def _reduced(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the vectors of a cell in Å as OpenMM wants them: in nm, each as short as others allow."""
    a, b, c = cell / NM
    c = c - b * np.round(c[1] / b[1])
    c = c - a * np.round(c[0] / a[0])
    b = b - a * np.round(b[0] / a[0])
    return np.stack([a, b, c])


def _labelled(
    source: Source, context: Any, whole: WholeMolecules, *, periodic: bool
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]]:
    """Give positions of whole molecules in Å, their forces in kJ/mol/nm, and cells in Å, some frames at a time."""
    done = 0
    for frames in source.chunks():
        if (frames.cells is not None) != periodic:
            raise InputError(f"{source.path} has {'no' if periodic else 'a'} cell, unlike the first trajectory")
        positions = frames.positions if frames.cells is None else whole(frames.positions, frames.cells)
        complete = frames._replace(positions=positions)
        yield positions, np.stack(list(_forces(context, complete, source.path, done))), frames.cells
        done += len(positions)


def _forces(context: Any, frames: Frames, path: Path, done: int) -> Iterator[NDArray[np.float64]]:
    """Give the forces of each frame in kJ/mol/nm, shape (n, 3)."""
    openmm = _openmm()
    for number, positions in enumerate(frames.positions):
        try:
            if frames.cells is not None:
                context.setPeriodicBoxVectors(*_reduced(frames.cells[number]))
            context.setPositions(positions / NM)
            context.computeVirtualSites()
            forces = context.getState(getForces=True).getForces(asNumpy=True)._value  # noqa: SLF001 - without its unit
        except openmm.OpenMMException as error:
            raise InputError(f"{path}: forces of frame {done + number} cannot be evaluated: {reason(error)}") from error
        if not np.isfinite(forces).all():
            raise InputError(f"{path}: frame {done + number} (counted from 0) has forces that are no numbers")
        yield forces


def _append(
    file: Hdf5TrajectoryWriter,
    positions: NDArray[np.float64],
    forces: NDArray[np.float64],
    cells: NDArray[np.float64] | None,
) -> None:
    """Append frames: positions and cells in Å, forces in kJ/mol/nm."""
    file.extend("coordinates", positions / NM, "nanometers")
    file.extend("forces", forces, "kJ/mol/nm")
    if cells is not None:
        from mdtraj.utils import box_vectors_to_lengths_and_angles

        lengths_and_angles = np.stack(box_vectors_to_lengths_and_angles(*cells.transpose(1, 0, 2)), axis=-1)
        file.extend("cell_lengths", lengths_and_angles[:, :3] / NM, "nanometers")
        file.extend("cell_angles", lengths_and_angles[:, 3:], "degrees")
