"""Forces evaluated again by OpenMM are those that were saved."""

import h5py
import mdtraj
import numpy as np
import pytest

from ase_cg import Dataset, InputError, label_forces, map_trajectory
from tests.conftest import ALA2_ATOMS

openmm = pytest.importorskip("openmm")
FORCE_FIELD = ("amber14/protein.ff14SB.xml", "implicit/obc2.xml")


@pytest.fixture
def trajectory(example_data, tmp_path):
    """Ten frames of the example without their forces, and those forces in kJ/mol/nm."""
    with h5py.File(example_data / "ala2_all_atom.h5", "r") as file:
        positions, forces = file["coordinates"][:10], file["forces"][:10]
    topology = mdtraj.load(str(example_data / "ala2.pdb")).topology
    mdtraj.Trajectory(positions, topology).save_dcd(str(tmp_path / "t.dcd"))
    return tmp_path / "t.dcd", forces


def test_forces_of_a_force_field_are_those_of_the_simulation(trajectory, example_data, tmp_path):
    path, saved = trajectory
    options = {"topology": example_data / "ala2.pdb", "force_field": FORCE_FIELD, "platform": "Reference"}
    out = label_forces(path, tmp_path / "l.h5", quiet=True, **options)
    with h5py.File(out, "r") as file:
        forces = file["forces"][:]
        assert file["forces"].attrs["units"] == b"kJ/mol/nm"
    # The example's positions were rounded to 0.002 Å after its forces were evaluated: stiff bonds feel it.
    assert np.sqrt(((forces - saved) ** 2).mean()) < 0.06 * np.sqrt((saved**2).mean())
    assert mdtraj.load(str(out)).n_frames == 10
    mapped = map_trajectory(
        out, tmp_path / "d.h5", topology=out, resolution=ALA2_ATOMS, temperature=300, force_map="slice", quiet=True
    )
    with Dataset.open(mapped) as dataset:
        assert dataset.only_molecule().has_forces


def test_forces_of_a_serialized_system_with_a_cell_and_a_selection(tmp_path):
    """Two charged particles and a third in a periodic box: the reaction is checked against the analytic spring."""
    from openmm import unit

    topology = mdtraj.Topology()
    chain = topology.add_chain()
    residue = topology.add_residue("ALA", chain)
    atoms = [topology.add_atom(name, mdtraj.element.carbon, residue) for name in ("CA", "CB")]
    topology.add_bond(*atoms)
    water = topology.add_residue("HOH", chain)
    topology.add_atom("O", mdtraj.element.oxygen, water)
    rng = np.random.default_rng(0)
    positions = np.array([[0.1, 0, 0], [0.3, 0, 0], [0.5, 0.5, 0.5]]) + 0.01 * rng.standard_normal((6, 3, 3))
    frames = mdtraj.Trajectory(positions, topology)
    frames.unitcell_vectors = np.repeat(2 * np.eye(3)[None], 6, 0)
    frames.save_dcd(str(tmp_path / "t.dcd"))
    frames[0].save(str(tmp_path / "t.pdb"))
    system = openmm.System()
    for _ in range(3):
        system.addParticle(12 * unit.amu)
    spring = openmm.HarmonicBondForce()
    spring.addBond(0, 1, 0.15, 1000.0)
    spring.setUsesPeriodicBoundaryConditions(True)
    system.addForce(spring)
    system.setDefaultPeriodicBoxVectors(*(3 * np.eye(3)))
    (tmp_path / "s.xml").write_text(openmm.XmlSerializer.serialize(system))
    out = label_forces(
        tmp_path / "t.dcd",
        tmp_path / "l.h5",
        topology=tmp_path / "t.pdb",
        system=tmp_path / "s.xml",
        selection="not water",
        platform="Reference",
        quiet=True,
    )
    written = mdtraj.load(str(out))
    assert written.n_atoms == 2
    assert written.unitcell_lengths == pytest.approx(2.0)
    vectors = written.xyz[:, 1] - written.xyz[:, 0]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    with h5py.File(out, "r") as file:
        assert file["forces"][:, 0] == pytest.approx(1000 * (lengths - 0.15) * vectors / lengths, abs=0.01)


def test_wrong_requests_are_one_sentence(trajectory, example_data, tmp_path):
    path, _ = trajectory
    options = {"topology": example_data / "ala2.pdb", "quiet": True}
    small = openmm.System()
    small.addParticle(1.0)
    (tmp_path / "small.xml").write_text(openmm.XmlSerializer.serialize(small))
    (tmp_path / "state.xml").write_text(openmm.XmlSerializer.serialize(openmm.VerletIntegrator(0.001)))
    (tmp_path / "bad.xml").write_text("<hello")
    for change, message in (
        ({}, "give either an OpenMM system"),
        ({"force_field": ["nothing.xml"]}, "no system can be made with nothing.xml"),
        ({"system": tmp_path / "none.xml"}, "does not exist"),
        ({"system": tmp_path / "bad.xml"}, "no serialized OpenMM system"),
        ({"system": tmp_path / "state.xml"}, "not a System"),
        ({"system": tmp_path / "small.xml"}, "1 particles, but the topology 22 atoms"),
        ({"force_field": FORCE_FIELD, "platform": "Quantum"}, "OpenMM cannot use this system here .* it has Reference"),
        ({"force_field": FORCE_FIELD, "selection": "name QQ"}, "matches no atom"),
        ({"force_field": FORCE_FIELD, "topology": example_data / "ala2_start.pdb"}, "atoms"),
    ):
        with pytest.raises(InputError, match=message) as error:
            label_forces(path, tmp_path / "l.h5", **(options | change))
        assert "\n" not in str(error.value)
        assert not (tmp_path / "l.h5").exists()


def test_rounded_positions_are_warned_of(trajectory, example_data, tmp_path):
    path, _ = trajectory
    mdtraj.load(str(path), top=str(example_data / "ala2.pdb")).save_xtc(str(tmp_path / "t.xtc"))
    with pytest.warns(UserWarning, match="keeps positions to about 0.01 Å"):
        label_forces(
            tmp_path / "t.xtc",
            tmp_path / "l.h5",
            topology=example_data / "ala2.pdb",
            force_field=FORCE_FIELD,
            platform="Reference",
            quiet=True,
        )


def test_molecules_cut_by_the_box_are_whole_when_forces_are_evaluated(example_data, tmp_path):
    """Bonded forces know no images: wrapped frames must give the forces of whole ones."""
    from openmm import app

    structure = mdtraj.load(str(example_data / "ala2.pdb"))
    with h5py.File(example_data / "ala2_all_atom.h5", "r") as file:
        x = file["coordinates"][:5].astype(float)
    cell = np.array([[3.0, 0, 0], [0.5, 3.0, 0], [0.4, -0.6, 3.0]])
    x = x - x.mean(1, keepdims=True) + np.array([0.0, 2.98, 0.0])
    wrapped = x - np.floor(x @ np.linalg.inv(cell)) @ cell
    forces = {}
    for name, positions in (("whole", x), ("wrapped", wrapped)):
        frames = mdtraj.Trajectory(positions, structure.topology)
        frames.unitcell_vectors = np.repeat(cell[None], 5, 0)
        frames.save_dcd(str(tmp_path / f"{name}.dcd"))
        out = label_forces(
            tmp_path / f"{name}.dcd",
            tmp_path / f"{name}.h5",
            topology=example_data / "ala2.pdb",
            force_field=["amber14/protein.ff14SB.xml"],
            platform="Reference",
            quiet=True,
        )
        with h5py.File(out, "r") as file:
            forces[name] = file["forces"][:].astype(float)
    size = np.sqrt((forces["whole"] ** 2).mean())
    assert size < 2000
    assert forces["wrapped"] == pytest.approx(forces["whole"], abs=0.01 * size)
    system = app.ForceField("amber14/protein.ff14SB.xml").createSystem(
        mdtraj.load(str(example_data / "ala2.pdb")).topology.to_openmm(), nonbondedMethod=app.NoCutoff
    )
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    (tmp_path / "s.xml").write_text(openmm.XmlSerializer.serialize(system))
    mdtraj.Trajectory(x, structure.topology).save_dcd(str(tmp_path / "n.dcd"))
    with pytest.raises(InputError, match="the system is periodic, but the trajectory has no cell"):
        label_forces(
            tmp_path / "n.dcd",
            tmp_path / "n.h5",
            topology=example_data / "ala2.pdb",
            system=tmp_path / "s.xml",
            quiet=True,
        )
