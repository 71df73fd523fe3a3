"""The simulate command's Python call: resumable, whole, reproducible, and clear about what is wrong."""

import json

import mdtraj
import numpy as np
import pytest

from ase_cg import SimulationError, simulate
from ase_cg.dynamics import run as module
from ase_cg.dynamics.segments import SegmentStore
from ase_cg.dynamics.trajectory import read_simulation
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
    assert names == {"simulation.json", "segments", *[f"replica_{i:03d}.h5" for i in range(replicas)]}


class Killed(Exception):  # noqa: N818 - not an error of ours
    pass


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("moment", ["before the checkpoint", "after the checkpoint", "while writing the end"])
def test_a_killed_run_continues_bit_by_bit(model_file, dataset_file, tmp_path, monkeypatch, replicas, moment):
    def go(name):
        return simulate(model_file, tmp_path / name, start=dataset_file, replicas=replicas, resume=True, **SHORT)

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

    def finish(*arguments, **options):
        raise Killed

    monkeypatch.setattr(SegmentStore, "write", write)
    if moment == "while writing the end":
        monkeypatch.setattr(module, "write_results", finish)
    with pytest.raises(Killed):
        go("parts")
    with pytest.raises(InputError, match="not finished"):
        read_simulation(tmp_path / "parts")
    monkeypatch.undo()
    assert all(np.array_equal(x, y) for x, y in zip(_bytes(whole), _bytes(go("parts")), strict=True))


def test_a_finished_run_is_not_repeated_and_another_is_not_overwritten(model_file, dataset_file, tmp_path):
    def go(**options):
        return simulate(model_file, tmp_path / "s", start=dataset_file, **(SHORT | {"replicas": 2} | options))

    folder = go()
    before = (folder / "replica_000.h5").stat().st_mtime_ns
    go(resume=True)
    assert (folder / "replica_000.h5").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"holds this simulation already, finished; go on with --resume"):
        go()
    with pytest.raises(InputError, match="another seed"):
        go(seed=5, resume=True)
    with pytest.raises(InputError, match=r"another replicas \(2\); choose"):
        go(replicas=3, resume=True)
    with pytest.raises(InputError, match="contradict"):
        go(resume=True, overwrite=True)
    go(replicas=3, overwrite=True)
    assert len(list(folder.glob("replica_*.h5"))) == 3


def test_prior_only_leaves_the_network_out(model_file, dataset_file, tmp_path):
    with_network = simulate(model_file, tmp_path / "a", start=dataset_file, replicas=2, **SHORT)
    without = simulate(model_file, tmp_path / "b", start=dataset_file, replicas=2, prior_only=True, **SHORT)
    assert not np.array_equal(_bytes(with_network)[0], _bytes(without)[0])
    assert json.loads((without / "simulation.json").read_text())["prior_only"] is True


@pytest.mark.parametrize("quiet", [True, False])
def test_a_quiet_simulation_compiles_without_a_word(model_file, dataset_file, tmp_path, monkeypatch, quiet):
    told = []

    def uncompiled(function, *arguments, quiet):
        told.append(quiet)
        return function

    monkeypatch.setattr("ase_cg.inference.compiled.compiled_function", uncompiled)
    options = SHORT | {"duration": "0.02 ps", "quiet": quiet, "compile": True}
    simulate(model_file, tmp_path / "s", start=dataset_file, **options)
    assert told == [quiet, quiet]  # the model, and a time step


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
def test_when_all_explode_it_is_an_error_that_names_the_bead(model_file, dataset_file, tmp_path, replicas):
    options = SHORT | {"time_step": "100 fs", "report_interval": "10 ps", "duration": "100 ps"}
    message = r"(\d) of \1 replicas exploded, the first at step \d+: in replica \d .*bead.* what there is of them is in"
    with (
        pytest.warns(UserWarning, match=r"the time step of 100 fs is too large .* try [\d.]+ fs"),
        pytest.warns(UserWarning, match=r"stopped at step .* try a time step of [\d.]+ fs"),
        pytest.raises(SimulationError, match=message),
    ):
        simulate(model_file, tmp_path / "s", start=dataset_file, replicas=replicas, **options)
    with pytest.raises(SimulationError, match="exploded"):
        simulate(model_file, tmp_path / "s", start=dataset_file, replicas=replicas, resume=True, **options)
    with pytest.raises(InputError, match=r"all replicas of the simulation .* exploded"):
        read_simulation(tmp_path / "s")


def test_another_temperature_is_warned_of_at_the_start(model_file, dataset_file, tmp_path):
    with pytest.warns(UserWarning, match="at 350 K a model that is a free energy at 300 K"):
        simulate(model_file, tmp_path / "s", start=dataset_file, replicas=2, temperature=350, **SHORT)


@pytest.mark.parametrize("damage", ["record", "checkpoint", "segment"])
def test_damaged_resume_files_are_one_sentence(model_file, dataset_file, tmp_path, monkeypatch, damage):
    options = {"start": dataset_file, "replicas": 2, **SHORT}
    monkeypatch.setattr(module, "write_results", lambda *_, **__: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        simulate(model_file, tmp_path / "s", **options)
    monkeypatch.undo()
    path = {
        "record": tmp_path / "s" / "simulation.json",
        "checkpoint": tmp_path / "s" / "segments" / "0" / "checkpoint.safetensors",
        "segment": tmp_path / "s" / "segments" / "0" / "000003.safetensors",
    }[damage]
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match="damaged") as error:
        simulate(model_file, tmp_path / "s", resume=True, **options)
    assert "\n" not in str(error.value)
    if damage != "record":
        simulate(model_file, tmp_path / "s", overwrite=True, **options)
