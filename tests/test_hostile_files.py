"""Files of somebody else: what they hold is data, and never code."""

import json
import os
import pickle
import shutil

import h5py
import mdtraj
import numpy as np
import pytest
import tables

from ase_cg import analyze, label_forces, map_trajectory, read_beads, simulate, train
from ase_cg.analysis.backmap import backmapping
from ase_cg.analysis.bead_frames import beads_of
from ase_cg.analysis.describe import describe
from ase_cg.analysis.sources import open_source
from ase_cg.data.dataset import Dataset
from ase_cg.data.importers import Source
from ase_cg.dynamics.trajectory import read_simulation, write_trajectory
from ase_cg.errors import InputError
from ase_cg.mdtraj_hdf5 import TrajectoryFile, load_trajectory
from ase_cg.models.priors.prior_set import PriorSet
from tests.conftest import ALA2_ATOMS
from tests.training.test_train import _recipe

SIMULATION = {"duration": "0.1 ps", "report_interval": "0.02 ps", "seed": 1, "quiet": True}


class Trap:
    """Its unpickling makes a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def plant(path, marker):
    """Put pickles wherever PyTables unpickles: attributes of the root, of arrays and of groups, and objects."""
    with tables.open_file(str(path), "a") as file:
        file.create_vlarray("/", "objects", tables.ObjectAtom()).append(Trap(marker))
    code = np.bytes_(pickle.dumps(Trap(marker), 0))
    with h5py.File(path, "r+") as file:
        for item in (file, *(file[name] for name in ("coordinates", "time", "topology") if name in file)):
            for name in ("TITLE", "CLASS", "FLAVOR", "FILTERS", "title", "custom", "units"):
                if name not in item.attrs or item is file:
                    item.attrs[name] = code
    shutil.rmtree(marker, ignore_errors=True)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "code_was_run"


@pytest.fixture
def beads_file(ala2, ala2_positions, tmp_path, marker):
    """A trajectory of beads."""
    path = tmp_path / "beads.h5"
    frames = ala2_positions + 0.05 * np.random.default_rng(1).standard_normal((20, 6, 3))
    write_trajectory(path, frames, np.arange(20.0), ala2)
    plant(path, marker)
    return path


@pytest.fixture
def atoms_file(example_data, tmp_path, marker):
    """A trajectory of atoms, with forces."""
    path = tmp_path / "atoms.h5"
    with h5py.File(example_data / "ala2_all_atom.h5", "r") as whole, h5py.File(path, "w") as file:
        for name in whole:
            file[name] = whole[name][:20] if name != "topology" else whole[name][:]
            for key, value in whole[name].attrs.items():
                file[name].attrs[key] = value
    plant(path, marker)
    return path


@pytest.fixture
def simulation(model_file, dataset_file, tmp_path, marker):
    """A finished simulation, its trajectories exchanged by hostile ones."""
    folder = simulate(model_file, tmp_path / "s", start=dataset_file, prior_only=True, replicas=2, **SIMULATION)
    for path in folder.glob("*.h5"):
        plant(path, marker)
    return folder


def test_the_trap_works(beads_file, marker):
    """What PyTables does with such a file; without it the tests below would show nothing."""
    assert not marker.exists()
    with tables.open_file(str(beads_file)) as file:
        _ = file.root._v_attrs["custom"]
    assert marker.exists()


def harmless(file, marker, command):
    """Run a command; that it ends with a clear error is fine, running what the file holds is not."""
    try:
        command()
    except InputError as error:
        assert str(file) in str(error)  # noqa: PT017 - both ends are good ones
    assert not marker.exists()


OF_ATOMS = {
    "map": lambda path, pdb, out: map_trajectory(
        path, out, topology=pdb, resolution=ALA2_ATOMS, temperature=300, quiet=True
    ),
    "map --topology": lambda path, _, out: map_trajectory(
        path, out, topology=path, resolution=ALA2_ATOMS, temperature=300, quiet=True
    ),
    "read_beads": lambda path, _, __: read_beads(path, ALA2_ATOMS),
    "read_beads, positions": lambda path, pdb, _: read_beads(pdb, ALA2_ATOMS, positions=path),
    "backmap --structure": lambda path, pdb, _: backmapping(_topology(pdb), ALA2_ATOMS, path),
    "info": lambda path, _, __: describe(path),
}
OF_BEADS = {
    "simulate --start": lambda path, model, out: simulate(model, out, start=path, prior_only=True, **SIMULATION),
    "simulate --topology": lambda path, model, out: simulate(
        model, out, start=path, topology=path, prior_only=True, **SIMULATION
    ),
    "analyze": lambda path, _, out: analyze(path, path, output=out, quiet=True),
    "train": lambda path, _, out: train(_recipe(path), out, quiet=True),
    "fit-priors": lambda path, _, __: Dataset.open(path),
    "info": lambda path, _, __: describe(path),
}
OF_SIMULATIONS = {
    "analyze": lambda folder, dataset, _, out: analyze(folder, dataset, output=out, quiet=True),
    "analyze --reference": lambda folder, dataset, _, out: analyze(dataset, folder, output=out, quiet=True),
    "analyze itself": lambda folder, _, __, out: analyze(folder, folder, output=out, quiet=True),
    "read_simulation": lambda folder, *_: read_simulation(folder),
    "backmap": lambda folder, *_: beads_of(open_source(folder, "s")),
    "info": lambda folder, *_: describe(folder),
    "simulate --resume": lambda folder, dataset, model, _: simulate(
        model,
        folder,
        start=dataset,
        prior_only=True,
        replicas=2,
        resume=True,
        **SIMULATION | {"duration": "0.2 ps"},
    ),
}


def _topology(pdb):
    from ase_cg.beads.mapping import bead_map
    from ase_cg.beads.structure import read_structure

    return bead_map(read_structure(pdb).topology, ALA2_ATOMS).topology


@pytest.mark.filterwarnings("ignore:20 frames are too few")
@pytest.mark.parametrize("command", OF_ATOMS)
def test_no_command_runs_what_a_trajectory_of_atoms_holds(command, atoms_file, example_data, tmp_path, marker):
    harmless(atoms_file, marker, lambda: OF_ATOMS[command](atoms_file, example_data / "ala2.pdb", tmp_path / "d.h5"))


@pytest.mark.parametrize("command", OF_BEADS)
def test_no_command_runs_what_a_trajectory_of_beads_holds(command, beads_file, model_file, tmp_path, marker):
    harmless(beads_file, marker, lambda: OF_BEADS[command](beads_file, model_file, tmp_path / "out"))


@pytest.mark.parametrize("command", OF_SIMULATIONS)
def test_no_command_runs_what_a_simulation_holds(command, simulation, dataset_file, model_file, tmp_path, marker):
    harmless(simulation, marker, lambda: OF_SIMULATIONS[command](simulation, dataset_file, model_file, tmp_path / "o"))


def test_forces_are_evaluated_without_running_what_files_hold(atoms_file, tmp_path, marker):
    pytest.importorskip("openmm")
    fields = ("amber14/protein.ff14SB.xml", "implicit/obc2.xml")
    label_forces(atoms_file, tmp_path / "l.h5", topology=atoms_file, force_field=fields, quiet=True)
    assert not marker.exists()


def test_datasets_are_read_without_running_what_they_hold(dataset_file, model_file, vocabulary, tmp_path, marker):
    plant(dataset_file, marker)
    describe(dataset_file)
    with Dataset.open(dataset_file) as data:
        PriorSet.fit(data, vocabulary=vocabulary)
    simulate(model_file, tmp_path / "s", start=dataset_file, prior_only=True, **SIMULATION)
    train(_recipe(dataset_file, training={"epochs": 1}), tmp_path / "t", quiet=True)
    assert not marker.exists()


def test_a_resumed_simulation_takes_over_known_arrays_only(simulation, dataset_file, model_file, marker):
    longer = SIMULATION | {"duration": "0.2 ps"}
    simulate(model_file, simulation, start=dataset_file, prior_only=True, replicas=2, resume=True, **longer)
    with h5py.File(simulation / "replica_000.h5", "r") as file:
        assert set(file) == {
            "coordinates", "time", "topology", "potentialEnergy", "kineticEnergy", "temperature",
        }  # fmt: skip
        assert "custom" not in file.attrs
    assert len(mdtraj.load(str(simulation / "replica_000.h5"))) == 10  # nothing hostile is left of it
    assert not marker.exists()


def test_msmbuilder_files_are_refused(beads_file, example_data, tmp_path, marker):
    """Their reader in MDTraj is PyTables as well."""
    path = tmp_path / "t.LH5"
    shutil.copy(beads_file, path)
    structure = mdtraj.load(str(example_data / "ala2.pdb"))
    with pytest.raises(InputError, match="runs code"):
        next(Source(path, structure.topology).chunks())
    for call in (lambda: read_beads(path, ALA2_ATOMS), lambda: read_beads(beads_file, ALA2_ATOMS, positions=path)):
        with pytest.raises(InputError, match="runs code"):
            call()
    assert not marker.exists()


# What the reader says is what MDTraj's own says.


def test_the_reader_agrees_with_mdtraj(example_data, ala2, ala2_positions, tmp_path):
    """Of a file by PyTables with cells, and of one that this library wrote; both readers, both writers."""
    atoms = mdtraj.load(str(example_data / "ala2.pdb"))
    frames = mdtraj.join([atoms] * 3)
    frames.xyz += np.random.default_rng(0).standard_normal(frames.xyz.shape).astype(np.float32) / 100
    frames.time = np.array([0.5, 1.0, 1.5])
    frames.unitcell_lengths, frames.unitcell_angles = np.full((3, 3), 2.5), np.full((3, 3), 80.0)
    frames.save_hdf5(str(tmp_path / "a.h5"))
    write_trajectory(tmp_path / "b.h5", ala2_positions[None] + np.arange(5.0)[:, None, None], np.arange(5.0), ala2)
    for path in (tmp_path / "a.h5", tmp_path / "b.h5", example_data / "ala2_all_atom.h5"):
        ours, theirs = load_trajectory(path), mdtraj.load(str(path))
        assert ours.topology == theirs.topology
        assert [b.order for b in ours.topology.bonds] == [b.order for b in theirs.topology.bonds]
        assert [r.segment_id for r in ours.topology.residues] == [r.segment_id for r in theirs.topology.residues]
        assert np.allclose(ours.xyz, theirs.xyz, rtol=0, atol=1e-6)
        assert np.array_equal(ours.time, theirs.time)
        assert (ours.unitcell_lengths is None) == (theirs.unitcell_lengths is None)
        if theirs.unitcell_lengths is not None:
            assert np.allclose(ours.unitcell_vectors, theirs.unitcell_vectors, atol=1e-6)
        with TrajectoryFile(path) as file:
            assert np.array_equal(file.positions(slice(1, 2)), theirs.xyz[1:2] * np.float32(10))


# What lies elsewhere, or claims to be larger than it is.


def external_link(file, secret):
    del file["time"]
    file["time"] = h5py.ExternalLink(str(secret), "/time")


def external_group(file, secret):
    file["more"] = h5py.ExternalLink(str(secret), "/")


def external_storage(file, secret):
    del file["time"]
    file.create_dataset("time", (20,), np.float32, external=[(str(secret), 0, 80)])


def virtual(file, secret):
    del file["time"]
    layout = h5py.VirtualLayout((20,), np.float32)
    layout[:] = h5py.VirtualSource(str(secret), "time", (20,))
    file.create_virtual_dataset("time", layout)


def objects(file, _):
    del file["coordinates"]
    file.create_dataset("coordinates", (20, 6, 3), h5py.vlen_dtype(np.float32))


def terabytes(file, _):
    del file["coordinates"]
    file.create_dataset("coordinates", (10**9, 6, 3), np.float32, chunks=(1000, 6, 3), compression="gzip")


def terabytes_at_once(file, _):
    del file["coordinates"]
    file.create_dataset("coordinates", (10**8, 6, 3), np.float64)  # contiguous, and never written


def huge_chunk(file, _):
    del file["coordinates"]
    file.create_dataset("coordinates", (1, 6, 3), np.float32, maxshape=(None, 6, 3), chunks=(10**7, 6, 3))


def flat(file, _):
    file["flat"] = file["coordinates"][:, 0]
    del file["coordinates"]
    file.move("flat", "coordinates")


def times_of_others(file, _):
    del file["time"]
    file["time"] = np.arange(7.0)


def no_topology(file, _):
    del file["topology"]


def topology(change):
    def changed(file, _):
        data = json.loads(file["topology"][0])
        text = change(data)
        del file["topology"]
        file["topology"] = np.array([(text if isinstance(text, str) else json.dumps(data)).encode()])

    return changed


TOPOLOGIES = {
    "no JSON": lambda data: "{",
    "deep": lambda data: "[" * 100_000,
    "a list": lambda data: "[]",
    "no chains": lambda data: data.pop("chains") and None,
    "a bond outside": lambda data: data["bonds"].append([0, 99]),
    "a bond from the end": lambda data: data["bonds"].append([0, -1]),
    "a bond with itself": lambda data: data["bonds"].append([1, 1]),
    "a name that is none": lambda data: data["chains"][0]["residues"][0]["atoms"][0].update(name={"a": 1}),
    "one atom less": lambda data: data["chains"][0]["residues"][-1]["atoms"].pop() and data["bonds"].clear(),
    "a number that is none": lambda data: data["chains"][0]["residues"][0].update(resSeq="x"),
}
CHANGES = {
    **{f.__name__: f for f in (external_link, external_group, external_storage, virtual, objects, terabytes)},
    **{f.__name__: f for f in (terabytes_at_once, huge_chunk, flat, times_of_others, no_topology)},
    **{f"topology: {name}": topology(change) for name, change in TOPOLOGIES.items()},
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_in_the_file_is_refused_in_one_sentence(change, ala2, ala2_positions, tmp_path):
    path, secret = tmp_path / "t.h5", tmp_path / "secret.h5"
    write_trajectory(path, np.repeat(ala2_positions[None], 20, 0), np.arange(20.0), ala2)
    write_trajectory(secret, np.repeat(ala2_positions[None], 20, 0), np.arange(20.0), ala2)
    load_trajectory(path)
    with h5py.File(path, "r+") as file:
        CHANGES[change](file, secret)
    for call in (load_trajectory, lambda found: read_beads(found, ALA2_ATOMS)):
        with pytest.raises(InputError, match=r"t\.h5"):
            call(path)


def test_filters_that_are_plug_ins_are_not_looked_for(ala2, ala2_positions, tmp_path):
    """HDF5 would load a shared library by the number of a filter."""
    path = tmp_path / "t.h5"
    write_trajectory(path, np.repeat(ala2_positions[None], 20, 0), np.arange(20.0), ala2)
    with h5py.File(path, "r+") as file:
        values = file["time"][:]
        del file["time"]
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((20,))
        settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((20,))
        made = h5py.Dataset(h5py.h5d.create(file.id, b"time", h5py.h5t.NATIVE_FLOAT, space, settings))
        made[:] = values
    with pytest.raises(InputError, match="filter 32015, which is a plug-in"):
        load_trajectory(path)


def test_datasets_whose_arrays_lie_elsewhere_are_refused(dataset_file, tmp_path):
    secret = tmp_path / "secret.h5"
    shutil.copy(dataset_file, secret)
    with h5py.File(dataset_file, "r+") as file:
        group = file["molecules/ala2"]
        del group["coordinates"]
        group["coordinates"] = h5py.ExternalLink(str(secret), "/molecules/ala2/coordinates")
    with pytest.raises(InputError, match=r"dataset\.h5 \(/molecules/ala2/coordinates\) is a link to another file"):
        Dataset.open(dataset_file)
