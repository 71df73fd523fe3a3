"""Trainings of several processes, killed trainings, and the settings that people leave alone."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ase_cg import CGModel, InputError, Recipe, train
from ase_cg.training.distributed import find_launch
from tests.conftest import ROOT, SMALL_SCHNET

SCRIPT = """
import sys
from ase_cg import Recipe, train
train(Recipe.model_validate_json(sys.argv[1]), sys.argv[2], quiet=True)
"""


def _recipe(dataset, **changes) -> Recipe:
    training = {"epochs": 4, "batch_size": 25, "learning_rate": 3e-3, **changes.pop("training", {})}
    data = {"name": "test", "data": {"dataset": str(dataset)}, "training": training}
    noise = {"labels": "forces_and_noise", "noise_std": 0.05}
    return Recipe.model_validate(data | noise | {"backbone": {"name": "schnet", **SMALL_SCHNET}} | changes)


def _weights(path: Path) -> list[torch.Tensor]:
    return [tensor for name, tensor in CGModel.load(path).state_dict().items() if name.startswith("backbone")]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_two_processes_train_what_one_does(dataset_file, tmp_path):
    # 192 training frames in batches of 25: the last one has 17, and processes have unequal shares of it.
    recipe = _recipe(dataset_file, training={"ema_decay": 0.9, "patience": 3})
    alone = train(recipe, tmp_path / "alone", quiet=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [*launcher, str(tmp_path / "script.py"), recipe.model_dump_json(), str(tmp_path / "together")]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    together = tmp_path / "together" / "model.safetensors"
    first = _weights(alone)
    moved = max(float((a - b).abs().max()) for a, b in zip(first, _first_weights(recipe), strict=True))
    assert moved > 1e-2
    for one, two in zip(first, _weights(together), strict=True):
        assert two.numpy() == pytest.approx(one.numpy(), abs=2e-5)
    metrics = [CGModel.load(path).card.provenance["metrics"] for path in (alone, together)]
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-4)


def _first_weights(recipe: Recipe) -> list[torch.Tensor]:
    from ase_cg.models.backbones import make_backbone

    torch.manual_seed(recipe.training.seed)
    backbone = make_backbone("schnet", 6, recipe.backbone.hyper_parameters)
    return list(backbone.state_dict().values())


def test_processes_are_found_as_torchrun_and_slurm_announce_them(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    assert find_launch() is None
    slurm = {"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert find_launch() is None  # the script of the job, not a task that srun started
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    with pytest.raises(InputError, match="--ntasks-per-node"):
        find_launch()
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    launch = find_launch()
    assert launch is not None
    assert (launch.processes_a_node, launch.nodes, launch.environment.global_rank()) == (4, 2, 5)
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2", "RANK": "3", "LOCAL_RANK": "1"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    launch = find_launch()
    assert launch is not None
    assert (launch.processes_a_node, launch.nodes, launch.environment.global_rank()) == (2, 3, 3)


def test_a_training_ended_by_sigkill_resumes_to_bit_equal_weights(dataset_file, tmp_path):
    """With averaged weights, a plateau, warm-up, patience, and validation simulations: all of them have state."""
    settings = {
        "epochs": 14,
        "ema_decay": 0.95,
        "schedule": "plateau",
        "plateau_patience": 0,
        "warmup_steps": 10,
        "patience": 8,
        "validation_simulation": {"every": 2, "replicas": 3, "duration": "0.02 ps", "report_interval": "0.01 ps"},
    }
    recipe = _recipe(dataset_file, training=settings)
    whole = train(recipe, tmp_path / "whole", quiet=True)
    parts = tmp_path / "parts"
    command = [sys.executable, "-c", SCRIPT, recipe.model_dump_json(), str(parts)]
    process = subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = parts / "checkpoints" / "last.ckpt"
    versions, deadline = set(), time.monotonic() + 120
    while len(versions) < 4 and process.poll() is None and time.monotonic() < deadline:
        if last.is_file():
            versions.add(last.stat().st_mtime_ns)
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (parts / "model.safetensors").exists()
    assert 2 <= torch.load(last, weights_only=True)["epoch"] < 13
    resumed = train(recipe, parts, quiet=True)
    for one, two in zip(_weights(whole), _weights(resumed), strict=True):
        assert torch.equal(one, two)
    one, two = (CGModel.load(path).card.provenance["metrics"] for path in (whole, resumed))
    assert one == two
    assert np.isfinite(one["simulation_js"])
    # A training that ended but had not written its model does not go on.
    resumed.unlink()
    again = train(recipe, parts, quiet=True)
    assert CGModel.load(again).card.provenance["metrics"] == one
    assert all(torch.equal(a, b) for a, b in zip(_weights(whole), _weights(again), strict=True))


def _logged(folder: Path, name: str) -> list[float]:
    rows: dict[int, float] = {}
    for log in sorted(folder.glob("csv/version_*/metrics.csv")):
        with log.open() as file:
            rows |= {int(row["epoch"]): float(row[name]) for row in csv.DictReader(file) if row.get(name)}
    return [rows[epoch] for epoch in sorted(rows)]
