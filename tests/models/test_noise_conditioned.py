"""A network that knows the noise: at a fixed level it is an ordinary backbone; and priors over a range of noise."""

import copy
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from ase_cg.data.graph import topology_graph
from ase_cg.errors import InputError
from ase_cg.models.backbones import make_backbone
from ase_cg.models.base import Backbone, energy_and_forces
from ase_cg.models.noise_conditioned import NoiseConditioned
from ase_cg.models.priors.noised_priors import NoisedPriors
from ase_cg.models.priors.prior_set import PriorSet
from ase_cg.units import thermal_energy
from tests.models.test_backbones import SMALL

BOUNDS = (0.02, 0.2)


@pytest.fixture
def graph(ala2, ala2_positions):
    """Two copies of a molecule, a little apart."""
    vocabulary = tuple(sorted(set(ala2.names)))
    moved = np.random.default_rng(0).normal(ala2_positions, 0.1, (2, *ala2_positions.shape))
    made = topology_graph(ala2, vocabulary, 2)
    return made._replace(positions=torch.from_numpy(moved.reshape(-1, 3))), vocabulary


@pytest.mark.parametrize("name", SMALL)
def test_a_fixed_level_is_an_ordinary_backbone(name, graph):
    graph, vocabulary = graph
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = make_backbone(name, len(vocabulary), SMALL[name])
        network = NoiseConditioned(backbone, len(vocabulary), BOUNDS).double()
    before = copy.deepcopy(network.state_dict())
    levels = (0.02, 0.07)
    frozen = [network.at(level) for level in levels]
    # Frames of a batch have noise of their own.
    energies, forces = energy_and_forces(partial(network, noise_std=torch.tensor(levels).double()), graph)
    for frame, (level, ordinary) in enumerate(zip(levels, frozen, strict=True)):
        found, slopes = energy_and_forces(ordinary, graph)
        own = graph.molecule == frame
        torch.testing.assert_close(found[frame], energies[frame], rtol=1e-9, atol=0)
        torch.testing.assert_close(slopes[own], forces[own], rtol=1e-7, atol=1e-9)
        assert type(ordinary) is type(backbone), level
        assert ordinary.hyper_parameters == backbone.hyper_parameters
        assert set(ordinary.state_dict()) == set(backbone.state_dict())
    apart = (energy_and_forces(frozen[0], graph)[1] - energy_and_forces(frozen[1], graph)[1]).abs().max()
    assert apart > 1e-3 * forces.abs().max()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not backbone.embedding_layer._forward_hooks


def test_what_cannot_be_is_said(graph):
    network = NoiseConditioned(make_backbone("schnet", 3, SMALL["schnet"]), 3, BOUNDS)
    with pytest.raises(InputError, match=r"trained with noise of 0\.02 to 0\.2 Å, not 0\.3"):
        network.at(0.3)

    class Bare(Backbone):
        def __init__(self):
            super().__init__(5.0, {})
            self.weight = nn.Parameter(torch.ones(3))

        def bead_energies(self, graph):
            return self.weight[graph.bead_type]

    with pytest.raises(InputError, match=r"Bare has no embedding of bead types.*give one noise_std"):
        NoiseConditioned(Bare(), 3, BOUNDS)


def test_priors_over_a_range_are_those_of_each_level(graph, ala2, ala2_positions):
    graph, vocabulary = graph
    rng = np.random.default_rng(1)
    clean = rng.normal(ala2_positions, 0.02, (4000, *ala2_positions.shape))
    drawn = rng.standard_normal(clean.shape)

    def fitted(noise_std):
        return PriorSet.fit_positions(
            clean + noise_std * drawn, ala2, ["bonds", "angles"], vocabulary=vocabulary, kT=thermal_energy(300.0)
        )

    known = fitted(0.05)
    priors = NoisedPriors.fit(BOUNDS, {0.05: known}, fitted).double()
    levels = priors.levels.exp().tolist()
    assert levels[0] == pytest.approx(0.02)
    assert levels[-1] == pytest.approx(0.2)
    assert max(b / a for a, b in pairwise(levels)) < 1.42
    for level in (0.02, 0.05, 0.2):
        forces = energy_and_forces(partial(priors, noise_std=torch.tensor([level] * 2).double()), graph)[1]
        torch.testing.assert_close(forces, energy_and_forces(fitted(level).double(), graph)[1], rtol=1e-6, atol=1e-8)
    # In the middle between two levels, where interpolation is worst.
    for low, high in pairwise(levels):
        middle = (low * high) ** 0.5
        found = energy_and_forces(partial(priors, noise_std=torch.tensor([middle] * 2).double()), graph)[0]
        exact = energy_and_forces(fitted(middle).double(), graph)[0]
        assert (found / exact - 1).abs().max() < 0.07
