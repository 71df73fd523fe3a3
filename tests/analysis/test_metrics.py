"""Distances between distributions: exact values, symmetry, and what the definitions say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import rel_entr
from scipy.stats import wasserstein_distance

from ase_cg.analysis import free_energy, jensen_shannon, pmf_error, wasserstein
from ase_cg.analysis.metrics import common_bins, smallest_probability, squared_pmf_error, wasserstein_distances

distributions = arrays(float, 12, elements=st.floats(0, 1)).filter(lambda x: x.sum() > 0.1).map(lambda x: x / x.sum())


@given(distributions, distributions)
def test_jensen_shannon_is_made_of_scipys_relative_entropies(p, q):
    middle = (p + q) / 2
    wanted = 0.5 * (rel_entr(p, middle) + rel_entr(q, middle)).sum()
    assert jensen_shannon(p, q) == pytest.approx(wanted, abs=1e-9)
    assert 0 <= jensen_shannon(p, q) <= np.log(2) + 1e-12
    assert jensen_shannon(p, p) == 0


@given(distributions, distributions)
def test_pmf_error_is_symmetric_and_zero_for_equals(p, q):
    assert pmf_error(p, q) == pytest.approx(pmf_error(q, p), abs=1e-12)
    assert pmf_error(p, p) == 0


def test_pmf_error_by_hand_with_an_empty_bin():
    """In bins that both sides fill it is the difference of free energies; an empty one counts as the smallest."""
    p, q = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.5, 0.25, 0.25, 0.0])
    wanted = 0.375 * np.log(2) ** 2 + 0.125 * np.log(0.25 / 1e-6) ** 2
    assert pmf_error(p, q, 1e-6) == pytest.approx(np.sqrt(wanted), rel=1e-9)
    assert pmf_error(p, q) == pytest.approx(pmf_error(p, q, 0.1 / 4))
    assert pmf_error(p, q) == pytest.approx(0.9186087, rel=1e-6)


def test_the_smallest_probability_is_what_grid_and_samples_resolve():
    assert smallest_probability(900) == pytest.approx(1 / 9000)
    assert smallest_probability(900, 10_000, 50_000) == pytest.approx(1 / 9000)
    assert smallest_probability(900, 10_000, 500) == pytest.approx(1 / 1000)


def test_differences_where_neither_side_is_resolved_do_not_count():
    p, q = np.array([1 - 2e-8, 1e-8, 1e-8]), np.array([1 - 2e-12, 1e-12, 1e-12])
    assert pmf_error(p, q, 1e-5) < 1e-7
    assert pmf_error(p, q, 1e-12) > 1e-4


def test_common_bins_are_those_that_both_sides_fill():
    p, q = np.array([0.6, 0.3, 0.06, 0.04, 0.0]), np.array([0.6, 0.3, 0.0, 0.06, 0.04])
    assert common_bins(p, q, 0.001).tolist() == [True, True, False, True, False]
    assert common_bins(p, q, 0.01).tolist() == [True, True, False, False, False]
    assert squared_pmf_error(p, q, 1e-6, common_bins(p, q, 0.01)) == 0
    assert squared_pmf_error(p, q, 1e-6, common_bins(p, q, 0.001)) == pytest.approx(0.05 * np.log(1.5) ** 2)


def test_wasserstein_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.5, 0.03, 20_000), rng.normal(1.51, 0.04, 30_000)
    edges = np.arange(1.2, 1.9, 0.0005)
    p, q = (np.histogram(x, edges)[0] / len(x) for x in (a, b))
    assert wasserstein(p, q, 0.0005) == pytest.approx(wasserstein_distance(a, b), rel=0.01)


def test_free_energy_is_minus_the_logarithm():
    surface = free_energy(np.array([0.5, 0.25, 0.0]))
    assert surface[:2] == pytest.approx([0.0, np.log(2)])
    assert surface[2] == np.inf


def test_wasserstein_distance_on_a_circle():
    """A peak that crosses the cut is near, not far."""
    p, q = np.zeros((2, 360))
    p[[359, 0]] = 0.5
    q[[1, 2]] = 0.5
    assert wasserstein_distances(p, q, 1.0) > 100
    assert wasserstein_distances(p, q, 1.0, periodic=True) == pytest.approx(2)
