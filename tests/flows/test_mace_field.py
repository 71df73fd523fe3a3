"""The MACE-style field behind the interface of the EGNN's: symmetries, divergence, score, training, files."""

import pytest
import torch
from scipy.spatial.transform import Rotation

from ase_cg.errors import InputError
from ase_cg.flows.cnf import ContinuousFlow
from ase_cg.flows.conditional import ConditionalField
from ase_cg.flows.field import centered, drawn_by
from ase_cg.flows.kernel import FlowKernel
from ase_cg.flows.matching import matched

from .gaussian import GaussianField

pytest.importorskip("mace")
from ase_cg.flows.mace_field import MACEField, solid_harmonics

TYPES = torch.tensor([0, 1, 2, 1, 3])
TIME = torch.tensor(0.3, dtype=torch.float64)
WIDTHS = {"noise_std": 0.4, "prior_std": 0.3, "path_std": 0.1}
SPREAD = torch.tensor([[0.5, 0.2, 0.0], [0.2, 0.3, -0.1], [0.0, -0.1, 0.4]]).double()  # Å², between beads


def _field(n_types=4, n_layers=2) -> MACEField:
    torch.manual_seed(0)
    made = MACEField(n_types, features=4, n_layers=n_layers).double().requires_grad_(requires_grad=False)
    for layer in made.layers:
        torch.nn.init.normal_(layer.read.weight, std=10.0)
    return made


def _draw(shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_field_turns_with_the_molecule_and_its_mirror_image_and_knows_no_place(frames):
    field = _field()
    v = field(TIME, frames, TYPES)
    assert v.abs().max() > 0.3
    turn = torch.from_numpy(Rotation.random(rng=3).as_matrix())
    for matrix in (turn, -turn):
        moved = frames @ matrix.T + torch.tensor([30.0, -2.0, 7.0])
        torch.testing.assert_close(field(TIME, moved, TYPES), v @ matrix.T, rtol=0, atol=1e-7)
    torch.testing.assert_close(v.mean(1), torch.zeros(3, 3).double(), rtol=0, atol=1e-13)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(field(TIME, frames[:, order], TYPES[order]), v[:, order])
    assert (field(TIME, frames, TYPES.flip(0)) - v).abs().max() > 1e-2
    assert (field(TIME + 0.5, frames, TYPES) - v).abs().max() > 1e-2


def test_a_time_for_each_frame_is_the_same_as_frame_by_frame(frames):
    field, times = _field(), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    alone = [field(time, frame[None], TYPES)[0] for time, frame in zip(times, frames, strict=True)]
    torch.testing.assert_close(field(times, frames, TYPES), torch.stack(alone))


def test_beads_that_meet_and_beads_far_away_have_a_smooth_field(frames):
    field, x = _field(), frames.clone()
    x[:, 1] = x[:, 0]
    x[:, 2] += 100.0
    near = x.clone()
    near[:, 1, 0] += 1e-4
    x.requires_grad_()
    v, divergence = field.with_divergence(TIME, x, TYPES)
    assert torch.isfinite(torch.autograd.grad(divergence.sum(), x)[0]).all()
    torch.testing.assert_close(field(TIME, near, TYPES), v, rtol=1e-3, atol=1e-3)
    assert v.abs().max() < 1e3


def test_divergence_is_the_trace_of_the_jacobian_and_can_be_differentiated(frames):
    field, x = _field(), frames.clone().requires_grad_()
    v, divergence = field.with_divergence(TIME, x, TYPES)
    torch.testing.assert_close(v, field(TIME, frames, TYPES))

    def trace(frame):
        jacobian = torch.autograd.functional.jacobian(lambda at: field(TIME, at[None], TYPES)[0], frame)
        return jacobian.reshape(15, 15).trace()

    torch.testing.assert_close(divergence.detach(), torch.stack([trace(frame) for frame in frames]))
    (gradient,) = torch.autograd.grad(divergence.sum(), x)
    assert gradient.abs().max() > 1e-2
    direction = _draw((5, 3), 1)
    slope = (trace(frames[0] + 1e-5 * direction) - trace(frames[0] - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close((gradient[0] * direction).sum(), slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("conditional", [False, True])
def test_score_is_the_gradient_of_the_likelihood(frames, conditional):
    inner = _field(8 if conditional else 4, n_layers=1)
    field = ConditionalField(inner, 4) if conditional else inner
    widths = {"noise_std": 0.0 if conditional else 0.3, "prior_std": 0.4, "path_std": 0.2}
    flow = ContinuousFlow(field, **widths, steps=2, nodes=6)
    x, z = frames[:1], frames[:1] + 0.3 * centered(_draw((1, 5, 3), 5))
    direction = centered(_draw(x.shape, 7))
    score = flow.log_prob(x, z, TYPES).score
    up, down = (flow.log_prob(x + h * direction, z, TYPES).log_prob for h in (1e-4, -1e-4))
    torch.testing.assert_close((score * direction).sum((1, 2)), (up - down) / 2e-4, rtol=1e-3, atol=1e-3)


def test_a_trained_field_approaches_the_optimum_of_gaussian_data():
    optimum = GaussianField(torch.kron(SPREAD, torch.eye(3).double()), **WIDTHS)
    torch.manual_seed(0)
    field = MACEField(3, features=8, n_layers=1)
    beads, normal = torch.arange(3), drawn_by(torch.Generator().manual_seed(3))
    half = torch.linalg.cholesky(SPREAD).float()

    def frames(count):
        return centered(half @ normal(torch.zeros(count, 3, 3)))

    def error(time):
        x = frames(500)
        y = x + 0.3 * centered(normal(x))
        exact = optimum(time.double(), y.double(), beads)
        return float((field(time, y, beads) - exact).square().mean().sqrt() / exact.square().mean().sqrt())

    assert field(torch.tensor(0.5), frames(5), beads).abs().max() == 0  # begins as the identity
    optimizer = torch.optim.Adam(field.parameters(), lr=2e-2)
    for step in range(120):
        for group in optimizer.param_groups:
            group["lr"] = 2e-2 * (1 - step / 120) + 1e-4
        point = matched(frames(256), normal, **WIDTHS)
        loss = (field(point.time, point.y, beads) - point.velocity).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert max(error(time) for time in torch.tensor([0.1, 0.4, 0.7])) < 0.25


def test_harmonics_are_those_of_e3nn():
    from ase_cg.models.backbones._e3nn import import_mace

    unit = torch.nn.functional.normalize(_draw((7, 3), 2), dim=-1)
    known = import_mace().o3.spherical_harmonics([0, 1, 2], unit, normalize=True, normalization="component")
    torch.testing.assert_close(solid_harmonics(unit), known)


def test_a_kernel_with_this_field_survives_its_file(frames, tmp_path):
    flow = ContinuousFlow(_field(), **WIDTHS)
    FlowKernel(flow, {"m": TYPES.tolist()}, temperature=300.0).save(tmp_path / "k.safetensors")
    loaded = FlowKernel.load(tmp_path / "k.safetensors").flow
    assert isinstance(loaded.field, MACEField)
    assert torch.equal(loaded.field(TIME, frames, TYPES), flow.field(TIME, frames, TYPES))


def test_a_field_needs_a_shape():
    with pytest.raises(InputError, match="at least one type"):
        MACEField(0)


def test_one_word_of_a_recipe_chooses_it():
    from ase_cg.training.flow_objective import make_objective
    from ase_cg.training.kernel_settings import KernelSection
    from ase_cg.training.training_settings import TrainingSection

    for lag, kind in ((None, MACEField), ("1 ps", ConditionalField)):
        name = "cnf" if lag is None else "transition"
        kernel = KernelSection(name=name, lag=lag, field="mace", features=4, layers=1)
        made = make_objective(kernel, [range(3)], 3, TrainingSection(), None if lag is None else 0.3)
        assert isinstance(made.flow.field, kind)
        x = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(1))
        normal = drawn_by(torch.Generator().manual_seed(2))
        losses = made.losses(x, made._types[0], normal, None if lag is None else x.flip(0))
        assert losses.shape == (4,)
        losses.sum().backward()
        assert all(torch.isfinite(part.grad).all() for part in made.flow.parameters() if part.grad is not None)
    made = make_objective(KernelSection(), [range(3)], 3, TrainingSection())
    assert made.flow.field.settings() == {"n_types": 3, "features": 64, "n_layers": 5, "reach": 15.0}
