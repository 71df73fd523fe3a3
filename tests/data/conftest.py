"""Fixtures: the all-atom example, how it is mapped, and what comes out."""

import h5py
import mdtraj
import numpy as np
import pytest

from ase_cg import Dataset
from ase_cg.units import KCAL_PER_MOL
from tests.conftest import ALA2_ATOMS

N_FRAMES = 40


@pytest.fixture
def all_atom(example_data):
    """Positions in nm and forces in kJ/mol/nm of the example molecule."""
    with h5py.File(example_data / "ala2_all_atom.h5", "r") as file:
        return file["coordinates"][:N_FRAMES].astype(float), file["forces"][:N_FRAMES].astype(float)


@pytest.fixture
def mapping(example_data):
    return {
        "topology": example_data / "ala2.pdb",
        "resolution": ALA2_ATOMS,
        "temperature": 300.0,
        "force_map": "slice",
        "quiet": True,
    }


@pytest.fixture
def wet(all_atom, mapping, example_data, tmp_path):
    """The example molecule with five waters: its trajectory, and how it is mapped."""
    topology = mdtraj.load(str(example_data / "ala2.pdb")).topology
    chain = topology.add_chain()
    for _ in range(5):
        residue = topology.add_residue("HOH", chain)
        for name in ("O", "H1", "H2"):
            topology.add_atom(name, mdtraj.element.Element.getBySymbol(name[0]), residue)
    rng = np.random.default_rng(0)
    x = np.concatenate([all_atom[0], rng.random((N_FRAMES, 15, 3))], axis=1)
    f = np.concatenate([all_atom[1], 500 * rng.standard_normal((N_FRAMES, 15, 3))], axis=1)
    mdtraj.Trajectory(x[:1], topology).save(str(tmp_path / "wet.pdb"))
    np.savez(tmp_path / "wet.npz", positions=x, forces=f)
    units = {"length_unit": "nm", "force_unit": "kJ/mol/nm"}
    return tmp_path / "wet.npz", mapping | units | {"topology": tmp_path / "wet.pdb"}


def check_mapped(path, all_atom, *, forces=True, tolerance=2e-5):
    """Compare the mapped beads of a dataset with the atoms they are, forces to their rounding."""
    atoms = [4, 6, 8, 10, 14, 16]
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        assert molecule.coordinates() == pytest.approx(all_atom[0][:, atoms] * 10, abs=tolerance)
        assert molecule.has_forces == forces
        if forces:
            wanted = all_atom[1][:, atoms] * KCAL_PER_MOL / 41.84
            assert molecule.forces() == pytest.approx(wanted, abs=1e-5 * np.abs(wanted).max())
