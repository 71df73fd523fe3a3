"""Training, validation and test frames, divided in blocks of time."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ase_cg.data.dataset import Molecule
from ase_cg.errors import InputError

Subset = Literal["contiguous", "strided"]
SPARSE = 20  # frames left out for each one taken, from which on reading single frames is a waste
NEIGHBORS = 100  # frames taken together then


class Split(NamedTuple):
    """Sorted frame indices of each part."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def split_by_blocks(molecule: Molecule, fractions: tuple[float, float], *, blocks: int = 20, seed: int = 0) -> Split:
    """Divide frames into training, validation and test parts by blocks of time.

    Neighbouring frames are alike; were they divided one by one, validation would see what training saw.
    The frames, trajectory after trajectory, are cut into blocks of equal length, which are then dealt at random.

    Parameters
    ----------
    molecule : Molecule
    fractions : (float, float)
        Of the blocks for validation and for test; each gets at least one.
    blocks : int
        Number of blocks.
    seed : int

    Raises
    ------
    InputError
        If there are too few frames for one frame a block.
    """
    if molecule.n_frames < blocks:
        raise InputError(
            f"molecule {molecule.name!r} has {molecule.n_frames} frames, too few to split into {blocks} blocks of time"
        )
    counts = [max(1, round(fraction * blocks)) for fraction in fractions]
    if sum(counts) >= blocks:
        raise InputError(f"validation and test take {sum(counts)} of {blocks} blocks and leave none for training")
    pieces = np.array_split(np.arange(molecule.n_frames), blocks)
    order = np.random.default_rng(seed).permutation(blocks)
    validation, test = order[: counts[0]], order[counts[0] : sum(counts)]
    return Split(
        train=np.sort(np.concatenate([pieces[i] for i in order[sum(counts) :]])),
        validation=np.sort(np.concatenate([pieces[i] for i in validation])),
        test=np.sort(np.concatenate([pieces[i] for i in test])),
    )


def spread_frames(frames: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Return at most `limit` of the sorted frames, evenly spread; of very many, short runs evenly spread."""
    if len(frames) <= limit:
        return frames
    if len(frames) <= SPARSE * limit:
        return np.asarray(frames[np.linspace(0, len(frames) - 1, limit).astype(int)])
    starts = np.linspace(0, len(frames) - NEIGHBORS, max(1, limit // NEIGHBORS)).astype(int)
    return np.asarray(frames[(starts[:, None] + np.arange(NEIGHBORS)).ravel()])


def drawn_by_weight(weights: NDArray[np.float64], count: int | None = None, offset: float = 0.5) -> NDArray[np.int64]:
    """Return frames drawn evenly by weight: sorted, some several times, some never.

    Frame i comes ⌊c⌋ or ⌈c⌉ times, where c = count wᵢ/Σw; over all offsets it comes c times on average.

    Parameters
    ----------
    weights : ndarray, shape (F,)
        Of the frames.
    count : int, optional
        Of the draws; by default as many as there are frames.
    offset : float
        From 0 to below 1; draws lie at (0 + offset)/count, (1 + offset)/count, … of the summed weight.
    """
    draws = len(weights) if count is None else count
    edges = np.cumsum(weights) / weights.sum()
    found = np.searchsorted(edges, (np.arange(draws) + offset) / draws, side="right")
    # The last edge may be a rounding error below 1.
    return np.asarray(np.minimum(found, np.flatnonzero(weights)[-1]))


def subset_frames(frames: NDArray[np.int64], fraction: float, kind: Subset) -> NDArray[np.int64]:
    """Return a fraction of the sorted frames: the first of them, or evenly spread ones.

    Fewer of them are a part of more; strided ones where their numbers divide each other and that of all frames.

    Parameters
    ----------
    frames : ndarray of int
        Sorted.
    fraction : float
        Above 0 and up to 1; at least one frame is taken.
    kind : {"contiguous", "strided"}
    """
    count = max(1, round(fraction * len(frames)))
    if kind == "contiguous":
        return frames[:count]
    return np.asarray(frames[np.arange(count) * len(frames) // count])
