"""Batches of frames of one or several molecules, shuffled by epoch in a way that a resumed training repeats."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ase_cg.data.splits import drawn_by_weight
from ase_cg.training.distributed import own_rows

Balance = Literal["molecules", "frames"]
Numbers = TypeVar("Numbers", Tensor, NDArray[np.int64])
COPY_BIT = 40  # of a draw's number; those below are the frame's


class Part(NamedTuple):
    """Frames of one molecule in a batch, those of this process.

    Attributes
    ----------
    molecule : int
        Which molecule.
    coordinates : Tensor, shape (B, N, 3)
        In Å.
    forces : Tensor of shape (B, N, 3), or None
        In eV/Å.
    draws : Tensor of int64, shape (B,)
        Number that no other frame of the molecule has, and no other copy of the frame in the same epoch.
    weights : Tensor, shape (B,)
        How much each frame counts.
    earlier : Tensor of shape (B, N, 3), or None
        Where the molecule was one lag before, in Å; for flows of transitions.
    """

    molecule: int
    coordinates: Tensor
    forces: Tensor | None
    draws: Tensor
    weights: Tensor
    earlier: Tensor | None = None


class Batch(NamedTuple):
    """Frames that are evaluated together.

    Attributes
    ----------
    parts : tuple of Part
        Of this process.
    components : float
        3N summed over the frames of the batch by weight, of all processes.
    """

    parts: tuple[Part, ...]
    components: float


class MoleculeFrames(NamedTuple):
    """Frames of one molecule.

    Attributes
    ----------
    coordinates : ndarray, shape (F, N, 3)
        In Å.
    forces : ndarray of shape (F, N, 3), or None
        In eV/Å.
    numbers : ndarray of int, shape (F,), or None
        Of the frames in their dataset; by default 0, 1, ….
    weights : ndarray of shape (F,), or None
        By default all frames count the same.
    earlier : ndarray of shape (F, N, 3), or None
        One lag before, in Å.
    """

    coordinates: NDArray[np.float32]
    forces: NDArray[np.float32] | None
    numbers: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None
    earlier: NDArray[np.float32] | None = None


def make_part(
    molecule: int,
    arrays: tuple[Tensor, Tensor | None],
    draws: Tensor,
    weights: Tensor | None,
    earlier: Tensor | None = None,
) -> tuple[Part, float]:
    """Return this process's share of the frames of a molecule, and the weight of all of them.

    Where there are fewer frames than processes, some process gets a frame that does not count.
    """
    coordinates, forces = arrays
    everything = torch.ones(len(coordinates)) if weights is None else weights
    rows = own_rows(len(coordinates))
    own = everything[rows]
    if not len(own):
        rows, own = slice(0, 1), torch.zeros(1)
    before = None if earlier is None else earlier[rows]
    part = Part(molecule, coordinates[rows], None if forces is None else forces[rows], draws[rows], own, before)
    return part, float(everything.sum()) * 3 * coordinates.shape[1]


class FrameDataset(Dataset[Batch]):
    """Frames in memory; an item is a batch, named by rows of (molecule, frame, copy).

    Parameters
    ----------
    molecules : sequence of MoleculeFrames
    weighted : bool
        Give frames their weights; where they were drawn by weight they count the same.
    """

    def __init__(self, molecules: Sequence[MoleculeFrames], *, weighted: bool) -> None:
        self.molecules = [
            (torch.from_numpy(m.coordinates), None if m.forces is None else torch.from_numpy(m.forces))
            for m in molecules
        ]
        self._earlier = [None if m.earlier is None else torch.from_numpy(m.earlier) for m in molecules]
        self._numbers = [
            torch.arange(len(m.coordinates)) if m.numbers is None else torch.from_numpy(m.numbers) for m in molecules
        ]
        self._weights = [
            None if m.weights is None or not weighted else torch.from_numpy(m.weights / m.weights.mean()).float()
            for m in molecules
        ]

    def __len__(self) -> int:
        return sum(len(coordinates) for coordinates, _ in self.molecules)

    def __getitem__(self, rows: NDArray[np.int64]) -> Batch:
        parts, components = [], 0.0
        for molecule in np.unique(rows[:, 0]).tolist():
            _, frames, copies = torch.from_numpy(rows[rows[:, 0] == molecule]).T
            coordinates, forces = self.molecules[molecule]
            weights, earlier = self._weights[molecule], self._earlier[molecule]
            part, total = make_part(
                molecule,
                (coordinates[frames], None if forces is None else forces[frames]),
                draw_numbers(self._numbers[molecule][frames], copies),
                None if weights is None else weights[frames],
                None if earlier is None else earlier[frames],
            )
            parts.append(part)
            components += total
        return Batch(tuple(parts), components)


def draw_numbers(frames: Numbers, copies: Numbers) -> Numbers:
    """Return the number of each draw, of the frame's number and that of its copy in the epoch."""
    return frames + (copies << COPY_BIT)


class BatchSampler(Sampler[NDArray[np.int64]]):
    """Gives the rows of (molecule, frame, copy) of each batch; their order depends on the seed and the epoch only.

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
    weights : sequence of (ndarray or None), optional
        Of the frames of each molecule; those of shuffled molecules with weights are drawn by weight.
    """

    def __init__(
        self,
        n_frames: Sequence[int],
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        balance: Balance = "frames",
        weights: Sequence[NDArray[np.float64] | None] | None = None,
    ) -> None:
        self.n_frames = tuple(n_frames)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        total, count = sum(self.n_frames), len(self.n_frames)
        even = [total // count + (molecule < total % count) for molecule in range(count)]
        self._taken = tuple(even) if balance == "molecules" and shuffle else self.n_frames
        self._weights = (None,) * count if weights is None or not shuffle else tuple(weights)
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
                self._rows(molecule, n_frames, taken, rng)
                for molecule, (n_frames, taken) in enumerate(zip(self.n_frames, self._taken, strict=True))
            ]
        )
        if self.shuffle:
            order = np.arange(len(rows))
            rng.shuffle(order)
            rows = rows[order]
        for start in range(0, len(rows), self.batch_size):
            yield rows[start : start + self.batch_size]

    def _rows(self, molecule: int, n_frames: int, taken: int, rng: np.random.Generator) -> NDArray[np.int64]:
        weights = self._weights[molecule]
        if weights is not None:
            frames = drawn_by_weight(weights, taken, rng.random())
        elif taken == n_frames:
            frames = np.arange(n_frames)
        else:  # all of them so often as they are whole, and a random part of them once more
            whole, rest = divmod(taken, n_frames)
            frames = np.sort(np.concatenate([np.tile(np.arange(n_frames), whole), rng.permutation(n_frames)[:rest]]))
        return np.stack([np.full(taken, molecule), frames, copies_of(frames)], axis=1)


def copies_of(frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each of the sorted frames how many of the same come before it."""
    return np.arange(len(frames)) - np.searchsorted(frames, frames)


def frame_loader(
    molecules: Sequence[MoleculeFrames], *, batch_size: int, shuffle: bool, seed: int, balance: Balance = "frames"
) -> DataLoader[Batch]:
    """Make the loader of frames in memory; see :class:`FrameDataset` and :class:`BatchSampler`.

    Shuffled frames are drawn by their weights and count the same; others come once and count by weight.
    """
    n_frames = [len(molecule.coordinates) for molecule in molecules]
    weights = [molecule.weights for molecule in molecules]
    sampler = BatchSampler(n_frames, batch_size, shuffle=shuffle, seed=seed, balance=balance, weights=weights)
    return DataLoader(FrameDataset(molecules, weighted=not shuffle), sampler=sampler, batch_size=None)
