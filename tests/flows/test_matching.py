"""Flow matching: its points and velocities, and that training approaches the optimal field."""

import pytest
import torch

from ase_cg.flows.cnf import ContinuousFlow
from ase_cg.flows.egnn import EGNN
from ase_cg.flows.field import centered, drawn_by
from ase_cg.flows.matching import matched

from .gaussian import GaussianField, spread_covariance

WIDTHS = {"noise_std": 0.3, "prior_std": 0.4, "path_std": 0.1}
SPREAD = torch.tensor([[0.5, 0.2, 0.0], [0.2, 0.4, 0.1], [0.0, 0.1, 0.3]], dtype=torch.float64)  # Å², of three beads


def _normal(seed):
    return drawn_by(torch.Generator().manual_seed(seed))


def test_times_are_uniform_and_noise_is_mean_free():
    found = matched(torch.zeros(20_000, 2, 3).double(), _normal(0), **WIDTHS)
    assert found.time.min() >= 0
    assert found.time.max() <= 1
    quantiles = torch.quantile(found.time, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
    torch.testing.assert_close(quantiles, torch.tensor([0.1, 0.5, 0.9]).double(), rtol=0, atol=0.02)
    for part in (found.y, found.velocity):
        torch.testing.assert_close(part.mean(1), torch.zeros(20_000, 3).double(), rtol=0, atol=1e-12)
    # Data at rest: what is left of noise at t, and of it the velocity that undoes it. Half of it is in the subspace.
    for low, high in ((0.0, 0.05), (0.45, 0.55), (0.95, 1.0)):
        rows = (found.time > low) & (found.time < high)
        left = 1 - (low + high) / 2
        expected = (left**2 * 0.25 + 0.01) / 2
        assert float(found.y[rows].square().mean()) == pytest.approx(expected, rel=0.15)
    assert float(found.velocity.square().mean()) == pytest.approx(0.25 / 2, rel=0.03)


def test_mean_velocity_is_the_closed_form_of_gaussian_data():
    """Regressing velocities on positions gives v = (1 − t)(σ_n² + σ_p²) ∇ ln p_t, mode by mode."""
    field = GaussianField(spread_covariance(3), **WIDTHS)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(200_000, 6, dtype=torch.float64, generator=generator) * field.variances.sqrt() @ field.modes.T
    found = matched(x.reshape(-1, 3, 3), _normal(2), **WIDTHS)
    rows = (found.time > 0.45) & (found.time < 0.55)
    y, velocity = (part[rows].flatten(1) @ field.modes for part in (found.y, found.velocity))
    slope = (y * velocity).mean(0) / y.square().mean(0)
    exact = field(torch.tensor(0.5).double(), field.modes.T.reshape(-1, 3, 3), torch.arange(3)).flatten(1) @ field.modes
    torch.testing.assert_close(slope, exact.diagonal(), rtol=0.05, atol=0.02)


def test_a_trained_field_approaches_the_closed_form():
    """Beads whose positions are Gaussian with the same covariance along all axes: the optimal field is equivariant."""
    optimum = GaussianField(torch.kron(SPREAD, torch.eye(3).double()), **WIDTHS)
    torch.manual_seed(0)
    field = EGNN(3, features=16, n_layers=2, reach=5.0)
    beads, normal = torch.arange(3), _normal(3)
    half = torch.linalg.cholesky(SPREAD).float()

    def frames(count):
        return centered(half @ normal(torch.zeros(count, 3, 3)))

    def error():
        x = frames(500)
        y = x + 0.3 * centered(normal(x))
        return torch.stack(
            [
                ((field(t, y, beads) - optimum(t.double(), y.double(), beads)).square().mean()).sqrt()
                / optimum(t.double(), y.double(), beads).square().mean().sqrt()
                for t in torch.tensor([0.1, 0.4, 0.7])
            ]
        ).max()

    optimizer = torch.optim.Adam(field.parameters(), lr=5e-3)
    with torch.no_grad():
        before = float(error())
    for step in range(400):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * (1 - step / 400) + 1e-4
        point = matched(frames(256), normal, **WIDTHS)
        loss = (field(point.time, point.y, beads) - point.velocity).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        after = float(error())
    assert before > 0.9
    assert after < 0.3
    # And the flow that follows it takes noise away: samples have the spread of the data.
    flow = ContinuousFlow(field.requires_grad_(requires_grad=False), **WIDTHS)
    x = frames(4000)
    z = flow.add_noise(x, normal)
    drawn = flow.draw(z, beads, normal)
    wide, found, exact = (float(part.square().mean()) for part in (flow.begin(z, normal), drawn, x))
    assert wide > 1.5 * exact
    assert found == pytest.approx(exact, rel=0.1)
