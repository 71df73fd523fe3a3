"""Labels over a range of noise: at each σ they are the labels of that σ, and their variance is that of theory."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ase_cg.errors import InputError
from ase_cg.labels import label_source
from ase_cg.labels.frame_noise import FrameNoise
from ase_cg.labels.noise_range import RangeLabels
from ase_cg.units import thermal_energy
from tests.labels.test_known_ground import Chain

KT = thermal_energy(300.0)
BOUNDS = (0.03, 0.3)
NAMES = ("noise", "forces_and_noise")


@pytest.fixture(scope="module")
def chain():
    """Positions and slice forces of the three beads of an anharmonic chain."""
    x, forces = (torch.from_numpy(array[:, [0, 2, 4]]) for array in Chain.sample(20_000, np.random.default_rng(0)))
    return x, forces


def _labelled(name, chain, rows=slice(None)):
    x, forces = chain
    source = RangeLabels.fit(name, None if name == "noise" else forces, kT=KT, bounds=BOUNDS)
    return source, source(x[rows], forces[rows], FrameNoise((3, 0), torch.arange(len(x))[rows]))


@pytest.mark.parametrize("name", NAMES)
def test_each_label_is_that_of_its_own_noise(name, chain):
    x, forces = chain
    _, found = _labelled(name, chain)
    for frame in range(5):
        # The same ε, given to the label of one level.
        epsilon = (found.positions - x)[frame : frame + 1]
        sigma = float(found.noise_std[frame])
        single = label_source(name).fit(forces, kT=KT, noise_std=sigma)

        class Given:
            def normal(self, like, drawn=epsilon / sigma):
                return drawn.to(like)

        y, f = single(x[frame : frame + 1], forces[frame : frame + 1], Given())
        torch.testing.assert_close(y[0], found.positions[frame])
        torch.testing.assert_close(f[0], found.forces[frame], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_log_uniform_and_labels_have_their_variance_at_each_level(name, chain):
    source, found = _labelled(name, chain)
    place = torch.log(found.noise_std / BOUNDS[0]) / math.log(BOUNDS[1] / BOUNDS[0])
    assert stats.kstest(place.numpy(), "uniform").pvalue > 1e-3
    squares = (found.forces**2).mean((1, 2)) / source.variance_at(found.noise_std)
    for part in squares[torch.argsort(found.noise_std)].chunk(5):
        assert float(part.mean()) == pytest.approx(1, abs=5 * float(part.std()) / math.sqrt(len(part)))
    lowest = label_source(name).fit(chain[1], kT=KT, noise_std=BOUNDS[0])
    assert source.variance() == pytest.approx(lowest.variance(), rel=1e-9)


def test_a_frame_has_the_same_noise_level_in_whatever_batch_it_is(chain):
    _, whole = _labelled("forces_and_noise", chain)
    for rows in (slice(5, 6), slice(100, 164)):
        _, part = _labelled("forces_and_noise", chain, rows)
        assert torch.equal(part.noise_std, whole.noise_std[rows])
        torch.testing.assert_close(part.positions, whole.positions[rows], rtol=0, atol=1e-14)
        torch.testing.assert_close(part.forces, whole.forces[rows], rtol=1e-12, atol=1e-12)


def test_forces_are_needed_where_the_labels_need_them():
    with pytest.raises(InputError, match="need recorded forces"):
        RangeLabels.fit("forces_and_noise", None, kT=KT, bounds=BOUNDS)
