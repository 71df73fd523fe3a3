"""Labels of a flow together with recorded forces: weights of least variance."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ase_cg.data.graph import topology_graph
from ase_cg.data.splits import Split, spread_frames
from ase_cg.errors import InputError
from ase_cg.models.base import energy_and_forces
from ase_cg.models.priors.prior_set import PriorSet
from ase_cg.training.data import MoleculeData

LOOKED_AT = 2000  # frames of each set, whose forces are compared with those of the priors


def with_recorded_forces(
    labelled: MoleculeData, recorded: MoleculeData, priors: PriorSet, vocabulary: Sequence[str]
) -> MoleculeData:
    """Return labels and recorded frames of a molecule together, each set weighted by the inverse of its variance.

    A label at y and a recorded force at x both have the mean force where they are as conditional mean, so a loss of
    both has its minimum there with any weights. The force of a frame cannot be added to its label: it belongs to x, and
    no rule carries it to y. Of all weights those that are inverse to the variances about the mean force give the least
    variance of what is fitted (Gauss and Markov, for noise of two strengths). The mean force is not known, but the
    priors hold the large part of it, that of stiff bonds: mean squares of what they leave stand for variances.

    Parameters
    ----------
    labelled, recorded : MoleculeData
        In memory; the second as it was read, with forces.
    priors : PriorSet
        Fitted to the same data.
    vocabulary : sequence of str
        Bead names in the order of types.

    Raises
    ------
    InputError
        If the recorded frames are not in memory.
    """
    parts = [_required(labelled), _required(recorded)]
    variances = [_variance(molecule, priors, vocabulary) for molecule in (labelled, recorded)]
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


def _variance(molecule: MoleculeData, priors: PriorSet, vocabulary: Sequence[str]) -> float:
    """Return the mean square of what priors leave of a force component of the training part, by weight."""
    frames = spread_frames(molecule.split.train, LOOKED_AT)
    positions, forces = (part[frames].astype(float) for part in _required(molecule))
    graph = topology_graph(molecule.topology, vocabulary, len(frames)).to("cpu", torch.float64)
    graph = graph._replace(positions=torch.from_numpy(positions).reshape(-1, 3))
    held = energy_and_forces(priors, graph)[1].numpy().reshape(forces.shape) if len(priors.terms) else 0.0
    weights = None if molecule.weights is None else molecule.weights[frames]
    whole, left = (np.average(np.square(f).mean((1, 2)), weights=weights) for f in (forces, forces - held))
    # Priors are no help where samples lie far from the data.
    return float(min(whole, left))
