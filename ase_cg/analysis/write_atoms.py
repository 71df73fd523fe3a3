"""``ase-cg backmap``: the atoms of a simulation's or dataset's frames, as PDB and XTC."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.backmap import Backmapping, backmapping
from ase_cg.analysis.backmap_energy import Minimizer, Relaxation
from ase_cg.analysis.bead_frames import beads_of, spread_frames
from ase_cg.analysis.side_chains import add_side_chains, check_side_chains
from ase_cg.analysis.sources import open_source
from ase_cg.errors import InputError
from ase_cg.files import refuse_existing, written_whole
from ase_cg.progress import announced

PathLike = str | os.PathLike[str]
SUFFIXES = (".pdb", ".xtc")
NANOMETER = 10.0  # Å


def write_atoms(
    source: PathLike,
    output: PathLike,
    *,
    structure: PathLike | None = None,
    frames: int | None = None,
    minimize: bool = True,
    side_chains: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> NDArray[np.float64] | None:
    """Rebuild the atoms of frames of beads and write them.

    Parameters
    ----------
    source : path
        Folder of a simulation, or a dataset.
    output : path
        ``.pdb`` for all frames in one file, or ``.xtc``, beside which the first frame is written as ``.pdb``.
    structure : path, optional
        All-atom structure of the molecule; without it Cα beads give the backbone.
    frames : int, optional
        How many, evenly spaced; by default all.
    minimize : bool
        Minimise around the beads in OpenMM. A backbone without a structure is minimised as glycines, and once more
        with its side chains where it gets them.
    side_chains : bool
        Complete a backbone with PDBFixer.
    overwrite, quiet : bool

    Returns
    -------
    ndarray, shape (F,), or None
        Energies after minimisation, in kcal/mol.

    Raises
    ------
    InputError
        If something does not fit.
    """
    target = Path(output)
    if target.suffix not in SUFFIXES:
        raise InputError(f"{target} must end in {' or '.join(SUFFIXES)}")
    for path in {target, target.with_suffix(".pdb")}:
        refuse_existing(path, overwrite=overwrite)
    if frames is not None and frames < 1:
        raise InputError(f"frames must be at least 1, not {frames}")
    opened = open_source(source, "model")
    topology, resolution = beads_of(opened)
    mapped = backmapping(topology, resolution, structure)
    if side_chains and not mapped.is_stand_in:
        raise InputError("side chains come with the structure already; leave --side-chains or --structure out")
    if side_chains:
        check_side_chains(topology.residue_names)
    beads = spread_frames(opened, frames, opened.weights())
    with announced(f"Rebuilding the atoms of {len(beads)} frames", quiet=quiet):
        made, atoms, energies = _rebuilt(mapped, beads, minimize=minimize, side_chains=side_chains)
        _write(target, made, atoms)
    return energies


def _rebuilt(
    mapped: Backmapping, beads: NDArray[np.float32], *, minimize: bool, side_chains: bool
) -> tuple[Any, NDArray[np.float64], NDArray[np.float64] | None]:
    """Return topology, atoms (F, n, 3) in Å, and energies in kcal/mol where they were minimised."""
    made, energies = mapped.topology, None
    if minimize:
        atoms, energies = Minimizer(mapped).minimized(beads)
    else:
        atoms = mapped.build(beads)
    if mapped.is_stand_in:
        made, atoms = mapped.backbone(atoms)
    if not side_chains:
        return made, atoms, energies
    made, atoms = add_side_chains(made, atoms)
    if minimize:
        # The backbone is held first, or atoms that clash would pull it, and turn residues inside out.
        for held in ("name N CA C O CB", "name CA"):
            atoms, energies = Relaxation(made, made.select(held)).relaxed(atoms)
    return made, atoms, energies


def _write(target: Path, topology: Any, atoms: NDArray[np.float64]) -> None:
    import mdtraj

    trajectory = mdtraj.Trajectory(atoms / NANOMETER, topology)
    if target.suffix == ".xtc":
        with written_whole(target.with_suffix(".pdb"), overwrite=True) as partial:
            trajectory[0].save_pdb(str(partial))
    with written_whole(target, overwrite=True) as partial:
        trajectory.save(str(partial))
