"""What is suspicious about data that are going to be trained on."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ase_cg.data.dataset import Dataset
from ase_cg.data.splits import drawn_by_weight, spread_frames
from ase_cg.training.data import MoleculeData, TrainingData

MAX_FRAMES = 20_000  # of a molecule that are looked at
MAX_PAIRS = 20_000_000
SMALLEST_NOISE = 0.001  # Å
SIGNIFICANT = 5.0  # standard errors
TOLERANCE = 0.1  # of the virial ratio; what training would hardly feel


def warn_of_suspicious_data(data: TrainingData, noise_std: float | None) -> None:
    """Warn of noise in the wrong unit, and of forces that rigid bonds have biased.

    Parameters
    ----------
    data : TrainingData
    noise_std : float, optional
        In Å.
    """
    for molecule in data.molecules:
        for message in (*_about_noise(data.path, molecule, noise_std), *_about_forces(data, molecule)):
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


def _about_forces(data: TrainingData, molecule: MoleculeData) -> Iterator[str]:
    if molecule.label_forces is None or molecule.topology.n_beads < 2:
        return
    from ase_cg.analysis.diagnose import virial_ratio

    with Dataset.open(data.path) as dataset:
        stored = dataset.molecules[molecule.name]
        # All frames, not only those of a small training.fraction, which would not show a bias.
        frames = np.arange(stored.n_frames) if molecule.weights is None else drawn_by_weight(molecule.weights)
        read, again = np.unique(spread_frames(frames, MAX_FRAMES), return_inverse=True)
        positions, forces = stored.coordinates(read)[again], stored.forces(read)[again]
    ratio, error = virial_ratio(positions.astype(float), forces.astype(float), data.temperature)
    if abs(ratio - 1) > max(SIGNIFICANT * error, TOLERANCE):
        yield (
            f"forces of molecule {molecule.name!r} are biased: −⟨x·F⟩ is {ratio:.3g} ± {error:.1g} times its exact "
            "value (3N − 3) kT, as where single atoms have rigid bonds; map them with force_map: optimal and the right "
            "constraints, or train on labels: noise (`ase-cg info` looks for wrong units)"
        )
