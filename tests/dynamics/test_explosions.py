"""A replica that explodes in a simulation: stopped, recorded, left out, and told; the others are whole."""

import json

import mdtraj
import numpy as np
import pytest

from ase_cg import simulate
from ase_cg.cli.options import ExplainedExit
from ase_cg.cli.simulate import simulate as simulate_command
from ase_cg.dynamics import prepare
from ase_cg.dynamics.forms import EagerForm
from ase_cg.dynamics.trajectory import read_simulation

SHORT = {"duration": "0.4 ps", "report_interval": "0.02 ps", "quiet": True, "seed": 4, "replicas": 3}


def with_an_edge(row, distance=0.35):
    """Return the eager form of a model that knows nothing of places where a bead of one replica may drift to."""

    class Edge(EagerForm):
        start = None

        def energy_and_forces(self, positions):
            energies, forces = super().energy_and_forces(positions)
            if self.start is None:
                self.start = positions.clone()
            over = (positions - self.start)[row, 0].norm() > distance
            energies[row] = energies[row].masked_fill(over, float("nan"))
            forces[row] = forces[row].masked_fill(over, float("nan"))
            return energies, forces

    return Edge


def test_the_others_go_on_and_the_record_says_what_happened(model_file, dataset_file, tmp_path, monkeypatch):
    plain = simulate(model_file, tmp_path / "plain", start=dataset_file, **SHORT)
    monkeypatch.setattr(prepare, "EagerForm", with_an_edge(1))
    with pytest.warns(UserWarning, match="replica 1 stopped at step"):
        folder = simulate(model_file, tmp_path / "s", start=dataset_file, **SHORT)
    for number in (0, 2):
        name = f"replica_{number:03d}.h5"
        assert np.array_equal(mdtraj.load(str(plain / name)).xyz, mdtraj.load(str(folder / name)).xyz)
    (stop,) = json.loads((folder / "simulation.json").read_text())["summary"]["stopped"]
    assert stop["file"] == "replica_001.h5"
    assert stop["last_good_step"] < stop["step"] <= stop["last_good_step"] + 10
    assert stop["reason"] == "bead 0 (ACE:C) has no finite force"
    short, full = (mdtraj.load(str(path / "replica_001.h5")) for path in (folder, plain))
    assert short.n_frames == stop["last_good_step"] // 10
    assert 0 < short.n_frames < 20
    assert np.array_equal(short.xyz, full.xyz[: short.n_frames])
    end = mdtraj.load(str(folder / "stopped_replica_001.h5"))
    assert end.time == pytest.approx(0.002 * np.array(stop["last_steps"]), rel=1e-5)
    assert stop["last_steps"][-1] == stop["step"] - 1
    with pytest.warns(UserWarning, match="1 of 3 replicas in .* exploded and are left out"):
        frames, _ = read_simulation(folder)
    assert frames.shape == (2, 20, 6, 3)


def test_the_command_has_status_1_and_names_the_replicas(model_file, dataset_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "EagerForm", with_an_edge(1))
    options = {"model": model_file, "output": tmp_path / "s", "start": [str(dataset_file)], **SHORT}
    with pytest.warns(UserWarning, match="replica 1 stopped"), pytest.raises(ExplainedExit) as ended:
        simulate_command(**options)
    assert ended.value.code == 1
    assert capsys.readouterr().err.endswith("ase-cg: 1 replicas exploded and were stopped: 1\n")
    with pytest.warns(UserWarning, match="1 of 3 replicas in .* exploded"), pytest.raises(ExplainedExit):
        simulate_command(**options, resume=True)


def test_exchanges_leave_out_a_stopped_replica(model_file, dataset_file, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "EagerForm", with_an_edge(1, 0.2))
    options = SHORT | {"temperature": [300.0, 300.5, 301.0], "exchange_interval": "0.01 ps"}
    with pytest.warns(UserWarning, match=r"replica 1 stopped|K a model"):
        folder = simulate(model_file, tmp_path / "s", start=dataset_file, **options)
    summary = json.loads((folder / "simulation.json").read_text())["summary"]
    (stop,) = summary["stopped"]
    (exchanges,) = summary["exchanges"].values()
    assert exchanges["attempts"] == 40
    tried = stop["last_good_step"] // 5 + 1
    assert sum(pair["tried"] for pair in exchanges["pairs"]) <= tried < 30
