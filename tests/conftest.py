"""Fixtures: small molecules, models and data that tests share."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.models.backbones import make_backbone
from ase_cg.models.model import CGModel, ModelCard
from ase_cg.models.priors.harmonic import HarmonicAngles, HarmonicBonds
from ase_cg.models.priors.prior_set import PriorSet
from ase_cg.units import thermal_energy

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
ALA2_ATOMS = ("ACE:C", "ALA:N", "ALA:CA", "ALA:CB", "ALA:C", "NME:N")
ALA2_BONDS = ((0, 1), (1, 2), (2, 3), (2, 4), (4, 5))
SMALL_SCHNET = {"features": 16, "n_filters": 16, "n_basis": 8, "cutoff": 8.0, "head": [16]}


@pytest.fixture(autouse=True)
def do_not_wait_for_the_disk(monkeypatch):
    """Waiting for the disk guards against a loss of power, which only its own tests make; elsewhere it costs time."""
    monkeypatch.setattr("ase_cg.files.sync", lambda path: None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The published data, where they are."""
    if not SHARED.is_dir():
        pytest.skip("the published data of ../shared/data are not here")
    return SHARED


@pytest.fixture(scope="session")
def example_data() -> Path:
    return ROOT / "examples" / "data"


@pytest.fixture(scope="session")
def ala2() -> BeadTopology:
    return BeadTopology(
        names=ALA2_ATOMS,
        residue_names=("ACE", "ALA", "ALA", "ALA", "ALA", "NME"),
        residue_numbers=(1, 2, 2, 2, 2, 3),
        chains=(0,) * 6,
        masses=(12.011, 14.007, 12.011, 12.011, 12.011, 14.007),
        bonds=ALA2_BONDS,
    )


@pytest.fixture(scope="session")
def ala2_positions() -> np.ndarray:
    """A plausible conformation, (6, 3) in Å."""
    return np.array(
        [
            [-2.17, 0.18, 0.72],
            [-0.95, 0.34, 1.17],
            [0.25, 0.80, 0.41],
            [1.38, 1.14, 1.44],
            [0.84, -0.26, -0.58],
            [1.41, 0.09, -1.76],
        ]
    )


@pytest.fixture(scope="session")
def vocabulary() -> tuple[str, ...]:
    return tuple(sorted(set(ALA2_ATOMS)))


def harmonic_priors(topology: BeadTopology, vocabulary: tuple[str, ...], positions: np.ndarray) -> PriorSet:
    """Priors at rest in a conformation, with stiffness like those of proteins."""
    rng = np.random.default_rng(5)
    frames = positions + 0.05 * rng.standard_normal((200, *positions.shape))
    return PriorSet.fit_positions(
        frames, topology, ("bonds", "angles"), vocabulary=vocabulary, kT=thermal_energy(300.0)
    )


@pytest.fixture(scope="session")
def model(ala2, ala2_positions, vocabulary) -> CGModel:
    """Priors and a small random network, as saved models are: weights fixed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        backbone = make_backbone("schnet", len(vocabulary), SMALL_SCHNET)
    card = ModelCard(temperature=300.0, resolution=ALA2_ATOMS, topologies=(ala2,), labels="atomistic")
    made = CGModel(
        vocabulary,
        harmonic_priors(ala2, vocabulary, ala2_positions),
        card,
        backbone=backbone,
        backbone_name="schnet",
    )
    return made.requires_grad_(requires_grad=False)


@pytest.fixture
def model_file(model, tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    model.save(path)
    return path


@pytest.fixture
def dataset_file(ala2, ala2_positions, tmp_path) -> Path:
    """240 frames of a harmonically shaken molecule with the forces that belong to them, in two trajectories."""
    rng = np.random.default_rng(3)
    kT, std = thermal_energy(300.0), 0.06
    shifts = std * rng.standard_normal((240, 6, 3))
    path = tmp_path / "dataset.h5"
    with (
        create_dataset(path) as dataset,
        dataset.molecule("ala2", ala2, temperature=300.0, resolution=ALA2_ATOMS, force_map="slice") as molecule,
    ):
        molecule.append(ala2_positions + shifts[:120], -kT / std**2 * shifts[:120])
        molecule.next_trajectory()
        molecule.append(ala2_positions + shifts[120:], -kT / std**2 * shifts[120:])
    return path


def two_bead_topology(mass: float = 12.0) -> BeadTopology:
    return BeadTopology(("A", "A"), ("A", "A"), (1, 2), (0, 0), (mass, mass), ((0, 1),))


@pytest.fixture
def dimer_model() -> CGModel:
    """Two beads on a spring: k = 2 eV/Å², r₀ = 3 Å."""
    bonds = HarmonicBonds(torch.tensor([[0, 0]]), torch.tensor([2.0]), torch.tensor([3.0]), 1)
    card = ModelCard(temperature=300.0, resolution="calpha", topologies=(two_bead_topology(),))
    return CGModel(("A",), PriorSet([bonds]), card)


__all__ = ["HarmonicAngles", "harmonic_priors"]
