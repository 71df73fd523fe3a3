"""Folders of somebody else: names in their records lead to no file outside of them."""

import json
import shutil

import h5py
import pytest
import torch

from ase_cg import analyze, simulate, train
from ase_cg.analysis.describe import describe
from ase_cg.data.dataset import Dataset
from ase_cg.dynamics.trajectory import read_simulation
from ase_cg.errors import InputError
from ase_cg.files import plain_name, written_whole
from tests.training.test_train import _recipe

OPTIONS = {"replicas": 2, "duration": "0.1 ps", "report_interval": "0.02 ps", "prior_only": True, "quiet": True}


def test_plain_names_only(tmp_path):
    for good in ("replica_000.h5", "a b.h5", "ünicode.h5", "..h5", "a..b.h5", "-x.h5"):
        assert plain_name(good, tmp_path) == good
    bad = ["", ".", "..", "/etc/x.h5", "../x.h5", "a/../x.h5", "a/x.h5", "a\\x.h5", "..\\x.h5", "C:x.h5", "x\0.h5"]
    for name in [*bad, "x.h5\n", "x\x1b[2J.h5", "x.h5/", None, 3, ["x.h5"]]:
        with pytest.raises(InputError, match="only plain names"):
            plain_name(name, tmp_path / "simulation.json")


@pytest.fixture
def simulation(model_file, dataset_file, tmp_path):
    return simulate(model_file, tmp_path / "s" / "simulation", start=dataset_file, **OPTIONS)


def edit(folder, change):
    record = json.loads((folder / "simulation.json").read_text())
    change(record)
    (folder / "simulation.json").write_text(json.dumps(record))


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


CHANGES = {
    "a trajectory above": lambda record, out: record["trajectories"][0].update(file="../precious.h5"),
    "an absolute trajectory": lambda record, out: record["trajectories"][0].update(file=str(out)),
    "by a backslash": lambda record, out: record["trajectories"][1].update(file="..\\precious.h5"),
    "with a line end": lambda record, out: record["trajectories"][1].update(file="precious.h5\n"),
    "no trajectory": lambda record, out: record["trajectories"][1].update(file="simulation.json"),
    "a start above": lambda record, out: record["trajectories"][1].update(start="../precious"),
    "a stopped one above": lambda record, out: record["summary"].update(
        stopped=[{"replica": 0, "step": 1, "file": "../precious.h5"}]
    ),
    "no list": lambda record, out: record.update(trajectories={"file": "../precious.h5"}),
    "very many replicas": lambda record, out: (record.pop("trajectories"), record.update(replicas=10**12)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_record_of_a_simulation_reaches_no_other_files(change, simulation, model_file, dataset_file, tmp_path):
    precious = [simulation.parent / "precious.h5", simulation.parent / "precious_exchanges.h5"]
    for path in (*precious, simulation.parent / "stopped_precious.h5"):
        shutil.copy(simulation / "replica_000.h5", path)
    edit(simulation, lambda record: CHANGES[change](record, precious[0]))
    before = files_of(tmp_path)
    longer = OPTIONS | {"duration": "0.2 ps"}
    for command in (
        lambda: simulate(model_file, simulation, start=dataset_file, overwrite=True, **OPTIONS),
        lambda: simulate(model_file, simulation, start=dataset_file, resume=True, **OPTIONS),
        lambda: simulate(model_file, simulation, start=dataset_file, resume=True, **longer),
        lambda: read_simulation(simulation),
        lambda: describe(simulation),
        lambda: analyze(simulation, dataset_file, tmp_path / "a", quiet=True),
    ):
        with pytest.raises(InputError, match=r"simulation\.json"):
            command()
    after = files_of(tmp_path)
    assert {path: data for path, data in after.items() if ".lock" not in path.name} == before


@pytest.mark.parametrize("place", ["segments/0", "segments", "replica_000.h5", "stopped_replica_000.h5"])
def test_links_that_lead_out_of_a_simulation_are_refused(place, simulation, model_file, dataset_file, tmp_path):
    outside, link = tmp_path / "outside", simulation / place
    outside.mkdir()
    (outside / "000000.safetensors").write_text("precious")
    (outside / "0").mkdir()
    (outside / "0" / "checkpoint.safetensors").write_text("precious")
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    before = files_of(outside)
    for how in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(InputError, match="link to outside"):
            simulate(model_file, simulation, start=dataset_file, **how, **OPTIONS)
    assert files_of(outside) == before


def test_planted_links_in_the_place_of_files_being_written_are_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".partial-new").symlink_to(tmp_path / "precious")
    with written_whole(tmp_path / "new") as partial:
        partial.write_text("new")
    assert (tmp_path / "new").read_text() == "new"
    (tmp_path / ".lock-other").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match="is a link"), written_whole(tmp_path / "other"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.fixture
def training(tmp_path):
    """A folder as of two networks, made by somebody else, with files beside it."""
    for path in ("t/training", "t/precious", "t/seed_precious"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "training.json").write_text("{}")
    return tmp_path / "t" / "training"


@pytest.mark.parametrize("seed", ["/../../precious", "../precious", "0/../../precious", None, 1.5, True, ["/.."]])
def test_seeds_of_a_training_reach_no_other_folders(seed, training, dataset_file, tmp_path):
    (training / "seed_").mkdir()
    record = {"dataset": "", "recipe": {"noise_std": [None], "training": {"seeds": [seed], "seed": 0}}}
    (training / "training.json").write_text(json.dumps(record))
    before = files_of(training.parent)
    with pytest.raises(InputError, match="are no numbers"):
        describe(training)
    with pytest.raises(InputError, match="another recipe"):
        train(_recipe(dataset_file), training, quiet=True)
    assert files_of(training.parent) == before
    train(_recipe(dataset_file, training={"epochs": 1}), training, overwrite=True, quiet=True)
    for name in ("precious", "seed_precious"):
        assert (training.parent / name / "training.json").is_file()


@pytest.mark.parametrize("place", ["csv", "checkpoints", "tensorboard", "flow"])
def test_links_that_lead_out_of_a_training_are_refused(place, training, dataset_file, tmp_path):
    outside = tmp_path / "outside"
    (outside / "version_0").mkdir(parents=True)
    for name in ("last.ckpt", "version_0/x", "training.json"):
        (outside / name).write_text("precious")
    (training / place).symlink_to(outside)
    before = files_of(outside)
    with pytest.raises(InputError, match="link to outside"):
        train(_recipe(dataset_file), training, overwrite=True, quiet=True)
    assert files_of(outside) == before


def test_a_checkpoint_reaches_no_other_files(dataset_file, tmp_path):
    """Lightning removes the best checkpoint before by the name that the last one gives."""
    recipe = _recipe(dataset_file, training={"epochs": 1})
    train(recipe, tmp_path / "t", quiet=True).unlink()
    path = tmp_path / "t" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for state in checkpoint["callbacks"].values():
        if "best_model_path" in state:
            state["best_model_path"] = "/x/.."
            state["last_model_path"] = ".."
    torch.save(checkpoint, path)
    before = files_of(tmp_path)
    with pytest.raises(InputError, match=r"plain names|no checkpoint"):
        train(recipe, tmp_path / "t", quiet=True)
    assert before.keys() <= files_of(tmp_path).keys()


def test_molecules_of_a_dataset_have_plain_names(dataset_file):
    with h5py.File(dataset_file, "r+") as file:
        file.move("molecules/ala2", "molecules/ala2\n")
    with pytest.raises(InputError, match="cannot be the name"):
        Dataset.open(dataset_file)
