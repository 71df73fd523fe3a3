"""Coupling flows: the likelihood is that of the map, the score its gradient, and training takes noise away."""

import math

import numpy as np
import pytest
import torch

from ase_cg.errors import InputError
from ase_cg.flows.coupling import CouplingFlow
from ase_cg.flows.field import centered, drawn_by
from ase_cg.flows.kernel import FlowKernel
from ase_cg.flows.orientation import rotations
from ase_cg.flows.stiff_modes import StiffModes

TYPES = torch.tensor([0, 2, 1])
BENT = StiffModes([[0, 1], [1, 2]], [1.5, 1.4], [0.1, 0.2], [[0, 1, 2]], [-0.3], [0.2], [1, 0, 1], [2, 2, 0])


@pytest.fixture(params=["noise", "harmonic"])
def flow(request) -> CouplingFlow:
    torch.manual_seed(0)
    modes = BENT if request.param == "harmonic" else None
    sizes = {"n_layers": 2, "n_blocks": 2, "embedding": 8, "length_scales": (0.5, 2.0)}
    made = CouplingFlow(3, noise_std=0.2, modes=modes, **sizes).double()
    for network in made.networks:
        torch.nn.init.normal_(network.leave[-1].weight, std=0.3)
    return made.requires_grad_(requires_grad=False)


def _draw(shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _normal(seed):
    return drawn_by(torch.Generator().manual_seed(seed))


def test_likelihood_is_that_of_the_map_by_its_jacobian(flow):
    z, base = _draw((1, 3, 3), 1), _draw((18,), 2)

    def mapped(numbers):
        parts = iter(numbers.reshape(2, 1, 3, 3))
        x, w = flow._drawn(z, TYPES, lambda _: next(parts))
        return torch.cat([x.flatten(), w.flatten()])

    x, w = mapped(base).reshape(2, 1, 3, 3)
    log_det = torch.linalg.slogdet(torch.autograd.functional.jacobian(mapped, base))[1]
    exact = -0.5 * (base.square() + math.log(2 * math.pi)).sum() - log_det
    assert abs(float(log_det) - 9 * math.log(0.2)) > 0.1
    torch.testing.assert_close(flow.joint_log_prob(x, w, z, TYPES)[0], exact)


def test_score_is_the_gradient_at_the_drawn_velocities(flow):
    z = _draw((4, 3, 3), 3)
    found = flow.sample(z, TYPES, _normal(4))
    x, w = flow._drawn(z, TYPES, _normal(4))
    torch.testing.assert_close(found.x, centered(x))
    direction = centered(_draw((4, 3, 3), 5))
    up, down = (flow.joint_log_prob(x + h * direction, w, z, TYPES) for h in (1e-5, -1e-5))
    torch.testing.assert_close((found.score * direction).sum((1, 2)), (up - down) / 2e-5, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.log_prob, flow.joint_log_prob(x, w, z, TYPES))


def test_scores_of_samples_obey_the_virial_theorem(flow):
    z = _draw((1, 3, 3), 6).expand(20_000, -1, -1)
    found = flow.sample(z, TYPES, _normal(7))
    virial = (found.x * found.score).sum((1, 2))
    assert abs(float(virial.mean()) + 6) < 4 * float(virial.std()) / math.sqrt(len(z))


def test_a_translation_moves_nothing_else(flow):
    z = _draw((4, 3, 3), 8)
    one, two = (flow.sample(at, TYPES, _normal(9)) for at in (z, z + 20.0))
    torch.testing.assert_close(one.x, two.x)
    torch.testing.assert_close(one.score, two.score)
    torch.testing.assert_close(one.log_prob, two.log_prob)


def test_with_harmonic_bonds_all_turns_with_the_molecule():
    torch.manual_seed(0)
    flow = CouplingFlow(3, noise_std=0.2, modes=BENT, n_layers=2, n_blocks=1, embedding=8).double()
    for network in flow.networks:
        torch.nn.init.normal_(network.leave[-1].weight, std=0.3)
    z, x, w = (_draw((4, 3, 3), seed) for seed in (10, 11, 12))
    turn = rotations(_draw((4, 4), 13))
    one = flow._scored(x, w, z, TYPES)
    two = flow._scored(x @ turn, w, z @ turn, TYPES)
    torch.testing.assert_close(two.log_prob, one.log_prob)
    torch.testing.assert_close(two.score, one.score @ turn)


def test_the_mirror_image_of_a_conditioning_is_another_one():
    torch.manual_seed(0)
    four = BENT._replace(bonds=[[0, 1], [1, 2], [2, 3]], bond_means=[1.5] * 3, bond_stds=[0.1] * 3)
    four = four._replace(toward=[1, 0, 1, 2], references=[2, 2, 0, 1])
    flow = CouplingFlow(4, noise_std=0.2, modes=four, n_layers=2, n_blocks=1, embedding=8).double()
    for network in flow.networks:
        torch.nn.init.normal_(network.leave[-1].weight, std=0.3)
    z, x, w = (_draw((1, 4, 3), seed) for seed in (10, 11, 12))
    none, flip = torch.ones(3).double(), torch.tensor([1.0, 1.0, -1.0]).double()
    # Along the beads' axes velocities of the mirror image differ in the third component too.
    one, two = (flow.joint_log_prob(x * by, w * by, z * by, torch.arange(4)).detach() for by in (none, flip))
    assert abs(float(one - two)) > 1e-3


def test_a_flow_with_harmonic_bonds_survives_its_file(tmp_path):
    flow = CouplingFlow(3, noise_std=0.2, modes=BENT, n_layers=1, n_blocks=1, embedding=8)
    FlowKernel(flow, {"m": TYPES.tolist()}, temperature=300.0).save(tmp_path / "k.safetensors")
    loaded = FlowKernel.load(tmp_path / "k.safetensors").flow
    z = _draw((2, 3, 3), 1).float()
    for one, two in zip(flow.sample(z, TYPES, _normal(2)), loaded.sample(z, TYPES, _normal(2)), strict=True):
        assert torch.equal(one, two)


def test_maximum_likelihood_takes_noise_away():
    """A pair at 2 ± 0.1 Å of one orientation, with noise of 0.2 Å: the distance becomes narrower again."""
    rng = np.random.default_rng(0)
    apart = 0.1 * rng.standard_normal((4000, 3)) + [2.0, 0.0, 0.0]
    x = centered(torch.from_numpy(np.stack([0 * apart, apart], 1)).float())
    torch.manual_seed(0)
    flow = CouplingFlow(2, noise_std=0.2, n_layers=2, n_blocks=1, embedding=16, length_scales=(1.0, 3.0))
    types, normal = torch.tensor([0, 1]), _normal(1)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for step in range(200):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / 200) + 1e-4
        frames = x[torch.from_numpy(rng.integers(0, len(x), 256))]
        z = flow.add_noise(frames, normal)
        loss = -flow.joint_log_prob(frames, normal(frames), z, types).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    z = flow.add_noise(x, normal)
    drawn = flow.draw(z, types, normal)
    data, noised, mended = (float((part[:, 0] - part[:, 1]).norm(dim=-1).std()) for part in (x, z, drawn))
    assert noised > 2.8 * data
    assert mended < 0.8 * noised


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"noise_std": 0.0}, "noise_std above 0"),
        ({"length_scales": ()}, "length scales above 0"),
        ({"length_scales": (1.0, -1.0)}, "length scales above 0"),
        ({"n_layers": 0}, "at least one type, layer"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        CouplingFlow(2, **{"noise_std": 0.1, **wrong})
