"""Beads in periodic cells: every image counts once, in any cell, and what cannot be right is refused."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import make_supercell

from ase_cg import CGCalculator, CGModel, CommitteeCalculator, InputError, SimulationError
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.cells import nearest_images, reduction_of
from ase_cg.data.neighbors import NeighborList, half_neighbor_list
from ase_cg.models.backbones import make_backbone
from ase_cg.models.model import ModelCard
from ase_cg.models.prior_options import RepulsionOptions
from ase_cg.models.priors.harmonic import HarmonicAngles, HarmonicBonds
from ase_cg.models.priors.prior_set import PriorSet
from ase_cg.models.priors.repulsion import ExcludedVolume, Repulsion

SKEWED = np.array([[14.0, 0.0, 0.0], [13.0, 15.0, 0.0], [-12.0, 14.0, 16.0]])  # far from its reduced form


def chain(n: int, bonds=None) -> BeadTopology:
    joined = tuple((i, i + 1) for i in range(n - 1)) if bonds is None else bonds
    return BeadTopology(("A",) * n, ("A",) * n, tuple(range(1, n + 1)), (0,) * n, (12.0,) * n, joined)


def made(topology: BeadTopology, terms, backbone=None) -> CGModel:
    card = ModelCard(temperature=300.0, resolution="calpha", topologies=(topology,))
    torch.manual_seed(0)
    network = None if backbone is None else make_backbone(backbone[0], 1, backbone[1])
    name = None if backbone is None else backbone[0]
    return CGModel(("A",), PriorSet(terms), card, backbone=network, backbone_name=name).requires_grad_(False)


def repulsion(sigma=4.0, exclude=2, cutoff=12.0, kind=Repulsion):
    if kind is ExcludedVolume:
        return ExcludedVolume(torch.full((1, 1), sigma), cutoff=cutoff)
    return Repulsion(torch.full((1, 1), sigma), exclude=exclude, cutoff=cutoff)


def bonded_terms():
    return [
        HarmonicBonds(torch.tensor([[0, 0]]), torch.tensor([2.0]), torch.tensor([3.8]), 1),
        HarmonicAngles(torch.tensor([[0, 0, 0]]), torch.tensor([1.0]), torch.tensor([1.9]), 1),
    ]


def atoms_of(positions, cell=None, pbc=False, model=None, topology=None, **options) -> Atoms:
    atoms = Atoms(numbers=np.ones(len(positions), int), positions=positions, cell=cell, pbc=pbc)
    if model is not None:
        atoms.calc = CGCalculator(model, topology=topology, dtype="float64", **options)
    return atoms


def walk(n: int, seed=0) -> np.ndarray:
    """A self-avoiding zigzag with bonds of about 3.8 Å."""
    rng = np.random.default_rng(seed)
    steps = np.array([[3.3, 1.9 * (-1) ** i, 0.4] for i in range(n - 1)])
    return np.concatenate([np.zeros((1, 3)), np.cumsum(steps, 0)]) + 0.2 * rng.standard_normal((n, 3))


@pytest.mark.parametrize("cell", [np.diag([40.0, 41.0, 42.0]), 3 * SKEWED], ids=["rectangular", "skewed"])
def test_a_wrapped_molecule_is_the_whole_one(cell):
    """Same energy and forces, however its beads are spread over images; and in a large cell those without a cell."""
    topology = chain(6)
    model = made(topology, [*bonded_terms(), repulsion(cutoff=10.0)], ("schnet", {"features": 8, "n_filters": 8}))
    free = atoms_of(walk(6), model=model)
    whole = atoms_of(walk(6), cell, True, model)
    images = np.random.default_rng(1).integers(-2, 3, (6, 3))
    scattered = atoms_of(walk(6) + images @ cell, cell, True, model)
    for atoms in (whole, scattered):
        assert atoms.get_potential_energy() == pytest.approx(free.get_potential_energy(), abs=1e-9)
        assert atoms.get_forces() == pytest.approx(free.get_forces(), abs=1e-8)
    wrapped = whole.copy()
    wrapped.wrap()
    wrapped.calc = CGCalculator(model, dtype="float64")
    assert not np.allclose(wrapped.positions, whole.positions)
    assert wrapped.get_forces() == pytest.approx(free.get_forces(), abs=1e-8)


def test_the_nearest_image_is_found_in_any_cell():
    """By brute force over a thousand images, of skewed, left-handed and partly periodic cells."""
    rng = np.random.default_rng(0)
    many = np.array(np.meshgrid(*[np.arange(-12, 13)] * 3)).reshape(3, -1).T
    partly = SKEWED.copy()
    partly[1] = 0
    for cell in (SKEWED, SKEWED[[1, 0, 2]], np.diag([5.0, 9.0, 13.0]), partly):
        vectors = torch.tensor(rng.normal(scale=8, size=(40, 3)))
        reduction = torch.tensor(reduction_of(cell))[None]
        which = torch.zeros(40, dtype=torch.long)
        images, margins = (
            found.numpy() for found in nearest_images(vectors, torch.tensor(cell)[None], reduction, which)
        )
        found = np.linalg.norm(vectors.numpy() + images @ cell, axis=1)
        distinct = many[~many[:, (cell == 0).all(1)].any(1)]
        best, second = np.partition(np.linalg.norm(vectors.numpy()[:, None] + distinct @ cell, axis=-1), 1)[:, :2].T
        assert found == pytest.approx(best)
        assert margins == pytest.approx(second - best)
        assert np.array_equal(images, images.round())
        assert not images[:, (cell == 0).all(1)].any()


NETWORKS = {
    "none": None,
    "schnet": ("schnet", {"features": 8, "n_filters": 8, "n_basis": 6, "cutoff": 7.0, "head": [8]}),
    "painn": ("painn", {"features": 8, "n_basis": 6, "cutoff": 7.0, "head": [8]}),
    "mace": (
        "mace",
        {"hidden_irreps": "4x0e + 4x1o", "n_basis": 4, "cutoff": 5.0, "radial_MLP": [8], "MLP_irreps": 4},
    ),
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
@pytest.mark.parametrize("cell", [np.diag([8.0, 9.0, 10.0]), SKEWED * 0.65], ids=["rectangular", "skewed"])
def test_a_narrow_cell_counts_every_image(network, cell):
    """Two beads in a cell narrower than the cutoff have the energy, a bead, of 27 copies; and their forces."""
    single, copies = chain(2, ()), chain(54, ())
    positions = np.array([[0.5, 0.2, 0.1], [3.9, 3.1, 2.2]])
    small = atoms_of(positions, cell, True, made(single, [repulsion(cutoff=9.0)], network))
    large = make_supercell(atoms_of(positions, cell, True), 3 * np.eye(3))
    large.calc = CGCalculator(made(copies, [repulsion(cutoff=9.0)], network), dtype="float64")
    assert 27 * small.get_potential_energy() == pytest.approx(large.get_potential_energy(), rel=1e-8)
    assert np.tile(small.get_forces(), (27, 1)) == pytest.approx(large.get_forces(), abs=1e-7)
    assert small.get_stress() == pytest.approx(large.get_stress(), abs=1e-9)
    assert np.abs(small.get_forces()).max() > 1e-3


@pytest.mark.parametrize("exclude", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", [Repulsion, ExcludedVolume])
def test_exclusions_are_those_of_the_image_that_is_bonded(exclude, kind):
    """A chain in a narrow cell meets the images of its own excluded neighbours: the energy is that of 27 chains."""
    n, cell = 4, np.array([[9.0, 0.0, 0.0], [4.0, 9.5, 0.0], [1.0, -3.0, 10.0]])
    bonds = tuple((n * c + i, n * c + i + 1) for c in range(27) for i in range(n - 1))
    term = repulsion(exclude=exclude, cutoff=8.0, kind=kind)
    small = atoms_of(walk(n), cell, True, made(chain(n), [*bonded_terms(), term]))
    large = make_supercell(atoms_of(walk(n), cell, True), 3 * np.eye(3))
    large.calc = CGCalculator(made(chain(27 * n, bonds), [*bonded_terms(), term]), dtype="float64")
    small.wrap()
    assert 27 * small.get_potential_energy() == pytest.approx(large.get_potential_energy(), rel=1e-8)
    assert np.tile(small.get_forces(), (27, 1)) == pytest.approx(large.get_forces(), abs=1e-7)
    terms = small.calc.term_energies
    assert terms[term.name] > 1e-6


def test_a_chain_without_an_end_is_one_chain():
    """A ring of bonds through the cell: 1–2 and 1–3 neighbours are excluded across the boundary, and no others."""
    n, length = 6, 18.0
    positions = np.array([[3.0 * i, 1.5 * (-1) ** i, 0.0] for i in range(n)])
    ring = chain(n, (*((i, i + 1) for i in range(n - 1)), (0, n - 1)))
    cell = np.diag([length, 40.0, 40.0])
    atoms = atoms_of(positions, cell, True, made(ring, [*bonded_terms(), repulsion(sigma=4.0, cutoff=11.0)]))
    energy = atoms.get_potential_energy()
    pairs = 0.0
    for i in range(n):
        for m in range(-10, 11):
            distance = np.linalg.norm(positions[(i + m) % n] + [length * ((i + m) // n), 0, 0] - positions[i])
            if abs(m) > 2 and distance < 11.0:
                x = np.clip((distance / 11.0 - 0.8) / 0.2, 0, 1)
                pairs += 0.5 * (4.0 / distance) ** 6 * 0.5 * (1 + np.cos(np.pi * x))
    assert atoms.calc.term_energies["repulsion"] == pytest.approx(pairs, rel=1e-6)
    assert np.isfinite(energy)
    alone = atoms_of(positions, cell, True, made(ring, [repulsion(kind=ExcludedVolume, cutoff=11.0)]))
    assert alone.get_potential_energy() == pytest.approx(0.0, abs=1e-12)


def test_the_neighbour_list_reaches_as_far_as_the_longest_term():
    """Beads at 11 Å feel a repulsion to 12 Å although the network ends at 9 Å."""
    topology = chain(2, ())
    model = made(topology, [repulsion(cutoff=12.0)], ("schnet", {"features": 8, "n_filters": 8, "cutoff": 9.0}))
    positions = np.array([[0.0, 0.0, 0.0], [11.0, 0.0, 0.0]])
    free, periodic = atoms_of(positions, model=model), atoms_of(positions, np.eye(3) * 60, True, model)
    assert periodic.get_potential_energy() == pytest.approx(free.get_potential_energy(), abs=1e-12)
    assert periodic.calc.term_energies["repulsion"] == pytest.approx(free.calc.term_energies["repulsion"], rel=1e-9)
    assert free.calc.term_energies["repulsion"] > 1e-5


def test_the_list_is_made_anew_before_a_pair_can_enter():
    """Two beads approach from outside the list by 0.9 of the skin each: forces are those of a fresh list."""
    model = made(chain(2, ()), [repulsion(sigma=8.0, cutoff=10.0)])
    positions = np.array([[0.0, 0.0, 0.0], [11.5, 0.0, 0.0]])
    atoms = atoms_of(positions, np.eye(3) * 60, True, model)
    assert np.abs(atoms.get_forces()).max() == 0  # a list of 10 Å and a skin of 1 Å holds no pair
    atoms.positions += [[0.9, 0, 0], [-0.9, 0, 0]]
    fresh = atoms_of(atoms.positions, atoms.cell, True, model)
    assert np.abs(fresh.get_forces()).max() > 1e-3
    assert atoms.get_forces() == pytest.approx(fresh.get_forces())


@pytest.mark.parametrize("moved", [0.45, 0.55])
def test_a_list_is_kept_while_beads_move_less_than_half_the_skin(moved):
    listed = NeighborList(5.0, skin=1.0)
    x, cell, pbc = np.array([[0.0, 0, 0], [4.0, 0, 0]]), np.eye(3) * 30, np.ones(3, bool)
    first = listed.edges(x, cell, pbc)
    again = listed.edges(x + np.array([[moved, 0, 0], [0, 0, 0]]), cell, pbc)
    assert (again is first) == (moved < 0.5)


def test_a_term_without_cutoff_is_refused_in_a_cell(recwarn):
    """And no pair is lost without a cell, however many beads there are."""
    model = made(chain(2, ()), [repulsion(cutoff=None)])
    positions = np.array([[0.0, 0.0, 0.0], [150.0, 0.0, 0.0]])
    atoms = atoms_of(positions, np.eye(3) * 200, True, model)
    with pytest.raises(InputError, match=r"a term of the model has no cutoff.*atoms\.pbc = False"):
        atoms.get_potential_energy()
    with pytest.raises(InputError, match="has no cutoff"):
        half_neighbor_list(positions, np.eye(3) * 200, np.ones(3, bool), np.inf)
    pair = CommitteeCalculator([model, model])
    atoms.calc = pair
    with pytest.raises(InputError, match="has no cutoff"):
        atoms.get_forces()
    n = 320
    line = np.zeros((n, 3))
    line[:, 0] = 4.0 * np.arange(n)
    many = atoms_of(line, model=made(chain(n, ()), [repulsion(cutoff=None)]))
    apart = np.subtract.outer(line[:, 0], line[:, 0])[np.triu_indices(n, 1)]
    assert many.get_potential_energy() == pytest.approx(((4.0 / apart) ** 6).sum(), rel=1e-9)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("cell", "pbc", "message"),
    [
        (None, True, "periodic along a, b, c, but there the cell has no vector"),
        (np.diag([30.0, 0.0, 30.0]), True, "periodic along b, but"),
        (np.diag([30.0, 30.0, 0.0]), [False, False, True], "periodic along c, but"),
        (np.array([[30.0, 0, 0], [60.0, 0, 0], [0, 0, 30.0]]), True, "in one plane or line"),
        (np.diag([30.0, np.nan, 30.0]), True, "NaN or infinite"),
        (np.diag([30.0, 7.0, 30.0]), True, r"repeats after 7 Å, but bonds are 3.8 Å long.*below 7.6 Å"),
        (np.array([[30.0, 0, 0], [28.0, 6.0, 0], [0, 0, 30.0]]), True, r"repeats after 6\.\d+ Å"),
    ],
)
def test_cells_that_cannot_be_right_are_refused(cell, pbc, message):
    atoms = atoms_of(walk(4), cell, pbc, made(chain(4), [*bonded_terms(), repulsion()]))
    with pytest.raises(InputError, match=message):
        atoms.get_forces()


def test_one_periodic_direction_needs_one_vector():
    """A wire: periodic along c only, with or without vectors along the other two."""
    model = made(chain(3), [*bonded_terms(), repulsion(cutoff=11.0)])
    bare = atoms_of(walk(3), np.diag([0.0, 0.0, 9.0]), [False, False, True], model)
    boxed = atoms_of(walk(3), np.diag([7.0, 5.0, 9.0]), [False, False, True], model)
    wide = atoms_of(walk(3), np.diag([80.0, 80.0, 9.0]), True, model)
    assert bare.get_potential_energy() == pytest.approx(wide.get_potential_energy(), abs=1e-9)
    assert boxed.get_forces() == pytest.approx(wide.get_forces(), abs=1e-9)
    assert np.abs(wide.get_forces()).max() > 1e-3


def test_a_cell_that_becomes_wrong_during_a_run_is_noticed():
    atoms = atoms_of(walk(4), np.eye(3) * 30, True, made(chain(4), [*bonded_terms(), repulsion()]))
    atoms.get_forces()
    atoms.set_cell(np.diag([30.0, 30.0, 5.0]))
    with pytest.raises(InputError, match="repeats after 5 Å"):
        atoms.get_forces()


@pytest.mark.parametrize("distance", [0.0, 1e-4, 0.009])
@pytest.mark.parametrize("pbc", [False, True])
@pytest.mark.parametrize("exclude", [2, 5])
def test_beads_on_one_spot_are_an_error(distance, pbc, exclude):
    """Where the repulsion is flat, and where none acts: forces have no direction there."""
    positions = walk(5)
    positions[4] = positions[0] + [distance, 0, 0]
    atoms = atoms_of(positions, np.eye(3) * 40, pbc, made(chain(5), [*bonded_terms(), repulsion(exclude=exclude)]))
    with pytest.raises(SimulationError, match=r"beads 0 \(A\) and 4 \(A\) are on one spot|feels a force"):
        atoms.get_forces()


def test_an_energy_beyond_all_reason_is_an_error():
    """Forces at the minimum of a term vanish, and its energy may still be nonsense."""
    stiff = HarmonicBonds(torch.tensor([[0, 0]]), torch.tensor([1e-3]), torch.tensor([1e6]), 1)
    atoms = atoms_of(np.array([[0.0, 0, 0], [1.0, 0, 0]]), model=made(chain(2), [stiff]))
    with pytest.raises(SimulationError, match=r"the energy is 9\.99998e\+08 eV"):
        atoms.get_potential_energy()


@pytest.mark.parametrize("exclude", [1, 3])
def test_the_repulsion_is_fitted_to_the_pairs_that_feel_it(exclude):
    """σ is the 0.1 % quantile of exactly the distances of pairs that more than `exclude` bonds separate."""
    frames = np.stack([walk(6, seed) for seed in range(300)])
    options = RepulsionOptions(exclude=exclude)
    samples = Repulsion.samples(frames, chain(6), ("A",), options)
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6) if j - i > exclude]
    distances = np.concatenate([np.linalg.norm(frames[:, i] - frames[:, j], axis=1) for i, j in pairs])
    assert sorted(samples[0, 0]) == pytest.approx(sorted(distances), rel=1e-6)
    kT = 0.025
    fitted = Repulsion.fit(samples, kT, ("A",), options)
    wanted = np.quantile(distances, 0.001) * (0.1 * kT) ** (1 / fitted.exponent)
    assert float(fitted.sigma[0, 0]) == pytest.approx(wanted, rel=1e-5)
    other = RepulsionOptions(exclude=4 - exclude)
    assert float(Repulsion.fit(Repulsion.samples(frames, chain(6), ("A",), other), kT, ("A",), other).sigma[0, 0]) != (
        pytest.approx(wanted, rel=1e-3)
    )


def test_images_of_beads_are_not_their_excluded_neighbours():
    """Bead 1's image is as near to bead 0 as bead 1 itself is far: only the bonded one is excluded."""
    model = made(chain(2), [repulsion(exclude=2, cutoff=9.0)])
    atoms = atoms_of(np.array([[0.0, 0, 0], [3.8, 0, 0]]), np.diag([8.0, 50.0, 50.0]), True, model)
    # The image at −4.2 Å, and each bead's own images at ±8 Å, switched.
    x = (8.0 / 9.0 - 0.8) / 0.2
    own = 2 * (4.0 / 8.0) ** 6 * 0.5 * (1 + np.cos(np.pi * x))
    assert atoms.get_potential_energy() == pytest.approx((4.0 / 4.2) ** 6 + own, rel=1e-6)


def test_a_replica_with_beads_on_one_spot_has_exploded():
    from ase_cg.dynamics.failures import Limits
    from ase_cg.dynamics.state import State

    start = torch.tensor(np.stack([walk(5)] * 3))
    limits = Limits(chain(5), start)
    moved = start.clone()
    moved[1, 4] = moved[1, 0]
    zeros, energies = torch.zeros_like(start), torch.tensor([0.0, 0.0, 1e9])
    state = State(moved, zeros, zeros, energies.double())
    assert limits.exceeded(state).tolist() == [False, True, True]
    assert "beads 0 (A) and 4 (A) are on one spot" in limits.reason(state, 1)
    assert "the energy is 1e+09 eV" in limits.reason(state, 2)


def test_an_imported_model_runs_in_a_cell_once_its_repulsion_ends(shared):
    """Without a cutoff a cell is refused; with one the energy in a 200 Å box is that without a box."""
    from ase_cg import read_beads
    from ase_cg.models.torchmdnet import import_torchmdnet

    folder = shared / "fast_folders"
    files = folder / "torchmdnet_multi_protein.ckpt", folder / "prior_force_field.yaml"
    for cutoff in (None, 14.0):
        model = import_torchmdnet(*files, numbering="multi-protein", repulsion_cutoff=cutoff)
        atoms = read_beads(folder / "experimental_structures" / "trpcage_2jof.pdb", model)
        topology = folder / "topology" / "trp.psf"
        atoms.calc = CGCalculator(model, topology=topology if topology.is_file() else None, dtype="float64")
        free = atoms.get_potential_energy()
        atoms.set_cell([200.0] * 3)
        atoms.pbc = True
        if cutoff is None:
            exact = free
            with pytest.raises(InputError, match="has no cutoff"):
                atoms.get_potential_energy()
        else:
            assert atoms.get_potential_energy() == pytest.approx(free, abs=1e-9)
            assert free == pytest.approx(exact, abs=0.02)
            assert free != exact
