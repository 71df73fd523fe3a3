"""What training needs of a dataset: frames in memory or streamed, the split, and the priors fitted to it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.beads.atoms import standard_vocabulary
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset import Dataset, Molecule
from ase_cg.data.splits import Split, split_by_blocks, spread_frames, subset_frames
from ase_cg.errors import InputError
from ase_cg.labels import label_source
from ase_cg.models.priors.prior_set import PriorSet
from ase_cg.training.frames import Batch
from ase_cg.training.recipe import Recipe
from ase_cg.training.training_settings import TrainingSection

LABEL_FRAMES = 200_000  # streamed frames whose forces the labels are fitted to
KEPT_FRAMES = 16  # of each molecule, in the model's file
SplitPart = Literal["train", "validation", "test"]


class MoleculeData(NamedTuple):
    """What training needs of one molecule.

    Attributes
    ----------
    name : str
    topology : BeadTopology
    split : Split
    coordinates, forces : ndarray of shape (F, N, 3), or None
        All frames, in memory; `coordinates` is None where frames are streamed, `forces` also where none are needed.
    label_forces : ndarray of shape (F, N, 3), or None
        Those of the training part (or enough of them) that the labels are fitted to.
    weights, label_weights : ndarray of shape (F,), or None
        Of the same frames.
    lag : int
        In frames, for flows of transitions: the split then holds frames that another precedes by it; 0 for others.
    """

    name: str
    topology: BeadTopology
    split: Split
    coordinates: NDArray[np.float32] | None
    forces: NDArray[np.float32] | None
    label_forces: NDArray[np.float32] | None
    weights: NDArray[np.float64] | None
    label_weights: NDArray[np.float64] | None
    lag: int = 0


class TrainingData(NamedTuple):
    """What training needs of a dataset; of several molecules, all at one temperature and resolution."""

    path: Path
    molecules: tuple[MoleculeData, ...]
    temperature: float
    resolution: str | tuple[str, ...] | dict[str, Any]
    vocabulary: tuple[str, ...]
    priors: PriorSet
    training_priors: PriorSet | None
    hash: str

    @property
    def topologies(self) -> tuple[BeadTopology, ...]:
        """Of the molecules."""
        return tuple(molecule.topology for molecule in self.molecules)

    def loader(self, part: SplitPart, settings: TrainingSection, seed: int) -> Iterable[Batch]:
        """Make the loader of a part of the frames; those of the training part are shuffled, and drawn by weight."""
        from ase_cg.training.frames import MoleculeFrames, frame_loader
        from ase_cg.training.streaming import FrameStream

        shuffle = part == "train"
        common: dict[str, Any] = {"batch_size": settings.batch_size, "shuffle": shuffle, "seed": seed}
        first = self.molecules[0]
        if first.coordinates is None:
            frames = getattr(first.split, part)
            weights = None if first.weights is None else first.weights[frames]
            with_forces = first.label_forces is not None
            return FrameStream(self.path, first.name, frames, with_forces=with_forces, weights=weights, **common)
        arrays = []
        for molecule in self.molecules:
            frames, coordinates = getattr(molecule.split, part), np.asarray(molecule.coordinates)
            arrays.append(
                MoleculeFrames(
                    coordinates[frames],
                    None if molecule.forces is None else molecule.forces[frames],
                    frames,
                    None if molecule.weights is None else molecule.weights[frames],
                    coordinates[frames - molecule.lag] if molecule.lag else None,
                )
            )
        return frame_loader(arrays, balance=settings.balance, **common)


def read_training_data(recipe: Recipe, path: Path) -> TrainingData:
    """Read the dataset, split each molecule's frames, and fit the priors to the training parts.

    The recipe is one of a single noise level.

    Raises
    ------
    InputError
        If molecules differ in temperature or resolution, have no forces where the labels need them, too few frames, a
        part of them without weight, or values that are no numbers, or several are larger than the memory that may be
        used.
    """
    settings = recipe.training
    (noise_std,) = recipe.noise_levels
    with Dataset.open(path) as dataset:
        found = list(dataset.molecules.values())
        _check_alike(found)
        needs_forces = _need_forces(recipe.labels, found)
        size = sum(_size(m, with_forces=needed) for m, needed in zip(found, needs_forces, strict=True))
        streamed = size > settings.memory_limit * 1e9
        if streamed and len(found) > 1:
            raise InputError(
                f"{path} needs {size / 1e9:.1f} GB, and several molecules are not streamed from disk; raise "
                "training.memory_limit, or train on fewer frames"
            )
        molecules = tuple(
            _read(molecule, settings, needs_forces=needed, streamed=streamed)
            for molecule, needed in zip(found, needs_forces, strict=True)
        )
        vocabulary = standard_vocabulary([name for molecule in found for name in molecule.topology.names])

        def fitted(noise_std: float) -> PriorSet:
            return PriorSet.fit(
                found,
                recipe.priors,
                vocabulary=vocabulary,
                frames={molecule.name: molecule.split.train for molecule in molecules},
                noise_std=noise_std,
                seed=settings.seed,
            )

        noised = fitted(noise_std) if noise_std else None
        sharpened = recipe.sharpened_names if noised is not None else ()
        return TrainingData(
            path=path,
            molecules=molecules,
            temperature=found[0].temperature,
            resolution=found[0].resolution,
            vocabulary=vocabulary,
            priors=fitted(0.0) if noised is None else noised.replaced(fitted(0.0), sharpened),
            training_priors=noised if sharpened else None,
            hash=dataset.hash(),
        )


def _check_alike(molecules: list[Molecule]) -> None:
    """Refuse what one model cannot be trained on."""
    first = molecules[0]
    for molecule in molecules:
        for what, mine, other in (
            ("temperature", molecule.temperature, first.temperature),
            ("resolution", molecule.resolution, first.resolution),
        ):
            explicit = isinstance(mine, tuple) and isinstance(other, tuple)  # lists of atoms differ by molecule
            if mine != other and not explicit:
                raise InputError(
                    f"molecules {first.name!r} and {molecule.name!r} differ in {what} ({other} and {mine}); one model "
                    "is trained on data that are alike in it"
                )


def _need_forces(labels: str, molecules: list[Molecule]) -> list[bool]:
    """Return of which molecules forces are read; those beside labels of a flow only where there are any."""
    needed, recorded = label_source(labels).needs_forces, [molecule.has_forces for molecule in molecules]
    return recorded if labels == "flow_and_forces" and any(recorded) else [needed] * len(molecules)


def _read(molecule: Molecule, settings: TrainingSection, *, needs_forces: bool, streamed: bool) -> MoleculeData:
    fractions = (settings.validation_fraction, settings.test_fraction)
    split = split_by_blocks(molecule, fractions, blocks=settings.blocks, seed=settings.seed)
    # Of the training part only: losses of several fractions can be compared.
    split = split._replace(train=subset_frames(split.train, settings.fraction, settings.subset))
    weights = molecule.weights()
    _check_weights(molecule.name, weights, split)
    coordinates = None if streamed else molecule.coordinates()
    forces = molecule.forces() if needs_forces and not streamed else None
    label_frames = spread_frames(split.train, LABEL_FRAMES) if streamed else split.train
    label_forces = None
    if forces is not None:
        label_forces = forces[label_frames]
    elif needs_forces:
        label_forces = molecule.forces(label_frames)
    return MoleculeData(
        name=molecule.name,
        topology=molecule.topology,
        split=split,
        coordinates=coordinates,
        forces=forces,
        label_forces=label_forces,
        weights=weights,
        label_weights=None if weights is None else weights[label_frames],
    )


def _check_weights(name: str, weights: NDArray[np.float64] | None, split: Split) -> None:
    for part, frames in zip(split._fields, split, strict=True):
        if weights is not None and not weights[frames].sum() > 0:
            raise InputError(
                f"molecule {name!r}: no frame of the {part} part has a weight above zero; choose another training.seed "
                "or other training.blocks"
            )


def _size(molecule: Molecule, *, with_forces: bool) -> float:
    """Return the bytes of all frames, which are in memory twice: as read, and divided for training."""
    return 2 * 12.0 * molecule.n_frames * molecule.topology.n_beads * (2 if with_forces else 1)


def as_tensor(array: NDArray[Any] | None) -> Tensor | None:
    """Return an array as a tensor, None as None."""
    return None if array is None else torch.from_numpy(array)


def kept_frames(data: TrainingData) -> list[Tensor]:
    """Return some validation frames of each molecule, each of shape (F, N, 3) in Å, which go into the model's file."""
    found = []
    with Dataset.open(data.path) as dataset:
        for molecule in data.molecules:
            frames = molecule.split.validation
            some = frames[np.linspace(0, len(frames) - 1, min(KEPT_FRAMES, len(frames))).astype(int)]
            found.append(torch.from_numpy(dataset.molecules[molecule.name].coordinates(np.unique(some))))
    return found
