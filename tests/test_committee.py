"""A committee: the mean of its models, and their disagreement."""

import numpy as np
import pytest
import torch
from ase.md.langevinbaoab import LangevinBAOAB

from ase_cg import CGCalculator, CGModel, CommitteeCalculator, InputError, PriorSet, read_beads
from ase_cg.models.backbones import make_backbone
from ase_cg.models.model import ModelCard
from ase_cg.units import FEMTOSECOND
from tests.conftest import ALA2_ATOMS, SMALL_SCHNET, harmonic_priors


@pytest.fixture(scope="module")
def seeds(ala2, ala2_positions, vocabulary):
    models = []
    for seed in range(3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            backbone = make_backbone("schnet", len(vocabulary), SMALL_SCHNET)
        card = ModelCard(temperature=300.0, resolution=ALA2_ATOMS, topologies=(ala2,))
        priors = harmonic_priors(ala2, vocabulary, ala2_positions)
        models.append(CGModel(vocabulary, priors, card, backbone=backbone, backbone_name="schnet"))
    return models


def test_mean_and_deviation_of_energies_and_forces(seeds, example_data):
    atoms = read_beads(example_data / "ala2.pdb", seeds[0])
    single = []
    for model in seeds:
        atoms.calc = CGCalculator(model)
        single.append((atoms.get_potential_energy(), atoms.get_forces()))
    energies, forces = (np.array(values) for values in zip(*single, strict=True))
    atoms.calc = CommitteeCalculator(seeds)
    assert atoms.get_potential_energy() == pytest.approx(energies.mean())
    assert atoms.get_forces() == pytest.approx(forces.mean(0))
    assert atoms.calc.deviations["energy"] == pytest.approx(energies.std(ddof=1))
    assert atoms.calc.deviations["forces"] == pytest.approx(forces.std(0, ddof=1))
    before = atoms.calc.deviations["forces"].copy()
    atoms.positions[0] += 0.1
    atoms.get_forces()
    assert not np.array_equal(before, atoms.calc.deviations["forces"])
    assert set(atoms.calc.results) <= {"energy", "free_energy", "energies", "forces", "stress"}


def test_a_committee_of_one_model_twice_agrees_with_itself_under_dynamics(model, model_file, example_data):
    atoms = read_beads(example_data / "ala2.pdb", model)
    atoms.calc = CommitteeCalculator([model_file, model])
    rng = np.random.default_rng(0)
    LangevinBAOAB(atoms, 2 * FEMTOSECOND, temperature_K=300, T_tau=100 * FEMTOSECOND, rng=rng).run(5)
    assert atoms.calc.deviations["energy"] == 0.0
    assert not atoms.calc.deviations["forces"].any()


def test_models_that_do_not_belong_together_are_refused(seeds, model):
    with pytest.raises(InputError, match="at least two"):
        CommitteeCalculator([model])
    other = CGModel(model.vocabulary, model.priors, ModelCard(310.0, ALA2_ATOMS, model.card.topologies))
    with pytest.raises(InputError, match="model 1 of the committee is a free energy at 310 K, model 0 at 300 K"):
        CommitteeCalculator([model, other])
    renamed = CGModel(tuple(reversed(model.vocabulary)), PriorSet(list(model.priors.terms.values())), model.card)
    with pytest.raises(InputError, match="a committee needs one vocabulary"):
        CommitteeCalculator([model, renamed])


def test_parameters_reach_all_members(seeds, example_data):
    atoms = read_beads(example_data / "ala2.pdb", seeds[0])
    atoms.calc = CommitteeCalculator(seeds)
    before = atoms.get_potential_energy()
    assert set(atoms.calc.set(dtype="float64")) == {"dtype"}
    single = []
    for model in seeds:
        other = atoms.copy()
        other.calc = CGCalculator(model, dtype="float64")
        single.append(other.get_potential_energy())
    assert atoms.get_potential_energy() == pytest.approx(np.mean(single), abs=1e-13)
    assert atoms.get_potential_energy() != before
    assert atoms.calc.set(dtype="float64") == {}
    with pytest.raises(InputError, match="no parameter 'dtyp'; did you mean 'dtype'"):
        atoms.calc.set(dtyp="float64")
    with pytest.raises(InputError, match="make another one for other models"):
        atoms.calc.set(models=["a.safetensors"])
    with pytest.raises(InputError, match="unknown priors"):
        atoms.calc.set(dtype="float32", priors="both")
    assert {member.parameters["dtype"] for member in atoms.calc.members} == {"float64"}


def test_terms_are_summed_by_name(model, ala2_positions, ala2):
    graph = model.graph(ala2)._replace(positions=torch.tensor(ala2_positions, dtype=torch.float32))
    parts = {name: model.with_terms([name])(graph) for name in ("bonds", "angles", "network")}
    assert float(sum(parts.values())) == pytest.approx(float(model(graph)), rel=1e-6)
    assert float(model.with_terms(["bonds", "network"])(graph)) == pytest.approx(
        float(parts["bonds"] + parts["network"]), rel=1e-6
    )
    with pytest.raises(InputError, match="no term 'bond'; did you mean 'bonds'"):
        model.with_terms(["bond"])
