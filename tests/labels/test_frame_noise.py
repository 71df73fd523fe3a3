"""Noise of frames: standard normal, and a function of key and frame alone."""

import numpy as np
import torch
from scipy import stats

from ase_cg.labels.frame_noise import FrameNoise

FRAMES = torch.arange(40_000)


def _normal(key, frames=FRAMES, dtype=torch.float64):
    return FrameNoise(key, frames).normal(torch.zeros(len(frames), 3, 3, dtype=dtype))


def test_numbers_are_standard_normal_and_independent():
    z = _normal((0, 0, 0)).numpy().reshape(len(FRAMES), 9)
    root = np.sqrt(z.size)
    assert abs(z.mean()) * root < 4
    assert abs((z**2).mean() - 1) * root / np.sqrt(2) < 4
    assert abs((z**4).mean() - 3) * root / np.sqrt(96) < 4
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    # Within a frame, between neighbouring and far frames, between epochs: the numbers and their squares.
    other = _normal((0, 0, 1)).numpy().reshape(z.shape)
    for a, b in ((z[:-1], z[1:]), (z[:-64], z[64:]), (z[:, :-1], z[:, 1:]), (z, other), (z[:, :4], z[:, 5:])):
        assert abs((a * b).mean()) * np.sqrt(a.size) < 4
        assert abs(((a**2 - 1) * (b**2 - 1)).mean()) * np.sqrt(a.size) / 2 < 4


def test_a_frame_has_the_same_noise_in_whatever_batch_it_is():
    whole = _normal((7, 0, 3))
    shuffled = torch.randperm(len(FRAMES), generator=torch.Generator().manual_seed(0))
    assert torch.equal(_normal((7, 0, 3), shuffled), whole[shuffled])
    assert torch.equal(_normal((7, 0, 3), FRAMES[5:6]), whole[5:6])
    assert torch.equal(_normal((7, 0, 3), dtype=torch.float32), whole.float())


def test_every_part_of_the_key_and_every_call_gives_other_numbers():
    found = [_normal(key, FRAMES[:4]) for key in ((7, 0, 3), (8, 0, 3), (7, 1, 3), (7, 0, 4), (7, 0, 3, 1))]
    noise = FrameNoise((7, 0, 3), FRAMES[:4])
    found += [noise.normal(torch.zeros(4, 3, 3).double()) for _ in range(2)]
    assert torch.equal(found[0], found[5])
    unlike = [*found[:5], found[6], _normal((7, 0, 3), FRAMES[:4] + (1 << 40))]
    for i, one in enumerate(unlike):
        for other in unlike[:i]:
            assert not np.isin(one.numpy(), other.numpy()).any()
