"""Checks that every backbone must meet, for those who bring their own.

``check_backbone(MyBackbone(n_types=3), n_types=3)`` runs them all; each is also a function of its own. A check that
fails raises AssertionError with one sentence. The backbone is copied, and compared in float64 unless said otherwise.
"""

import copy
import itertools
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from ase_cg.data.graph import concatenate
from ase_cg.models.base import Backbone, energy_and_forces
from ase_cg.testing_tools import (
    N_BEADS,
    ROUNDING,
    compare,
    double_copy,
    helix,
    one_molecule,
    pair,
    require,
    require_close,
    seeded,
)


def check_backbone(backbone: Backbone, *, n_types: int, name: str | None = None, mirror_images: bool = True) -> None:
    """Run all checks.

    Parameters
    ----------
    backbone : Backbone
        With any weights; it is not changed.
    n_types : int
        Size of the vocabulary it was made for.
    name : str, optional
        Under which it is registered, to check the model file as well; see :func:`check_save_and_load`.
    mirror_images : bool
        Whether mirror images must have the same energy; false for a network that is meant to tell them apart.

    Raises
    ------
    AssertionError
        At the first check that fails, saying what was wrong.
    """
    check_batch(backbone, n_types=n_types)
    check_forces(backbone, n_types=n_types)
    check_translation(backbone, n_types=n_types)
    check_rotation(backbone, n_types=n_types)
    if mirror_images:
        check_reflection(backbone, n_types=n_types)
    check_permutation(backbone, n_types=n_types)
    check_periodic_images(backbone, n_types=n_types)
    check_cutoff(backbone, n_types=n_types)
    check_isolated(backbone, n_types=n_types)
    check_far_from_origin(backbone, n_types=n_types)
    check_second_derivatives(backbone, n_types=n_types)
    check_coincident(backbone, n_types=n_types)
    check_precision(backbone, n_types=n_types)
    check_save_and_load(backbone, n_types=n_types, name=name)


def check_forces(backbone: Backbone, *, n_types: int) -> None:
    """Check that forces are minus the gradient of the energy: finite differences of fourth order agree to 1e-7."""
    network, graph, step = double_copy(backbone), helix(backbone, n_types), 1e-3
    _, forces = energy_and_forces(network, graph)
    require(float(forces.abs().max()) > 0, "all forces on a molecule within the cutoff are zero: nothing is learnt")
    moved = graph.positions.repeat(3 * N_BEADS * 4, 1, 1)
    for row, (bead, axis, factor) in enumerate(itertools.product(range(N_BEADS), range(3), (-2, -1, 1, 2))):
        moved[row, bead, axis] += factor * step
    energies = torch.cat([network(graph._replace(positions=positions)).detach() for positions in moved])
    low2, low, high, high2 = energies.view(N_BEADS, 3, 4).unbind(-1)
    numerical = -(low2 - 8 * low + 8 * high - high2) / (12 * step)
    require_close(forces, numerical, forces, 1e-7, "forces are not minus the gradient of the energy")


def check_translation(backbone: Backbone, *, n_types: int) -> None:
    """Check that neither energy nor forces change when the molecule moves, and that forces add up to zero."""
    network, graph = double_copy(backbone), helix(backbone, n_types)
    moved = graph.positions + graph.positions.new_tensor([5.0, -3.0, 2.0])
    compare(network, graph, graph._replace(positions=moved), "moving the molecule")
    _, forces = energy_and_forces(network, graph)
    require_close(forces.sum(0), torch.zeros(3), forces, ROUNDING, "the forces on a molecule do not add up to zero")


def check_rotation(backbone: Backbone, *, n_types: int) -> None:
    """Check that the energy does not change when the molecule turns, and that forces turn with it."""
    network, graph = double_copy(backbone), helix(backbone, n_types)
    for seed in range(3):
        matrix, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=seeded(seed)))
        matrix = matrix * torch.sign(torch.linalg.det(matrix))
        compare(network, graph, graph._replace(positions=graph.positions @ matrix), "turning the molecule", matrix)


def check_reflection(backbone: Backbone, *, n_types: int) -> None:
    """Check that mirror images have the same energy, and mirrored forces."""
    network, graph = double_copy(backbone), helix(backbone, n_types)
    mirror = -torch.eye(3, dtype=torch.float64)
    compare(network, graph, graph._replace(positions=graph.positions @ mirror), "mirroring the molecule", mirror)


def check_permutation(backbone: Backbone, *, n_types: int) -> None:
    """Check that neither the order of beads, nor that of pairs, nor which bead of a pair is named first matters."""
    network, graph = double_copy(backbone), helix(backbone, n_types)
    random = seeded(3)
    order = torch.randperm(N_BEADS, generator=random)
    shuffled = graph._replace(positions=graph.positions[order], bead_type=graph.bead_type[order])
    compare(network, graph, shuffled, "changing the order of the beads", order=order)
    edges = graph.edges[:, torch.randperm(graph.edges.shape[1], generator=random)]
    compare(network, graph, graph._replace(edges=edges), "changing the order of the pairs")
    compare(network, graph, graph._replace(edges=edges.flip(0)), "naming the other bead of each pair first")


def check_batch(backbone: Backbone, *, n_types: int) -> None:
    """Check that molecules of different sizes in one graph have the energies and forces that each has alone."""
    network = double_copy(backbone)
    graphs = [helix(backbone, n_types, n=n, seed=n) for n in (N_BEADS, 3, 1, 5, N_BEADS)]
    energies, forces = energy_and_forces(network, concatenate(graphs))
    require(energies.shape == (len(graphs),), "forward must return one energy per molecule, shape (n_molecules,)")
    alone = [energy_and_forces(network, graph) for graph in graphs]
    single = torch.cat([energy for energy, _ in alone])
    require_close(energies, single, energies, ROUNDING, "energies of a batch are not those of its molecules alone")
    single = torch.cat([force for _, force in alone])
    require_close(forces, single, forces, ROUNDING, "forces of a batch are not those of its molecules alone")


def check_periodic_images(backbone: Backbone, *, n_types: int) -> None:
    """Check that a molecule whose beads lie in different images of a cell is the molecule as a whole."""
    network, graph = double_copy(backbone), helix(backbone, n_types)
    cell = 4 * backbone.cutoff * torch.tensor([[1.0, 0.0, 0.0], [0.2, 1.0, 0.0], [0.1, -0.3, 1.0]]).double()
    image = torch.randint(-1, 2, (N_BEADS, 3), generator=seeded(6)).double()
    images = image[graph.edges[0]] - image[graph.edges[1]]
    wrapped = graph._replace(positions=graph.positions + image @ cell, cell=cell[None], edge_images=images)
    compare(network, graph, wrapped, "taking beads of the molecule from other periodic images")


def check_cutoff(backbone: Backbone, *, n_types: int) -> None:
    """Check that pairs lose energy and force continuously at the cutoff, and do nothing beyond, listed or not."""
    network, cutoff = double_copy(backbone), backbone.cutoff
    require(0 < cutoff < math.inf, f"the cutoff must be a positive number of Å, not {cutoff}")
    for third in (False, True):
        where = "of three beads" if third else "of two beads"
        near, f_near = energy_and_forces(network, pair(0.5 * cutoff, n_types, third=third))
        inside, f_inside = energy_and_forces(network, pair(cutoff * (1 - 1e-6), n_types, third=third))
        beyond = pair(cutoff * (1 + 1e-6), n_types, third=third)
        outside, f_outside = energy_and_forces(network, beyond)
        energy_scale, force_scale = near - outside, f_near
        require_close(inside, outside, energy_scale, 1e-4, f"the energy {where} jumps at the cutoff")
        require_close(f_inside, f_outside, force_scale, 1e-3, f"the force {where} jumps at the cutoff")
        without = beyond._replace(edges=beyond.edges[:, 1:])
        energy, forces = energy_and_forces(network, without)
        sentence = f"a pair {where} beyond the cutoff still interacts"
        require_close(energy, outside, energy_scale, ROUNDING, sentence)
        require_close(forces, f_outside, force_scale, ROUNDING, sentence)


def check_isolated(backbone: Backbone, *, n_types: int) -> None:
    """Check that a bead without neighbours has a constant energy and no force, alone or far from another."""
    network, cutoff = double_copy(backbone), backbone.cutoff
    alone = []
    for kind in range(n_types):
        results = [energy_and_forces(network, one_molecule([[x, 2 * x, -x]], [kind])) for x in (0.0, 3.7)]
        (energy, forces), (other, more) = results
        require(bool(torch.isfinite(energy).all()), f"the energy of an isolated bead of type {kind} is not finite")
        require(torch.equal(energy, other), f"the energy of an isolated bead of type {kind} depends on its position")
        no_force = float(forces.abs().max()) == float(more.abs().max()) == 0
        require(no_force, f"the force on an isolated bead of type {kind} is not zero")
        alone.append(energy)
    for distance in (1.01 * cutoff, 10 * cutoff):
        energy, forces = energy_and_forces(network, pair(distance, n_types))
        require(float(forces.abs().max()) == 0, f"two beads {distance:.1f} Å apart, beyond the cutoff, feel a force")
        apart = alone[0] + alone[1 % n_types]
        require_close(energy, apart, apart, ROUNDING, "two beads beyond the cutoff have not the energy of each alone")


def check_far_from_origin(backbone: Backbone, *, n_types: int) -> None:
    """Check that energy and forces are the same 1000 and 10000 Å from the origin, in float32 as well."""
    for dtype, tolerance in ((torch.float64, 1e-7), (torch.float32, 1e-4)):
        network, graph = double_copy(backbone).to(dtype), helix(backbone, n_types)
        # A grid on which float32 is exact as far out as that: what changes is the network's doing.
        here = ((graph.positions * 1024).round() / 1024).to(dtype)
        for shift in (1e3, 1e4):
            moved = graph._replace(positions=here + here.new_tensor([shift, -shift, shift]))
            change = f"moving the molecule {shift:.0f} Å from the origin in {dtype}"
            compare(network, graph._replace(positions=here), moved, change, tolerance=tolerance)


def check_second_derivatives(backbone: Backbone, *, n_types: int) -> None:
    """Check that a loss on forces has the right gradient by each tensor of weights: finite differences, to 1e-6."""
    network, graph, step = double_copy(backbone), helix(backbone, n_types), 1e-3
    target = torch.randn(N_BEADS, 3, dtype=torch.float64, generator=seeded(4))
    _, start = energy_and_forces(network, graph)
    target = target * start.abs().max()

    def loss(*, training: bool = False) -> Tensor:
        return ((energy_and_forces(network, graph, training=training)[1] - target) ** 2).sum()

    weights = dict(network.requires_grad_(requires_grad=True).named_parameters())
    gradients = torch.autograd.grad(loss(training=True), list(weights.values()), allow_unused=True)
    random, found, expected = seeded(5), [], []
    for weight, gradient in zip(weights.values(), gradients, strict=True):
        direction = torch.randn(weight.shape, dtype=torch.float64, generator=random)
        direction = direction / direction.norm()
        found.append(0.0 if gradient is None else float((gradient * direction).sum()))
        values = []
        for factor in (-2, -1, 1, 2):
            with torch.no_grad():
                before = weight.clone()
                weight.add_(direction, alpha=factor * step)
                values.append(float(loss()))
                weight.copy_(before)
        expected.append((values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step))
    scale = torch.tensor(expected)
    for name, one, other in zip(weights, found, expected, strict=True):
        sentence = f"the gradient of a loss on forces by {name} is wrong"
        require_close(torch.tensor([one]), torch.tensor([other]), scale, 1e-6, sentence)


def check_coincident(backbone: Backbone, *, n_types: int) -> None:
    """Check that energy, forces and gradients of a loss are finite where beads are on one spot or alone."""
    network = double_copy(backbone).requires_grad_(requires_grad=True)
    far = 5 * backbone.cutoff
    graph = one_molecule(
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.1 * far, 0.0, 0.0], [far, far, far]], [0, 1, 0, 1], n_types
    )
    energy, forces = energy_and_forces(network, graph, training=True)
    require(bool(torch.isfinite(energy).all()), "the energy of two beads on one spot is not finite")
    require(bool(torch.isfinite(forces).all()), "the forces on two beads on one spot are not finite")
    gradients = torch.autograd.grad((forces**2).sum(), list(network.parameters()), allow_unused=True)
    finite = all(bool(torch.isfinite(gradient).all()) for gradient in gradients if gradient is not None)
    require(finite, "the gradient of a loss on forces is not finite where two beads are on one spot or one is alone")


def check_precision(backbone: Backbone, *, n_types: int) -> None:
    """Check that energies and forces in float32 are of that dtype and agree with those in float64 to 1e-4."""
    double, single, graph = double_copy(backbone), double_copy(backbone).float(), helix(backbone, n_types)
    energy, forces = energy_and_forces(single, graph.to("cpu", torch.float32))
    require(energy.dtype == forces.dtype == torch.float32, "energies of a float32 network must be float32")
    exact, exact_forces = energy_and_forces(double, graph)
    size = double.bead_energies(graph).detach().abs().sum()
    require_close(energy, exact, size, 1e-4, "the energy in float32 is not that in float64")
    require_close(forces, exact_forces, exact_forces, 1e-4, "the forces in float32 are not those in float64")


def check_save_and_load(backbone: Backbone, *, n_types: int, name: str | None = None) -> None:
    """Check that a copy, and a network rebuilt from hyper-parameters and weights, are equal to the last bit.

    With the `name` under which it is registered, it also goes through a model file.
    """
    from safetensors.torch import load, save

    original = copy.deepcopy(backbone).eval()
    dtype = next(original.parameters()).dtype
    graph = helix(backbone, n_types).to("cpu", dtype)
    settings = json.loads(json.dumps(backbone.hyper_parameters))
    with torch.random.fork_rng(devices=[]):
        rebuilt = type(backbone)(n_types=n_types, **settings).to(dtype).eval()  # type: ignore[call-arg]
    require(rebuilt.cutoff == backbone.cutoff, "a network rebuilt from its hyper-parameters has another cutoff")
    rebuilt.load_state_dict(load(save({key: value.contiguous() for key, value in backbone.state_dict().items()})))
    others = {"a network rebuilt from its hyper-parameters and weights": rebuilt, "a copy": copy.deepcopy(rebuilt)}
    if name is not None:
        others["a network from a model file"] = _through_file(original, name, n_types)
    energy, forces = energy_and_forces(original, graph)
    for what, other in others.items():
        same_energy, same_forces = energy_and_forces(other, graph)
        equal = torch.equal(energy, same_energy) and torch.equal(forces, same_forces)
        require(equal, f"{what} gives other energies or forces")


def _through_file(backbone: Backbone, name: str, n_types: int) -> Backbone:
    from ase_cg.models.model import CGModel, ModelCard
    from ase_cg.models.priors.prior_set import PriorSet

    vocabulary = tuple(f"TYPE{kind}" for kind in range(n_types))
    card = ModelCard(temperature=300.0, resolution="calpha")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        CGModel(vocabulary, PriorSet([]), card, backbone=backbone, backbone_name=name).save(path)
        loaded = CGModel.load(path).backbone
    require(loaded is not None, "the model file lost the network")
    return loaded.eval()  # type: ignore[union-attr]
