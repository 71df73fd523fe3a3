"""Everything that MDTraj reads."""

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ase_cg.data.importers.frames import Frames, chunk_frames
from ase_cg.data.truncation import check_complete
from ase_cg.errors import InputError, reason
from ase_cg.mdtraj_hdf5 import refuse_unpickling

if TYPE_CHECKING:
    from ase_cg.data.importers import Source

_STRUCTURE_FORMATS = frozenset({".pdb", ".ent", ".gro", ".cif", ".mmcif", ".pdbx", ".gsd"})


def read_mdtraj(source: "Source") -> Iterator[Frames]:
    """Read positions and cells, in nm by MDTraj's definition."""
    import mdtraj

    path = source.path
    refuse_unpickling(path)
    if path.suffix != path.suffix.lower():
        raise InputError(f"{path}: formats are told by suffixes in lower case; rename it to {path.suffix.lower()}")
    options = {} if path.suffix.lower() in _STRUCTURE_FORMATS else {"top": source.topology}
    frames = 0
    with warnings.catch_warnings():
        # MDTraj warns of placeholders in the files of others.
        warnings.simplefilter("ignore")
        iterator = mdtraj.iterload(str(path), chunk=chunk_frames(source.topology.n_atoms), **options)
    while True:
        try:
            chunk = next(iterator, None)
        except Exception as error:
            # MDTraj raises whatever its many parsers meet; the user needs the file's name and the reason.
            raise InputError(
                f"{path} cannot be read with a topology of {source.topology.n_atoms} atoms: {reason(error)}"
            ) from error
        if chunk is None:
            check_complete(path, frames)
            return
        if not frames and not options and chunk.n_atoms == source.topology.n_atoms:
            source.check_atoms(chunk.topology)
        frames += chunk.n_frames
        yield Frames(chunk.xyz, cells=chunk.unitcell_vectors, length_unit="nm")
