"""The shipped checks pass a backbone that is right and catch those that are wrong."""

import pytest
import torch
from torch import nn

from ase_cg import testing
from ase_cg.models.base import Backbone

CHECKS = [name for name in vars(testing) if name.startswith("check_") and name != "check_backbone"]


def test_the_suite_runs_every_check(monkeypatch):
    run = []
    for check in CHECKS:
        monkeypatch.setattr(testing, check, lambda *_, check=check, **__: run.append(check))
    testing.check_backbone(Good(2), n_types=2)
    assert sorted(run) == sorted(CHECKS)


class Good(Backbone):
    """A learned pair potential with one Gaussian per pair of types; its children each break one thing."""

    def __init__(self, n_types, *, cutoff=6.0):
        super().__init__(cutoff, {"cutoff": cutoff})
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, n_types * n_types).view(n_types, n_types))

    def shape(self, distance):
        envelope = torch.where(distance < self.cutoff, (1 - (distance / self.cutoff) ** 2) ** 3, 0.0)
        return torch.exp(-0.1 * distance**2) * envelope

    def pair_weight(self, first, second):
        return self.weight[first, second] + self.weight[second, first]

    def vectors(self, graph):
        return graph.edge_vectors()

    def squared_distances(self, graph):
        return self.vectors(graph).square().sum(-1).clamp_min(1e-12)

    def bead_energies(self, graph):
        distance = torch.sqrt(self.squared_distances(graph))
        i, j = graph.edges
        half = 0.5 * self.pair_weight(graph.bead_type[i], graph.bead_type[j]) * self.shape(distance)
        return half.new_zeros(len(graph.positions)).index_add(0, i, half).index_add(0, j, half)


class Jumps(Good):
    def shape(self, distance):
        return torch.where(distance < self.cutoff, torch.exp(-0.1 * distance**2), 0.0)


class KinksAtTheCutoff(Good):
    def shape(self, distance):
        return torch.where(distance < self.cutoff, 1 - distance / self.cutoff, 0.0)


class ReachesFurther(Good):
    def shape(self, distance):
        return torch.exp(-0.1 * distance**2)


class SeesTheOrigin(Good):
    def bead_energies(self, graph):
        return super().bead_energies(graph) * (1 + 1e-3 * graph.positions[:, 0])


class SeesDirections(Good):
    def vectors(self, graph):
        return graph.edge_vectors() * torch.tensor([1.0, 1.0, 1.1], dtype=graph.positions.dtype)


class SeesHandedness(Good):
    def bead_energies(self, graph):
        x = graph.edge_vectors()[:3]
        volume = torch.linalg.det(x) if len(x) == 3 else x.sum() * 0
        return super().bead_energies(graph) + 1e-3 * volume / len(graph.positions)


class SeesTheOrderOfPairs(Good):
    def pair_weight(self, first, second):
        return self.weight[first, second] + 0.0 * self.weight[second, first]


class SeesTheBatch(Good):
    def bead_energies(self, graph):
        return super().bead_energies(graph) / graph.n_molecules


class ForgetsTheCell(Good):
    def vectors(self, graph):
        i, j = graph.edges
        return graph.positions[j] - graph.positions[i]


class CannotBeTrained(Good):
    def pair_weight(self, first, second):
        return super().pair_weight(first, second).detach() + 0 * self.weight.sum()


class DividesByZero(Good):
    def squared_distances(self, graph):
        return self.vectors(graph).square().sum(-1)


class LosesPrecision(Good):
    def vectors(self, graph):
        return graph.edge_vectors().half().to(graph.positions.dtype)


class LosesItsCutoff(Good):
    def __init__(self, n_types, *, cutoff=6.0):
        super().__init__(n_types, cutoff=cutoff)
        self.hyper_parameters = {}


class HasWrongForces(Good):
    def vectors(self, graph):
        exact = graph.edge_vectors()
        return exact + 0.01 * (exact - exact.detach())


class CancelsFarFromTheOrigin(Good):
    def squared_distances(self, graph):
        first, second = graph.positions[graph.edges]
        return first.square().sum(-1) + second.square().sum(-1) - 2 * (first * second).sum(-1)


WRONG = {
    Jumps: ("cutoff", "energy of two beads jumps at the cutoff"),
    KinksAtTheCutoff: ("cutoff", "force of two beads jumps at the cutoff"),
    ReachesFurther: ("isolated", "beyond the cutoff, feel a force"),
    SeesTheOrigin: ("translation", "moving the molecule changes the energy"),
    SeesDirections: ("rotation", "turning the molecule changes the energy"),
    SeesHandedness: ("reflection", "mirroring the molecule changes the energy"),
    SeesTheOrderOfPairs: ("permutation", "changes the energy"),
    SeesTheBatch: ("batch", "energies of a batch are not those of its molecules alone"),
    ForgetsTheCell: ("periodic_images", "from other periodic images changes the energy"),
    CannotBeTrained: ("second_derivatives", "gradient of a loss on forces by weight is wrong"),
    DividesByZero: ("coincident", "the forces on two beads on one spot are not finite"),
    LosesPrecision: ("forces", "not minus the gradient"),
    HasWrongForces: ("forces", "not minus the gradient"),
    LosesItsCutoff: ("save_and_load", "has another cutoff"),
    CancelsFarFromTheOrigin: ("far_from_origin", "1000 Å from the origin in torch.float32 changes the energy"),
}


def test_a_good_backbone_of_a_third_party_meets_all_checks():
    testing.check_backbone(Good(2), n_types=2)
    testing.check_backbone(Good(1), n_types=1)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda cls: cls.__name__)
def test_a_wrong_backbone_is_caught(wrong):
    check, sentence = WRONG[wrong]
    made = wrong(2, cutoff=9.0)
    with pytest.raises(AssertionError, match=sentence):
        getattr(testing, f"check_{check}")(made, n_types=2)
    with pytest.raises(AssertionError):
        testing.check_backbone(made, n_types=2)


def test_a_network_that_tells_mirror_images_apart_may_say_so(monkeypatch):
    called = []
    monkeypatch.setattr(testing, "check_reflection", lambda *_, **__: called.append(1))
    testing.check_backbone(Good(2), n_types=2, mirror_images=False)
    assert not called
