"""Frames streamed from disk: every frame once an epoch, in an order of the seed, at no cost to the result."""

import threading

import numpy as np
import pytest
import torch

from ase_cg import InputError, Recipe
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.training.streaming import BLOCK_FRAMES, FrameStream
from ase_cg.training.trainer import train
from tests.conftest import SMALL_SCHNET, two_bead_topology

N_FRAMES = 3000
MADE = {"temperature": 300.0, "resolution": "calpha", "force_map": "slice"}


@pytest.fixture
def numbered(tmp_path):
    """A dataset whose frames hold their own number."""
    path = tmp_path / "numbered.h5"
    values = np.broadcast_to(np.arange(N_FRAMES, dtype=float)[:, None, None], (N_FRAMES, 2, 3))
    with (
        create_dataset(path) as dataset,
        dataset.molecule("m", two_bead_topology(), **MADE) as molecule,
    ):
        molecule.append(values, -values)
    return path


def _stream(path, frames, **changes):
    options = {"with_forces": True, "batch_size": 64, "shuffle": True, "seed": 3, "buffer_bytes": 48 * BLOCK_FRAMES * 3}
    return FrameStream(path, "m", frames, **(options | changes))


def _numbers(stream):
    batches = [(part.coordinates, part.forces) for part in (batch.parts[0] for batch in stream)]
    for x, f in batches:
        assert f is None or torch.equal(f, -x)
    assert len(batches) == len(stream)
    assert all(len(x) == 64 for x, _ in batches[:-1])
    return torch.cat([x[:, 0, 0] for x, _ in batches]).numpy().astype(int)


@pytest.mark.parametrize("gaps", [False, True])
def test_an_epoch_gives_every_frame_once_in_an_order_of_its_own(gaps, numbered):
    frames = np.arange(N_FRAMES)
    if gaps:
        frames = np.sort(np.random.default_rng(0).choice(N_FRAMES, 1111, replace=False))
    stream = _stream(numbered, frames)
    first = _numbers(stream)
    assert np.array_equal(np.sort(first), frames)
    assert np.array_equal(_numbers(stream), first)
    stream.set_epoch(1)
    second = _numbers(stream)
    assert np.array_equal(np.sort(second), frames)
    assert not np.array_equal(first, second)
    assert not np.array_equal(_numbers(_stream(numbered, frames, seed=4)), first)
    assert np.array_equal(_numbers(_stream(numbered, frames, shuffle=False)), frames)
    assert _stream(numbered, frames, with_forces=False).__iter__().__next__().parts[0].forces is None
    # Neighbours are torn apart: far blocks meet in one batch.
    assert np.abs(np.diff(first)).mean() > BLOCK_FRAMES / 4


def test_a_stream_that_is_left_ends_its_thread(numbered):
    before = threading.active_count()
    batches = iter(_stream(numbered, np.arange(N_FRAMES)))
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_an_error_of_the_reader_reaches_the_training(numbered):
    stream = _stream(numbered, np.arange(N_FRAMES))
    numbered.write_bytes(numbered.read_bytes()[:3000])
    with pytest.raises(InputError, match="truncated"):
        list(stream)


@pytest.mark.filterwarnings("ignore:forces of molecule")  # a bond along x only is no molecule in three dimensions
@pytest.mark.filterwarnings("ignore:forces of molecule")  # beads that move along x only
def test_training_from_disk_reaches_what_training_in_memory_reaches(tmp_path):
    """Harmonic dimer: both losses come down to the noise of the labels."""
    rng = np.random.default_rng(0)
    path = tmp_path / "dimer.h5"
    lengths = 3 + 0.2 * rng.standard_normal(6000)
    x = np.zeros((6000, 2, 3))
    x[:, 1, 0] = lengths
    f = np.zeros_like(x)
    f[:, 0, 0] = 0.6 * (lengths - 3) + 0.05 * rng.standard_normal(6000)
    f[:, 1, 0] = -f[:, 0, 0]
    with (
        create_dataset(path) as dataset,
        dataset.molecule("m", two_bead_topology(), **MADE) as molecule,
    ):
        molecule.append(x, f)
    losses = {}
    for name, limit in (("memory", 4.0), ("disk", 1e-6)):
        recipe = Recipe.model_validate(
            {
                "name": "dimer",
                "data": {"dataset": str(path)},
                "priors": ["bonds"],
                "backbone": {"name": "schnet", **SMALL_SCHNET},
                "training": {"epochs": 2, "batch_size": 64, "memory_limit": limit, "allow_inconsistent_forces": True},
            }
        )
        train(recipe, tmp_path / name, quiet=True)
        from ase_cg.analysis.describe import describe

        losses[name] = describe(tmp_path / name)["last_losses"]["validation_loss"]
    assert losses["disk"] == pytest.approx(losses["memory"], rel=0.1)
