"""The force map of a molecule: made from its topology, or from a first pass over its forces."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.constraints import MIN_FRAMES, Groups, RigidPairs, hydrogen_groups
from ase_cg.beads.forcemap import (
    ForceMoments,
    check_force_map,
    constraint_sum_force_map,
    slice_force_map,
    validity,
)
from ase_cg.data.importers.frames import Frames
from ase_cg.data.mapping_settings import MappingSettings
from ase_cg.errors import InputError
from ase_cg.units import KCAL_PER_MOL

OWN = "from a file"


class ForceMap(NamedTuple):
    """A force map and what is known of it.

    Attributes
    ----------
    matrix : ndarray, shape (N, n)
    report : dict
        ``name``; ``constraints`` (where the groups come from) and ``constraint_groups`` (lists of their atoms);
        ``validity``, the largest deviation of W Cᵀ from the identity; ``rms``, the root mean square component of the
        mapped forces in kcal/mol/Å, over all frames; for the optimal map also ``rms_in_sample`` and ``rms_held_out``,
        those of a map fitted to one half of the frames on that half and on the other, and ``rms_constraint_sum`` for
        comparison.
    """

    matrix: NDArray[np.float64]
    report: dict[str, Any]


def fit_force_map(
    chunks: Callable[[], Iterable[Frames]],
    topology: Any,
    coordinate_map: NDArray[np.float64],
    settings: MappingSettings,
    own: NDArray[np.float64] | None = None,
) -> ForceMap:
    """Make the force map of a molecule, or check the user's own.

    The second moments of the forces are summed in one pass over the frames, each chunk's first half in one sum and its
    second in another, which are fitted on and evaluated on in turn; the map that is used is fitted to both.

    Parameters
    ----------
    chunks : callable
        Gives all frames with forces, from the beginning, each time it is called.
    topology : mdtraj.Topology
        Of the n atoms.
    coordinate_map : ndarray, shape (N, n)
    settings : MappingSettings
    own : ndarray, shape (N, n), optional
        The map to use.

    Raises
    ------
    InputError
        If the force map does not exist for these beads and constraints, or is not valid.
    """
    if own is not None:
        groups, origin = (
            _pass(chunks, topology, settings, [])
            if settings.constraints == "detect"
            else (_stated_groups(topology, settings), settings.constraints)
        )
        check_force_map(own, coordinate_map, groups)
        report = {"name": OWN, **_of_groups(groups, origin), "validity": validity(own, coordinate_map)}
        return ForceMap(own, report)
    if settings.force_map == "slice":
        matrix = slice_force_map(coordinate_map)
        return ForceMap(matrix, {"name": "slice", "validity": validity(matrix, coordinate_map)})
    if settings.force_map == "constraint_sum" and settings.constraints != "detect":
        return _summed(coordinate_map, _stated_groups(topology, settings), settings.constraints)
    halves = [ForceMoments(coordinate_map.shape[1]) for _ in range(2)] if settings.force_map == "optimal" else []
    groups, origin = _pass(chunks, topology, settings, halves)
    if settings.force_map == "constraint_sum":
        return _summed(coordinate_map, groups, origin)
    return _optimal(coordinate_map, groups, origin, halves, settings.ridge)


def _pass(
    chunks: Callable[[], Iterable[Frames]], topology: Any, settings: MappingSettings, halves: list[ForceMoments]
) -> tuple[Groups, str]:
    """Go through the frames once; return the constraint groups, and where they come from."""
    rigid = RigidPairs() if settings.constraints == "detect" else None
    for frames in chunks():
        if rigid is not None:
            rigid.add(frames.positions)
        if frames.forces is not None:
            for half, part in zip(halves, np.array_split(frames.forces, 2), strict=False):
                half.add(part)
    if rigid is None:
        return _stated_groups(topology, settings), settings.constraints
    if rigid.n_frames < MIN_FRAMES:
        warnings.warn(
            f"{rigid.n_frames} frames are too few to find rigid bonds in; all bonds to hydrogen are taken for rigid, "
            "which is valid unless other bonds were constrained as well",
            UserWarning,
            stacklevel=4,
        )
        return hydrogen_groups(topology), "hbonds"
    return rigid.groups(), "detect"


def _stated_groups(topology: Any, settings: MappingSettings) -> Groups:
    return hydrogen_groups(topology) if settings.constraints == "hbonds" else ()


def _summed(coordinate_map: NDArray[np.float64], groups: Groups, origin: str) -> ForceMap:
    matrix = constraint_sum_force_map(coordinate_map, groups)
    report = {"name": "constraint_sum", **_of_groups(groups, origin), "validity": validity(matrix, coordinate_map)}
    return ForceMap(matrix, report)


def _optimal(
    coordinate_map: NDArray[np.float64], groups: Groups, origin: str, halves: list[ForceMoments], ridge: float
) -> ForceMap:
    # The tables of all atoms are let go of one by one.
    first, second = (halves.pop(0).tied(groups) for _ in range(2))
    everything = first + second
    if everything.n_frames == 0:
        raise InputError("no frame has forces, so there is no optimal force map")
    matrix = everything.optimal_map(coordinate_map, ridge)
    summed = constraint_sum_force_map(coordinate_map, groups)
    turns = [(first, second), (second, first)] if first.n_frames and second.n_frames else []
    fits = [(half.optimal_map(coordinate_map, ridge), half, other) for half, other in turns]
    held_out = _mean_square([other.root_mean_square(fitted) for fitted, _, other in fits])
    report = {
        "name": "optimal",
        **_of_groups(groups, origin),
        "ridge": ridge,
        "validity": validity(matrix, coordinate_map),
        "rms": everything.root_mean_square(matrix) / KCAL_PER_MOL,
        "rms_in_sample": _mean_square([half.root_mean_square(fitted) for fitted, half, _ in fits]) / KCAL_PER_MOL,
        "rms_held_out": held_out / KCAL_PER_MOL,
        "rms_constraint_sum": everything.root_mean_square(summed) / KCAL_PER_MOL,
    }
    if fits and held_out / KCAL_PER_MOL > report["rms_constraint_sum"]:
        warnings.warn(
            f"the optimal force map is overfitted to {everything.n_frames} frames (held out "
            f"{report['rms_held_out']:.2f}, constraint sum {report['rms_constraint_sum']:.2f} kcal/mol/Å); raise "
            "--ridge, or use the force map 'constraint_sum'",
            UserWarning,
            stacklevel=4,
        )
    return ForceMap(matrix, report)


def _mean_square(values: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values else float("nan")


def _of_groups(groups: Groups, origin: str) -> dict[str, Any]:
    return {"constraints": origin, "constraint_groups": [list(group) for group in groups]}
