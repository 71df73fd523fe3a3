"""GROMACS's TRR: MDTraj reads the positions and drops the forces, MDAnalysis reads both."""

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_cg.data.importers.frames import Frames, chunk_frames
from ase_cg.data.importers.mdtraj_files import read_mdtraj
from ase_cg.data.truncation import trr_contents
from ase_cg.errors import InputError, reason

if TYPE_CHECKING:
    from ase_cg.data.importers import Source


def read_trr(source: "Source") -> Iterator[Frames]:
    """Read frames in nm and kJ/mol/nm, GROMACS's own units.

    Where the file has forces and they are wanted, only frames that have both positions and forces are given, and a
    warning counts the others (GROMACS may write the two at different intervals).
    """
    contents = trr_contents(source.path)
    if not source.read_forces or not contents.with_forces:
        yield from read_mdtraj(source)
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MDAnalysis's own deprecations
            from MDAnalysis.lib.formats.libmdaxdr import TRRFile
    except ModuleNotFoundError as error:
        raise InputError(
            f"{source.path} holds forces, and reading them needs MDAnalysis; pip install 'ase-cg[gromacs]', or map "
            "without them (--no-forces)"
        ) from error
    yield from _both(source, TRRFile, contents.frames)


def _both(source: "Source", opener: Any, n_frames: int) -> Iterator[Frames]:
    step, skipped = chunk_frames(source.topology.n_atoms), 0
    kept: list[Any] = []
    try:
        with opener(str(source.path)) as file:
            for frame in file:
                if not (frame.hasx and frame.hasf):
                    skipped += 1
                    continue
                kept.append((frame.x.copy(), frame.f.copy(), frame.box.copy()))
                if len(kept) == step:
                    yield _stacked(kept)
                    kept = []
    except OSError as error:
        raise InputError(f"{source.path} cannot be read: {reason(error)}") from error
    if kept:
        yield _stacked(kept)
    if skipped:
        warnings.warn(
            f"{source.path}: {skipped} of {n_frames} frames lack positions or forces and are left out",
            UserWarning,
            stacklevel=2,
        )


def _stacked(frames: list[Any]) -> Frames:
    positions, forces, cells = (np.stack(arrays) for arrays in zip(*frames, strict=True))
    return Frames(positions, forces, cells if np.abs(cells).max() > 0 else None, "nm", "kJ/mol/nm")
