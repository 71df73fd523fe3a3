"""Random numbers depend on seed, replica and step only."""

import math

import numpy as np
import pytest
import torch

from ase_cg.dynamics.noise import NoiseBlocks, generator, random_key

CPU = torch.device("cpu")


def drawn(keys, first, count, n_beads=10):
    blocks, parts = NoiseBlocks(keys, n_beads, CPU), []
    while count:
        part = blocks.steps(first, count)
        parts += part
        first, count = first + len(part), count - len(part)
    return torch.stack(parts)


def test_numbers_do_not_depend_on_company_on_chunks_or_on_where_one_begins():
    keys = [random_key(7, number) for number in range(5)]
    together = drawn(keys, 0, 500)
    assert torch.equal(drawn(keys[3:], 0, 500), together[:, 3:])
    assert torch.equal(drawn(keys[1:2], 321, 179), together[321:, 1:2])
    blocks = NoiseBlocks(keys, 10, CPU)
    backwards = [blocks.steps(step, 1)[0] for step in (499, 3, 410, 409)]
    assert all(torch.equal(found, together[step]) for found, step in zip(backwards, (499, 3, 410, 409), strict=True))


def test_other_seeds_replicas_and_uses_have_other_numbers():
    keys = [random_key(0, 0), random_key(0, 1), random_key(1, 0), random_key(1, 1)]
    numbers = drawn(keys, 0, 2000, n_beads=3).reshape(2000 * 1, 4, 9).permute(1, 0, 2).reshape(4, -1).numpy()
    correlation = np.corrcoef(numbers)
    assert np.abs(correlation - np.eye(4)).max() < 5 / np.sqrt(18_000)
    assert abs(numbers.mean()) < 5 / np.sqrt(72_000)
    assert abs(numbers.var() - 1) < 5 * np.sqrt(2 / 72_000)
    firsts = {float(generator(keys[0], use, place).random()) for use in ("noise", "exchanges") for place in (0, 1)}
    assert len(firsts) == 4


def test_numbers_are_normal():
    """Moments of 3 million numbers, and the shares beyond some values."""
    numbers = drawn([random_key(5, number) for number in range(5)], 0, 20_000).numpy().ravel()
    n = len(numbers)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert np.mean(numbers**power) == pytest.approx(moment, abs=4 * np.sqrt(variance / n))
    for beyond in (0.5, 1.0, 2.0, 3.0, 4.0):
        share = math.erfc(beyond / math.sqrt(2))
        assert np.mean(np.abs(numbers) > beyond) == pytest.approx(share, abs=4 * np.sqrt(share / n))
    pairs = numbers[: n // 2 * 2].reshape(-1, 2)
    assert abs(np.mean(pairs[:, 0] * pairs[:, 1])) < 4 / np.sqrt(n // 2)
