"""Trainings of several processes, killed trainings, and the settings that people leave alone."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ase_cg import CGModel, InputError, Recipe, train
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.training import distributed
from ase_cg.training.distributed import find_launch
from ase_cg.training.frames import MoleculeFrames, frame_loader
from ase_cg.training.streaming import FrameStream
from tests.conftest import ROOT, SMALL_SCHNET, two_bead_topology

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


def _by_torchrun(command: list[str]) -> list[subprocess.Popen[str]]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [_start([*launcher, *command], {})]


def _by_srun(command: list[str]) -> list[subprocess.Popen[str]]:
    """Start two tasks with the environment that srun gives them on one node."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "localhost", "MASTER_PORT": str(port)}
    sizes = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
    ranks = [{"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in ("0", "1")]
    return [_start([sys.executable, *command], job | sizes | step | rank) for rank in ranks]


def _start(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=_environment() | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("launcher", [_by_torchrun, _by_srun])
def test_two_processes_train_what_one_does(launcher, dataset_file, tmp_path):
    # 192 training frames in batches of 25: the last one has 17, and processes have unequal shares of it.
    recipe = _recipe(dataset_file, training={"ema_decay": 0.9, "patience": 3})
    alone = train(recipe, tmp_path / "alone", quiet=True)
    (tmp_path / "script.py").write_text(SCRIPT)
    processes = launcher([str(tmp_path / "script.py"), recipe.model_dump_json(), str(tmp_path / "together")])
    try:
        said = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), said
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


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_shares_of_a_batch_add_up_to_the_batch(processes, streamed, tmp_path, monkeypatch):
    """Also the last batch of one frame, of which some processes have nothing that counts."""
    frames, path = np.arange(9), tmp_path / "d.h5"
    x = np.broadcast_to(np.arange(9.0)[:, None, None], (9, 2, 3)).astype(np.float32)
    weights = np.arange(1.0, 10.0)
    if streamed:
        options = {"temperature": 300.0, "resolution": "calpha", "weighted": True}
        with create_dataset(path) as dataset, dataset.molecule("m", two_bead_topology(), **options) as molecule:
            molecule.append(x, weights=weights)
        loader = FrameStream(path, "m", frames, with_forces=False, batch_size=4, shuffle=False, seed=0, weights=weights)
    else:
        loader = frame_loader([MoleculeFrames(x, None, frames, weights)], batch_size=4, shuffle=False, seed=0)
    monkeypatch.setattr(distributed, "process_count", lambda: processes)
    found: list[dict[int, float]] = [{}, {}, {}]
    totals = [0.0, 0.0, 0.0]
    for rank in range(processes):
        monkeypatch.setattr(distributed, "process_rank", lambda rank=rank: rank)
        for number, batch in enumerate(loader):
            (part,) = batch.parts
            assert len(part.draws) > 0
            counted = {int(d): float(w) for d, w in zip(part.draws, part.weights, strict=True) if w > 0}
            assert not set(counted) & set(found[number])
            found[number] |= counted
            totals[number] = batch.components
    assert [sorted(batch) for batch in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    for batch, total in zip(found, totals, strict=True):
        assert 6 * sum(batch.values()) == pytest.approx(total, rel=1e-6)
        for frame, weight in batch.items():
            assert weight == pytest.approx(weights[frame] / weights.mean(), rel=1e-6)
