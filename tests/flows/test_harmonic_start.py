"""The kernel that coupling flows begin with: exact for harmonic bonds, and sound where axes are not defined."""

import math

import pytest
import torch

from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError
from ase_cg.flows.coupling import CouplingFlow
from ase_cg.flows.field import centered, drawn_by
from ase_cg.flows.harmonic_start import HarmonicStart, bead_axes
from ase_cg.flows.kernel_attention import kernel_attention
from ase_cg.flows.labelling import label_batch
from ase_cg.flows.orientation import rotations
from ase_cg.flows.stiff_modes import StiffModes, angle_cosines, bond_lengths, stiff_modes

SIGMA = 0.2
SCALES = torch.tensor([1.0, 4.0]).double()


def _draw(shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _chain(bonds, count):
    return BeadTopology(
        names=("A",) * count,
        residue_names=("A",) * count,
        residue_numbers=tuple(range(count)),
        chains=(0,) * count,
        masses=(1.0,) * count,
        bonds=tuple(bonds),
    )


def _place(modes, z, types):
    return HarmonicStart(modes, SIGMA, 2).at(z, types, kernel_attention(z, SCALES.to(z)))


@pytest.fixture
def branched() -> StiffModes:
    """Five beads, three of them bonded to the second."""
    topology = _chain([(0, 1), (1, 2), (1, 3), (3, 4)], 5)
    return stiff_modes(topology, 1.5 * _draw((50, 5, 3), 0))


@pytest.mark.parametrize(
    ("function", "beads"), [(bond_lengths, [[0, 2], [3, 1]]), (angle_cosines, [[0, 2, 1], [4, 3, 1]])]
)
def test_derivatives_of_modes_are_those_by_differentiation(function, beads):
    x, beads = _draw((3, 5, 3), 1).requires_grad_(), torch.tensor(beads)
    values, slopes = function(x, beads)
    for mode in range(2):
        (exact,) = torch.autograd.grad(values[:, mode].sum(), x, retain_graph=True)
        found = torch.zeros_like(exact).index_add(1, beads[mode], slopes[:, mode].detach())
        torch.testing.assert_close(found, exact)


def test_modes_are_those_of_the_topology_with_the_moments_of_the_frames():
    topology, x = _chain([(0, 1), (1, 2)], 3), 2 + _draw((1200, 3, 3), 2)
    modes = stiff_modes(topology, x)
    assert modes.bonds == [[0, 1], [1, 2]]
    assert modes.angles == [[0, 1, 2]]
    length = (x[:, 1] - x[:, 2]).norm(dim=-1).numpy()
    one, other = (x[:, end] - x[:, 1] for end in (0, 2))
    cosine = ((one * other).sum(-1) / one.norm(dim=-1) / other.norm(dim=-1)).numpy()
    for values, mean, std in ((length, modes.bond_means[1], modes.bond_stds[1]), (cosine, *modes[4], *modes[5])):
        assert mean == pytest.approx(values.mean())
        assert std == pytest.approx(values.std())


def test_the_way_in_and_out_is_linear_with_its_determinant(branched):
    z, types = 1.5 * _draw((1, 5, 3), 4), torch.arange(5)
    place, u = _place(branched, z, types), _draw((1, 5, 3), 5)
    torch.testing.assert_close(place.out_of(place.into(u)), u)
    slope = torch.autograd.functional.jacobian(lambda at: place.into(at.view(1, 5, 3)).flatten(), u.flatten())
    torch.testing.assert_close(torch.linalg.slogdet(slope)[1], place.log_det[0])
    torch.testing.assert_close(place.axes @ place.axes.mT, torch.eye(3).double().expand(1, 5, 3, 3))
    torch.testing.assert_close(torch.linalg.det(place.axes), torch.ones(1, 5).double())


def test_a_harmonic_bond_has_the_posterior_of_its_gaussian():
    """Along the bond variance and mean of c and 2σ² together, across it those of the noise."""
    c, mean, length = 0.1**2, 2.0, 2.3
    modes = StiffModes([[0, 1]], [mean], [math.sqrt(c)], [], [], [], [1, 0], [0, 1])
    flow = CouplingFlow(2, noise_std=SIGMA, modes=modes, n_layers=1, n_blocks=1, embedding=4).double()
    z = torch.tensor([[[0.0, 0, 0], [length, 0, 0]]]).double().expand(200_000, -1, -1)
    drawn = flow._drawn(z, torch.arange(2), drawn_by(torch.Generator().manual_seed(0)))[0].detach()
    apart = drawn[:, 1] - drawn[:, 0]
    both = c + 2 * SIGMA**2
    exact = torch.tensor([length - (length - mean) * 2 * SIGMA**2 / both, 0, 0]).double()
    torch.testing.assert_close(apart.mean(0), exact, rtol=0, atol=4e-3)
    exact = torch.tensor([c * 2 * SIGMA**2 / both, 2 * SIGMA**2, 2 * SIGMA**2]).double()
    torch.testing.assert_close(apart.var(0), exact, rtol=0.02, atol=0)
    torch.testing.assert_close(drawn.mean(1).var(0), torch.full((3,), SIGMA**2 / 2).double(), rtol=0.02, atol=0)


def test_an_untrained_flow_has_bonds_and_angles_of_the_data():
    """Stiff bonds and angles with free torsions; noise of 0.05 Å would make bonds three times as wide."""
    rng = torch.Generator().manual_seed(1)
    x = _stiff_chains(4000, rng)
    topology = _chain([(0, 1), (1, 2), (2, 3)], 4)
    flow = CouplingFlow(4, noise_std=0.05, modes=stiff_modes(topology, x), n_layers=1, n_blocks=1, embedding=4).double()
    normal = drawn_by(rng)
    z = flow.add_noise(x, normal)
    y = flow.draw(z, torch.arange(4), normal)
    bonds, angles = torch.tensor(topology.bonds), torch.tensor([[0, 1, 2], [1, 2, 3]])
    of_data, of_noise, of_samples = (bond_lengths(part, bonds)[0] for part in (x, z, y))
    assert (of_noise.std(0) > 2.5 * of_data.std(0)).all()
    torch.testing.assert_close(of_samples.std(0), of_data.std(0), rtol=0.05, atol=0)
    torch.testing.assert_close(of_samples.mean(0), of_data.mean(0), rtol=0, atol=0.006)  # to first order only
    of_data, of_noise, of_samples = (angle_cosines(part, angles)[0] for part in (x, z, y))
    assert (of_noise.std(0) > 1.5 * of_data.std(0)).all()
    torch.testing.assert_close(of_samples.std(0), of_data.std(0), rtol=0.08, atol=0)


def _stiff_chains(count, rng):
    def normal(*shape):
        return torch.randn(*shape, generator=rng).double()

    angle = torch.deg2rad(110 + 2 * normal(count, 2))
    torsion = 2 * math.pi * torch.rand(count, generator=rng).double()
    lengths = 1.5 + 0.025 * normal(count, 3)
    along = torch.zeros(count, 3, 3).double()
    along[:, 0, 0] = 1
    first, bend = angle[:, 0], angle[:, 1]
    along[:, 1] = torch.stack([-first.cos(), first.sin(), torch.zeros(count)], -1)
    across = torch.stack([first.sin(), first.cos(), torch.zeros(count)], -1)
    third = torch.tensor([0.0, 0, 1]).double()
    turned = torsion.cos()[:, None] * across + torsion.sin()[:, None] * third
    along[:, 2] = -bend.cos()[:, None] * along[:, 1] + bend.sin()[:, None] * turned
    steps = torch.cat([torch.zeros(count, 1, 3).double(), lengths[..., None] * along], 1)
    return centered(steps.cumsum(1)) @ rotations(normal(count, 4))


def test_molecules_of_one_flow_are_as_alone(branched):
    other = stiff_modes(_chain([(0, 1), (1, 2)], 3), _draw((20, 3, 3), 6))
    both = other.joined(branched)
    z, u = 1.5 * _draw((2, 5, 3), 7), _draw((2, 5, 3), 8)
    alone, together = _place(branched, z, torch.arange(5)), _place(both, z, torch.arange(3, 8))
    torch.testing.assert_close(together.into(u), alone.into(u))
    torch.testing.assert_close(together.context, alone.context)


def test_axes_are_sound_where_beads_lie_on_a_line_or_alone():
    line = torch.tensor([[[0.0, 0, 0], [0, 1.5, 0], [0, 3.0, 0]]])
    rigid = stiff_modes(_chain([(0, 1), (1, 2)], 3), line.expand(2, -1, -1))
    assert all(torch.isfinite(part).all() for part in _place(rigid, line, torch.arange(3)))
    topology = _chain([(0, 1), (1, 2)], 3)
    place = _place(stiff_modes(topology, line + 0.1 * _draw((9, 3, 3), 9).float()), line, torch.arange(3))
    torch.testing.assert_close(place.axes @ place.axes.mT, torch.eye(3).expand(1, 3, 3, 3))
    torch.testing.assert_close(place.axes[0, 0, 0], torch.tensor([0.0, 1.0, 0.0]))
    assert all(torch.isfinite(part).all() for part in place)
    nothing = torch.zeros(2, 3)
    torch.testing.assert_close(
        bead_axes(nothing, nothing).mT @ bead_axes(nothing, nothing), torch.eye(3).expand(2, 3, 3)
    )
    single = stiff_modes(_chain([], 2), _draw((5, 2, 3), 10))
    place = _place(single, _draw((1, 2, 3), 11), torch.arange(2))
    u = _draw((1, 2, 3), 12)
    torch.testing.assert_close(place.into(u).square().sum(), u.square().sum() / SIGMA**2)  # noise alone


def test_a_rigid_bond_stays_finite_in_single_precision():
    x = torch.tensor([[[0.0, 0, 0], [1.5, 0, 0], [2.0, 1.4, 0]]]).expand(4, -1, -1)
    modes = stiff_modes(_chain([(0, 1), (1, 2)], 3), x)
    assert modes.bond_stds == pytest.approx([0, 0], abs=1e-7)
    flow = CouplingFlow(3, noise_std=SIGMA, modes=modes, n_layers=1, n_blocks=1, embedding=4)
    found = flow.sample(flow.add_noise(x, torch.randn_like), torch.arange(3))
    assert all(torch.isfinite(part).all() for part in found)
    assert (found.x[:, 0] - found.x[:, 1]).norm(dim=-1).sub(1.5).abs().max() < 0.2


def test_beads_on_top_of_each_other_and_frames_that_are_no_numbers_fail_alone(branched):
    topology, x = _chain([(0, 1), (1, 2)], 3), _draw((50, 3, 3), 14)
    x[3, 2] = x[3, 1]
    modes = stiff_modes(topology, x)
    assert all(math.isfinite(number) for number in modes.bond_stds + modes.angle_stds)
    z = x[:5].clone()
    z[4, 0, 0] = math.nan
    flow = CouplingFlow(3, noise_std=SIGMA, modes=modes, n_layers=1, n_blocks=1, embedding=4).double()
    found = flow.sample(z, torch.arange(3))
    finite = torch.isfinite(found.log_prob) & torch.isfinite(found.score).all(2).all(1)
    assert finite.tolist() == [True, True, True, True, False]
    labelled = label_batch(flow, torch.arange(3), z, (0,), torch.arange(5), kT=0.025)
    assert labelled.kept.tolist() == [True, True, True, True, False]


@pytest.mark.parametrize(
    "wrong",
    [{"toward": [1, 0]}, {"bond_stds": [0.1]}, {"bonds": [[0, 1], [1, 7], [1, 3], [3, 4]]}, {"references": [9] * 5}],
)
def test_modes_that_do_not_fit_are_refused(branched, wrong):
    with pytest.raises(InputError, match="do not fit its 5 types"):
        CouplingFlow(5, noise_std=SIGMA, modes=branched._replace(**wrong))


def test_beads_that_share_a_type_are_refused(branched):
    with pytest.raises(InputError, match="types of their own"):
        _place(branched, _draw((1, 5, 3), 13), torch.tensor([0, 1, 2, 3, 3]))
