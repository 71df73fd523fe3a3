"""What training needs of a dataset: frames in memory or streamed, the split, and the priors fitted to it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.beads.atoms import standard_vocabulary
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset import Dataset, Molecule
from ase_cg.data.splits import Split, split_by_blocks, spread_frames
from ase_cg.errors import InputError
from ase_cg.labels import label_source
from ase_cg.models.priors.prior_set import PriorSet
from ase_cg.training.recipe import Recipe, TrainingSection

LABEL_FRAMES = 200_000  # streamed frames whose forces the labels are fitted to


class TrainingData(NamedTuple):
    """What training needs of a dataset.

    Attributes
    ----------
    path : Path
    molecule : str
    coordinates, forces : ndarray of shape (F, N, 3), or None
        All frames, in memory; `coordinates` is None where frames are streamed, `forces` also where none are needed.
    label_forces : ndarray of shape (F, N, 3), or None
        Those of the training part (or enough of them) that the labels are fitted to.
    """

    path: Path
    molecule: str
    coordinates: NDArray[np.float32] | None
    forces: NDArray[np.float32] | None
    label_forces: NDArray[np.float32] | None
    split: Split
    topology: BeadTopology
    temperature: float
    resolution: str | tuple[str, ...] | dict[str, Any]
    vocabulary: tuple[str, ...]
    priors: PriorSet
    training_priors: PriorSet | None
    hash: str

    def loader(
        self, frames: NDArray[np.int64], settings: TrainingSection, *, shuffle: bool
    ) -> Iterable[tuple[Tensor, Tensor | None]]:
        """Make the loader of batches of some frames."""
        from ase_cg.training.frames import frame_loader
        from ase_cg.training.streaming import FrameStream

        common: dict[str, Any] = {"batch_size": settings.batch_size, "shuffle": shuffle, "seed": settings.seed}
        if self.coordinates is None:
            with_forces = self.label_forces is not None
            return FrameStream(self.path, self.molecule, frames, with_forces=with_forces, **common)
        forces = None if self.forces is None else self.forces[frames]
        return frame_loader(self.coordinates[frames], forces, **common)


def read_training_data(recipe: Recipe, path: Path) -> TrainingData:
    """Read the dataset, split it, and fit the priors to the training part.

    Raises
    ------
    InputError
        If it holds several molecules, weights, no forces where the labels need them, or too few frames.
    """
    settings = recipe.training
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        if molecule.has_weights:
            raise InputError(
                f"molecule {molecule.name!r} has frame weights, which training does not use yet; map it without them, "
                "from frames resampled by weight"
            )
        needs_forces = label_source(recipe.labels).needs_forces
        split = split_by_blocks(
            molecule, (settings.validation_fraction, settings.test_fraction), blocks=settings.blocks, seed=settings.seed
        )
        vocabulary = standard_vocabulary(molecule.topology.names)

        def fitted(noise_std: float) -> PriorSet:
            return PriorSet.fit(
                molecule,
                recipe.priors,
                vocabulary=vocabulary,
                frames=split.train,
                noise_std=noise_std,
                seed=settings.seed,
            )

        noised = fitted(recipe.noise_std) if recipe.noise_std else None
        sharpened = noised is not None and recipe.sharpened_priors
        streamed = _size(molecule, with_forces=needs_forces) > settings.memory_limit * 1e9
        forces = molecule.forces() if needs_forces and not streamed else None
        label_forces = None if forces is None else forces[split.train]
        if needs_forces and streamed:
            label_forces = molecule.forces(spread_frames(split.train, LABEL_FRAMES))
        return TrainingData(
            path=path,
            molecule=molecule.name,
            coordinates=None if streamed else molecule.coordinates(),
            forces=forces,
            label_forces=label_forces,
            split=split,
            topology=molecule.topology,
            temperature=molecule.temperature,
            resolution=molecule.resolution,
            vocabulary=vocabulary,
            priors=fitted(0.0) if noised is None or sharpened else noised,
            training_priors=noised if sharpened else None,
            hash=dataset.hash(),
        )


def _size(molecule: Molecule, *, with_forces: bool) -> float:
    """Return the bytes of all frames, which are in memory twice: as read, and divided for training."""
    return 2 * 12.0 * molecule.n_frames * molecule.topology.n_beads * (2 if with_forces else 1)


def as_tensor(array: NDArray[np.float32] | None) -> Tensor | None:
    """Return an array as a tensor, None as None."""
    return None if array is None else torch.from_numpy(array)
