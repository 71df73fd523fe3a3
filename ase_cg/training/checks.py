"""What is suspicious about data that are going to be trained on."""

import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ase_cg.data.dataset import Dataset
from ase_cg.data.force_check import known_check
from ase_cg.data.splits import spread_frames
from ase_cg.errors import InputError
from ase_cg.labels import label_source
from ase_cg.training.data import MoleculeData, TrainingData
from ase_cg.training.distributed import on_first_process
from ase_cg.training.recipe import Recipe

MAX_FRAMES = 20_000  # of a molecule that are looked at
MAX_PAIRS = 20_000_000
SMALLEST_NOISE = 0.001  # Å


def warn_of_suspicious_data(data: TrainingData, noise_std: float | None) -> None:
    """Warn of noise in the wrong unit.

    Parameters
    ----------
    data : TrainingData
    noise_std : float, optional
        In Å.
    """
    for molecule in data.molecules:
        for message in _about_noise(data.path, molecule, noise_std):
            warnings.warn(message, UserWarning, stacklevel=2)


def warn_of_noise(path: Path, molecule: MoleculeData, noise_std: float, name: str) -> None:
    """Warn of noise, in Å, of a recipe's key `name` that is in the wrong unit, or too wide for a molecule."""
    for message in _about_noise(path, molecule, noise_std, name):
        warnings.warn(message, UserWarning, stacklevel=2)


def _about_noise(path: Path, molecule: MoleculeData, noise_std: float | None, name: str = "noise_std") -> Iterator[str]:
    if noise_std is None or molecule.topology.n_beads < 2:
        return
    if noise_std < SMALLEST_NOISE:
        yield (
            f"{name} is {noise_std:g} Å, below {SMALLEST_NOISE} Å: labels would be almost nothing but noise, or "
            "forces alone; is it in Å?"
        )
    n_beads = molecule.topology.n_beads
    with Dataset.open(path) as dataset:
        stored = dataset.molecules[molecule.name]
        positions = stored.coordinates(
            spread_frames(np.arange(stored.n_frames), max(1, min(MAX_FRAMES, MAX_PAIRS // n_beads**2)))
        )
    i, j = np.triu_indices(n_beads, 1)
    shortest = min(
        float(np.linalg.norm(x[:, i] - x[:, j], axis=-1).min()) for x in np.array_split(positions, 20) if len(x)
    )
    if noise_std > shortest / 2:
        yield (
            f"{name} is {noise_std:g} Å, more than half the shortest distance of two beads of molecule "
            f"{molecule.name!r}, {shortest:.3g} Å: noise would push them through each other; is it a standard "
            "deviation in Å?"
        )


def check_recorded_forces(recipe: Recipe, path: Path) -> None:
    """Refuse forces that do not belong to the density of their positions, where labels use forces.

    All frames are looked at, not only those of a small training.fraction, which would not show a bias. Forces that are
    only doubtful, or that the recipe allows, are warned of.

    Raises
    ------
    InputError
        If the forces of a molecule are inconsistent and ``training.allow_inconsistent_forces`` is false.
    """
    if not label_source(recipe.labels).needs_forces:
        return
    with Dataset.open(path) as dataset:
        for molecule in dataset.molecules.values():
            if not molecule.has_forces:
                continue
            found = known_check(molecule)
            if not found.suspicious:
                continue
            message = found.message(molecule.name, molecule.topology.names)
            if found.verdict == "inconsistent" and not recipe.training.allow_inconsistent_forces:
                raise InputError(
                    f"{message}; or train on labels: noise, which need no forces, or give "
                    "training.allow_inconsistent_forces: true (--allow-inconsistent-forces) to train on them anyway"
                )
            on_first_process(partial(warnings.warn, message, UserWarning, stacklevel=3))
