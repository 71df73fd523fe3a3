"""Labels of a flow together with recorded forces: weights of least variance."""

import numpy as np
from numpy.typing import NDArray

from ase_cg.data.splits import Split
from ase_cg.errors import InputError
from ase_cg.training.data import MoleculeData


def with_recorded_forces(labelled: MoleculeData, recorded: MoleculeData) -> MoleculeData:
    """Return labels and recorded frames of a molecule together, each set weighted by the inverse of its variance.

    A label at y and a recorded force at x both have the mean force where they are as conditional mean, so a loss of
    both has its minimum there with any weights. The force of a frame cannot be added to its label: it belongs to x, and
    no rule carries it to y. Of all weights those that are inverse to the variances about the mean force give the least
    variance of what is fitted (Gauss and Markov, for noise of two strengths). The mean square of the mean force is not
    known; it is the same in both sets and small beside those of the labels, whose mean squares stand for variances.

    Parameters
    ----------
    labelled, recorded : MoleculeData
        In memory; the second as it was read, with forces.

    Raises
    ------
    InputError
        If the recorded frames are not in memory.
    """
    parts = [_required(labelled), _required(recorded)]
    variances = [_mean_square(molecule) for molecule in (labelled, recorded)]
    weights = []
    for molecule, (coordinates, _), variance in zip((labelled, recorded), parts, variances, strict=True):
        own = np.ones(len(coordinates)) if molecule.weights is None else molecule.weights
        weights.append(own / own[molecule.split.train].mean() / variance)
    together = np.concatenate(weights)
    together = together / together.mean()
    first = len(parts[0][0])
    split = Split(
        *(np.concatenate([one, first + other]) for one, other in zip(labelled.split, recorded.split, strict=True))
    )
    forces = np.concatenate([part[1] for part in parts])
    return labelled._replace(
        split=split,
        coordinates=np.concatenate([part[0] for part in parts]),
        forces=forces,
        label_forces=forces[split.train],
        weights=together,
        label_weights=together[split.train],
    )


def _required(molecule: MoleculeData) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if molecule.coordinates is None or molecule.forces is None:
        raise InputError(
            f"molecule {molecule.name!r}: labels 'flow_and_forces' need recorded forces in memory; raise "
            "training.memory_limit, or use labels 'flow'"
        )
    return molecule.coordinates, molecule.forces


def _mean_square(molecule: MoleculeData) -> float:
    """Return the mean square of a force component of the training part, by weight."""
    forces = _required(molecule)[1][molecule.split.train].astype(float)
    weights = None if molecule.weights is None else molecule.weights[molecule.split.train]
    return float(np.average(np.square(forces).mean((1, 2)), weights=weights))
