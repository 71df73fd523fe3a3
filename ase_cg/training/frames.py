"""Batches of frames, shuffled by epoch in a way that a resumed training repeats."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler


class FrameDataset(Dataset[tuple[Tensor, Tensor | None]]):
    """Frames in memory; an item is a batch, named by its indices.

    Parameters
    ----------
    coordinates : ndarray, shape (F, N, 3)
        In Å.
    forces : ndarray of shape (F, N, 3), or None
        In eV/Å.
    """

    def __init__(self, coordinates: NDArray[np.float32], forces: NDArray[np.float32] | None) -> None:
        self.coordinates = torch.from_numpy(coordinates)
        self.forces = None if forces is None else torch.from_numpy(forces)

    def __len__(self) -> int:
        return len(self.coordinates)

    def __getitem__(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        return self.coordinates[indices], None if self.forces is None else self.forces[indices]


class BatchSampler(Sampler[NDArray[np.int64]]):
    """Gives the frames of each batch; their order depends on the seed and the epoch only.

    Parameters
    ----------
    n_frames, batch_size : int
    shuffle : bool
    seed : int
    """

    def __init__(self, n_frames: int, batch_size: int, *, shuffle: bool, seed: int) -> None:
        self.n_frames = n_frames
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.n_frames / self.batch_size)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        order = np.arange(self.n_frames)
        if self.shuffle:
            np.random.default_rng(np.random.SeedSequence([self.seed, self.epoch])).shuffle(order)
        for start in range(0, self.n_frames, self.batch_size):
            yield order[start : start + self.batch_size]


def frame_loader(
    coordinates: NDArray[np.float32],
    forces: NDArray[np.float32] | None,
    *,
    batch_size: int,
    shuffle: bool,
    seed: int,
) -> DataLoader[tuple[Tensor, Tensor | None]]:
    """Make the loader of frames (F, N, 3)."""
    sampler = BatchSampler(len(coordinates), batch_size, shuffle=shuffle, seed=seed)
    return DataLoader(FrameDataset(coordinates, forces), sampler=sampler, batch_size=None)
