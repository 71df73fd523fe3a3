"""What every energy term must meet: forces, symmetries, batching, cutoff, isolation."""

import itertools
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import concatenate, topology_graph
from ase_cg.errors import InputError
from ase_cg.models.backbones import backbone_class, make_backbone
from ase_cg.models.base import energy_and_forces
from ase_cg.models.model import CGModel
from ase_cg.models.priors.harmonic import HarmonicAngles, HarmonicBonds
from tests.conftest import SMALL_SCHNET

TERMS = ("bonds", "angles", "network", "model")


@pytest.fixture
def terms(model):
    double = __import__("copy").deepcopy(model).double()
    return {
        "bonds": double.priors.terms["bonds"],
        "angles": double.priors.terms["angles"],
        "network": double.backbone,
        "model": double,
    }


@pytest.fixture
def graph(ala2, vocabulary, ala2_positions):
    rng = np.random.default_rng(1)
    positions = torch.from_numpy(ala2_positions + 0.1 * rng.standard_normal((6, 3)))
    return topology_graph(ala2, vocabulary)._replace(positions=positions)


def _rotation(seed: int = 2) -> torch.Tensor:
    q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    return q * torch.sign(torch.linalg.det(q))


@pytest.mark.parametrize("name", TERMS)
def test_forces_are_minus_the_gradient(name, terms, graph):
    term, step = terms[name], 1e-4
    _, forces = energy_and_forces(term, graph)
    numerical = torch.zeros_like(forces)
    for bead, axis in itertools.product(range(6), range(3)):
        energies = []
        for factor in (-2, -1, 1, 2):
            moved = graph.positions.clone()
            moved[bead, axis] += factor * step
            energies.append(float(term(graph._replace(positions=moved))))
        low2, low, high, high2 = energies
        numerical[bead, axis] = -(low2 - 8 * low + 8 * high - high2) / (12 * step)
    assert forces.abs().max() > 1e-3
    assert numerical.numpy() == pytest.approx(forces.numpy(), abs=1e-7 * float(forces.abs().max()))


@pytest.mark.parametrize("name", TERMS)
def test_energy_is_invariant_and_forces_turn_with_the_beads(name, terms, graph):
    term = terms[name]
    energy, forces = energy_and_forces(term, graph)
    for matrix in (_rotation(), -_rotation()):  # a rotation, and one with a reflection
        moved = graph._replace(positions=graph.positions @ matrix.T + torch.tensor([5.0, -3.0, 2.0]))
        other, turned = energy_and_forces(term, moved)
        assert float(other) == pytest.approx(float(energy), abs=1e-10)
        assert turned.numpy() == pytest.approx((forces @ matrix.T).numpy(), abs=1e-9)
    assert forces.sum(0).numpy() == pytest.approx(np.zeros(3), abs=1e-9)


def test_energy_does_not_depend_on_the_order_of_the_beads(terms, ala2, vocabulary, graph):
    order = [3, 0, 5, 2, 4, 1]
    place = {old: new for new, old in enumerate(order)}
    shuffled = BeadTopology(
        names=tuple(ala2.names[i] for i in order),
        residue_names=tuple(ala2.residue_names[i] for i in order),
        residue_numbers=tuple(ala2.residue_numbers[i] for i in order),
        chains=ala2.chains,
        masses=tuple(ala2.masses[i] for i in order),
        bonds=tuple(sorted((min(place[i], place[j]), max(place[i], place[j])) for i, j in ala2.bonds)),
    )
    other = topology_graph(shuffled, vocabulary)._replace(positions=graph.positions[order])
    for term in terms.values():
        energy, forces = energy_and_forces(term, graph)
        permuted_energy, permuted = energy_and_forces(term, other)
        assert float(permuted_energy) == pytest.approx(float(energy), abs=1e-10)
        assert permuted.numpy() == pytest.approx(forces[order].numpy(), abs=1e-10)


def test_a_batch_equals_one_by_one(terms, model, ala2, graph):
    frames = graph.positions + 0.2 * torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0)).double()
    batch = topology_graph(ala2, model.vocabulary, 5)._replace(positions=frames.reshape(-1, 3))
    joined = concatenate([graph._replace(positions=x) for x in frames])
    for term in terms.values():
        energies, forces = energy_and_forces(term, batch)
        same_energies, same_forces = energy_and_forces(term, joined)
        assert same_energies.numpy() == pytest.approx(energies.numpy(), abs=1e-12)
        assert same_forces.numpy() == pytest.approx(forces.numpy(), abs=1e-12)
        for i, x in enumerate(frames):
            energy, force = energy_and_forces(term, graph._replace(positions=x))
            assert float(energy) == pytest.approx(float(energies[i]), abs=1e-11)
            assert force.numpy() == pytest.approx(forces[6 * i : 6 * i + 6].numpy(), abs=1e-11)


def _pair(distance: float):
    topology = BeadTopology(("A", "B"), ("A", "B"), (1, 2), (0, 0), (1.0, 1.0), ())
    graph = topology_graph(topology, ("A", "B"))
    return graph._replace(positions=torch.tensor([[0.0, 0.0, 0.0], [0.6, 0.0, 0.8]]).double() * distance)


def test_energy_and_force_are_continuous_at_the_cutoff_and_vanish_beyond():
    torch.manual_seed(0)
    network = make_backbone("schnet", 2, SMALL_SCHNET).double()
    cutoff = network.cutoff
    inside, f_inside = energy_and_forces(network, _pair(cutoff - 1e-5))
    outside, f_outside = energy_and_forces(network, _pair(cutoff + 1e-5))
    far, f_far = energy_and_forces(network, _pair(50.0))
    assert float(inside) == pytest.approx(float(outside), abs=1e-9)
    assert f_inside.abs().max() < 1e-4
    assert f_outside.abs().max() == f_far.abs().max() == 0
    assert float(outside) == float(far)
    _, f_near = energy_and_forces(network, _pair(0.5 * cutoff))
    assert f_near.abs().max() > 1e-3


def test_an_isolated_bead_has_constant_energy_and_no_force():
    torch.manual_seed(0)
    network = make_backbone("schnet", 2, SMALL_SCHNET).double()
    single = BeadTopology(("A",), ("A",), (1,), (0,), (1.0,), ())
    graph = topology_graph(single, ("A", "B"))
    results = [
        energy_and_forces(network, graph._replace(positions=torch.tensor([x]).double()))
        for x in ([0.0, 0.0, 0.0], [7.0, -2.0, 3.0])
    ]
    assert float(results[0][0]) == float(results[1][0])
    assert results[0][1].abs().max() == 0
    pair_energy = float(network(_pair(50.0)).detach())
    other = BeadTopology(("B",), ("B",), (1,), (0,), (1.0,), ())
    e_b = float(network(topology_graph(other, ("A", "B")).to("cpu", torch.float64)).detach())
    assert pair_energy == pytest.approx(float(results[0][0]) + e_b, abs=1e-12)


def test_single_precision_agrees_with_double(model, terms, graph):
    energy, forces = energy_and_forces(terms["model"], graph)
    low_energy, low = energy_and_forces(model, graph.to("cpu", torch.float32))
    assert float(low_energy) == pytest.approx(float(energy), rel=1e-5)
    assert low.numpy() == pytest.approx(forces.numpy(), abs=2e-5 * float(forces.abs().max()))


def test_a_loss_on_forces_can_be_differentiated(ala2, vocabulary, graph):
    torch.manual_seed(0)
    network = make_backbone("schnet", len(vocabulary), SMALL_SCHNET).double()
    _, forces = energy_and_forces(network, graph, training=True)
    (forces**2).sum().backward()
    weight = network.interactions[0].filters[0].weight
    analytic, step = weight.grad[2, 3].item(), 1e-5
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[2, 3] += sign * step
            losses.append(float((energy_and_forces(network, graph)[1] ** 2).sum()))
            weight[2, 3] -= sign * step
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(analytic, rel=1e-6)


def test_term_energies_add_up(model, graph):
    single = graph.to("cpu", torch.float32)
    parts = model.term_energies(single)
    assert set(parts) == {"bonds", "angles", "network"}
    assert float(sum(parts.values())) == pytest.approx(float(model(single)), rel=1e-6)
    prior = model.prior_only()
    assert float(prior(single)) == pytest.approx(float(parts["bonds"] + parts["angles"]), rel=1e-6)


def test_harmonic_energies_are_their_formulas(vocabulary, ala2, graph):
    x = graph.positions.numpy()
    types = graph.bead_type.numpy()
    bonds = HarmonicBonds(
        torch.tensor([[types[i], types[j]] for i, j in ala2.bonds]), torch.arange(1, 6) * 1.0, torch.full((5,), 1.4), 6
    ).double()
    by_hand = sum((n + 1) * (np.linalg.norm(x[i] - x[j]) - 1.4) ** 2 for n, (i, j) in enumerate(ala2.bonds))
    assert float(bonds(graph)) == pytest.approx(by_hand, rel=1e-6)
    triples = [[types[i] for i in angle] for angle in ala2.angles]
    # The parameters of a triple serve its reverse as well.
    angles = HarmonicAngles(torch.tensor([t[::-1] for t in triples]), torch.full((5,), 3.0), torch.full((5,), 2.0), 6)
    by_hand = 0.0
    for i, j, k in ala2.angles:
        u, v = x[i] - x[j], x[k] - x[j]
        by_hand += 3.0 * (np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v)) - 2.0) ** 2
    assert float(angles.double()(graph)) == pytest.approx(by_hand, rel=1e-6)


def test_forces_stay_finite_where_angles_are_straight():
    topology = BeadTopology(("A",) * 3, ("A",) * 3, (1, 2, 3), (0,) * 3, (1.0,) * 3, ((0, 1), (1, 2)))
    angles = HarmonicAngles(torch.tensor([[0, 0, 0]]), torch.tensor([1.0]), torch.tensor([2.0]), 1).double()
    graph = topology_graph(topology, ("A",))
    straight = graph._replace(positions=torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]).double())
    energy, forces = energy_and_forces(angles, straight)
    assert float(energy) == pytest.approx((np.pi - 2) ** 2, rel=1e-5)
    assert torch.isfinite(forces).all()


def test_unknown_names_and_hyper_parameters_are_named(monkeypatch):
    with pytest.raises(InputError, match="did you mean 'schnet'"):
        backbone_class("schnett")
    missing = EntryPoint("lost", "no_such_package:Lost", "ase_cg.backbones")
    monkeypatch.setattr("ase_cg.models.backbones._registered", lambda: {"lost": missing})
    with pytest.raises(InputError, match="'lost' is registered as no_such_package:Lost, which cannot be imported"):
        backbone_class("lost")
    monkeypatch.undo()
    with pytest.raises(InputError, match="did you mean 'cutoff'"):
        make_backbone("schnet", 2, {"cutof": 5.0})
    with pytest.raises(InputError, match="features must be a positive whole number"):
        make_backbone("schnet", 2, {"features": 0})


def test_a_bead_outside_the_vocabulary_is_named(ala2):
    with pytest.raises(InputError, match="'ACE:C' is not in the vocabulary"):
        topology_graph(ala2, ("ALA:N",))


def test_a_network_for_fewer_types_than_the_vocabulary_has_is_refused(model):
    small = make_backbone("schnet", len(model.vocabulary) - 1, SMALL_SCHNET)
    with pytest.raises(InputError, match=r"the network was made for 5 bead types, and there are 6"):
        CGModel(model.vocabulary, model.priors, model.card, backbone=small, backbone_name="schnet")


def test_periodic_images_give_the_energy_of_the_whole_molecule(terms, graph):
    cell = torch.diag(torch.tensor([30.0, 28.0, 26.0])).double()[None]
    whole, forces = energy_and_forces(terms["model"], graph)
    shift = torch.zeros(6, 3).double()
    shift[3:, 0] = 30.0
    images = (-(shift[graph.edges[1]] - shift[graph.edges[0]]) / 30.0).round()
    broken = graph._replace(positions=graph.positions + shift, cell=cell, edge_images=images)
    energy, broken_forces = energy_and_forces(terms["model"], broken)
    assert float(energy) == pytest.approx(float(whole), abs=1e-10)
    assert broken_forces.numpy() == pytest.approx(forces.numpy(), abs=1e-9)
