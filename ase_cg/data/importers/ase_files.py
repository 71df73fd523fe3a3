"""ASE's trajectories: ``.traj`` and extended XYZ."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_cg.data.importers.frames import Frames, chunk_frames
from ase_cg.errors import InputError, reason

if TYPE_CHECKING:
    from ase_cg.data.importers import Source


def read_ase(source: "Source") -> Iterator[Frames]:
    """Read frames in Å and eV/Å, ASE's own units; forces are those of the calculator, without constraints."""
    from ase.io import iread

    path, step = source.path, chunk_frames(source.topology.n_atoms)
    # By its suffix: what ASE finds in the content may be a format whose reader unpickles.
    kind = "traj" if path.suffix.lower() == ".traj" else "extxyz"
    images = iread(str(path), index=":", format=kind)
    pieces: list[Any] = []
    count = n_atoms = 0
    while True:
        try:
            atoms = next(images, None)
        except Exception as error:
            # ASE raises whatever its readers meet; the user needs the file's name and the reason.
            raise InputError(f"{path} cannot be read by ASE: {reason(error)}") from error
        if atoms is None:
            break
        if count and len(atoms) != n_atoms:
            raise InputError(
                f"{path}: frame {count} has {len(atoms)} atoms, the frames before {n_atoms}; frames of different "
                "molecules cannot be one trajectory"
            )
        if not count:
            n_atoms = len(atoms)
            _check_elements(source, atoms)
        pieces.append(_frame(atoms))
        count += 1
        if len(pieces) == step:
            yield _stacked(source, pieces)
            pieces = []
    if pieces:
        yield _stacked(source, pieces)


def _check_elements(source: "Source", atoms: Any) -> None:
    expected = [None if a.element is None else a.element.symbol for a in source.topology.atoms]
    if len(atoms) != len(expected):
        return  # the count is told with the shapes
    for index, (own, given) in enumerate(zip(atoms.get_chemical_symbols(), expected, strict=True)):
        if given not in {own, None, "VS"}:
            raise InputError(
                f"atom {index} is {own} in {source.path}, but {given} in the topology; give the one that belongs to "
                "the trajectory"
            )


def _frame(atoms: Any) -> tuple[Any, Any, Any]:
    results = {} if atoms.calc is None else atoms.calc.results
    cell = atoms.cell.array if atoms.cell.rank == 3 and atoms.pbc.all() else None
    return atoms.positions, results.get("forces"), cell


def _stacked(source: "Source", frames: list[tuple[Any, Any, Any]]) -> Frames:
    positions, forces, cells = zip(*frames, strict=True)
    if any((force is None) != (forces[0] is None) for force in forces):
        raise InputError(f"{source.path} has forces in some frames only")
    whole_cells = None if any(cell is None for cell in cells) else np.stack(cells)
    return Frames(np.stack(positions), None if forces[0] is None else np.stack(forces), whole_cells, "Å", "eV/Å")
