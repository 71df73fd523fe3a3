"""Figures of single frames: how large, how long, how near to the native structure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.features import end_to_end_distance, radius_of_gyration, representative_beads
from ase_cg.analysis.native import NativeStructure, gdt_ts_of, rmsd_of
from ase_cg.analysis.sources import FrameSource
from ase_cg.beads.topology import BeadTopology

Arrays = list[NDArray[np.float64]]


def frame_figures(
    frames: NDArray[Any], topology: BeadTopology, native: NativeStructure | None
) -> dict[str, NDArray[np.float64]]:
    """Return the figures of frames (F, N, 3) in Å that need nothing but the frame: each of shape (F,).

    Radius of gyration and end-to-end distance, and with a native structure RMSD, GDT-TS and native contacts.
    """
    beads = representative_beads(topology)
    found = {
        "radius_of_gyration": radius_of_gyration(frames, topology.masses),
        "end_to_end": end_to_end_distance(frames, (beads[0], beads[-1])),
    }
    if native is not None:
        deviations = native.superposed(frames)
        found |= {"rmsd": rmsd_of(deviations), "gdt_ts": gdt_ts_of(deviations)}
        if len(native.contacts):
            found["native_contacts"] = native.native_contacts(frames)
    return found


SERIES_UNITS: Mapping[str, str] = {
    "radius_of_gyration": "Å",
    "end_to_end": "Å",
    "rmsd": "Å",
    "gdt_ts": "",
    "native_contacts": "",
}


def read_series(source: FrameSource, topology: BeadTopology, native: NativeStructure | None) -> dict[str, Arrays]:
    """Return :func:`frame_figures` of all frames of a source, streamed: of each one array a trajectory."""
    parts: dict[int, list[dict[str, NDArray[np.float64]]]] = {piece.trajectory: [] for piece in source.pieces}
    for piece, frames in source.chunks():
        parts[piece.trajectory].append(frame_figures(frames, topology, native))
    names = next(iter(parts.values()))[0]
    return {name: [np.concatenate([part[name] for part in own]) for own in parts.values()] for name in names}
