"""Priors recover what made the data."""

import numpy as np
import pytest
import torch

from ase_cg import Dataset, PriorSet
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError
from ase_cg.models.priors.harmonic import HarmonicBonds
from ase_cg.units import thermal_energy
from tests.conftest import two_bead_topology


def test_a_spring_is_recovered_from_its_boltzmann_distribution():
    kT, k, r0 = thermal_energy(300.0), 5.0, 3.8
    rng = np.random.default_rng(0)
    r = r0 + np.sqrt(kT / (2 * k)) * rng.standard_normal(200_000)
    positions = np.zeros((len(r), 2, 3))
    positions[:, 1, 0] = r
    priors = PriorSet.fit_positions(positions, two_bead_topology(), ["bonds"], vocabulary=("A",), kT=kT)
    bonds = priors.terms["bonds"]
    # The variance of 200 000 samples is known to 0.3 %.
    assert bonds.types.tolist() == [[0, 0], [-1, -1]]
    assert bonds.stiffness.tolist() == pytest.approx([k, k], rel=0.015)
    assert bonds.equilibrium.tolist() == pytest.approx([r0, r0], abs=1e-3)


def test_types_that_are_alike_share_their_parameters():
    topology = BeadTopology(("A", "B", "A"), ("A", "B", "A"), (1, 2, 3), (0,) * 3, (1.0,) * 3, ((0, 1), (1, 2)))
    rng = np.random.default_rng(0)
    positions = np.zeros((100, 3, 3))
    positions[:, 0, 0] = -3 - 0.1 * rng.standard_normal(100)
    positions[:, 2, 0] = 5 + 0.1 * rng.standard_normal(100)
    priors = PriorSet.fit_positions(positions, topology, ["bonds"], vocabulary=("A", "B"), kT=0.025)
    assert priors.terms["bonds"].types.tolist() == [[0, 1], [-1, -1]]
    assert priors.terms["bonds"].equilibrium.tolist() == pytest.approx([4.0, 4.0], abs=0.05)


def test_noise_widens_bonds_by_twice_its_variance(dataset_file, vocabulary):
    sigma = 0.05
    with Dataset.open(dataset_file) as dataset:
        clean = PriorSet.fit(dataset, ["bonds"], vocabulary=vocabulary).terms["bonds"]
        noised = PriorSet.fit(dataset, ["bonds"], vocabulary=vocabulary, noise_std=sigma, seed=1).terms["bonds"]
    kT = thermal_energy(300.0)
    added = kT / (2 * noised.stiffness) - kT / (2 * clean.stiffness)
    assert added.mean().item() == pytest.approx(2 * sigma**2, rel=0.2)


def test_noised_priors_are_reproducible(dataset_file, vocabulary):
    with Dataset.open(dataset_file) as dataset:
        fits = [PriorSet.fit(dataset, ["angles"], vocabulary=vocabulary, noise_std=0.05, seed=3) for _ in range(2)]
    assert torch.equal(fits[0].terms["angles"].stiffness, fits[1].terms["angles"].stiffness)


def test_too_few_or_rigid_samples_and_unknown_names_are_refused(ala2, ala2_positions, vocabulary):
    options = {"vocabulary": vocabulary, "kT": 0.025}
    with pytest.raises(InputError, match="15 samples are too few"):
        PriorSet.fit_positions(np.repeat(ala2_positions[None], 3, 0), ala2, ["bonds"], **options)
    with pytest.raises(InputError, match="do not fluctuate"):
        PriorSet.fit_positions(np.repeat(ala2_positions[None], 60, 0) * 0, ala2, ["bonds"], **options)
    moved = 100 * np.random.default_rng(0).random((60, 1, 3))  # rigid, where positions are rounded to some 1e-5 Å
    with pytest.raises(InputError, match="do not fluctuate"):
        PriorSet.fit_positions((ala2_positions + moved).astype(np.float32).astype(float), ala2, ["bonds"], **options)
    with pytest.raises(InputError, match="unknown prior 'bond'"):
        PriorSet.fit_positions(np.repeat(ala2_positions[None], 30, 0), ala2, ["bond"], **options)


def test_a_molecule_with_types_that_were_not_fitted_is_refused(vocabulary, ala2, ala2_positions):
    from ase_cg.data.graph import topology_graph

    bonds = HarmonicBonds(torch.tensor([[0, 1]]), torch.ones(1), torch.ones(1), len(vocabulary))
    with pytest.raises(InputError, match="no parameters for bead types"):
        bonds(topology_graph(ala2, vocabulary))


def test_every_bond_and_angle_gets_its_own_mean_and_variance(ala2, ala2_positions, vocabulary, monkeypatch):
    monkeypatch.setattr("ase_cg.models.priors.base.FRAMES_AT_ONCE", 70)
    rng = np.random.default_rng(2)
    x = ala2_positions + np.linspace(0.01, 0.06, 6)[:, None] * rng.standard_normal((300, 6, 3))
    kT = thermal_energy(300.0)
    priors = PriorSet.fit_positions(x, ala2, ["bonds", "angles"], vocabulary=vocabulary, kT=kT)
    found = {tuple(row["types"]): row for row in priors.terms["bonds"].parameters_by_type()}
    for i, j in ala2.bonds:
        lengths = np.linalg.norm(x[:, i] - x[:, j], axis=1)
        row = found[tuple(sorted((vocabulary.index(ala2.names[i]), vocabulary.index(ala2.names[j]))))]
        assert row["equilibrium"] == pytest.approx(lengths.mean(), rel=1e-6)
        assert row["stiffness"] == pytest.approx(kT / (2 * lengths.var()), rel=1e-5)
    found = {tuple(row["types"]): row for row in priors.terms["angles"].parameters_by_type()}
    for i, j, k in ala2.angles:
        u, v = x[:, i] - x[:, j], x[:, k] - x[:, j]
        cosine = (u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
        types = tuple(vocabulary.index(ala2.names[b]) for b in (i, j, k))
        row = found[min(types, types[::-1])]
        assert row["equilibrium"] == pytest.approx(np.arccos(cosine).mean(), rel=1e-6)
        assert row["stiffness"] == pytest.approx(kT / (2 * np.arccos(cosine).var()), rel=1e-5)
