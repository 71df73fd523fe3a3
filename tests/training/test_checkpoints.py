"""Checkpoints appear whole or not at all: kills, full disks and damage lose what came after the last one, no more."""

import resource
import shutil
from pathlib import Path

import pytest
import torch

from ase_cg import train
from ase_cg.errors import InputError
from ase_cg.models.model import CGModel
from ase_cg.training.callbacks import EpochProgress
from tests.dynamics.test_full_disk import limited
from tests.training.test_train import Killed, _recipe


@pytest.fixture
def recipe(dataset_file):
    return _recipe(dataset_file, training={"epochs": 3})


@pytest.fixture
def whole(recipe, tmp_path):
    return train(recipe, tmp_path / "whole", quiet=True)


def same(one, other):
    first, second = (CGModel.load(path) for path in (one, other))
    assert first.card.provenance["metrics"] == second.card.provenance["metrics"]
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def checkpoints(folder):
    """What can be read of the checkpoints of a training: all of them, or a test fails."""
    paths = [path for path in (folder / "checkpoints").iterdir() if not path.name.startswith(".")]
    return {path.name: int(torch.load(path, weights_only=True)["epoch"]) for path in paths}


@pytest.mark.parametrize("number", [1, 2, 3, 4, 6])
def test_a_kill_while_a_checkpoint_gets_its_name(number, recipe, whole, tmp_path, monkeypatch):
    """Before the first best one has its name, then before the last, and so on."""
    replaced, original = [], Path.replace

    def kill(self, target):
        if target.suffix == ".ckpt":
            replaced.append(target)
            if len(replaced) == number:
                raise Killed
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", kill)
        with pytest.raises(Killed):
            train(recipe, tmp_path / "t", quiet=True)
    there = checkpoints(tmp_path / "t")
    assert (min(there.values()) + 1 if len(there) == 2 else len(there)) >= (number - 1) // 2
    if number == 2:  # the best one is there, and the last is not yet
        with pytest.warns(UserWarning, match=r"goes on from the best one, after epoch 1"):
            assert same(train(recipe, tmp_path / "t", quiet=True), whole)
    else:
        assert same(train(recipe, tmp_path / "t", quiet=True), whole)


def test_a_disk_that_fills_between_checkpoints(recipe, whole, tmp_path, monkeypatch):
    original = EpochProgress.on_train_epoch_end

    def fill(self, trainer, module):
        original(self, trainer, module)
        if trainer.current_epoch == 1:  # checkpoints are written after this
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    with monkeypatch.context() as patch, limited(resource.RLIM_INFINITY):
        patch.setattr(EpochProgress, "on_train_epoch_end", fill)
        with pytest.raises(InputError, match=r"\.ckpt could not be written \(File too large\).* same command again"):
            train(recipe, tmp_path / "t", quiet=True)
    assert checkpoints(tmp_path / "t") == {"best.ckpt": 0, "last.ckpt": 0}
    assert same(train(recipe, tmp_path / "t", quiet=True), whole)


@pytest.mark.parametrize("damage", ["cut", "missing", "pickle"])
def test_a_damaged_last_checkpoint_is_replaced_by_the_best(damage, recipe, whole, tmp_path):
    shutil.copytree(tmp_path / "whole", tmp_path / "t")
    (tmp_path / "t" / "model.safetensors").unlink()
    last = tmp_path / "t" / "checkpoints" / "last.ckpt"
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:-200])
    elif damage == "pickle":
        torch.save(Trap(tmp_path / "code_was_run"), last)
    else:
        last.unlink()
    with pytest.warns(UserWarning, match=r"last\.ckpt is missing or damaged .* goes on from the best one"):
        assert same(train(recipe, tmp_path / "t", quiet=True), whole)
    assert not (tmp_path / "code_was_run").exists()
    assert checkpoints(tmp_path / "t")["last.ckpt"] == 2


class Trap:
    """Its unpickling makes a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        import os

        return os.mkdir, (self.marker,)


def test_a_model_that_found_no_room_is_not_there(recipe, whole, tmp_path):
    shutil.copytree(tmp_path / "whole", tmp_path / "t")
    (tmp_path / "t" / "model.safetensors").unlink()
    size = whole.stat().st_size
    with limited(size - 10), pytest.raises(OSError, match="File too large") as error:
        CGModel.load(whole).save(tmp_path / "t" / "model.safetensors")
    assert error.value.filename == str(tmp_path / "t" / "model.safetensors")
    assert {path.name for path in (tmp_path / "t").glob("*.safetensors")} == set()
    assert same(train(recipe, tmp_path / "t", quiet=True), whole)
