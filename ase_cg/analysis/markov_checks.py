"""What has to hold before frames are weighted by a Markov state model; each failure is one sentence."""

import warnings

import numpy as np

from ase_cg.analysis.equilibrium import EquilibriumFit
from ase_cg.analysis.sources import FrameSource
from ase_cg.errors import InputError
from ase_cg.units import whole_ratio

FRAMES_PER_CLUSTER = 10  # at least, on average
NAMED_STATES = 10  # in messages
SEEDS = 2**31  # of k-means in deeptime


def check_settings(clusters: int, macrostates: int, resamples: int, seed: int) -> None:
    """Raise an InputError unless the settings are whole numbers in their ranges."""
    for name, value, least in (
        ("clusters", clusters, 2),
        ("macrostates", macrostates, 2),
        ("resamples", resamples, 2),
        ("seed", seed, 0),
    ):
        if not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name} must be a whole number of at least {least}, not {value}")
    if seed >= SEEDS:
        raise InputError(f"seed must be below {SEEDS}, which k-means allows, not {seed}")
    if macrostates > clusters:
        raise InputError(f"{macrostates} macrostates need at least as many clusters, not {clusters}")


def lag_in_frames(lag: int | str, interval: str | None) -> int:
    """Return a lag in frames."""
    if isinstance(lag, str) and lag.strip().isdigit():
        lag = int(lag)
    if isinstance(lag, str):
        if interval is None:
            raise InputError(
                f"a lag of {lag!r} needs the time between frames, which the dataset does not know; give the lag in "
                "frames, or map again with --frame-interval"
            )
        return whole_ratio(lag, interval, ("lag", "time between frames"))
    if not isinstance(lag, int | np.integer) or lag < 1:
        raise InputError(f"the lag is a whole number of frames from 1, or a time such as '10 ns', not {lag}")
    return int(lag)


def check_frames(source: FrameSource, clusters: int) -> None:
    """Raise an InputError where there are too few frames for the clusters."""
    frames = sum(piece.length for piece in source.pieces)
    if frames < FRAMES_PER_CLUSTER * clusters:
        raise InputError(
            f"{source.path}: {frames} frames are too few for {clusters} clusters; choose at most "
            f"{frames // FRAMES_PER_CLUSTER} with --clusters (clusters=), {FRAMES_PER_CLUSTER} frames each"
        )


def check_lengths(source: FrameSource, lag: int) -> None:
    """Raise an InputError where no trajectory is longer than the lag; warn where most are not."""
    lengths = [piece.length for piece in source.pieces]
    usable = sum(length > lag for length in lengths)
    if not usable:
        raise InputError(
            f"{source.path}: none of {len(lengths)} trajectories is longer than the lag of {lag} frames (the longest "
            f"has {max(lengths)}); "
            + (
                f"choose a lag of at most {max(lengths) - 1}"
                if max(lengths) > 1
                else "single frames show no transitions: map them as trajectories (--trajectory-starts)"
            )
        )
    if 2 * usable < len(lengths):
        warnings.warn(
            f"only {usable} of {len(lengths)} trajectories are longer than the lag of {lag} frames; the others are "
            "weighted, but show no transitions",
            stacklevel=3,
        )


def check_connected(fit: EquilibriumFit, lag: int, *, drop: bool) -> None:
    """Raise an InputError that names the clusters which are not connected, unless they are to be dropped."""
    missing = fit.model.disconnected
    if not missing or drop:
        return
    counts = np.bincount(np.concatenate(fit.states), minlength=len(fit.centers))
    named = ", ".join(f"{state} ({counts[state]} frames)" for state in missing[:NAMED_STATES])
    more = f" and {len(missing) - NAMED_STATES} more" if len(missing) > NAMED_STATES else ""
    raise InputError(
        f"at a lag of {lag} frames {len(missing)} of {len(fit.centers)} clusters are not both reached from the "
        f"others and left again: {named}{more}, with {counts[list(missing)].sum() / counts.sum():.1%} of the "
        "frames; choose a shorter lag or fewer clusters, add trajectories that connect them, or give these frames "
        "no weight with --drop-disconnected (drop_disconnected=True)"
    )
