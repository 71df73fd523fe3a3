"""The first look at a source: which trajectories are sound, and between which values its bonds lie."""

from dataclasses import dataclass

import numpy as np

from ase_cg.analysis.features import bond_lengths
from ase_cg.analysis.sources import FrameSource
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError

TORN = 3.0  # times the longest bond of the reference: positions have exploded


@dataclass(frozen=True)
class Survey:
    """What the first pass over a source found.

    Parameters
    ----------
    source : FrameSource
        Without the trajectories that exploded.
    bonds : tuple of (float, float), or None
        Shortest and longest bond in Å; None without bonds.
    """

    source: FrameSource
    bonds: tuple[float, float] | None


def survey(source: FrameSource, topology: BeadTopology, longest_bond: float | None = None) -> Survey:
    """Read a source once; a trajectory with positions that are no numbers, or a torn bond, is left out.

    Parameters
    ----------
    source : FrameSource
    topology : BeadTopology
        Of the reference, whose bonds are measured.
    longest_bond : float, optional
        Of the reference in Å; a bond three times as long is torn.

    Raises
    ------
    InputError
        If no trajectory is left.
    """
    bad: dict[int, str] = {}
    ranges: dict[int, tuple[float, float]] = {}
    weights = source.weights()
    place = {piece.trajectory: (n, piece.start) for n, piece in enumerate(source.pieces)}
    for piece, frames in source.chunks():
        number = piece.trajectory
        if number in bad:
            continue
        finite = np.isfinite(frames).all((1, 2))
        if not finite.all():
            frame = piece.start + int(np.flatnonzero(~finite)[0])
            bad[number] = f"trajectory {number} holds positions that are no numbers from frame {frame} on"
        elif topology.bonds:
            lengths = bond_lengths(frames, topology.bonds)
            if weights is not None:  # frames without weight are as if they were not there
                index, first = place[number]
                lengths[weights[index][piece.start - first : piece.stop - first] <= 0] = np.nan
                if np.isnan(lengths).all():
                    continue
            if longest_bond is not None and np.nanmax(lengths) > TORN * longest_bond:
                frame = piece.start + int(np.flatnonzero((lengths > TORN * longest_bond).any(1))[0])
                bad[number] = f"trajectory {number} exploded: a bond of {np.nanmax(lengths):.3g} Å at frame {frame}"
                continue
            low, high = ranges.get(number, (np.inf, -np.inf))
            ranges[number] = min(low, float(np.nanmin(lengths))), max(high, float(np.nanmax(lengths)))
    kept = source.without(bad)
    if not kept.pieces:
        raise InputError(f"{source.path} holds no sound trajectory: {next(iter(bad.values()))}; simulate again")
    sound = [ranges[piece.trajectory] for piece in kept.pieces] if topology.bonds else []
    return Survey(kept, (min(low for low, _ in sound), max(high for _, high in sound)) if sound else None)
