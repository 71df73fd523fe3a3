"""The simulate command's Python call: resumable, whole, reproducible, and clear about what is wrong."""

import json

import mdtraj
import numpy as np
import pytest

from ase_cg import SimulationError, simulate
from ase_cg.dynamics import simulate as module
from ase_cg.dynamics.trajectory import SegmentStore, read_simulation
from ase_cg.errors import InputError

SHORT = {"duration": "0.4 ps", "report_interval": "0.02 ps", "quiet": True, "seed": 4}


def _bytes(folder):
    return [mdtraj.load(str(path)).xyz for path in sorted(folder.glob("replica_*.h5"))]


@pytest.mark.parametrize("replicas", [1, 3])
def test_trajectories_are_whole_and_reproducible(model_file, dataset_file, tmp_path, replicas):
    folders = [
        simulate(model_file, tmp_path / name, start=dataset_file, replicas=replicas, **SHORT) for name in ("a", "b")
    ]
    frames, settings = read_simulation(folders[0])
    assert frames.shape == (replicas, 20, 6, 3)
    assert settings["replicas"] == replicas
    assert settings["temperature"] == 300.0
    assert all(np.array_equal(x, y) for x, y in zip(*map(_bytes, folders), strict=True))
    loaded = mdtraj.load(str(folders[0] / "replica_000.h5"))
    assert loaded.time == pytest.approx(0.02 * np.arange(1, 21), rel=1e-6)
    names = {path.name for path in folders[0].iterdir()}
    assert names == {"simulation.json", *[f"replica_{i:03d}.h5" for i in range(replicas)]}


class Killed(Exception):  # noqa: N818 - not an error of ours
    pass


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("moment", ["before the checkpoint", "after the checkpoint", "while writing the end"])
def test_a_killed_run_continues_bit_by_bit(model_file, dataset_file, tmp_path, monkeypatch, replicas, moment):
    def go(name):
        return simulate(model_file, tmp_path / name, start=dataset_file, replicas=replicas, **SHORT)

    whole = go("whole")
    original, calls = SegmentStore.write, []

    def write(self, *arguments):
        calls.append(1)
        if len(calls) == 7 and moment == "before the checkpoint":
            self._segment(self.count()).write_bytes(b"half a segm")
            raise Killed
        original(self, *arguments)
        if len(calls) == 7 and moment == "after the checkpoint":
            raise Killed

    def finish(*arguments):
        if len(calls) > 0 and moment == "while writing the end":
            raise Killed
        original_finish(*arguments)

    original_finish = module.write_trajectory
    monkeypatch.setattr(SegmentStore, "write", write)
    monkeypatch.setattr(module, "write_trajectory", finish)
    with pytest.raises(Killed):
        go("parts")
    with pytest.raises(InputError, match="not finished"):
        read_simulation(tmp_path / "parts")
    monkeypatch.undo()
    assert all(np.array_equal(x, y) for x, y in zip(_bytes(whole), _bytes(go("parts")), strict=True))


def test_a_finished_run_is_not_repeated_and_another_is_not_overwritten(model_file, dataset_file, tmp_path):
    folder = simulate(model_file, tmp_path / "s", start=dataset_file, replicas=2, **SHORT)
    before = (folder / "replica_000.h5").stat().st_mtime_ns
    simulate(model_file, folder, start=dataset_file, replicas=2, **SHORT)
    assert (folder / "replica_000.h5").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="another seed"):
        simulate(model_file, folder, start=dataset_file, replicas=2, **(SHORT | {"seed": 5}))
    simulate(model_file, folder, start=dataset_file, replicas=3, overwrite=True, **SHORT)
    assert len(list(folder.glob("replica_*.h5"))) == 3


def test_prior_only_leaves_the_network_out(model_file, dataset_file, tmp_path):
    with_network = simulate(model_file, tmp_path / "a", start=dataset_file, replicas=2, **SHORT)
    without = simulate(model_file, tmp_path / "b", start=dataset_file, replicas=2, prior_only=True, **SHORT)
    assert not np.array_equal(_bytes(with_network)[0], _bytes(without)[0])
    assert json.loads((without / "simulation.json").read_text())["prior_only"] is True


def test_a_pdb_is_a_start_for_all_replicas(model_file, example_data, tmp_path):
    folder = simulate(
        model_file,
        tmp_path / "s",
        start=example_data / "ala2.pdb",
        replicas=2,
        **(SHORT | {"duration": "0.02 ps", "report_interval": "0.002 ps"}),
    )
    frames, _ = read_simulation(folder)
    assert np.abs(frames[0, 0] - frames[1, 0]).max() < 0.1
    assert not np.array_equal(frames[0], frames[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replicas": 0}, "replicas"),
        ({"duration": "0.4"}, "not a time with its unit"),
        ({"report_interval": "0.005 ps"}, r"report_interval \(0.005 ps\) is no whole multiple of time_step"),
        ({"duration": "0.01 ps"}, "duration .* is no whole multiple of report_interval"),
        ({"time_step": "0 fs"}, "time_step must be a positive time"),
        ({"duration": "-1 ps"}, "duration must be a positive time"),
        ({"duration": "1e400 ps"}, "duration must be a positive time"),
        ({"friction": "-1 /ps"}, "friction"),
        ({"seed": -1}, "seed"),
        ({"temperature": float("inf")}, "temperature"),
        ({"device": "cuda:50"}, "GPUs here"),
        ({"start": "none.pdb"}, "does not exist"),
        ({"temperature": -1.0}, "temperature"),
        ({"dtype": "float16"}, "float16"),
    ],
)
@pytest.mark.parametrize("replicas", [1, 2])
def test_bad_input_is_one_sentence_and_leaves_no_folder(model_file, dataset_file, tmp_path, change, message, replicas):
    options = {"start": dataset_file, "replicas": replicas, **SHORT} | change
    with pytest.raises(InputError, match=message) as error:
        simulate(model_file, tmp_path / "out", **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_things_is_kept(model_file, dataset_file, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not empty and holds no simulation"):
            simulate(model_file, tmp_path / "mine", start=dataset_file, overwrite=overwrite, **SHORT)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_explosion_is_an_error_that_names_the_bead(model_file, dataset_file, tmp_path, replicas):
    options = SHORT | {"time_step": "100 fs", "report_interval": "10 ps", "duration": "100 ps"}
    with pytest.raises(SimulationError, match="bead"):
        simulate(model_file, tmp_path / "s", start=dataset_file, replicas=replicas, **options)


def test_another_temperature_is_warned_of_at_the_start(model_file, dataset_file, tmp_path):
    with pytest.warns(UserWarning, match="at 350 K a model that is a free energy at 300 K"):
        simulate(model_file, tmp_path / "s", start=dataset_file, replicas=2, temperature=350, **SHORT)


@pytest.mark.parametrize("damage", ["record", "checkpoint", "segment"])
def test_damaged_resume_files_are_one_sentence(model_file, dataset_file, tmp_path, monkeypatch, damage):
    options = {"start": dataset_file, "replicas": 2, **SHORT}
    monkeypatch.setattr(module, "write_trajectory", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        simulate(model_file, tmp_path / "s", **options)
    monkeypatch.undo()
    path = {
        "record": tmp_path / "s" / "simulation.json",
        "checkpoint": tmp_path / "s" / "segments" / "checkpoint.safetensors",
        "segment": tmp_path / "s" / "segments" / "000003.safetensors",
    }[damage]
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match="damaged") as error:
        simulate(model_file, tmp_path / "s", **options)
    assert "\n" not in str(error.value)
    simulate(model_file, tmp_path / "s", overwrite=True, **options)
