"""CGCalculator under everything ASE offers."""

import copy
import dataclasses
import json
import pickle

import numpy as np
import pytest
from ase import Atom, Atoms
from ase import units as ase_units
from ase.calculators.calculator import PropertyNotImplementedError, all_properties
from ase.calculators.fd import FiniteDifferenceCalculator, calculate_numerical_forces
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.constraints import FixAtoms
from ase.io import read, write
from ase.io.trajectory import Trajectory
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ase_cg import CGCalculator, CGModel, read_beads
from ase_cg.beads.atoms import beads_to_atoms
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError, SimulationError

PER_BEAD = ("names", "residue_names", "residue_numbers", "chains", "masses")


@pytest.fixture
def atoms(model, ala2, ala2_positions):
    made = beads_to_atoms(ala2, ala2_positions, model.vocabulary)
    made.calc = CGCalculator(model, dtype="float64")
    made.rattle(0.05, seed=1)
    return made


def test_results_are_those_of_the_model(model, atoms, ala2):
    import torch

    graph = model.graph(ala2)._replace(positions=torch.from_numpy(atoms.positions).float())
    energy, forces = model.energy_and_forces(graph)
    assert atoms.get_potential_energy() == pytest.approx(float(energy), rel=1e-5)
    assert atoms.get_forces() == pytest.approx(forces.numpy(), abs=1e-4)
    assert atoms.calc.results["free_energy"] == atoms.calc.results["energy"]
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    assert sum(atoms.calc.term_energies.values()) == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    assert set(atoms.calc.term_energies) == {"bonds", "angles", "network"}


def test_forces_agree_with_finite_differences(atoms):
    numerical = calculate_numerical_forces(atoms, eps=1e-4)
    assert numerical == pytest.approx(atoms.get_forces(), abs=1e-6)
    assert np.abs(numerical).max() > 0.1


def test_stress_agrees_with_finite_differences_and_needs_a_cell(atoms):
    with pytest.raises(PropertyNotImplementedError, match="periodic"):
        atoms.get_stress()
    atoms.set_cell([9.0, 10.0, 11.0])
    atoms.pbc = True
    atoms.center()
    reference = atoms.copy()
    reference.calc = FiniteDifferenceCalculator(
        CGCalculator(atoms.calc._source, dtype="float64"), eps_disp=1e-4, eps_strain=1e-5
    )
    assert np.abs(atoms.get_stress()).max() > 1e-4
    assert reference.get_stress() == pytest.approx(atoms.get_stress(), abs=1e-8)
    assert reference.get_forces() == pytest.approx(atoms.get_forces(), abs=1e-6)


def test_wrapped_beads_have_the_energy_of_the_whole_molecule(atoms):
    energy = atoms.get_potential_energy()
    atoms.set_cell([40.0, 40.0, 40.0])
    atoms.pbc = True
    atoms.positions += [0.3, 39.0, 20.0]
    atoms.wrap()
    assert np.ptp(atoms.positions[:, 1]) > 20
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)


def test_neighbour_list_and_all_pairs_agree(atoms, monkeypatch):
    monkeypatch.setattr("ase_cg.data.neighbors.ALL_PAIRS_LIMIT", 2)
    other = atoms.copy()
    other.calc = CGCalculator(atoms.calc._source, dtype="float64")
    for _ in range(5):
        other.rattle(0.3, rng=np.random.default_rng(0))
        atoms.positions = other.positions
        assert other.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
        assert other.get_forces() == pytest.approx(atoms.get_forces(), abs=1e-10)


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
def test_minimisation_ends_where_forces_vanish(atoms, optimizer):
    before = atoms.get_potential_energy()
    assert optimizer(atoms, logfile=None).run(fmax=1e-4, steps=2000)
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 1e-4
    assert atoms.get_potential_energy() < before


def test_nve_keeps_the_energy_and_its_error_falls_with_the_square_of_the_step(atoms):
    start = atoms.positions.copy()

    def fluctuation(femtoseconds: float) -> float:
        atoms.positions = start
        thermalize_momenta(atoms, 300, rng=np.random.default_rng(0))
        dynamics = VelocityVerlet(atoms, femtoseconds * ase_units.fs)
        energies = []
        dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
        dynamics.run(round(400 / femtoseconds))
        drift = np.mean(energies[-50:]) - np.mean(energies[:50])
        assert abs(drift) < 2e-3
        return float(np.std(energies))

    coarse, fine = fluctuation(2.0), fluctuation(1.0)
    assert coarse / fine == pytest.approx(4.0, rel=0.35)


def test_langevin_keeps_the_temperature(atoms):
    rng = np.random.default_rng(2)
    thermalize_momenta(atoms, 300, rng=rng)
    dynamics = LangevinBAOAB(atoms, 2 * ase_units.fs, temperature_K=300, T_tau=50 * ase_units.fs, rng=rng)
    kinetic = []
    dynamics.attach(lambda: kinetic.append(atoms.get_kinetic_energy()), interval=5)
    dynamics.run(6000)
    temperatures = 2 * np.array(kinetic) / (18 * ase_units.kB)
    blocks = [block.mean() for block in np.array_split(temperatures, 12)]
    error = np.std(blocks, ddof=1) / np.sqrt(12)
    # 2 fs with these stiff springs heats BAOAB's velocities by less than 3 %.
    assert np.mean(blocks) == pytest.approx(300, abs=4 * error + 9)


def test_traj_and_extxyz_round_trips(atoms, model, tmp_path):
    atoms.get_forces()
    write(tmp_path / "a.extxyz", atoms)
    with Trajectory(tmp_path / "a.traj", "w") as file:
        file.write(atoms)
    for name in ("a.extxyz", "a.traj"):
        back = read(tmp_path / name)
        assert back.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), rel=1e-7)
        assert back.get_forces() == pytest.approx(atoms.get_forces(), abs=1e-6)
        # .traj drops custom arrays; the numbers and the model are enough to go on.
        back.calc = CGCalculator(model, dtype="float64")
        assert back.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        assert back.get_masses() == pytest.approx(atoms.get_masses(), abs=1e-6)


def test_sum_calculator_constraints_and_neb(atoms, model):
    lj = LennardJones(epsilon=1e-3, sigma=3.0, rc=10.0)
    both = atoms.copy()
    both.calc = SumCalculator([CGCalculator(model, dtype="float64"), lj])
    alone = atoms.copy()
    alone.calc = lj
    assert both.get_forces() == pytest.approx(atoms.get_forces() + alone.get_forces(), abs=1e-10)
    atoms.set_constraint(FixAtoms([0]))
    assert (atoms.get_forces()[0] == 0).all()
    assert np.abs(atoms.get_forces(apply_constraint=False)[0]).max() > 0
    images = [atoms.copy() for _ in range(3)]
    images[2].positions[3] += 0.2
    neb = NEB(images, allow_shared_calculator=True, method="improvedtangent")
    neb.interpolate()
    for image in images:
        image.calc = atoms.calc
    assert np.isfinite(neb.get_forces()).all()


def test_ase_contract(atoms, model_file):
    assert set(CGCalculator.implemented_properties) <= set(all_properties)
    assert "implemented_properties" not in vars(atoms.calc)
    atoms.get_forces()
    assert set(atoms.calc.results) <= set(all_properties)
    atoms.calc.export_properties()
    assert not atoms.calc.calculation_required(atoms, ["energy", "forces"])
    calc = CGCalculator(model_file, dtype="float64")
    assert json.loads(json.dumps(calc.todict()))["model"] == str(model_file)
    again = CGCalculator(**calc.parameters)
    atoms2 = atoms.copy()
    atoms2.calc = again
    assert atoms2.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)


def test_set_forgets_results_and_takes_effect(atoms):
    double = atoms.get_potential_energy()
    atoms.calc.set(dtype="float32")
    assert atoms.calc.results == {}
    assert atoms.get_potential_energy() != double
    assert atoms.get_potential_energy() == pytest.approx(double, rel=1e-4)


def test_each_frame_is_evaluated_once(atoms, monkeypatch):
    calls = []
    original = CGCalculator._evaluate
    monkeypatch.setattr(CGCalculator, "_evaluate", lambda *a, **k: (calls.append(1), original(*a, **k))[1])
    for frame in range(1, 4):
        atoms.get_forces(), atoms.get_potential_energy(), atoms.get_forces(), atoms.get_potential_energies()
        assert len(calls) == frame
        atoms.positions += 0.01


def swap(atoms, *names):
    for name in names:
        values = atoms.arrays[name]
        values[[0, 1]] = values[[1, 0]]


def ask_of_others(atoms, x):
    """The calculator meets another conformation in between, as under NEB."""
    other = atoms.copy()
    other.calc = atoms.calc
    other.positions += 0.01 * x * np.arange(3 * len(other)).reshape(-1, 3)
    outcome(other)


def in_place(name, change):
    """Change the first value of an array, where it is there."""

    def mutate(atoms, x):
        if name in atoms.arrays:
            atoms.arrays[name][0] = change(atoms.arrays[name][0])

    return mutate


MUTATIONS = {
    "positions": lambda atoms, x: atoms.positions.__iadd__(0.01 * x),
    "one coordinate": lambda atoms, x: atoms.positions.__setitem__((1, 1), atoms.positions[1, 1] + 0.01 * x),
    "one atom": lambda atoms, x: setattr(atoms[1], "x", atoms[1].x + 0.01 * x),
    "rattle": lambda atoms, x: atoms.rattle(0.02 * x, rng=np.random.default_rng(0)),
    "new positions": lambda atoms, x: atoms.set_positions(
        atoms.get_positions() + np.linspace(0, 0.02 * x, 3 * len(atoms)).reshape(-1, 3)
    ),
    "another array": lambda atoms, x: atoms.arrays.__setitem__("positions", (1 + 0.01 * x) * atoms.positions),
    "scaled positions": lambda atoms, x: atoms.set_scaled_positions(atoms.get_scaled_positions() + 1e-3 * x),
    "translation": lambda atoms, x: atoms.translate([x, 0, 0]),
    "centring": lambda atoms, x: atoms.center(vacuum=4 + x),
    "rotation": lambda atoms, x: atoms.rotate(50 * x, "z"),
    "another rotation": lambda atoms, x: atoms.euler_rotate(50 * x, 10, 20),
    "distance": lambda atoms, x: atoms.set_distance(0, 1, 1.3 + 0.02 * x, fix=0),
    "angle": lambda atoms, x: len(atoms) > 2 and atoms.set_angle(0, 1, 2, 5 * x, indices=[2], add=True),
    "dihedral": lambda atoms, x: len(atoms) > 3 and atoms.set_dihedral(0, 1, 2, 3, 40 * x, indices=[3]),
    "wrapping": lambda atoms, x: atoms.wrap(),
    "cell": lambda atoms, x: atoms.set_cell([10 + x] * 3),
    "cell and atoms": lambda atoms, x: atoms.set_cell(atoms.cell * (1 + 0.01 * x), scale_atoms=True),
    "cell in place": lambda atoms, x: atoms.cell.__setitem__((0, 0), 10 + x),
    "skewed cell": lambda atoms, x: atoms.cell.__setitem__((1, 0), x),
    "displaced cell": lambda atoms, x: atoms.set_celldisp([x, 0, 0]),
    "pbc": lambda atoms, x: setattr(atoms, "pbc", not atoms.pbc.any()),
    "one direction": lambda atoms, x: atoms.pbc.__setitem__(1, not atoms.pbc[1]),
    "momenta": lambda atoms, x: atoms.set_momenta(np.full((len(atoms), 3), x)),
    "charges": lambda atoms, x: atoms.set_initial_charges(np.full(len(atoms), x)),
    "magnetic moments": lambda atoms, x: atoms.set_initial_magnetic_moments(np.full(len(atoms), x)),
    "masses": lambda atoms, x: atoms.set_masses(np.full(len(atoms), 10 * x)),
    "tags": lambda atoms, x: atoms.set_tags(3),
    "constraint": lambda atoms, x: atoms.set_constraint(FixAtoms([0])),
    "last atom deleted": lambda atoms, x: atoms.__delitem__(-1),
    "first atom deleted": lambda atoms, x: atoms.pop(0),
    "an atom more": lambda atoms, x: atoms.append(Atom("H", [x, 5, 5])),
    "a copy more": lambda atoms, x: atoms.extend(atoms[:1]),
    "repeated": lambda atoms, x: atoms.__imul__((2, 1, 1)),
    "places exchanged": lambda atoms, x: swap(atoms, "positions"),
    "beads exchanged": lambda atoms, x: swap(atoms, *atoms.arrays),
    "symbols": lambda atoms, x: atoms.symbols.__setitem__(0, "He"),
    "numbers": lambda atoms, x: atoms.set_atomic_numbers(np.roll(atoms.numbers, 1)),
    "type in place": in_place("bead_type", lambda found: (found + 1) % 5),
    "name in place": in_place("bead_name", lambda found: "ALA:N"),
    "types forgotten": lambda atoms, x: atoms.arrays.pop("bead_type", None),
    "names forgotten": lambda atoms, x: atoms.arrays.pop("bead_name", None),
    "results forgotten": lambda atoms, x: atoms.calc.results.clear(),
    "results written over": lambda atoms, x: outcome(atoms)[1].__imul__(0),
    "reset": lambda atoms, x: atoms.calc.reset(),
    "bead energies asked": lambda atoms, x: outcome(atoms, Atoms.get_potential_energies),
    "stress asked": lambda atoms, x: outcome(atoms, Atoms.get_stress),
    "another conformation asked": ask_of_others,
    "dtype": lambda atoms, x: atoms.calc.set(dtype="float32" if x > 1 else "float64"),
    "compiling": lambda atoms, x: atoms.calc.set(compile=x > 1),
}


def outcome(atoms, ask=Atoms.get_forces):
    """Energy and what was asked, or no numbers and the error in words."""
    try:
        asked = ask(atoms)
        return atoms.get_potential_energy(), asked, ""
    except (InputError, PropertyNotImplementedError) as error:
        return np.nan, np.full((len(atoms), 3), np.nan), str(error)


@pytest.mark.filterwarnings("ignore:no C")
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(sorted(MUTATIONS)), st.floats(0.1, 2.0)), min_size=1, max_size=4))
def test_no_change_of_the_atoms_leaves_old_results(model, ala2, ala2_positions, changes):
    """With the compiled form or without (its tables, but not the compiler, to be quick)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ase_cg.inference.compiled.has_compiler", lambda: False)
        _check_changes(knowing_a_part(model, ala2), beads_to_atoms(ala2, ala2_positions, model.vocabulary), changes)


@pytest.mark.filterwarnings("ignore:no C")
def test_each_change_of_the_atoms_alone(model, ala2, ala2_positions, monkeypatch):
    monkeypatch.setattr("ase_cg.inference.compiled.has_compiler", lambda: False)
    knowing = knowing_a_part(model, ala2)
    for name in MUTATIONS:
        atoms = beads_to_atoms(ala2, ala2_positions, model.vocabulary)
        _check_changes(knowing, atoms, [(name, 1.5)])


def knowing_a_part(model, ala2):
    """The model, which knows the molecule without its last bead, too."""
    part = BeadTopology(*(getattr(ala2, name)[:5] for name in PER_BEAD), ala2.bonds[:4])
    card = dataclasses.replace(model.card, topologies=(ala2, part))
    return CGModel(model.vocabulary, model.priors, card, backbone=model.backbone, backbone_name="schnet")


def _check_changes(model, atoms, changes):
    atoms.set_cell([12.0, 12.0, 12.0])
    atoms.calc = CGCalculator(model, dtype="float64", compile=len(changes) % 2 == 0)
    atoms.get_forces()
    for name, amount in changes:
        MUTATIONS[name](atoms, amount)
        fresh = atoms.copy()
        fresh.calc = CGCalculator(model, dtype=atoms.calc.parameters["dtype"])
        (energy, forces, words), (expected, right, right_words) = outcome(atoms), outcome(fresh)
        assert words == right_words
        assert energy == pytest.approx(expected, abs=1e-5, nan_ok=True)
        assert forces == pytest.approx(right, abs=2e-5 * np.abs(right).max() + 1e-5 if not words else 1, nan_ok=True)
        if not words:
            assert sum(atoms.calc.term_energies.values()) == pytest.approx(expected, abs=1e-5)


def test_a_changed_bead_type_is_noticed(atoms):
    atoms.get_potential_energy()
    types = atoms.arrays["bead_type"].copy()
    types[0], types[1] = types[1], types[0]
    atoms.arrays["bead_type"] = types
    with pytest.raises(InputError, match="is called 'ACE:C'"):
        atoms.get_potential_energy()


@pytest.mark.parametrize("name", ["bead_type", "bead_name"])
def test_an_array_of_another_length_is_refused(atoms, name):
    """ASE's dictionary of arrays takes anything."""
    atoms.get_forces()
    atoms.arrays[name] = atoms.arrays[name][:5]
    with pytest.raises(InputError, match=rf"the array {name} of the 6 atoms is of shape \(5,\)"):
        atoms.get_forces()


def test_a_model_reads_its_own_beads(model, model_file, example_data):
    atoms = read_beads(example_data / "ala2.pdb", model)
    atoms.calc = CGCalculator(model_file)
    assert np.isfinite(atoms.get_potential_energy())
    assert np.isfinite(CGModel.load(model_file).card.temperature)


def test_unknown_molecules_and_foreign_atoms_are_one_sentence(model, ala2, ala2_positions, example_data):
    water = Atoms("H2O", [[0, 0, 0], [1, 0, 0], [0, 1, 0]], calculator=CGCalculator(model))
    with pytest.raises(InputError, match="no beads of this model"):
        water.get_potential_energy()
    part = beads_to_atoms(ala2, ala2_positions, model.vocabulary)[:4]
    part.calc = CGCalculator(model)
    with pytest.raises(InputError, match=r"topology='molecule.pdb'"):
        part.get_potential_energy()
    whole = beads_to_atoms(ala2, ala2_positions, model.vocabulary)
    whole.calc = CGCalculator(model, topology=example_data / "ala2.pdb")
    assert np.isfinite(whole.get_potential_energy())
    with pytest.raises(InputError, match="dtype 'float16'"):
        CGCalculator(model, dtype="float16")
    with pytest.raises(InputError, match=r"finds 0 GPUs|unknown device"):
        CGCalculator(model, device="cuda:99")
    with pytest.raises(InputError, match="device 'tpu'"):
        CGCalculator(model, device="tpu")
    with pytest.raises(InputError, match="does not exist"):
        CGCalculator("none.safetensors")


def test_nan_and_exploding_positions_name_the_bead_and_keep_the_last_good_frame(atoms):
    atoms.get_forces()
    good = atoms.positions.copy()
    atoms.positions[4, 1] = np.nan
    with pytest.raises(SimulationError, match=r"bead 4 \(ALA:C\)") as error:
        atoms.get_forces()
    assert np.array_equal(error.value.last_good, good)
    atoms.positions = good
    atoms.positions[5] += 1e4
    with pytest.raises(SimulationError, match=r"bead [45] .* feels a force"):
        atoms.get_forces()


def test_a_failed_set_changes_nothing(atoms, model_file, tmp_path):
    calc = CGCalculator(model_file)
    for wrong, message in (
        ({"devcie": "cpu"}, "did you mean 'device'"),
        ({"dtype": "float16"}, "float16"),
        ({"priors": "none"}, "unknown priors"),
        ({"model": atoms.calc._source}, "takes the path"),
        ({"model": None}, "means nothing"),
        ({"model": str(tmp_path / "none.safetensors")}, "does not exist"),
    ):
        before = dict(calc.parameters)
        with pytest.raises(InputError, match=message):
            calc.set(**wrong)
        assert dict(calc.parameters) == before
    calc.set(dtype="float64", model=model_file)
    assert json.loads(json.dumps(calc.todict()))["model"] == str(model_file)
    atoms.calc = calc
    assert np.isfinite(atoms.get_potential_energy())


def test_periodic_beads_far_from_the_origin_keep_their_precision(model, ala2, ala2_positions):
    atoms = beads_to_atoms(ala2, ala2_positions, model.vocabulary)
    atoms.set_cell([40.0] * 3)
    atoms.pbc = True
    atoms.calc = CGCalculator(model)
    near = atoms.get_forces()
    atoms.positions += 4000.0
    assert atoms.get_forces() == pytest.approx(near, abs=2e-5)


@pytest.mark.filterwarnings("ignore:no C")
@pytest.mark.parametrize("compile_it", [False, True])
def test_an_interrupted_evaluation_leaves_no_old_results(atoms, monkeypatch, compile_it):
    """Ctrl-C in a notebook, then the same call again."""
    monkeypatch.setattr("ase_cg.inference.compiled.has_compiler", lambda: False)
    atoms.calc.set(compile=compile_it)
    atoms.get_forces()
    atoms.positions[0] += 0.2
    fresh = atoms.copy()
    fresh.calc = CGCalculator(atoms.calc.model, dtype="float64", compile=compile_it)
    with monkeypatch.context() as patch:
        patch.setattr(CGCalculator, "_evaluate", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            atoms.get_forces()
    assert atoms.calc.results == atoms.calc.term_energies == {}
    assert atoms.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-12)
    assert np.array_equal(atoms.get_forces(), fresh.get_forces())


@pytest.mark.filterwarnings("ignore:no C")
def test_a_compiled_calculator_is_copied_and_pickled(atoms, monkeypatch):
    monkeypatch.setattr("ase_cg.inference.compiled.has_compiler", lambda: False)
    atoms.calc.set(compile=True)
    forces, terms = atoms.get_forces(), atoms.calc.term_energies
    # As native code is: not to be pickled.
    atoms.calc._current.compiled._evaluate = lambda x, run=atoms.calc._current.compiled._evaluate: run(x)
    for copied in (copy.deepcopy(atoms), pickle.loads(pickle.dumps(atoms))):  # noqa: S301
        assert copied.calc is not atoms.calc
        assert copied.calc.results["energy"] == atoms.calc.results["energy"]
        assert copied.calc.term_energies == terms
        copied.positions[0] += 0.1
        assert np.abs(copied.get_forces() - forces).max() > 0.1
        copied.positions[0] -= 0.1
        assert copied.get_forces() == pytest.approx(forces, abs=1e-9)
    assert np.array_equal(atoms.get_forces(), forces)


@pytest.mark.filterwarnings("ignore:no C")
def test_energies_asked_for_once_do_not_leave_the_compiled_form(atoms, monkeypatch):
    monkeypatch.setattr("ase_cg.inference.compiled.has_compiler", lambda: False)
    atoms.calc.set(compile=True)
    atoms.get_forces()
    atoms.get_potential_energies()
    assert "energies" in atoms.calc.results
    atoms.positions[0] += 0.01
    monkeypatch.setattr("ase_cg.evaluation.EagerEvaluation.results", pytest.fail)
    assert np.isfinite(atoms.get_forces()).all()
