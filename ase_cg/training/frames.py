"""Batches of frames of one or several molecules, shuffled by epoch in a way that a resumed training repeats."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

Balance = Literal["molecules", "frames"]


class Part(NamedTuple):
    """Frames of one molecule in a batch.

    Attributes
    ----------
    molecule : int
        Which molecule.
    coordinates : Tensor, shape (B, N, 3)
        In Å.
    forces : Tensor of shape (B, N, 3), or None
        In eV/Å.
    """

    molecule: int
    coordinates: Tensor
    forces: Tensor | None


Batch = list[Part]
Arrays = tuple[NDArray[np.float32], NDArray[np.float32] | None]


class FrameDataset(Dataset[Batch]):
    """Frames in memory; an item is a batch, named by rows of (molecule, frame).

    Parameters
    ----------
    molecules : sequence of (ndarray, ndarray or None)
        Coordinates in Å and forces in eV/Å of each molecule, both (F, N, 3).
    """

    def __init__(self, molecules: Sequence[Arrays]) -> None:
        self.molecules = [
            (torch.from_numpy(coordinates), None if forces is None else torch.from_numpy(forces))
            for coordinates, forces in molecules
        ]

    def __len__(self) -> int:
        return sum(len(coordinates) for coordinates, _ in self.molecules)

    def __getitem__(self, rows: NDArray[np.int64]) -> Batch:
        batch = []
        for molecule in np.unique(rows[:, 0]).tolist():
            frames = rows[rows[:, 0] == molecule, 1]
            coordinates, forces = self.molecules[molecule]
            batch.append(Part(molecule, coordinates[frames], None if forces is None else forces[frames]))
        return batch


class BatchSampler(Sampler[NDArray[np.int64]]):
    """Gives the rows of (molecule, frame) of each batch; their order depends on the seed and the epoch only.

    Parameters
    ----------
    n_frames : sequence of int
        Of each molecule.
    batch_size : int
    shuffle : bool
    seed : int
    balance : {"molecules", "frames"}
        With ``"molecules"`` every molecule gives equally many frames to an epoch, which is as long as all frames are:
        those with few give each of theirs several times, those with many a part, another in each epoch. With
        ``"frames"`` every frame comes once.
    """

    def __init__(
        self, n_frames: Sequence[int], batch_size: int, *, shuffle: bool, seed: int, balance: Balance = "frames"
    ) -> None:
        self.n_frames = tuple(n_frames)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        total, count = sum(self.n_frames), len(self.n_frames)
        even = [total // count + (molecule < total % count) for molecule in range(count)]
        self._taken = tuple(even) if balance == "molecules" and shuffle else self.n_frames
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(sum(self._taken) / self.batch_size)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, self.epoch]))
        rows = np.concatenate(
            [
                np.stack([np.full(taken, molecule), _chosen(n_frames, taken, rng)], axis=1)
                for molecule, (n_frames, taken) in enumerate(zip(self.n_frames, self._taken, strict=True))
            ]
        )
        if self.shuffle:
            order = np.arange(len(rows))
            rng.shuffle(order)
            rows = rows[order]
        for start in range(0, len(rows), self.batch_size):
            yield rows[start : start + self.batch_size]


def _chosen(n_frames: int, taken: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return `taken` frames of n: all of them so often as they are whole, and a random part of them once more."""
    if taken == n_frames:
        return np.arange(n_frames)
    whole, rest = divmod(taken, n_frames)
    return np.concatenate([np.tile(np.arange(n_frames), whole), rng.permutation(n_frames)[:rest]])


def frame_loader(
    molecules: Sequence[Arrays], *, batch_size: int, shuffle: bool, seed: int, balance: Balance = "frames"
) -> DataLoader[Batch]:
    """Make the loader of frames in memory; see :class:`FrameDataset` and :class:`BatchSampler`."""
    n_frames = [len(coordinates) for coordinates, _ in molecules]
    sampler = BatchSampler(n_frames, batch_size, shuffle=shuffle, seed=seed, balance=balance)
    return DataLoader(FrameDataset(molecules), sampler=sampler, batch_size=None)
