"""Imported networks against energies and forces that TorchMD 1.0 and TorchMD-Net 3.1 gave, for 12 proteins."""

import numpy as np
import pytest
import torch

from ase_cg.beads.atoms import read_topology
from ase_cg.models.base import energy_and_forces
from ase_cg.models.model import CGModel, prepared_copy
from ase_cg.models.torchmdnet import import_torchmdnet
from ase_cg.units import KCAL_PER_MOL

PROTEINS = {  # topology and starts: structure
    "a3d": "a3d_2a3d",
    "bba": "bba_1fme",
    "bbl": "bbl_2wxc",
    "cln": "chignolin_cln025",
    "homeodomain": "homeodomain_1enh",
    "lambda": "lambda_1lmb",
    "ntl9": "ntl9_2hba",
    "proteinb": "proteinb_1prb",
    "proteing": "proteing_1mi0",
    "trp": "trpcage_2jof",
    "villin": "villin_2f4k",
    "ww": "wwdomain_1pin",
}
PRIOR_TERMS = ("bonds", "repulsion", "dihedrals")  # in the order of the reference


def imported(shared, **changes) -> CGModel:
    folder = shared / "fast_folders"
    options = {"numbering": "multi-protein"} | changes
    model = import_torchmdnet(folder / "torchmdnet_multi_protein.ckpt", folder / "prior_force_field.yaml", **options)
    return prepared_copy(model, torch.device("cpu"), "float64")


@pytest.fixture(scope="module")
def model(shared):
    return imported(shared)


@pytest.fixture(scope="module")
def reference(shared):
    return np.load(shared / "fast_folders" / "torchmd_reference.npz")


def energies(model: CGModel, names, positions, term="network") -> np.ndarray:
    """Energies in kcal/mol of frames (F, N, 3) of a chain of residues."""
    from ase_cg.beads.topology import BeadTopology

    n = len(names)
    chain = BeadTopology(
        names=tuple(names),
        residue_names=tuple(names),
        residue_numbers=tuple(range(1, n + 1)),
        chains=(0,) * n,
        masses=(12.0,) * n,
        bonds=tuple((i, i + 1) for i in range(n - 1)),
    )
    graph = model.graph(chain, len(positions))._replace(positions=torch.tensor(positions).double().reshape(-1, 3))
    found = model.backbone(graph) if term == "network" else model.priors.terms[term](graph)
    return found.detach().numpy() / KCAL_PER_MOL


@pytest.mark.parametrize("protein", PROTEINS)
def test_energies_and_forces_are_those_of_torchmd_and_torchmdnet(protein, model, reference, shared):
    topology = read_topology(shared / "fast_folders" / "topology" / f"{protein}.psf", "calpha")
    positions = reference[f"{protein}_positions"]
    graph = model.graph(topology, len(positions))._replace(positions=torch.tensor(positions).reshape(-1, 3))
    prior_forces = 0.0
    for number, name in enumerate(PRIOR_TERMS):
        energy, forces = energy_and_forces(model.priors.terms[name], graph)
        wanted = reference[f"{protein}_prior_energies"][:, number]
        assert np.abs(energy.numpy() / KCAL_PER_MOL - wanted).max() < 1e-6, name
        prior_forces += forces.reshape(positions.shape).numpy() / KCAL_PER_MOL
    assert np.abs(prior_forces - reference[f"{protein}_prior_forces"]).max() < 2e-7
    energy, forces = energy_and_forces(model.backbone, graph)
    assert np.abs(energy.numpy() / KCAL_PER_MOL - reference[f"{protein}_network_energy"]).max() < 1e-6
    network_forces = forces.reshape(positions.shape).numpy() / KCAL_PER_MOL
    assert np.abs(network_forces - reference[f"{protein}_network_forces"]).max() < 2e-7
    # The reference tells them apart: each term matters by far more than the error allowed.
    assert all(np.ptp(reference[f"{protein}_prior_energies"], axis=0) > 0.1)
