"""Batches of a dataset larger than memory: blocks of frames read ahead, shuffled among themselves."""

import math
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.data.dataset import Dataset, Molecule
from ase_cg.data.splits import drawn_by_weight
from ase_cg.training.frames import Batch, copies_of, draw_numbers, make_part

BLOCK_FRAMES = 256  # read in one go; frames of a block meet in the same part of an epoch
BUFFER_BYTES = 2**28  # of frames that are shuffled among themselves
READ_AHEAD = 2  # buffers

Arrays = tuple[NDArray[Any], ...]  # coordinates, numbers of draws, weights, and perhaps forces, of the same frames
Waiting = queue.Queue[Arrays | BaseException | None]


class FrameStream:
    """Gives batches of frames, read from disk while the model works on those before.

    Blocks of neighbouring frames are read in random order, as many at a time as fit into the buffer, and the frames in
    it are shuffled. The order depends on the seed and the epoch only. Of several processes that train together each
    reads all frames and gives its share of each batch.

    Parameters
    ----------
    path : Path
        Of the dataset.
    molecule : str
    frames : ndarray of int
        Sorted indices of the frames to give.
    with_forces : bool
    batch_size : int
    shuffle : bool
    seed : int
    weights : ndarray of shape (frames,), optional
        Shuffled frames are drawn by weight and count the same; others come once and count by weight.
    buffer_bytes : int
        Memory of one buffer; two are read ahead.
    """

    def __init__(
        self,
        path: Path,
        molecule: str,
        frames: NDArray[np.int64],
        *,
        with_forces: bool,
        batch_size: int,
        shuffle: bool,
        seed: int,
        weights: NDArray[np.float64] | None = None,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        self.path, self.molecule, self.frames = path, molecule, frames
        self.with_forces, self.batch_size, self.shuffle, self.seed = with_forces, batch_size, shuffle, seed
        self.weights = None if weights is None else weights / weights.mean()
        with Dataset.open(path) as dataset:
            n_beads = dataset.molecules[molecule].topology.n_beads
        frame_bytes = 12 * n_beads * (2 if with_forces else 1)
        self._blocks_at_once = max(1, buffer_bytes // (frame_bytes * BLOCK_FRAMES))
        self.sampler = self  # where Lightning looks for set_epoch
        self.batch_sampler = None  # where it looks next
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.frames) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        waiting: Waiting = queue.Queue(READ_AHEAD)
        ended = threading.Event()
        reader = threading.Thread(target=self._read, args=(waiting, ended), daemon=True)
        reader.start()
        try:
            yield from self._batches(waiting)
        finally:
            ended.set()
            while reader.is_alive():  # it may wait for room in the queue
                try:
                    waiting.get(timeout=0.05)
                except queue.Empty:
                    continue
            reader.join()

    def _batches(self, waiting: Waiting) -> Iterator[Batch]:
        """Cut the buffers into batches; what is left of one goes in front of the next."""
        rest: list[Tensor] = []
        while True:
            buffer = waiting.get()
            if isinstance(buffer, BaseException):
                raise buffer
            arrays = [] if buffer is None else [torch.from_numpy(array) for array in buffer]
            if rest and arrays:
                arrays = [torch.cat(pair) for pair in zip(rest, arrays, strict=True)]
            arrays = arrays or rest
            count = len(arrays[0]) if arrays else 0
            stop = count if buffer is None else count // self.batch_size * self.batch_size
            for start in range(0, stop, self.batch_size):
                x, draws, weights, *forces = (array[start : start + self.batch_size] for array in arrays)
                part, components = make_part(0, (x, forces[0] if forces else None), draws, weights)
                yield Batch((part,), components)
            if buffer is None:
                return
            rest = [array[stop:] for array in arrays]

    def _read(self, waiting: Waiting, ended: threading.Event) -> None:
        """Fill the queue with buffers, in a thread of its own."""
        try:
            rng = np.random.default_rng(np.random.SeedSequence([self.seed, self.epoch]))
            n_blocks = math.ceil(len(self.frames) / BLOCK_FRAMES)
            order = rng.permutation(n_blocks) if self.shuffle else np.arange(n_blocks)
            drawn = np.arange(len(self.frames))
            if self.weights is not None and self.shuffle:
                drawn = drawn_by_weight(self.weights, offset=rng.random())
            copies = copies_of(drawn)
            with Dataset.open(self.path) as dataset:
                molecule = dataset.molecules[self.molecule]
                for start in range(0, n_blocks, self._blocks_at_once):
                    blocks = np.sort(order[start : start + self._blocks_at_once])
                    rows = (blocks[:, None] * BLOCK_FRAMES + np.arange(BLOCK_FRAMES)).ravel()
                    rows = rows[rows < len(drawn)]
                    buffer = self._buffer(molecule, drawn[rows], copies[rows])
                    if self.shuffle:
                        mixed = rng.permutation(len(rows))
                        buffer = tuple(array[mixed] for array in buffer)
                    if ended.is_set():
                        return
                    waiting.put(buffer)
            waiting.put(None)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the thread that waits
            waiting.put(error)

    def _buffer(self, molecule: Molecule, drawn: NDArray[np.int64], copies: NDArray[np.int64]) -> Arrays:
        frames = self.frames[drawn]
        weights = np.ones(len(frames), dtype=np.float32)
        if self.weights is not None and not self.shuffle:
            weights = self.weights[drawn].astype(np.float32)
        buffer: Arrays = (molecule.coordinates(frames), draw_numbers(frames, copies), weights)
        return (*buffer, molecule.forces(frames)) if self.with_forces else buffer
