"""Periodic cells beyond the calculator, cutoffs given afterwards, and repulsion where beads meet."""

import re

import mdtraj
import numpy as np
import pytest
import torch
from ase.calculators.calculator import PropertyNotImplementedError

from ase_cg import CGCalculator, CGModel, CommitteeCalculator, InputError, PriorSet, SimulationError, read_beads
from ase_cg.beads.structure import read_structure
from ase_cg.data.neighbors import NeighborList, coincident_pair, half_neighbor_list
from ase_cg.dynamics.failures import Limits
from ase_cg.dynamics.replicas import ReplicaSimulation
from ase_cg.dynamics.starts import read_start
from ase_cg.dynamics.state import State
from ase_cg.errors import StartError
from ase_cg.inference.dense import DenseModel
from ase_cg.models.base import energy_and_forces
from ase_cg.models.priors.dihedrals import Dihedrals
from ase_cg.models.priors.harmonic import HarmonicBonds
from ase_cg.models.priors.impropers import Impropers
from ase_cg.models.priors.repulsion import ExcludedVolume
from ase_cg.units import FEMTOSECOND
from tests.inference.conftest import chain_model
from tests.test_periodic import SKEWED, atoms_of, bonded_terms, chain, made, repulsion, walk

SCHNET = ("schnet", {"features": 8, "n_filters": 8, "n_basis": 6, "cutoff": 7.0, "head": [8]})


def dihedrals() -> Dihedrals:
    return Dihedrals(
        torch.tensor([[0, 0, 0, 0]]),
        {"amplitudes": torch.tensor([[0.3, 0.2]]), "phases": torch.tensor([[0.5, 1.0]])},
        1,
    )


@pytest.mark.parametrize("cell", [SKEWED, SKEWED[[1, 0, 2]], SKEWED * [1, 1, -1]], ids=["skewed", "swapped", "left"])
def test_bonds_angles_and_dihedrals_across_the_faces_of_a_skewed_cell(cell):
    """Each term of a scattered molecule is that of the whole one, and so are the forces of all together."""
    model = made(chain(5), [*bonded_terms(), dihedrals()])
    free = atoms_of(walk(5), model=model)
    images = np.random.default_rng(3).integers(-3, 4, (5, 3))
    scattered = atoms_of(walk(5) + images @ cell, cell, True, model)
    assert scattered.get_forces() == pytest.approx(free.get_forces(), abs=1e-9)
    assert scattered.calc.term_energies == pytest.approx({**free.calc.term_energies}, abs=1e-10)
    assert min(free.calc.term_energies.values()) > 1e-3
    float32 = scattered.copy()
    float32.calc = CGCalculator(model)
    assert float32.get_forces() == pytest.approx(free.get_forces(), abs=1e-4)


def test_forces_in_a_narrow_cell_are_minus_the_gradient_while_beads_cross_its_faces():
    """The list, its images and the exclusions are kept from one step to the next; wrapping changes nothing."""
    cell = 0.7 * SKEWED
    model = made(chain(4), [*bonded_terms(), dihedrals(), repulsion(cutoff=9.0)], SCHNET)
    atoms = atoms_of(walk(4), cell, True, model)
    direction = np.random.default_rng(0).standard_normal((4, 3))
    for number in range(8):
        atoms.positions += [0.9, 0.4, 0.3] + 0.02 * direction
        if number % 3 == 2:
            atoms.wrap()
        force = atoms.get_forces()
        energies = []
        for sign in (1, -1):
            moved = atoms_of(atoms.positions + 1e-5 * sign * direction, cell, True, model)
            energies.append(moved.get_potential_energy())
        assert (energies[1] - energies[0]) / 2e-5 == pytest.approx((force * direction).sum(), rel=1e-5, abs=1e-8)
        fresh = atoms_of(atoms.positions, cell, True, model)
        assert fresh.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-11)


def test_a_pair_enters_while_the_list_is_kept():
    """Both beads move by 0.45 of the skin, from outside the cutoff to inside, and no list is made anew."""
    model = made(chain(2, ()), [repulsion(sigma=8.0, cutoff=10.0)])
    atoms = atoms_of(np.array([[0.0, 0, 0], [10.5, 0, 0]]), np.eye(3) * 60, True, model)
    assert np.abs(atoms.get_forces()).max() == 0
    atoms.positions += [[0.45, 0, 0], [-0.45, 0, 0]]
    fresh = atoms_of(atoms.positions, atoms.cell, True, model)
    assert np.abs(fresh.get_forces()).max() > 1e-3
    assert atoms.get_forces() == pytest.approx(fresh.get_forces())


def test_another_cell_or_direction_makes_another_list():
    """Beads stay where they are, and other images come near."""
    model = made(chain(2, ()), [repulsion(sigma=4.0, cutoff=8.0)])
    atoms = atoms_of(np.array([[0.5, 0, 0], [5.0, 0, 0]]), np.eye(3) * 30, True, model)
    atoms.get_forces()
    for cell, pbc in (([9.5, 30, 30], True), ([9.5, 6.5, 30], True), ([9.5, 6.5, 30], [False, True, True])):
        atoms.set_cell(cell)
        atoms.pbc = pbc
        fresh = atoms_of(atoms.positions, cell, pbc, model)
        before = atoms.calc.results["energy"]
        assert atoms.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-12)
        assert atoms.get_forces() == pytest.approx(fresh.get_forces(), abs=1e-12)
        assert abs(atoms.get_potential_energy() - before) > 1e-4


def test_a_list_is_of_its_periodic_directions():
    x, cell = np.array([[0.5, 0, 0], [9.5, 0, 0]]), np.eye(3) * 10
    listed = NeighborList(3.0, skin=0.5)
    for pbc, pairs in (([True] * 3, 1), ([False, True, True], 0), ([True, False, False], 1)):
        assert listed.edges(x, cell, np.array(pbc))[0].shape[1] == pairs


def test_only_the_image_that_is_bonded_is_excluded_in_either_direction():
    """The bond leads through a face; the image on the other side of the same bead feels the repulsion."""
    model = made(chain(2), [repulsion(exclude=1, cutoff=14.0)])
    for first, second in ((7.9, 3.7), (3.7, 7.9)):
        x = np.array([[first, 0, 0], [second, 0, 0]])
        atoms = atoms_of(x, np.diag([8.0, 50.0, 50.0]), True, model)
        wanted = 0.0
        for distance, count in ((4.2, 1), (12.2, 1), (11.8, 1), (8.0, 2)):  # a cell holds two of own images
            switched = 0.5 * (1 + np.cos(np.pi * np.clip((distance / 14 - 0.8) / 0.2, 0, 1)))
            wanted += count * (4.0 / distance) ** 6 * switched
        nearest = min(abs(second - first + 8 * s) for s in (-1, 0, 1))
        assert nearest == pytest.approx(3.8)
        assert atoms.get_potential_energy() == pytest.approx(wanted, rel=1e-6)


def test_a_bond_that_cannot_be_told_from_the_one_to_the_next_image_is_refused():
    """At half the cell the bond would jump to the other side, and the force with it."""
    model = made(chain(2), bonded_terms()[:1])
    for length, told in ((3.85, True), (3.95, False), (4.0, False)):
        atoms = atoms_of(np.array([[0.0, 0, 0], [length, 0, 0]]), np.diag([8.0, 30.0, 30.0]), True, model)
        if told:
            assert atoms.get_potential_energy() == pytest.approx(2.0 * (length - 3.8) ** 2, abs=1e-6)
        else:
            with pytest.raises(InputError, match=r"beads 0 and 1 are bonded, but two images of 1"):
                atoms.get_potential_energy()
    across = atoms_of(np.array([[0.0, 0, 0], [0.0, 6.0, 0]]), np.diag([8.0, 30.0, 30.0]), True, model)
    assert across.get_potential_energy() == pytest.approx(2.0 * 2.2**2)


def test_impropers_need_a_wider_cell():
    """They take vectors across two bonds, whose image must be told as well."""
    star = chain(4, ((0, 3), (1, 3), (2, 3)))
    impropers = Impropers(torch.tensor([[0, 0, 0, 0]]), torch.tensor([0.5]), torch.tensor([0.3]), ("A",))
    bonds = HarmonicBonds(torch.tensor([[0, 0]]), torch.tensor([2.0]), torch.tensor([1.5]), 1)
    model = made(star, [bonds, impropers])
    x = np.array([[1.4, 0, 0.2], [-0.7, 1.2, 0], [-0.7, -1.2, 0], [0, 0, 0.1]])
    free = atoms_of(x, model=model)
    for width, allowed in ((5.9, False), (6.1, True)):
        atoms = atoms_of(x + np.array([5.5, 0, 0]), np.diag([width, 20.0, 20.0]), True, model)
        atoms.wrap()
        if allowed:
            assert atoms.get_forces() == pytest.approx(free.get_forces(), abs=1e-9)
            assert atoms.calc.term_energies["impropers"] > 1e-4
        else:
            with pytest.raises(InputError, match="cannot be told below 6 Å"):
                atoms.get_forces()


def test_a_committee_that_fails_keeps_no_deviations():
    model = made(chain(3), bonded_terms())
    atoms = atoms_of(walk(3))
    atoms.calc = CommitteeCalculator([model, model])
    atoms.get_forces()
    assert atoms.calc.deviations
    atoms.positions[2] = atoms.positions[0]
    with pytest.raises(SimulationError, match=r"beads 0 \(A\) and 2 \(A\) are on one spot"):
        atoms.get_forces()
    assert atoms.calc.deviations == atoms.calc.results == {}


def test_images_of_an_endless_chain_beside_it_are_other_chains():
    """Along the chain its images are itself, across it they are not, and beads of one period are one chain."""
    n, length = 6, 18.0
    positions = np.array([[3.0 * i, 1.5 * (-1) ** i, 0.0] for i in range(n)])
    ring = chain(n, (*((i, i + 1) for i in range(n - 1)), (0, n - 1)))
    term = ExcludedVolume(torch.full((1, 1), 4.0), 6, None)
    term.cutoff = 9.0
    atoms = atoms_of(positions, np.diag([length, 40.0, 8.0]), True, made(ring, [term]))
    wanted = 0.0
    for i in range(n):
        for j in range(n):
            for a in (-2, -1, 0, 1, 2):
                for c in (-1, 1):
                    r = np.linalg.norm(positions[j] - positions[i] + [a * length, 0, c * 8.0])
                    if r < 9.0:
                        x = np.clip((r / 9.0 - 0.8) / 0.2, 0, 1)
                        wanted += 0.5 * (4.0 / r) ** 6 * 0.5 * (1 + np.cos(np.pi * x))
    assert wanted > 0.01
    assert atoms.get_potential_energy() == pytest.approx(wanted, rel=1e-6)


def test_a_cutoff_given_afterwards_ends_smoothly_and_serves_in_a_cell(tmp_path):
    """Pairs within four fifths keep their energy; beyond the cutoff there is none; the file keeps it."""
    endless = made(chain(2, ()), [repulsion(cutoff=None)])
    ending = endless.with_cutoff(12.0)
    assert endless.cutoff == np.inf
    assert ending.cutoff == 12.0
    ending.save(tmp_path / "m.safetensors")
    for distance in (3.0, 9.5, 10.8, 11.999, 12.1):
        x = np.array([[0.0, 0, 0], [distance, 0, 0]])
        energy = atoms_of(x, np.eye(3) * 200, True, CGModel.load(tmp_path / "m.safetensors")).get_potential_energy()
        switched = 0.5 * (1 + np.cos(np.pi * np.clip((distance / 12 - 0.8) / 0.2, 0, 1)))
        assert energy == pytest.approx((4.0 / distance) ** 6 * switched, rel=1e-6, abs=1e-15)
        assert atoms_of(x, model=endless).get_potential_energy() == pytest.approx((4.0 / distance) ** 6, rel=1e-6)
    assert made(chain(2, ()), [repulsion(cutoff=9.0)]).with_cutoff(12.0).cutoff == 9.0
    for wrong in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(InputError, match="a cutoff is a positive number"):
            endless.with_cutoff(wrong)
    for wrong in (0.0, -12.0, np.nan):
        with pytest.raises(InputError, match="the cutoff of the prior 'repulsion' must be a positive number"):
            repulsion(cutoff=wrong)
    sharpened = CGModel(
        ("A",), PriorSet([repulsion(cutoff=None)]), endless.card, training_priors=PriorSet([repulsion(cutoff=None)])
    )
    assert sharpened.with_cutoff(8.0).with_priors("training").cutoff == 8.0


@pytest.mark.filterwarnings("error")
def test_an_imported_network_in_a_cell(shared):
    """Its repulsion has no cutoff: refused, or ended at 12 Å, and then as without a cell but for the far pairs."""
    from ase_cg.models.torchmd import read_torchmd_force_field, torchmd_priors

    folder = shared / "fast_folders"
    sections = read_torchmd_force_field(folder / "prior_force_field.yaml")
    pdb = folder / "experimental_structures" / "villin_2f4k.pdb"
    atoms = read_beads(pdb, "calpha")
    names = tuple(sorted(set(atoms.arrays["bead_name"].tolist())))
    from ase_cg.beads.atoms import read_topology
    from ase_cg.models.model import ModelCard

    card = ModelCard(temperature=350.0, resolution="calpha", topologies=(read_topology(pdb, "calpha"),))
    model = CGModel(names, torchmd_priors(sections, names), card).requires_grad_(requires_grad=False)
    free = read_beads(pdb, model)
    free.calc = CGCalculator(model, dtype="float64")
    energies = free.get_potential_energy(), free.calc.term_energies
    periodic = free.copy()
    periodic.set_cell([200.0] * 3)
    periodic.pbc = True
    for calculator in (CGCalculator(model), CommitteeCalculator([model, model])):
        periodic.calc = calculator
        with pytest.raises(InputError, match=r"no cutoff.*with_cutoff\(12\.0\).*--repulsion-cutoff 12"):
            periodic.get_potential_energy()
    periodic.calc = CGCalculator(model.with_cutoff(12.0), dtype="float64")
    periodic.get_potential_energy()
    found = periodic.calc.term_energies
    assert found["bonds"] == pytest.approx(energies[1]["bonds"], abs=1e-9)
    assert found["dihedrals"] == pytest.approx(energies[1]["dihedrals"], abs=1e-9)
    # Far pairs are left out: a small part, of one sign.
    assert 0.5 * energies[1]["repulsion"] < found["repulsion"] < energies[1]["repulsion"]
    periodic.calc = CGCalculator(model.with_cutoff(400.0 / 2.1), dtype="float64")
    assert periodic.get_potential_energy() == pytest.approx(energies[0], abs=1e-6)


def test_graphs_with_a_cell_need_images_and_cutoffs():
    """The model itself, without the calculator."""
    x, cell = np.array([[0.0, 0, 0], [9.0, 0, 0]]), np.eye(3) * 10
    edges, images = half_neighbor_list(x, cell, np.ones(3, bool), 4.0)
    for cutoff, message in ((None, "a term of the model has no cutoff"), (4.0, None)):
        model = made(chain(2, ()), [repulsion(cutoff=cutoff)]).double()
        graph = model.graph(chain(2, ()))._replace(positions=torch.tensor(x), cell=torch.tensor(cell)[None])
        periodic = graph._replace(edges=edges, edge_images=images)
        if message:
            with pytest.raises(InputError, match=message):
                model.energy_and_forces(periodic)
            continue
        assert float(model(periodic)) == pytest.approx(4.0**6, rel=1e-6)
        with pytest.raises(InputError, match="needs edge_images"):
            model(graph)


def test_exclusions_follow_the_images_of_the_edges():
    """The same edges with other images are other pairs: nothing that was looked up before is used again."""
    model = made(chain(2), [repulsion(exclude=1, cutoff=9.0)]).double()
    cell = torch.eye(3, dtype=torch.float64)[None] * 10
    graph = model.graph(chain(2))._replace(positions=torch.tensor([[0.0, 0, 0], [3.0, 0, 0]]).double())
    assert float(model(graph)) == 0
    here, there = torch.zeros(1, 3).double(), torch.tensor([[-1.0, 0, 0]]).double()
    periodic = graph._replace(cell=cell, edge_images=here)
    assert float(model(periodic)) == 0
    assert float(model(periodic._replace(edge_images=there))) == pytest.approx((4 / 7) ** 6, rel=1e-5)
    assert float(model(periodic)) == 0


@pytest.mark.parametrize("name", ["schnet", "painn", "mace"])
def test_a_dense_network_is_the_network_up_to_a_long_cutoff(name):
    """A bead is no neighbour of itself, whatever the cutoff."""
    model, frames = chain_model(name, 6, {"cutoff": 15.0}, priors=({"name": "repulsion", "cutoff": 15.0},))
    x = torch.tensor(frames[:2])
    reference = model.double()
    graph = reference.graph(model.only_topology(), 2)._replace(positions=x.reshape(-1, 3))
    energy, forces = energy_and_forces(reference, graph)
    found, dense = DenseModel(model, model.only_topology(), 2, torch.float64, 512).energy_and_forces(x)
    assert float((dense.reshape(-1, 3) - forces).norm() / forces.norm()) < 1e-6
    assert found.numpy() == pytest.approx(energy.numpy(), rel=1e-6)


@pytest.mark.parametrize("exponent", [6, 12, 7])
@pytest.mark.parametrize("dense", [False, True])
def test_repulsion_rises_to_the_spot_where_beads_meet(exponent, dense):
    term = repulsion(sigma=0.02, cutoff=12.0)
    term.exponent = exponent
    model = made(chain(2, ()), [term]).double()
    energies = []
    for distance in (0.02, 0.009, 0.005, 1e-3, 1e-4):
        x = torch.tensor([[[0.0, 0, 0], [distance, 0, 0]]]).double()
        if dense:
            energy, forces = DenseModel(model, chain(2, ()), 1, torch.float64, 64).energy_and_forces(x)
            force = forces[0]
        else:
            energy, force = energy_and_forces(model, model.graph(chain(2, ()))._replace(positions=x[0]))
        energies.append(float(energy))
        assert energies[-1] == pytest.approx((0.02 / distance) ** exponent, rel=1e-5)
        assert float(force[1, 0]) == pytest.approx(exponent * energies[-1] / distance, rel=1e-5)
    assert sorted(energies) == energies


@pytest.mark.parametrize("exponent", [6, 24])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_beads_on_one_spot_are_named_by_both_engines(exponent, dtype):
    term = repulsion(exclude=1)
    term.exponent = exponent
    model = made(chain(5), [*bonded_terms(), dihedrals(), term], SCHNET)
    x = walk(5)
    good = x.copy()
    calc = CGCalculator(model, dtype=dtype)
    atoms = atoms_of(x)
    atoms.calc = calc
    atoms.get_forces()
    for i, j in ((0, 4), (0, 2), (1, 2)):  # far along the chain, across an angle, and along a bond
        atoms.positions = good
        atoms.positions[j] = atoms.positions[i] + [0, 3e-4, 0]
        with pytest.raises(SimulationError, match=rf"beads {i} \(A\) and {j} \(A\) are on one spot") as error:
            atoms.get_potential_energy()
        assert np.array_equal(error.value.last_good, good)
        assert calc.results == {}
        with pytest.raises(StartError, match=rf"replica 1 .*beads {i} \(A\) and {j} \(A\) are on one spot"):
            ReplicaSimulation(model, [good, atoms.positions], time_step=FEMTOSECOND, friction=0.01, dtype=dtype)


def test_an_image_on_the_spot_of_another_bead_is_named():
    atoms = atoms_of(np.array([[0.1, 0, 0], [9.1, 0, 0]]), np.eye(3) * 9, True, made(chain(2, ()), [repulsion()]))
    with pytest.raises(SimulationError, match=r"beads 0 \(A\) and 1 \(A\) are on one spot"):
        atoms.get_potential_energy()


@pytest.mark.parametrize("n", [3, 39, 41, 400])
def test_coincident_beads_are_found_among_few_and_many(n):
    x = np.random.default_rng(0).normal(scale=30.0, size=(n, 3)) + 5e6
    assert coincident_pair(x) is None
    limits = Limits(chain(n, ()), torch.tensor(x)[None])
    zeros, none = torch.zeros(2, n, 3).double(), torch.zeros(2).double()
    moved = np.stack([x, x])
    for apart, found in ((0.012, None), (0.008, (1, n - 1)), (0.0, (1, n - 1))):
        moved[1, n - 1] = moved[1, 1] + [0, apart, 0]
        assert coincident_pair(moved[1]) == found
        state = State(torch.tensor(moved), zeros, zeros, none)
        assert limits.exceeded(state).tolist() == [False, found is not None]
        if found:
            assert f"beads 1 (A) and {n - 1} (A) are on one spot" in limits.reason(state, 1)


@pytest.mark.parametrize("energy", [np.nan, np.inf, -np.inf, 1e7, -1e7])
def test_the_energy_of_each_replica_is_checked(energy):
    """Forces may vanish where the energy is nonsense."""
    start = torch.tensor(np.stack([walk(5)] * 2))
    limits = Limits(chain(5), start)
    zeros = torch.zeros_like(start)
    state = State(start, zeros, zeros, torch.tensor([3.0, energy]).double())
    assert limits.exceeded(state).tolist() == [False, True]
    assert f"the energy is {energy:g} eV" in limits.reason(state, 1)


@pytest.mark.parametrize("energy", [np.nan, np.inf, 1e7])
def test_the_energy_of_the_calculator_is_checked(energy, monkeypatch):
    atoms = atoms_of(walk(3), model=made(chain(3), bonded_terms()))
    forces = atoms.get_forces()

    def nonsense(*_, **__):
        return {"energy": energy, "free_energy": energy, "energies": np.zeros(3), "forces": forces}, {}

    monkeypatch.setattr("ase_cg.evaluation.EagerEvaluation.results", nonsense)
    atoms.positions[0] += 0.01
    with pytest.raises(SimulationError, match=re.escape(f"the energy is {energy:g} eV")):
        atoms.get_forces()
    assert atoms.calc.results == {}


def test_stress_and_energies_of_images(recwarn):
    atoms = atoms_of(walk(3), np.diag([9.0, 0, 0]), [True, False, False], made(chain(3), bonded_terms()))
    with pytest.raises(PropertyNotImplementedError, match="stress needs a cell"):
        atoms.get_stress()
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy())
    assert not recwarn.list


def test_starts_of_a_trajectory_that_its_box_has_cut_are_whole(tmp_path):
    """Replicas have no cell: a molecule in pieces would run with bonds as long as the box."""
    x = walk(5, seed=2) + np.array([6.0, 1.0, 2.0])
    wrapped = x - np.floor(x @ np.linalg.inv(SKEWED)) @ SKEWED
    assert np.linalg.norm(np.diff(wrapped, axis=0), axis=1).max() > 6
    topology = chain(5)
    trajectory = mdtraj.Trajectory(wrapped[None] / 10, topology.to_mdtraj())
    trajectory.unitcell_vectors = SKEWED[None] / 10
    trajectory.save_xtc(str(tmp_path / "t.xtc"))
    start = read_start(made(topology, bonded_terms()), str(tmp_path / "t.xtc"), 1, seed=0)
    assert np.diff(start.positions[0], axis=0) == pytest.approx(np.diff(x, axis=0), abs=0.02)


def test_bonds_of_a_structure_in_a_skewed_cell(example_data, tmp_path):
    """Residues that the box has cut are bonded, in any cell."""
    structure = mdtraj.load(str(example_data / "ala2.pdb"))
    cell = np.array([[1.6, 0, 0], [16.2, 1.7, 0], [-7.9, 8.4, 1.8]])  # of the lattice of a much shorter one
    x = structure.xyz[0].astype(float)
    structure.xyz[0] = x - np.floor(x @ np.linalg.inv(cell)) @ cell
    structure.unitcell_vectors = cell[None]
    structure.save_gro(str(tmp_path / "cut.gro"))
    whole = mdtraj.load(str(example_data / "ala2.pdb"))
    found = read_structure(tmp_path / "cut.gro").topology
    assert found.n_bonds == whole.topology.n_bonds


def test_a_stiff_energy_alone_stops_a_replica():
    """A bond of no stiffness to speak of, stretched beyond all reason: no force is large, the energy is."""
    term = HarmonicBonds(torch.tensor([[0, 0]]), torch.tensor([1e-3]), torch.tensor([1e6]), 1)
    with pytest.raises(StartError, match=r"the energy is 9\.9\d*e\+08 eV"):
        ReplicaSimulation(made(chain(2), [term]), [[[0.0, 0, 0], [1.0, 0, 0]]], time_step=FEMTOSECOND, friction=0.01)
