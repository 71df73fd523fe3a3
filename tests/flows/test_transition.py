"""Flows of transitions: fields that see the conditioning, orientation, and labels on exactly known ground."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from ase_cg.flows.cnf import ContinuousFlow
from ase_cg.flows.conditional import ConditionalField, mean_free_directions
from ase_cg.flows.coupling import CouplingFlow
from ase_cg.flows.egnn import EGNN
from ase_cg.flows.field import VectorField, centered, drawn_by
from ase_cg.flows.kernel import FlowKernel
from ase_cg.flows.matching import matched_pair
from ase_cg.flows.orientation import inertia, oriented, rotations, superposed, without_torque

TYPES = torch.tensor([0, 1, 2, 1, 3])
TIME = torch.tensor(0.3, dtype=torch.float64)
STIFFNESS = torch.tensor([[1.5, -1.0, -0.5], [-1.0, 3.0, -2.0], [-0.5, -2.0, 2.5]], dtype=torch.float64)  # kT/Å²
LAG, START, PATH = 0.3, 0.6, 0.02


def _draw(shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _normal(seed):
    return drawn_by(torch.Generator().manual_seed(seed))


@pytest.fixture
def field() -> ConditionalField:
    torch.manual_seed(0)
    inner = EGNN(8, features=8, n_layers=3, reach=3.0).double().requires_grad_(requires_grad=False)
    for layer in inner.layers:
        torch.nn.init.normal_(layer.coordinate[2].weight, std=0.5)
    return ConditionalField(inner, 4)


class Chain:
    """Three beads tied by springs in solution, at kT = 1 and unit mobility: an Ornstein–Uhlenbeck process.

    k(x | z) = N(e^{−Kτ} z, K⁻¹ (1 − e^{−2Kτ})) in the mean-free subspace; the mean force is −K x.
    """

    def __init__(self) -> None:
        rates, modes = torch.linalg.eigh(STIFFNESS)
        rates, modes = rates[1:], modes[:, 1:]  # the first is translation
        self.keeps = modes @ torch.diag((-rates * LAG).exp()) @ modes.T
        self.variance = (1 - (-2 * rates * LAG).exp()) / rates
        self.rates, self.modes = rates, modes

    def pairs(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        z = torch.einsum("ik,bkx->bix", self.modes / self.rates.sqrt(), _draw((count, 2, 3), seed))
        noise = torch.einsum("ik,bkx->bix", self.modes * self.variance.sqrt(), _draw((count, 2, 3), seed + 1))
        return self.keeps @ z + noise, z


class ChainField(VectorField):
    """The field that carries N(z, σ_p²) into the chain's kernel, in closed form."""

    def __init__(self, chain: Chain, z: Tensor | None = None) -> None:
        super().__init__()
        self.chain, self.z = chain, z

    def given(self, z: Tensor) -> VectorField:
        return ChainField(self.chain, centered(z))

    def forward(self, time: Tensor, x: Tensor, types: Tensor) -> Tensor:
        t, chain = time.reshape(-1, 1, 1), self.chain
        variance = chain.variance[:, None]
        rate = (t * variance - (1 - t) * START**2) / ((1 - t).square() * START**2 + t.square() * variance + PATH**2)
        shift = chain.keeps @ self.z - self.z
        away = chain.modes.T @ (x - self.z - t * shift)
        return shift + chain.modes @ (rate * away)


class ExactField(ConditionalField):
    """In the place of a trained field."""

    def __init__(self, chain: Chain) -> None:
        VectorField.__init__(self)
        self.exact, self.n_types = ChainField(chain), 3

    def given(self, z: Tensor) -> VectorField:
        return self.exact.given(z)


def test_a_conditional_field_turns_with_both_conformations_and_knows_no_place(field, frames):
    z = frames + 0.5 * _draw(frames.shape, 2)
    turn = torch.from_numpy(Rotation.random(rng=3).as_matrix())
    v = field.given(z)(TIME, frames, TYPES)
    assert v.abs().max() > 0.1
    torch.testing.assert_close(field.given(z @ turn.T + 4.0)(TIME, frames @ turn.T - 3.0, TYPES), v @ turn.T)
    torch.testing.assert_close(v.mean(1), torch.zeros(3, 3).double(), rtol=0, atol=1e-14)
    assert (field.given(z @ turn.T)(TIME, frames, TYPES) - v).abs().max() > 0.1
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = field.given(z[:, order])(TIME, frames[:, order], TYPES[order])
    torch.testing.assert_close(moved, v[:, order])
    with pytest.raises(NotImplementedError, match="needs a conditioning"):
        field(TIME, frames, TYPES)


def test_divergence_of_a_conditional_field_is_the_trace_of_its_jacobian(field, frames):
    z = frames + 0.5 * _draw(frames.shape, 2)
    x = frames.clone().requires_grad_()
    v, div = field.given(z).with_divergence(TIME, x, TYPES)
    torch.testing.assert_close(v, field.given(z)(TIME, x, TYPES))
    for row in range(len(z)):
        given = field.given(z[row : row + 1])
        jacobian = torch.func.jacrev(lambda at, given=given: given(TIME, at[None], TYPES)[0].flatten())(frames[row])
        torch.testing.assert_close(div[row], jacobian.reshape(15, 15).trace())
    (gradient,) = torch.autograd.grad(div.sum(), x)
    y = frames.clone().requires_grad_()
    _, generic = VectorField.with_divergence(field.given(z), TIME, y, TYPES)
    torch.testing.assert_close(gradient, torch.autograd.grad(generic.sum(), y)[0], rtol=1e-9, atol=1e-10)
    basis = mean_free_directions(frames)
    torch.testing.assert_close(basis.flatten(1) @ basis.flatten(1).T, torch.eye(12).double())
    # Hutchinson's estimate with probes that span the subspace is exact.
    probes = math.sqrt(12) * basis[:, None].expand(-1, len(z), -1, -1)
    _, estimate = field.given(z).with_estimated_divergence(TIME, frames, TYPES, probes)
    torch.testing.assert_close(estimate, div.detach())


def test_score_of_a_transition_is_the_gradient_of_its_likelihood(field, frames):
    flow = ContinuousFlow(field, noise_std=0.0, prior_std=0.4, path_std=0.2, steps=4, nodes=8)
    z = frames + 0.3 * centered(_draw(frames.shape, 5))
    direction = centered(_draw(frames.shape, 7))
    score = flow.log_prob(frames, z, TYPES).score
    up, down = (flow.log_prob(frames + h * direction, z, TYPES).log_prob for h in (1e-4, -1e-4))
    torch.testing.assert_close((score * direction).sum((1, 2)), (up - down) / 2e-4, rtol=1e-4, atol=1e-3)
    there = flow.score(frames, z, TYPES)
    torch.testing.assert_close(there.x, frames, rtol=0, atol=1e-3)


def test_labels_of_the_exact_kernel_have_the_mean_force_as_mean():
    """Likelihood and score in closed form; the label given x regresses to −K x, mode by mode."""
    chain = Chain()
    flow = ContinuousFlow(ExactField(chain), noise_std=0.0, prior_std=START, path_std=PATH, steps=2, nodes=8)
    x, z = chain.pairs(20_000, 1)
    found = flow.score(x, z, torch.arange(3))
    torch.testing.assert_close(found.x, x, rtol=0, atol=1e-4)
    variance = (START**2 * (chain.variance + PATH**2) / (START**2 + PATH**2))[:, None]
    away = chain.modes.T @ (found.x - chain.keeps @ z)
    torch.testing.assert_close(chain.modes.T @ found.score, -away / variance, rtol=1e-3, atol=1e-2)
    exact = -0.5 * (away.square() / variance + (2 * math.pi * variance).log()).sum((1, 2))
    torch.testing.assert_close(found.log_prob, exact, rtol=0, atol=1e-3)
    at, label = chain.modes.T @ x, chain.modes.T @ found.score
    slopes = (at * label).mean((0, 2)) / at.square().mean((0, 2))
    errors = (at * label).std((0, 2)) / at.square().mean((0, 2)) / math.sqrt(3 * len(x))
    assert ((slopes + chain.rates).abs() < 4 * errors + 2e-3 * chain.rates).all()
    virial = -(found.x * found.score).sum((1, 2)) / 6
    assert abs(float(virial.mean()) - 1) < 4 * float(virial.std()) / math.sqrt(len(x)) + 2e-3


def test_velocities_of_transitions_have_the_mean_of_the_closed_form():
    chain = Chain()
    x, z = chain.pairs(100_000, 3)
    point = matched_pair(x, z, _normal(4), prior_std=START, path_std=PATH)
    optimum = ChainField(chain).given(z)(point.time, point.y, torch.arange(3))
    missed = point.velocity - optimum
    for along in (optimum, point.y, z):
        per_frame = (missed * along).sum((1, 2))
        assert abs(float(per_frame.mean())) < 4 * float(per_frame.std()) / math.sqrt(len(x))
    assert missed.square().mean() < 0.9 * point.velocity.square().mean()


def test_conformations_are_superposed_and_turned_by_the_width_that_was_asked_for():
    z = centered(3 * _draw((1, 5, 3), 1)).expand(4000, -1, -1)
    turn = rotations(_draw((4000, 4), 2))
    still = superposed(z @ turn.transpose(1, 2), z)
    torch.testing.assert_close(still, z)
    x = centered(z + 0.3 * _draw(z.shape, 3)) @ turn.transpose(1, 2)
    near = superposed(x, z)
    best = [(x[:50] @ torch.from_numpy(Rotation.align_vectors(z[i], x[i])[0].as_matrix()).T)[i] for i in range(50)]
    torch.testing.assert_close(near[:50], torch.stack(best))
    torch.testing.assert_close(torch.linalg.cross(z, near).sum(1), torch.zeros(4000, 3).double(), rtol=0, atol=1e-9)
    # Turned: the same shape, and beads moved by the width in each of the three directions of rotation.
    turned, center = oriented(x + 2.0, z - 1.0, _normal(4), width=0.05)
    torch.testing.assert_close(center, z)
    torch.testing.assert_close(torch.cdist(turned, turned), torch.cdist(x, x))
    spread, axes = torch.linalg.eigh(inertia(z))
    angle = torch.linalg.cross(z, turned - near).sum(1)  # I ω, to first order
    along = torch.einsum("bik,bi->bk", axes, angle) / spread.sqrt()
    torch.testing.assert_close(along.std(0), torch.full((3,), 0.05).double(), rtol=0.1, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bend", [0.0, 0.02])
def test_molecules_without_width_are_turned_about_the_other_axes_all_the_same(bend, dtype):
    turn = rotations(_draw((4000, 4), 2))
    z = centered(torch.tensor([[[0.0, 0, 0], [bend, 0, 4.0], [0, 0, 8.0]]]).double()) @ turn.transpose(1, 2)
    turned = oriented(z.to(dtype), z.to(dtype), _normal(5), width=0.05)[0]
    moved = (turned.double() - z) @ turn  # along the molecule's own axes; the ends move most, by σ/√2
    torch.testing.assert_close(moved[:, 0].std(0)[:2], torch.full((2,), 0.05 / math.sqrt(2)).double(), rtol=0.1, atol=0)


def test_taking_torque_out_leaves_the_rest(frames):
    forces = centered(_draw(frames.shape, 1))
    left = without_torque(forces, frames)
    torch.testing.assert_close(torch.linalg.cross(frames, left).sum(1), torch.zeros(3, 3).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close(left.sum(1), torch.zeros(3, 3).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close((frames * left).sum((1, 2)), (frames * forces).sum((1, 2)))
    torch.testing.assert_close(without_torque(left, frames), left)
    pair = torch.tensor([[[0.0, 0, -2], [0, 0, 2]]]).double()
    pull = torch.tensor([[[1.0, 0, 3], [-1.0, 0, -3]]]).double()
    torch.testing.assert_close(without_torque(pull, pair), torch.tensor([[[0.0, 0, 3], [0, 0, -3]]]).double())


def test_a_coupling_flow_scores_given_positions(frames):
    torch.manual_seed(0)
    flow = CouplingFlow(4, noise_std=0.3, n_layers=2, n_blocks=1, embedding=8, length_scales=(2.0,)).double()
    for network in flow.networks:
        torch.nn.init.normal_(network.leave[-1].weight, std=0.3)
    x, z = flow.pair(frames, frames + 0.2 * _draw(frames.shape, 1), _normal(2))
    assert z.mean(1).norm(dim=-1).min() > 0.01
    found = flow.score(x, z, TYPES, _normal(3))
    velocities = _normal(3)(x)
    direction = centered(_draw(x.shape, 4))
    up, down = (flow.joint_log_prob(x + h * direction, velocities, z, TYPES) for h in (1e-5, -1e-5))
    torch.testing.assert_close((found.score * direction).sum((1, 2)), (up - down) / 2e-5, rtol=1e-5, atol=1e-5)


def test_a_kernel_of_transitions_survives_its_file(field, frames, tmp_path):
    flow = ContinuousFlow(field, noise_std=0.0, prior_std=0.4, path_std=0.2)
    FlowKernel(flow, {"m": TYPES.tolist()}, temperature=300.0, lag="2 ps").save(tmp_path / "k.safetensors")
    loaded = FlowKernel.load(tmp_path / "k.safetensors")
    assert loaded.lag == "2 ps"
    z = frames + 0.1
    for one, two in zip(flow.score(frames, z, TYPES), loaded.flow.score(frames, z, TYPES), strict=True):
        assert torch.equal(one, two)
