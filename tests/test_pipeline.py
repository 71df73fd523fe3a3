"""The whole line of a recipe on small data, resumed at every step."""

import json

import numpy as np
import pytest
import yaml

from ase_cg import InputError, Recipe, run
from ase_cg import pipeline as module
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset_writer import create_dataset

from .conftest import ALA2_ATOMS, SMALL_SCHNET


@pytest.fixture
def recipe(example_data, tmp_path):
    """A recipe for 300 made all-atom frames."""
    import mdtraj

    rng = np.random.default_rng(0)
    shifts = 0.006 * rng.standard_normal((300, 22, 3))
    x = mdtraj.load(str(example_data / "ala2.pdb")).xyz[0] + shifts
    np.savez(tmp_path / "all.npz", positions=x, forces=-2.494 / 0.006**2 * shifts)  # kT in kJ/mol
    data = {
        "name": "small",
        "data": {
            "trajectories": ["all.npz"],
            "topology": str(example_data / "ala2.pdb"),
            "resolution": list(ALA2_ATOMS),
            "temperature": 300,
            "force_map": "slice",
            "length_unit": "nm",
            "force_unit": "kJ/mol/nm",
            "trajectory_length": 30,
        },
        "labels": "forces_and_noise",
        "noise_std": 0.05,
        "backbone": {"name": "schnet", **SMALL_SCHNET},
        "training": {"epochs": 2},
        "simulation": {"replicas": 3, "duration": "0.2 ps", "report_interval": "0.02 ps"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_all_four_steps_and_resume_after_each(recipe, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    calls = []
    for name in ("map_molecules", "train", "simulate", "analyze"):
        original = getattr(module, name)

        def counted(*arguments, _name=name, _original=original, **options):
            calls.append(_name)
            if calls.count("stop"):
                raise KeyboardInterrupt
            return _original(*arguments, **options)

        monkeypatch.setattr(module, name, counted)
    comparison = run(recipe, folder, quiet=True)
    assert calls == ["map_molecules", "train", "simulate", "simulate", "analyze"]
    assert set(comparison.rows) == {"model", "prior", "floor"}
    for path in (
        "dataset.h5",
        "training/model.safetensors",
        "simulation/replica_002.h5",
        "prior_simulation/replica_002.h5",
        "analysis/metrics.json",
        "analysis/ramachandran.png",
    ):
        assert (folder / path).is_file()
    model = folder / "training" / "model.safetensors"
    before = (model.stat().st_mtime_ns, json.loads((folder / "analysis" / "metrics.json").read_text())["rows"])
    calls.clear()
    run(recipe, folder, quiet=True)
    assert calls == ["train", "simulate", "simulate", "analyze"]
    after = (model.stat().st_mtime_ns, json.loads((folder / "analysis" / "metrics.json").read_text())["rows"])
    assert before == after
    (folder / "simulation" / "replica_001.h5").unlink()
    run(recipe, folder, quiet=True)
    assert json.loads((folder / "analysis" / "metrics.json").read_text())["rows"] == before[1]


def test_another_recipe_does_not_overwrite_a_run(recipe, tmp_path):
    folder = tmp_path / "run"
    run(recipe, folder, quiet=True)
    read = Recipe.read(recipe)
    hotter = read.model_copy(update={"data": read.data.model_copy(update={"temperature": 310.0})})
    with pytest.raises(InputError, match="mapped from other data or in another way"):
        run(hotter, folder, quiet=True)
    longer = read.model_copy(update={"training": read.training.model_copy(update={"epochs": 3})})
    with pytest.raises(InputError, match="another recipe"):
        run(longer, folder, quiet=True)
    run(longer, folder, overwrite=True, quiet=True)


def test_a_missing_reference_is_said_before_the_work_begins(recipe, tmp_path):
    read = Recipe.read(recipe)
    broken = read.model_copy(update={"analysis": read.analysis.model_copy(update={"reference": tmp_path / "none.h5"})})
    with pytest.raises(InputError, match=r"reference .* does not exist"):
        run(broken, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_weights_of_the_data_count_in_the_comparison(recipe, tmp_path):
    weights = np.random.default_rng(1).random(300)
    np.savetxt(tmp_path / "weights.txt", weights)
    read = Recipe.read(recipe)
    data = read.data.model_copy(update={"weights": [tmp_path / "weights.txt"]})
    found = run(read.model_copy(update={"data": data}), tmp_path / "run", quiet=True)
    assert np.concatenate(found.reference.weights) == pytest.approx(weights, rel=1e-6)


def test_a_failed_overwrite_does_not_pass_old_data_off_as_new(recipe, tmp_path):
    folder = tmp_path / "run"
    run(recipe, folder, quiet=True)
    arrays = dict(np.load(tmp_path / "all.npz"))
    good = arrays["positions"].copy()
    arrays["positions"][3] = np.nan
    np.savez(tmp_path / "all.npz", **arrays)
    read = Recipe.read(recipe)
    hotter = read.model_copy(update={"data": read.data.model_copy(update={"temperature": 310.0})})
    with pytest.raises(InputError, match="no numbers"):
        run(hotter, folder, overwrite=True, quiet=True)
    arrays["positions"] = good
    np.savez(tmp_path / "all.npz", **arrays)
    with pytest.raises(InputError, match="mapped from other data or in another way"):
        run(hotter, folder, quiet=True)


def test_what_would_stop_the_run_later_is_said_before_the_work_begins(recipe, tmp_path, dataset_file, ala2_positions):
    read = Recipe.read(recipe)
    for section, change, message in (
        ("simulation", {"device": "cuda:30"}, "GPUs here"),
        ("backbone", {"name": "schnett"}, "did you mean 'schnet'"),
        ("simulation", {"start": tmp_path / "none.pdb"}, "start .* does not exist"),
    ):
        part = getattr(read, section).model_copy(update=change)
        with pytest.raises(InputError, match=message):
            run(read.model_copy(update={section: part}), tmp_path / "run", quiet=True)
        assert not (tmp_path / "run").exists()
    other = tmp_path / "other.h5"
    single = BeadTopology(("ALA",), ("ALA",), (1,), (0,), (12.0,), ())
    with (
        create_dataset(other) as dataset,
        dataset.molecule("m", single, temperature=300.0, resolution="calpha") as molecule,
    ):
        molecule.append(np.zeros((20, 1, 3)))
    changed = read.model_copy(update={"analysis": read.analysis.model_copy(update={"reference": other})})
    with pytest.raises(InputError, match=r"reference .* has the beads ALA1:CA"):
        run(changed, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "training").exists()


def test_the_simulation_of_a_recipe_is_checked_before_the_training(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("ase_cg.inference.compiled.MAX_BEADS", 5)
    read = Recipe.read(recipe)
    for change, message in (
        ({"temperature": [290.0, 310.0]}, "3 replicas do not divide into 2 temperatures"),
        ({"temperature": [290.0, 310.0, 330.0]}, r"lists 290, 310, 330 K, but .* the data, 300 K; add it to the list"),
        ({"temperature": [310.0, 300.0, 330.0], "exchange_interval": "0.02 ps"}, "exchanges need temperatures that"),
        ({"exchange_interval": "0.02 ps"}, "exchanges need temperatures that"),
        ({"compile": True}, "6 beads is too large to be compiled"),
    ):
        part = read.simulation.model_copy(update=change)
        with pytest.raises(InputError, match=message):
            run(read.model_copy(update={"simulation": part}), tmp_path / "run", quiet=True)
        assert not (tmp_path / "run" / "training").exists()


@pytest.mark.filterwarnings("ignore:simulating at")
def test_all_settings_of_the_simulation_reach_it(recipe, tmp_path, monkeypatch):
    intervals = []

    def watched(*arguments, checkpoint_interval, **options):
        intervals.append(checkpoint_interval)
        return simulate(*arguments, checkpoint_interval=checkpoint_interval, **options)

    simulate = module.simulate
    monkeypatch.setattr(module, "simulate", watched)
    settings = {
        "temperature": [300, 320],
        "integrator": "overdamped",
        "friction": "1000 /ps",
        "replicas": 4,
        "duration": "0.04 ps",
        "exchange_interval": "0.02 ps",
        "checkpoint_interval": "0.02 ps",
        "minimize": True,
    }
    data = yaml.safe_load(recipe.read_text())
    data["simulation"] |= settings
    data["training"] = {"epochs": 1}
    recipe.write_text(yaml.safe_dump(data))
    comparison = run(recipe, tmp_path / "run", quiet=True)
    record = json.loads((tmp_path / "run" / "simulation" / "simulation.json").read_text())
    assert {key: record[key] for key in settings if key in record} == {
        key: value for key, value in settings.items() if key != "checkpoint_interval"
    }
    assert intervals == ["0.02 ps"] * 2  # of the model and of the prior
    assert record["summary"]["exchanges"]
    assert comparison.model.frames == 2 * 2  # of the replicas at 300 K, of two frames each


def test_the_comparison_of_a_recipe_is_that_of_analyze(recipe, example_data, tmp_path):
    data = yaml.safe_load(recipe.read_text())
    settings = {"bins": 8, "discard": 0.0, "lag": 2, "model_lag": 1, "clusters": 6, "macrostates": 2}
    settings |= {"reweight": "all", "backmap": 2, "native": "native.pdb", "structure": str(example_data / "ala2.pdb")}
    (tmp_path / "native.pdb").write_bytes((example_data / "ala2.pdb").read_bytes())
    data["training"] = {"epochs": 1}
    recipe.write_text(yaml.safe_dump(data))
    folder = tmp_path / "run"
    run(recipe, folder, quiet=True)
    weights = (folder / "training" / "model.safetensors").stat().st_mtime_ns
    recipe.write_text(yaml.safe_dump(data | {"analysis": settings}))
    found = run(recipe, folder, quiet=True)
    assert (folder / "training" / "model.safetensors").stat().st_mtime_ns == weights
    again = module.analyze(
        folder / "simulation",
        folder / "dataset.h5",
        prior_simulation=folder / "prior_simulation",
        quiet=True,
        **settings | {"native": tmp_path / "native.pdb"},
    )
    assert found.to_dict() == again.to_dict()
    assert set(found.backmapping.energies) == {"reference", "model", "prior"}
    assert "rmsd" in found.reference.series
    assert found.planes["ramachandran"].shape == (8, 8)


def test_what_the_comparison_lacks_is_said_before_the_training(recipe, tmp_path, shared):
    read = Recipe.read(recipe)
    villin = shared / "fast_folders" / "experimental_structures" / "villin_2f4k.pdb"
    for change, message in (
        ({"native": tmp_path / "none.pdb"}, r"native .*none\.pdb does not exist"),
        ({"backmap": 5, "structure": tmp_path / "none.pdb"}, r"structure .*none\.pdb does not exist"),
        ({"native": villin}, "villin_2f4k.pdb"),
        ({"backmap": 5}, "give an all-atom structure of the molecule"),
    ):
        section = read.analysis.model_copy(update=change)
        with pytest.raises(InputError, match=message):
            run(read.model_copy(update={"analysis": section}), tmp_path / "run", quiet=True)
        assert not (tmp_path / "run" / "training").exists()
