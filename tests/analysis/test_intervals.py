"""Intervals hold true values that are known, and figures say what is missing whatever the number of frames."""

import importlib

import numpy as np
import pytest

from ase_cg.analysis.intervals import divergence_measurement, doubt_of, surface_measurements
from ase_cg.analysis.jackknife import Estimate, effective_bins, effective_samples, estimate
from ase_cg.analysis.metrics import jensen_shannon, pmf_error
from tests.conftest import ROOT


@pytest.fixture
def coverage(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("coverage")


def measured_surface(coverage, rng, size, time, kind):
    """Draw both sides once."""
    model = kind.width * coverage.frames(rng, size, time) + np.array([kind.shift, 0.0])
    one, other = (coverage.surface_blocks(x, np.ones(size)) for x in (model, coverage.frames(rng, size, time)))
    return surface_measurements(one, other)


def test_intervals_of_correlated_data_hold_the_true_value(coverage):
    """30 × 30 bins; centred on the plug-in value they would hold it in a few percent of cases."""
    repetitions, held, naive = 25, {}, {}
    for size, time in (((16, 500), 1), ((16, 500), 50), ((32, 300), 10), ((128, 100), 1)):
        for name in ("none", "shift 0.3", "width 1.2"):
            kind, rng = coverage.DIFFERENCES[name], np.random.default_rng(7)
            truths = coverage.surface_probabilities(kind.shift, kind.width), coverage.surface_probabilities(0.0, 1.0)
            for _ in range(repetitions):
                for measured in measured_surface(coverage, rng, size, time, kind):
                    assert doubt_of(measured) is None
                    found = estimate(measured.figure, measured.one, measured.other, second_order=measured.second_order)
                    low, high = found.interval()
                    truth = measured.figure(*truths)
                    held.setdefault(next(iter(measured.places)), []).append((low <= truth) & (truth <= high))
                    apart = np.abs(found.plug_in - truth) <= 1.96 * found.error
                    naive.setdefault(next(iter(measured.places)), []).append(apart)
    assert set(held) == {"pmf_error_kT", "jensen_shannon_nats"}
    for name, inside in held.items():
        assert (np.mean(inside, 0) >= 0.9).all(), name
        assert (np.mean(inside[: 3 * repetitions], 0) >= 0.87).all()  # of few frames in each bin, the hardest
        assert (np.mean(naive[name], 0) < 0.5).all()


def test_intervals_of_a_distance_of_means_hold_it_with_unequal_blocks_and_weights():
    """One slow mode: trajectories differ in their means, in length and in weight; the figure may come out as 0."""
    rng, x = np.random.default_rng(3), np.arange(5.0)

    def blocks(mean, spread=0.5):
        centres = rng.normal(mean, spread, 14)
        p = np.exp(-0.5 * (x - centres[:, None]) ** 2 / 0.3)
        lengths = rng.integers(20, 200, 14)
        return np.array([rng.multinomial(n, row / row.sum()) for n, row in zip(lengths, p, strict=True)], dtype=float)

    truth = {}
    for mean in (2.0, 2.5, 3.0):
        centres = rng.normal(mean, 0.5, 200_000)
        p = np.exp(-0.5 * (x - centres[:, None]) ** 2 / 0.3)
        truth[mean] = float((p / p.sum(1, keepdims=True) @ x).mean())
    for mean, value in truth.items():
        inside, widths = [], []
        for _ in range(200):
            found = estimate(lambda p, q: ((p - q) @ x)[..., None] ** 2, blocks(mean), blocks(2.0))
            low, high = np.sqrt(found.interval())[:, 0]
            inside.append(low <= value - truth[2.0] <= high)
            widths.append(high - low)
        assert 0.88 <= np.mean(inside) <= 0.995
        assert np.mean(widths) < 1.2  # four standard errors of the difference of the means are 0.8
    for spreads in ((0.02, 0.5), (0.5, 0.02)):  # noise of either side alone counts in full
        inside = []
        for _ in range(200):
            one, other = blocks(2.0, spreads[0]), blocks(2.0, spreads[1])
            found = estimate(lambda p, q: (1 + (p - q) @ x)[..., None] ** 2, one, other)
            low, high = found.interval()
            inside.append(low[0] <= 1 <= high[0])
        assert 0.88 <= np.mean(inside) <= 0.995


def test_the_correction_is_the_known_bias_of_few_bins():
    """Of n and m independent frames in k bins: (k − 1)/8 (1/n + 1/m) nats."""
    rng, p = np.random.default_rng(0), np.array([0.4, 0.3, 0.2, 0.1])
    removed, left, plug_in = [], [], []
    for _ in range(200):
        one, other = rng.multinomial(100, p, 20).astype(float), rng.multinomial(50, p, 30).astype(float)
        measured = divergence_measurement(one, other, "x")
        found = estimate(measured.figure, one, other)
        removed.append(found.plug_in - found.corrected)
        left.append(found.corrected)
        plug_in.append(found.plug_in)
    wanted = 3 / 8 * (1 / 2000 + 1 / 1500)
    assert np.mean(plug_in) == pytest.approx(wanted, rel=0.15)
    assert np.mean(removed) == pytest.approx(wanted, rel=0.1)
    assert np.mean(left) == pytest.approx(0, abs=0.15 * wanted)


def test_independent_frames_know_correlation_and_weights(coverage):
    rng = np.random.default_rng(2)
    frames = rng.integers(0, 6, (200, 30))
    one = coverage.blocks(frames, np.ones(frames.shape), 6)
    assert effective_samples(one) == pytest.approx(6000, rel=0.15)
    fourfold = coverage.blocks(np.repeat(frames, 4, axis=1), np.ones((200, 120)), 6)
    assert effective_samples(fourfold) == pytest.approx(6000, rel=0.15)
    weights = rng.choice([0.1, 1.9], frames.shape)
    kish = weights.sum() ** 2 / (weights**2).sum()
    assert effective_samples(coverage.blocks(frames, weights, 6)) == pytest.approx(kish, rel=0.2)
    assert effective_samples(np.ones((5, 3))) == np.inf
    assert np.isnan(effective_samples(np.ones((1, 3))))
    assert effective_bins(np.full(7, 1 / 7)) == pytest.approx(7)


# Samples that are known to be perfect, and known to be wrong.

RARE = 0.02  # of the frames in a basin of its own


def sampled(rng, size, rare=RARE):
    """Return frames (T, F, 2) of a wide basin and a narrow, rare one."""
    x = rng.normal(-1.5, 0.7, (*size, 2))
    there = rng.random(size) < rare
    x[there] = rng.normal(2.5, 0.3, (int(there.sum()), 2))
    return x


def figures_of(coverage, one, other):
    """Return value, interval and doubt of every figure."""
    found = {}
    for measured in surface_measurements(*(coverage.surface_blocks(x, np.ones(x.shape[:2])) for x in (one, other))):
        made = estimate(measured.figure, measured.one, measured.other, second_order=measured.second_order)
        low, high = (measured.named(end) for end in made.interval())
        for name, value in measured.named(made.corrected).items():
            found[name] = (float(value), float(low[name]), float(high[name]), doubt_of(measured))
    return found


def test_a_lost_rare_basin_is_seen_and_a_perfect_sample_is_perfect(coverage):
    rng = np.random.default_rng(4)
    reference = sampled(rng, (40, 500))
    perfect = figures_of(coverage, sampled(rng, (40, 500)), reference)
    lost = figures_of(coverage, sampled(rng, (40, 500), rare=0.0), reference)
    for name in ("pmf_error_kT", "pmf_error_common_kT", "jensen_shannon_nats"):
        assert perfect[name][1] == 0 <= perfect[name][2], name
    missing = 0.5 * RARE * np.log(2)  # nats, where one side has nothing
    assert lost["jensen_shannon_nats"][0] == pytest.approx(missing, rel=0.3)
    assert lost["jensen_shannon_nats"][1] > 0.5 * missing
    assert lost["pmf_error_kT"][1] > perfect["pmf_error_kT"][2]
    assert lost["pmf_error_common_kT"][1] == 0  # the rest is as it should be
    assert lost["pmf_error_common_kT"][0] < 0.5 * lost["pmf_error_kT"][0]


def test_a_lost_rare_basin_costs_the_same_whatever_the_number_of_frames(coverage):
    values = []
    for frames in (500, 2000, 8000):
        rng = np.random.default_rng(5)
        lost = figures_of(coverage, sampled(rng, (20, frames), rare=0.0), sampled(rng, (20, frames)))
        values.append(lost["pmf_error_kT"][0])
    assert max(values) < 1.25 * min(values)
    bins = coverage.surface_blocks(sampled(rng, (20, 500)), np.ones((20, 500))).sum(0)
    p = bins / bins.sum()
    without = np.where(np.arange(len(p)) // 30 >= 18, 0.0, p)
    without /= without.sum()
    assert pmf_error(without, p, 1e-8) > 2 * pmf_error(without, p)  # what the smallest probability would cost otherwise


def test_too_few_independent_frames_for_the_bins_have_no_interval(coverage):
    rng = np.random.default_rng(6)
    kind = coverage.DIFFERENCES["shift 0.3"]
    for measured in measured_surface(coverage, rng, (16, 20), 50, kind):
        assert "too few independent frames for the bins" in doubt_of(measured)
    assert "3 independent blocks" in doubt_of(divergence_measurement(np.ones((3, 4)), np.ones((9, 4)), "x"))


def test_what_cannot_be_estimated_is_no_number():
    one, other = np.array([[4.0, 1.0]]), np.array([[3.0, 2.0], [1.0, 4.0]])
    found = estimate(lambda p, q: ((p - q)[..., :1]) ** 2, one, other)
    assert np.isnan(found.error).all()
    assert found.plug_in == pytest.approx(0.4**2)
    same = estimate(lambda p, q: ((p - q)[..., :1]) ** 2, other, other)
    assert same.plug_in == 0
    assert same.corrected[0] <= 0


def test_an_interval_by_hand():
    """Wilson's: λ with |x − λ| = z √(s² (4 λ + 2 bias)), here x = 15, bias 1, s = 1, z = 1.96."""
    found = Estimate(*(np.array([v]) for v in (16.0, 15.0, 8.0, 1e9, 0.0)))
    low, high = found.interval()
    assert 15 - low[0] == pytest.approx(1.96 * np.sqrt(4 * low[0] + 2), rel=1e-3)
    assert high[0] == pytest.approx((4 + 1.96) ** 2, rel=1e-3)  # no farther than the distance and twice its error
    chance = Estimate(*(np.array([v]) for v in (0.01, -0.99, 0.2, 1e9, 0.0)))  # as if there were no difference
    assert chance.interval()[0] == 0
    assert chance.interval()[1] == pytest.approx((0.1 + 1.96) ** 2, rel=1e-3)
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(np.log(2))
