"""Pairs of frames one lag apart, as flows of transitions are trained on: from the order of a dataset's frames."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_cg.data.dataset import Dataset, Molecule
from ase_cg.data.splits import Split, spread_frames
from ase_cg.errors import InputError
from ase_cg.training.data import MoleculeData, TrainingData
from ase_cg.units import quantity, whole_ratio

LOOKED_AT = 5000  # pairs of neighbouring frames
FORGOTTEN = 0.95  # of the mean square change of distances between frames drawn at random
FITTED_TO = 20_000  # pairs of each molecule whose displacement a width is fitted to
NARROWEST = 1e-3  # Å


def with_transitions(data: TrainingData, lag: str, frame_interval: str | None) -> TrainingData:
    """Return the data with splits of those frames that another one of the same part precedes by one lag.

    Pairs do not cross the borders of trajectories, nor those between training, validation and test.

    Parameters
    ----------
    data : TrainingData
    lag : str
        A time with its unit.
    frame_interval : str, optional
        Between frames, where the dataset does not say it.

    Raises
    ------
    InputError
        If frames are streamed, are not in the order of time, do not say how far apart they lie, or trajectories are
        shorter than the lag; if the lag is no multiple of the time between frames.
    """
    with Dataset.open(data.path) as dataset:
        pairs = zip(data.molecules, (dataset.molecules[m.name] for m in data.molecules), strict=True)
        return data._replace(molecules=tuple(_paired(data.path, *pair, lag, frame_interval) for pair in pairs))


def frames_after(trajectory_lengths: Sequence[int], lag: int) -> NDArray[np.int64]:
    """Return the frames that another one of the same trajectory precedes by `lag` frames, sorted."""
    starts = np.concatenate([[0], np.cumsum(trajectory_lengths)]).astype(np.int64)
    found = [np.arange(start + lag, stop) for start, stop in pairwise(starts)]
    return np.concatenate(found).astype(np.int64)


def displacement_std(data: TrainingData) -> float:
    """Return the root mean square of what a component changes by within a lag, in Å.

    Of training frames superposed on those before, in the directions of the space without translations and rotations.
    """
    import torch

    from ase_cg.flows.field import centered
    from ase_cg.flows.orientation import superposed

    squares = count = 0.0
    for molecule in data.molecules:
        frames = spread_frames(molecule.split.train, FITTED_TO)
        coordinates = np.asarray(molecule.coordinates)
        x, z = (centered(torch.from_numpy(coordinates[at])).double() for at in (frames, frames - molecule.lag))
        squares += float((superposed(x, z) - z).square().sum())
        count += len(frames) * max(1, 3 * x.shape[1] - 6)
    return max(NARROWEST, float(np.sqrt(squares / count)))


def _paired(path: Path, molecule: MoleculeData, stored: Molecule, lag: str, frame_interval: str | None) -> MoleculeData:
    name = molecule.name
    if stored.source_frames() is not None:
        raise InputError(
            f"{path} is a set of labels, whose frames are not in the order of time; train the kernel 'transition' on "
            "the dataset that it was made of"
        )
    if molecule.coordinates is None:
        raise InputError(
            f"the kernel 'transition' needs the frames of molecule {name!r} in memory; raise training.memory_limit"
        )
    steps = whole_ratio(lag, _interval(path, stored, frame_interval), ("kernel.lag", "data.frame_interval"))
    longest = max(stored.trajectory_lengths)
    if steps >= longest:
        raise InputError(
            f"kernel.lag ({lag}) is {steps} frames, and the longest trajectory of molecule {name!r} has {longest}; "
            "take a shorter lag, or data in the order of time"
        )
    _check_order(path, stored, molecule.coordinates)
    ends = frames_after(stored.trajectory_lengths, steps)
    split = Split(*(part[np.isin(part, ends) & np.isin(part - steps, part)] for part in molecule.split))
    for which, part in zip(split._fields, split, strict=True):
        if not len(part):
            raise InputError(
                f"no two {which} frames of molecule {name!r} lie kernel.lag ({lag}, {steps} frames) apart; take a "
                "shorter lag, fewer training.blocks, or training.subset: contiguous"
            )
    _check_weights(name, molecule.weights, split)
    return molecule._replace(split=split, lag=steps)


def _interval(path: Path, stored: Molecule, given: str | None) -> str:
    """Return the time between frames, as the dataset or the recipe says it."""
    recorded = stored.mapping.get("frame_interval")
    if recorded is None and given is None:
        raise InputError(
            f"{path} does not say how much time lies between the frames of molecule {stored.name!r}, which the kernel "
            "'transition' has to know; give it as data.frame_interval, such as '1 ps'"
        )
    if recorded is not None and given is not None and quantity(recorded, "time") != quantity(given, "time"):
        raise InputError(
            f"data.frame_interval is {given}, but {path} was mapped with {recorded} between the frames of molecule "
            f"{stored.name!r}; leave it out, or map the trajectories again"
        )
    return str(given if recorded is None else recorded)


def _check_order(path: Path, stored: Molecule, coordinates: NDArray[np.float32]) -> None:
    """Refuse frames that resemble those before no more than any others."""
    after = spread_frames(frames_after(stored.trajectory_lengths, 1), LOOKED_AT)
    i, j = np.triu_indices(stored.topology.n_beads, 1)

    def distances(frames: NDArray[np.int64]) -> NDArray[np.float64]:
        x = coordinates[frames].astype(float)
        return np.asarray(np.linalg.norm(x[:, i] - x[:, j], axis=-1))

    of_frames = distances(after)
    change = np.square(of_frames - distances(after - 1)).mean()
    if change >= FORGOTTEN * 2 * of_frames.var(axis=0).mean():
        raise InputError(
            f"frames of molecule {stored.name!r} in {path} resemble those before no more than any others: they are not "
            "in the order of time, or lie further apart than the molecule remembers; the kernel 'transition' needs "
            "trajectories"
        )


def _check_weights(name: str, weights: NDArray[np.float64] | None, split: Split) -> None:
    for which, part in zip(split._fields, split, strict=True):
        if weights is not None and not weights[part].sum() > 0:
            raise InputError(
                f"no {which} frame of molecule {name!r} that another precedes by kernel.lag has a weight above zero; "
                "take a shorter lag"
            )
