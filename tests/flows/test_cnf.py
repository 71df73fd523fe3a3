"""Continuous flows: published values, finite differences, Gaussian data, Hutchinson's estimate, solvers."""

import math
from itertools import pairwise

import pytest
import torch

from ase_cg.errors import InputError
from ase_cg.flows import solvers
from ase_cg.flows.cnf import ContinuousFlow
from ase_cg.flows.field import centered, drawn_by, normal_probes
from ase_cg.flows.solvers import Clock, divided, rk4

from .gaussian import GaussianField, spread_covariance

WIDTHS = {"noise_std": 0.05, "prior_std": 0.05}
BEADS = torch.arange(10)
TYPES = torch.tensor([0, 1, 2, 1, 3])


def _draw(shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def small_flow():
    """A random field strong enough for the log-determinant to matter, and fine steps."""
    from ase_cg.flows.egnn import EGNN

    torch.manual_seed(0)
    field = EGNN(4, features=8, n_layers=3, reach=3.0).double().requires_grad_(requires_grad=False)
    for layer in field.layers:
        torch.nn.init.normal_(layer.coordinate[2].weight, std=0.3)
    return ContinuousFlow(field, noise_std=0.3, prior_std=0.4, path_std=0.2, steps=4, nodes=8)


def test_twenty_steps_of_rk4_end_where_the_published_ones_do(published, reference):
    end = rk4(lambda t, state: (published(t, state[0], BEADS),), (reference["z0"],), divided(0.0, 1.0, 20))[0]
    torch.testing.assert_close(end, reference["x_rk4_20"], rtol=0, atol=1e-9)


def test_published_flow_has_the_published_likelihood_and_score(published, reference):
    flow = ContinuousFlow(published, **WIDTHS, steps=2, nodes=12)
    there = flow.push_with_score(reference["z0"], reference["conditioning"], BEADS)
    torch.testing.assert_close(there.x, reference["x"], rtol=0, atol=1e-6)
    torch.testing.assert_close(there.log_prob, reference["logp"], rtol=0, atol=1e-4)
    torch.testing.assert_close(there.score, reference["score"], rtol=0, atol=1e-3)
    back = flow.log_prob(reference["x"], reference["conditioning"], BEADS)
    torch.testing.assert_close(back.score, reference["score"], rtol=0, atol=1e-3)
    torch.testing.assert_close(flow.pull(reference["x"], BEADS), reference["z0"], rtol=0, atol=1e-6)
    along = torch.einsum("kix,bix->kb", reference["fd_dirs"], there.score)
    torch.testing.assert_close(along, reference["fd"], rtol=0, atol=1e-3)
    # The part of the log-determinant, which publications have left out, is no small print.
    without = reference["score"] - reference["score_logdet"]
    assert (there.score - without).norm(dim=(1, 2)).min() > 100 * (there.score - reference["score"]).norm()


def test_default_steps_keep_the_score_within_a_thousandth(published, reference):
    for field, dtype in ((published, torch.float64), (_single(published), torch.float32)):
        found = ContinuousFlow(field, **WIDTHS).push_with_score(
            reference["z0"].to(dtype), reference["conditioning"].to(dtype), BEADS
        )
        exact = reference["score"]
        assert ((found.score - exact).norm(dim=(1, 2)) < 1e-3 * exact.norm(dim=(1, 2))).all()
        assert (found.log_prob - reference["logp"]).abs().max() < 0.01


def _single(field):
    from ase_cg.flows.egnn import EGNN

    copy = EGNN(**field.settings()).requires_grad_(requires_grad=False)
    copy.load_state_dict(field.state_dict())
    return copy


def test_score_is_the_gradient_of_the_likelihood(small_flow, frames):
    z = frames + 0.3 * centered(_draw(frames.shape, 5))
    x = frames + 0.2 * centered(_draw(frames.shape, 6))
    direction = centered(_draw(frames.shape, 7))
    score = small_flow.log_prob(x, z, TYPES).score
    up, down = (small_flow.log_prob(x + h * direction, z, TYPES).log_prob for h in (1e-4, -1e-4))
    torch.testing.assert_close((score * direction).sum((1, 2)), (up - down) / 2e-4, rtol=1e-5, atol=1e-4)


def test_likelihood_is_that_of_the_map_by_its_jacobian(small_flow, frames):
    """ln k = ln N(F⁻¹(x) − z) + ln|det ∂F⁻¹/∂x| with the whole Jacobian of F, in the mean-free subspace."""
    start = frames[:1] + 0.4 * centered(_draw((1, 5, 3), 8))
    found = small_flow.push_with_score(start, frames[:1], TYPES)
    basis = torch.linalg.svd(centered(torch.eye(15).double().reshape(15, 5, 3)).reshape(15, 15))[0][:, :12]
    step = 1e-5
    moved = [
        small_flow.push(start + sign * step * q.reshape(1, 5, 3), TYPES).flatten() for q in basis.T for sign in (1, -1)
    ]
    jacobian = torch.stack([(up - down) / (2 * step) for up, down in zip(moved[::2], moved[1::2], strict=True)])
    log_det = torch.linalg.slogdet(jacobian @ basis)[1]
    base = -0.5 * ((start - frames[:1]).square().sum() / 0.4**2 + 12 * math.log(2 * math.pi * 0.4**2))
    assert abs(float(log_det)) > 0.1
    torch.testing.assert_close(found.log_prob[0], base - log_det, rtol=0, atol=1e-5)


def test_samples_are_mean_free_and_the_way_back_finds_their_likelihood(small_flow, frames):
    off_center = frames + torch.tensor([5.0, -3.0, 1.0], dtype=torch.float64)
    found = small_flow.sample(off_center, TYPES, drawn_by(torch.Generator().manual_seed(1)))
    torch.testing.assert_close(found.x.mean(1), torch.zeros(3, 3).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.score.mean(1), torch.zeros(3, 3).double(), rtol=0, atol=1e-10)
    again = small_flow.log_prob(found.x + 2.0, frames, TYPES)
    torch.testing.assert_close(again.log_prob, found.log_prob, rtol=0, atol=1e-4)
    torch.testing.assert_close(again.score, found.score, rtol=0, atol=1e-3)
    repeated = small_flow.sample(off_center, TYPES, drawn_by(torch.Generator().manual_seed(1)))
    torch.testing.assert_close(repeated.x, found.x, rtol=0, atol=0)


def test_gaussian_data_flow_and_score_in_closed_form():
    field = GaussianField(spread_covariance(4), **WIDTHS, path_std=0.01)
    flow = ContinuousFlow(field, **WIDTHS, steps=2, nodes=8)
    z = centered(_draw((6, 4, 3), 10))
    found = flow.sample(z, BEADS[:4], drawn_by(torch.Generator().manual_seed(2)))
    shrink = field.shrinkage()
    assert shrink.min() < 0.7
    assert shrink.max() > 0.99
    away = found.x.flatten(1) @ field.modes - shrink * (z.flatten(1) @ field.modes)
    variance = (shrink * WIDTHS["prior_std"]).square()
    score = (-away / variance) @ field.modes.T
    torch.testing.assert_close(found.score.flatten(1), score, rtol=1e-4, atol=1e-3)
    exact = -0.5 * (away.square() / variance + (2 * math.pi * variance).log()).sum(1)
    torch.testing.assert_close(found.log_prob, exact, rtol=0, atol=1e-4)


def test_scores_of_samples_are_the_force_of_their_density():
    """For any kernel ⟨x · ∇ ln k⟩ = −(3N − 3): the sign, the unit and the subspace of what labels are made of."""
    field = GaussianField(spread_covariance(4), **WIDTHS, path_std=0.01)
    flow = ContinuousFlow(field, **WIDTHS)
    x = (_draw((20_000, 9), 11) * field.variances.sqrt()) @ field.modes.T
    z = x.reshape(-1, 4, 3) + 0.05 * centered(_draw((20_000, 4, 3), 12))
    found = flow.sample(z, BEADS[:4], drawn_by(torch.Generator().manual_seed(3)))
    virial = (found.x * found.score).sum((1, 2))
    assert abs(float(virial.mean()) + 9) < 4 * float(virial.std()) / math.sqrt(len(z))
    # And the mean of the label at y is the gradient of the density of y, mode by mode: a Gaussian of known variance.
    y, label = found.x.flatten(1) @ field.modes, found.score.flatten(1) @ field.modes
    shrunk = field.shrinkage().square() * (field.variances + WIDTHS["noise_std"] ** 2 + WIDTHS["prior_std"] ** 2)
    slope = (y * label).mean(0) / y.square().mean(0)
    torch.testing.assert_close(slope, -1 / shrunk, rtol=0.05, atol=0.3)
    assert (shrunk / field.variances).max() < 1.1  # noise alone would nearly have doubled the stiffest


@pytest.mark.parametrize(("noise_std", "prior_std"), [(0.0, 0.1), (0.06, 0.08), (0.08, 0.06)])
def test_labels_scatter_least_where_the_conditioning_is_the_frame_itself(noise_std, prior_std):
    """About the force of a mode of variance c by 1/σ_p² + σ_n²/(σ_p² c); their mean is the same."""
    field = GaussianField(spread_covariance(4), noise_std=noise_std, prior_std=prior_std, path_std=1e-3)
    flow = ContinuousFlow(field, noise_std=noise_std, prior_std=prior_std, path_std=1e-3, steps=2, nodes=8)
    x = ((_draw((4000, 9), 21) * field.variances.sqrt()) @ field.modes.T).reshape(-1, 4, 3)
    found = flow.sample(
        flow.add_noise(x, drawn_by(torch.Generator().manual_seed(1))),
        BEADS[:4],
        drawn_by(torch.Generator().manual_seed(2)),
    )
    y, label = found.x.flatten(1) @ field.modes, found.score.flatten(1) @ field.modes
    torch.testing.assert_close(y.var(0), field.variances, rtol=0.1, atol=0)
    residual = label + y / field.variances
    wanted = 1 / prior_std**2 + (noise_std / prior_std) ** 2 / field.variances
    torch.testing.assert_close(residual.var(0), wanted, rtol=0.12, atol=0)
    error = (wanted / len(x)).sqrt()
    assert ((y * residual).mean(0) / y.std(0)).abs().max() < 4.5 * error.max()


def test_estimated_divergence_has_no_bias_in_the_score_and_less_variance_with_more_probes(small_flow, frames):
    n_draws, z = 400, frames[:1]
    start = (z + 0.4 * centered(_draw(z.shape, 13))).expand(n_draws, -1, -1)
    settings = {"noise_std": 0.3, "prior_std": 0.4, "path_std": 0.2}
    exact = ContinuousFlow(small_flow.field, **settings).push_with_score(start[:1], z, TYPES)
    spreads = []
    for n_probes in (1, 8):
        flow = ContinuousFlow(small_flow.field, **settings, n_probes=n_probes)
        found = flow.push_with_score(start, z, TYPES, drawn_by(torch.Generator().manual_seed(n_probes)))
        for estimate, truth in ((found.log_prob, exact.log_prob), (found.score, exact.score)):
            error = (estimate - truth).mean(0)
            assert (error.abs() < 4.5 * estimate.std(0) / math.sqrt(n_draws)).all()
        torch.testing.assert_close(found.x, exact.x.expand_as(found.x))
        spreads.append(torch.stack([found.log_prob.var(), found.score.var(0).mean()]))
    torch.testing.assert_close(spreads[0] / spreads[1], torch.full((2,), 8.0).double(), rtol=0.35, atol=0)


@pytest.mark.parametrize("solver", ["dopri5", "dopri8"])
def test_adaptive_solvers_agree_with_fixed_steps(small_flow, frames, solver):
    z, start = frames, frames + 0.4 * centered(_draw(frames.shape, 14))
    adaptive = ContinuousFlow(
        small_flow.field, noise_std=0.3, prior_std=0.4, path_std=0.2, solver=solver, tolerance=1e-8
    )
    found, fixed = (flow.push_with_score(start, z, TYPES) for flow in (adaptive, small_flow))
    torch.testing.assert_close(found.x, fixed.x, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.log_prob, fixed.log_prob, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.score, fixed.score, rtol=0, atol=1e-4)
    torch.testing.assert_close(adaptive.pull(found.x, TYPES), start, rtol=0, atol=1e-4)


def test_adaptive_solvers_say_what_is_missing(small_flow, monkeypatch):
    monkeypatch.setattr(solvers, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'ase-cg\[flows\]'"):  # before the flow is trained
        ContinuousFlow(small_flow.field, noise_std=0.3, prior_std=0.4, solver="dopri5")


def test_clock_runs_from_zero_to_one_and_slows_down_where_the_path_is_narrow():
    clock = Clock(0.14)
    times = clock.times(0.0, 1.0, 10)
    assert times[0] == pytest.approx(0, abs=1e-15)
    assert times[-1] == 1.0
    steps = [b - a for a, b in pairwise(times)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < steps[0] / 4
    assert clock.speed(0.3) == pytest.approx((clock.time(0.3001) - clock.time(0.2999)) / 0.0002, rel=1e-6)


def test_probes_have_unit_covariance_in_the_subspace():
    probes = normal_probes(20_000, torch.zeros(1, 3, 3).double(), drawn_by(torch.Generator().manual_seed(4))).flatten(1)
    project = centered(torch.eye(9).double().reshape(9, 3, 3)).reshape(9, 9)
    torch.testing.assert_close(probes.T @ probes / len(probes), project, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"noise_std": -0.1}, "noise_std of at least 0"),
        ({"prior_std": math.nan}, "prior_std above 0"),
        ({"path_std": -0.01}, "path_std above 0"),
        ({"nodes": 0}, "nodes of at least 1"),
        ({"n_probes": 0}, "n_probes of at least 1"),
        ({"solver": "euler"}, "unknown solver 'euler'"),
    ],
)
def test_numbers_out_of_range_are_refused(small_flow, wrong, message):
    with pytest.raises(InputError, match=message):
        ContinuousFlow(small_flow.field, **{**WIDTHS, **wrong})
