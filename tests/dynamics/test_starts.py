"""Starts: structures, datasets, trajectories; several at once; conformations that make no sense; minimisation."""

import json
import shutil

import mdtraj
import numpy as np
import pytest

from ase_cg import InputError, simulate
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.dynamics.conformations import check_conformations
from ase_cg.dynamics.starts import grouped, read_start
from ase_cg.dynamics.trajectory import read_simulation, write_trajectory
from ase_cg.models.model import CGModel, ModelCard

SHORT = {"duration": "0.1 ps", "report_interval": "0.02 ps", "quiet": True, "seed": 4}


@pytest.fixture
def two_molecules(ala2, ala2_positions, tmp_path):
    """A dataset of the dipeptide, and of it without its last bead."""
    rng = np.random.default_rng(0)
    path = tmp_path / "two.h5"
    with create_dataset(path) as dataset:
        for name, n in (("whole", 6), ("cut", 5)):
            with dataset.molecule(
                name, cut(ala2, n), temperature=300.0, resolution=ala2.names, force_map="slice"
            ) as molecule:
                frames = ala2_positions[:n] + 0.01 * rng.standard_normal((20, n, 3))
                molecule.append(frames, np.zeros_like(frames))
    return path


def cut(topology, n):
    fields = {name: values[:n] for name, values in topology.to_dict().items() if name != "bonds"}
    return BeadTopology.from_dict(fields | {"bonds": [bond for bond in topology.bonds if max(bond) < n]})


@pytest.fixture
def trajectory_file(ala2, ala2_positions, tmp_path):
    """Frames of beads in MDTraj's HDF5, the first coordinate of each telling which it is."""
    frames = np.repeat(ala2_positions[None], 12, axis=0) + np.arange(12.0)[:, None, None]
    path = tmp_path / "frames.h5"
    write_trajectory(path, frames, np.arange(12.0), ala2)
    return path


def test_each_replica_draws_a_frame_of_a_trajectory(model, ala2, ala2_positions, trajectory_file, tmp_path):
    loaded = mdtraj.load(str(trajectory_file))
    loaded.save_xtc(str(tmp_path / "frames.xtc"))
    loaded[0].save_pdb(str(tmp_path / "beads.pdb"))
    for path, topology in ((trajectory_file, None), (tmp_path / "frames.xtc", tmp_path / "beads.pdb")):
        start = read_start(model, str(path), 8, seed=1, topology=topology)
        frames = (start.positions[:, 0, 0] - ala2_positions[0, 0]).round().astype(int)
        assert len(set(frames)) == 8
        assert start.labels == tuple(f"start frame {frame} of {path}" for frame in frames)
        assert start.topology.names == ala2.names
        assert start.positions == pytest.approx(ala2_positions + frames[:, None, None], abs=0.01)
    again = read_start(model, str(tmp_path / "frames.xtc"), 8, seed=1)  # of the model's only molecule
    assert np.array_equal(again.positions, start.positions)
    assert len(read_start(model, str(trajectory_file), 30, seed=1).positions) == 30


def test_frames_of_a_weighted_dataset_start_as_often_as_they_weigh(model, ala2, ala2_positions, tmp_path):
    """Frames of no weight never start, the others in proportion; a dataset without weights starts evenly."""
    weights = np.tile([0.0, 1.0, 3.0, 0.0, 4.0], 4)
    frames = np.repeat(ala2_positions[None], 20, axis=0) + np.arange(20.0)[:, None, None]
    options = {"temperature": 300.0, "resolution": ala2.names}

    def counted(weighted, replicas, seed=0):
        path = tmp_path / f"{weighted}.h5"
        if not path.exists():
            with create_dataset(path) as dataset, dataset.molecule("m", ala2, weighted=weighted, **options) as molecule:
                molecule.append(frames, weights=weights if weighted else None)
        start = read_start(model, str(path), replicas, seed=seed)
        drawn = (start.positions[:, 0, 0] - ala2_positions[0, 0]).round().astype(int)
        assert start.labels == tuple(f"start frame {frame} of {path}" for frame in drawn)
        return np.bincount(drawn, minlength=20)

    n = 8000
    share = weights / weights.sum()
    found = counted(True, n)
    assert (found[weights == 0] == 0).all()
    assert found == pytest.approx(n * share, abs=4 * np.sqrt(n * share.max()))
    # Few replicas are drawn like many: over seeds, each by its weight.
    few = sum(counted(True, 3, seed) for seed in range(400))
    assert (few[weights == 0] == 0).all()
    assert few == pytest.approx(1200 * share, abs=4.5 * np.sqrt(1200 * share.max()))
    assert (counted(False, 20) == 1).all()
    assert counted(False, n) == pytest.approx(np.full(20, n / 20), abs=4 * np.sqrt(n / 20))


def test_a_trajectory_of_atoms_becomes_beads(model, ala2, example_data, tmp_path):
    atoms = mdtraj.load(str(example_data / "ala2.pdb"))
    shifted = mdtraj.join([atoms, atoms, atoms])
    shifted.xyz[1] += 1.0
    shifted.save_dcd(str(tmp_path / "atoms.dcd"))
    start = read_start(model, str(tmp_path / "atoms.dcd"), 3, seed=0, topology=example_data / "ala2.pdb")
    one = read_start(model, str(example_data / "ala2.pdb"), 1, seed=0).positions[0]
    assert start.topology.names == ala2.names
    assert sorted(start.positions[:, 0, 0] - one[0, 0]) == pytest.approx([0, 0, 10], abs=0.01)


def test_a_molecule_of_a_dataset_is_named(model, two_molecules):
    start = read_start(model, f"{two_molecules}:cut", 3, seed=0)
    assert (start.name, start.topology.n_beads, start.positions.shape) == ("cut", 5, (3, 5, 3))
    for spec, message in (
        (f"{two_molecules}", "holds several molecules .* say which, as in .*two.h5:cut"),
        (f"{two_molecules}:hole", "holds no molecule 'hole'; did you mean 'whole'"),
        (f"{two_molecules.parent}/none.h5:whole", "start .* does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            read_start(model, spec, 3, seed=0)


def test_several_molecules_run_at_once(model, ala2, two_molecules, tmp_path):
    """Each as it would alone with the same numbers; files are told apart by the names of their starts."""
    path = tmp_path / "m.safetensors"
    model.save(path)
    starts = [f"{two_molecules}:whole", f"{two_molecules}:cut"]
    folder = simulate(path, tmp_path / "s", start=starts, replicas=2, **SHORT)
    names = sorted(p.name for p in folder.glob("*.h5"))
    assert names == [f"{n}_replica_{i:03d}.h5" for n, i in (("cut", 2), ("cut", 3), ("whole", 0), ("whole", 1))]
    assert mdtraj.load(str(folder / "cut_replica_002.h5")).n_atoms == 5
    alone = simulate(path, tmp_path / "alone", start=starts[0], replicas=2, **SHORT)
    frames, settings = read_simulation(folder, start="whole")
    assert np.array_equal(frames, read_simulation(alone)[0])
    assert len(settings["beads"]) == 6
    assert read_simulation(folder, start="cut")[0].shape == (2, 5, 5, 3)
    with pytest.raises(InputError, match=r"several molecules \(whole, cut\); say which start"):
        read_simulation(folder)
    with pytest.raises(InputError, match="no start 'cat'; did you mean 'cut'"):
        read_simulation(folder, start="cat")
    again = simulate(path, folder, start=starts, replicas=2, resume=True, **SHORT)
    assert again == folder
    with pytest.raises(InputError, match="another start"):
        simulate(path, folder, start=starts[::-1], replicas=2, resume=True, **SHORT)


def test_several_conformations_of_one_molecule_are_one_batch(model, model_file, dataset_file, tmp_path):
    (tmp_path / "other").mkdir()
    shutil.copy(dataset_file, tmp_path / "other" / "dataset.h5")
    starts = [str(dataset_file), str(tmp_path / "other" / "dataset.h5")]
    groups = grouped([read_start(model, one, 2, seed=4, number=number) for number, one in enumerate(starts)])
    assert [group.numbers.tolist() for group in groups] == [[0, 1, 2, 3]]
    folder = simulate(model_file, tmp_path / "s", start=starts, replicas=2, **SHORT)
    record = json.loads((folder / "simulation.json").read_text())
    assert [entry["file"] for entry in record["trajectories"]] == [
        "dataset_replica_000.h5",
        "dataset_replica_001.h5",
        "dataset-2_replica_002.h5",
        "dataset-2_replica_003.h5",
    ]
    assert read_simulation(folder)[0].shape == (4, 5, 6, 3)
    assert read_simulation(folder, start="dataset-2")[0].shape == (2, 5, 6, 3)


def test_temperatures_are_read_one_by_one(model_file, dataset_file, tmp_path):
    with pytest.warns(UserWarning, match=r"simulating at 320, 340 K a model"):
        folder = simulate(
            model_file,
            tmp_path / "s",
            start=dataset_file,
            temperature=[300.0, 320.0, 340.0],
            replicas=6,
            exchange_interval="0.01 ps",
            **SHORT,
        )
    record = json.loads((folder / "simulation.json").read_text())
    assert [entry["temperature"] for entry in record["trajectories"]] == [300.0, 320.0, 340.0] * 2
    (exchanges,) = record["summary"]["exchanges"].values()
    assert exchanges["attempts"] == 10
    assert {entry.name for entry in folder.glob("*.h5")} == {"exchanges.h5", *[f"replica_{i:03d}.h5" for i in range(6)]}
    at_model = read_simulation(folder)[0]
    assert at_model.shape == (2, 5, 6, 3)
    assert np.array_equal(at_model, read_simulation(folder, temperature=300)[0])
    assert not np.array_equal(at_model, read_simulation(folder, temperature=340)[0])
    with pytest.raises(InputError, match="is at 300, 320, 340 K, and not at 310 K"):
        read_simulation(folder, temperature=310)
    import h5py

    with h5py.File(folder / "exchanges.h5") as file:
        walkers = np.array(file["walker"])
    assert walkers.shape == (5, 6)
    assert (np.sort(walkers, axis=1) == np.arange(6)).all()
    energies = mdtraj.formats.HDF5TrajectoryFile(str(folder / "replica_000.h5")).read()
    assert np.isfinite(energies.potentialEnergy).all()
    assert energies.kineticEnergy == pytest.approx(1.5 * 6 * 8.31446e-3 * energies.temperature, rel=1e-3)


def test_starts_that_make_no_sense_name_the_frame_and_the_beads(model, ala2, ala2_positions):
    network_only = CGModel(
        model.vocabulary,
        type(model.priors)([]),
        ModelCard(300.0, "calpha", (ala2,)),
        backbone=model.backbone,
        backbone_name="schnet",
    )
    frames = np.repeat(ala2_positions[None], 3, axis=0)
    labels = [f"start frame {i} of x.h5" for i in range(3)]
    overlapping, broken = frames.copy(), frames.copy()
    overlapping[1, 5] = overlapping[1, 0] + [0.1, 0, 0]
    broken[2, 5] += 9.0
    for one in (model, network_only):
        check_conformations(one, ala2, frames, labels, "advice")
        with pytest.raises(
            InputError,
            match=r"start frame 1 of x.h5: beads 0 \(ACE:C\) and 5 \(NME:N\) overlap, 0.10 Å apart; advice",
        ):
            check_conformations(one, ala2, overlapping, labels, "advice")
        with pytest.raises(
            InputError,
            match=r"start frame 2 of x.h5: the chain is broken between beads 4 \(ALA:C\) and 5 \(NME:N\), 15.5 Å",
        ):
            check_conformations(one, ala2, broken, labels, "advice")


def test_a_chain_that_is_broken_in_a_structure_file_is_named(model, model_file, example_data, tmp_path):
    lines = (example_data / "ala2.pdb").read_text().splitlines()
    moved = [f"{x[:30]}{float(x[30:38]) + 30:8.3f}{x[38:]}" if x[17:20] == "NME" and len(x) > 54 else x for x in lines]
    (tmp_path / "broken.pdb").write_text("\n".join(moved) + "\n")
    broken = r"broken.pdb: the chain is broken between beads 4 .* and 5 .*--minimize"
    with pytest.warns(UserWarning, match="gap") as told, pytest.raises(InputError, match=broken):
        simulate(model_file, tmp_path / "s", start=tmp_path / "broken.pdb", **SHORT)
    assert sum("gap" in str(each.message) for each in told) == 1


def test_minimize_mends_an_overlap(model, model_file, ala2, ala2_positions, tmp_path):
    frames = ala2_positions[None].repeat(3, 0)
    frames[1, 3] = frames[1, 2]  # two beads at one place, their bond of no length
    write_trajectory(tmp_path / "bad.h5", frames, np.arange(3.0), ala2)
    options = {"start": tmp_path / "bad.h5", "replicas": 3, **SHORT}
    with pytest.raises(InputError, match=r"start frame 1 of .*bad.h5: beads 2 .* overlap, 0.00 Å apart; .* --minimize"):
        simulate(model_file, tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()
    folder = simulate(model_file, tmp_path / "s", minimize=True, **options)
    xyz = read_simulation(folder)[0]
    assert (np.linalg.norm(xyz[:, :, 3] - xyz[:, :, 2], axis=-1) > 1.0).all()


def test_minimised_starts_are_at_rest(model, ala2, ala2_positions):
    import torch

    from ase_cg.dynamics.forms import EagerForm
    from ase_cg.dynamics.minimize import TOLERANCE, minimize

    form = EagerForm(model, ala2, 5, torch.device("cpu"), "float64")
    start = torch.tensor(ala2_positions + 0.2 * np.random.default_rng(1).standard_normal((5, 6, 3)))
    before, _ = form.energy_and_forces(start)
    relaxed = minimize(form.energy_and_forces, start)
    after, forces = form.energy_and_forces(relaxed)
    assert (after < before).all()
    assert float(torch.linalg.vector_norm(forces, dim=-1).max()) < TOLERANCE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": [300.0, 310.0], "replicas": 3}, "3 replicas do not divide into 2 temperatures"),
        ({"temperature": [310.0, 300.0], "exchange_interval": "0.02 ps"}, "temperatures that rise"),
        ({"exchange_interval": "0.02 ps"}, "temperatures that rise"),
        ({"temperature": []}, "list of temperatures is empty"),
        ({"temperature": [300.0, float("nan")]}, "temperature"),
        ({"temperature": [300.0, 310.0], "exchange_interval": "0.003 ps"}, "exchange_interval .* no whole multiple"),
        ({"checkpoint_interval": "0.003 ps"}, "checkpoint_interval .* no whole multiple"),
        ({"integrator": "euler"}, "unknown integrator"),
        ({"integrator": "verlet", "temperature": [300.0, 310.0], "exchange_interval": "0.02 ps"}, "thermostat"),
        ({"integrator": "overdamped", "friction": "0 /ps"}, "positive friction"),
        ({"start": []}, "needs a start"),
        ({"topology": "none.pdb"}, "topology none.pdb does not exist"),
    ],
)
@pytest.mark.filterwarnings("ignore:simulating at")
def test_bad_input_leaves_no_folder(model_file, dataset_file, tmp_path, change, message):
    with pytest.raises(InputError, match=message) as error:
        simulate(model_file, tmp_path / "out", **({"start": dataset_file} | SHORT | change))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_compiled_form_takes_the_place_of_the_eager_one(model_file, dataset_file, tmp_path, monkeypatch):
    """What CGModel.compile must give, with a stand-in for it; the record keeps which form it was."""
    from ase_cg.dynamics.forms import EagerForm

    asked = []

    def compile_model(self, topology, *, replicas, device, dtype, frames, quiet):
        import torch

        asked.append((topology.n_beads, replicas, device, dtype, frames.shape, quiet))
        return EagerForm(self, topology, replicas, torch.device(device), dtype)

    monkeypatch.setattr(CGModel, "compile", compile_model)
    options = {"start": dataset_file, "replicas": 2, **SHORT}
    folder = simulate(model_file, tmp_path / "s", compile=True, **options)
    assert asked == [(6, 2, "cpu", "float32", (2, 6, 3), True)]
    assert json.loads((folder / "simulation.json").read_text())["form"] == "compiled"
    eager = simulate(model_file, tmp_path / "eager", **options)
    assert np.array_equal(read_simulation(folder)[0], read_simulation(eager)[0])
    with pytest.raises(InputError, match=r"another form \(compiled\)"):
        simulate(model_file, folder, resume=True, **options)
