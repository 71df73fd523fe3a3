"""Some frames of a source, and what its beads are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.sources import FrameSource, Piece
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.splits import drawn_by_weight
from ase_cg.mdtraj_hdf5 import TrajectoryFile


def spread_frames(
    source: FrameSource, count: int | None, weights: Sequence[NDArray[np.float64]] | None = None
) -> NDArray[np.float32]:
    """Return frames (F, N, 3) in Å, evenly spaced over all trajectories together; all without a count.

    With weights (F,), one array a piece, they are evenly spaced in the sum of the weights: a frame comes as often as it
    weighs, and one of weight 0 never.
    """
    total = source.n_frames
    if count is not None and weights is not None:
        joined = np.concatenate(list(weights))
        return frames_at(source, drawn_by_weight(joined, min(count, int((joined > 0).sum()))))
    wanted = np.arange(total) if count is None else np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))
    return frames_at(source, wanted)


def frames_at(source: FrameSource, wanted: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return frames (F, N, 3) in Å by their sorted numbers, counted through all trajectories."""
    ends = np.cumsum([piece.length for piece in source.pieces])
    pieces: list[Piece] = []
    for number in wanted.tolist():
        place = int(np.searchsorted(ends, number, side="right"))
        piece = source.pieces[place]
        frame = piece.start + number - (int(ends[place]) - piece.length)
        if pieces and pieces[-1].trajectory == piece.trajectory and pieces[-1].stop == frame:
            pieces[-1] = pieces[-1]._replace(stop=frame + 1)
        else:
            pieces.append(Piece(piece.trajectory, frame, frame + 1))
    return np.concatenate([frames for _, frames in source.chunks(pieces)])


def beads_of(source: FrameSource) -> tuple[BeadTopology, Any]:
    """Return the topology of a source and the resolution that makes its beads from atoms."""
    from ase_cg.data.dataset import Dataset

    if source.topology is not None:
        with Dataset.open(source.path) as dataset:
            return source.topology, dataset.only_molecule().resolution
    topology = _from_mdtraj(source.files[0])
    if all(":" not in name for name in topology.names):
        return topology, "calpha"
    labels = zip(topology.residue_names, topology.residue_numbers, topology.names, strict=True)
    return topology, tuple(f"{residue}{number}:{name.partition(':')[2]}" for residue, number, name in labels)


def _from_mdtraj(path: Path) -> BeadTopology:
    """Return the beads of a trajectory file; a residue that is a CA alone is one bead of the residue's name."""
    with TrajectoryFile(path) as file:
        found = file.topology
    atoms = list(found.atoms)
    whole = {atom.index for atom in atoms if atom.residue.n_atoms == 1 and atom.name == "CA"}
    bonds = {(min(a.index, b.index), max(a.index, b.index)) for a, b in found.bonds}
    return BeadTopology(
        names=tuple(a.residue.name if a.index in whole else f"{a.residue.name}:{a.name}" for a in atoms),
        residue_names=tuple(a.residue.name for a in atoms),
        residue_numbers=tuple(int(a.residue.resSeq) for a in atoms),
        chains=tuple(int(a.residue.chain.index) for a in atoms),
        masses=tuple(float(a.element.mass) for a in atoms),
        bonds=tuple(sorted(bonds)),
    )
