"""Killed, stopped, out of disk: a simulation goes on bit by bit and has lost nothing that it reported written."""

import errno
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
import warnings

import h5py
import mdtraj
import numpy as np
import pytest

from ase_cg import analyze, simulate
from ase_cg.analysis.describe import describe
from ase_cg.data.trajectory_writer import Hdf5TrajectoryWriter
from ase_cg.dynamics import finish, prepare
from ase_cg.dynamics import simulate as simulate_module
from ase_cg.dynamics.interruption import Interrupted
from ase_cg.dynamics.segments import SegmentStore
from ase_cg.dynamics.trajectory import read_simulation
from ase_cg.errors import InputError
from ase_cg.progress import Progress
from tests.dynamics.test_explosions import with_an_edge

TEMPERATURES = [290.0, 300.0, 312.0]
OPTIONS = {
    "replicas": 3,
    "temperature": TEMPERATURES,
    "exchange_interval": "0.006 ps",
    "duration": "1.2 ps",
    "report_interval": "0.02 ps",
    "checkpoint_interval": "0.06 ps",
    "seed": 4,
    "quiet": True,
}
pytestmark = pytest.mark.filterwarnings("ignore:simulating at .* K a model")


@pytest.fixture
def prior_file(model, tmp_path):
    """Priors alone: quick steps."""
    path = tmp_path / "prior.safetensors"
    model.prior_only().save(path)
    return path


def contents(folder):
    """Everything that a finished run leaves, bit by bit."""
    found = {}
    for path in sorted(folder.glob("*.h5")):
        with h5py.File(path, "r") as file:
            found |= {f"{path.name}/{name}": np.array(file[name]) for name in file if name != "topology"}
    record = json.loads((folder / "simulation.json").read_text())
    record["summary"] = {
        name: record["summary"][name] for name in ("stopped", "exchanges") if name in record["summary"]
    }
    return found, record


def same(one, other):
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    return all(np.array_equal(one[0][name], other[0][name]) for name in one[0])


def run_here(model, dataset, folder, options):
    """What another process does; it may be killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simulate(model, folder, start=dataset, resume=True, **options)


def launch(*arguments):
    """Run in a process of its own, forked from one that has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.dynamics.test_resume", "ase_cg.dynamics.simulate", "safetensors.numpy"])
    process = context.Process(target=run_here, args=arguments)
    process.start()
    return process


def kill(process):
    process.kill()
    process.join()


def test_a_run_that_is_killed_again_and_again_is_the_run_that_was_not(prior_file, dataset_file, tmp_path):
    """SIGKILL at random moments; frames are neither lost nor doubled, exchanges and their record are the same."""
    started = time.monotonic()
    whole = simulate(prior_file, tmp_path / "whole", start=dataset_file, **OPTIONS)
    lasted = time.monotonic() - started
    moments, segments = np.random.default_rng(8), []
    folder = tmp_path / "killed"
    kill(launch(prior_file, dataset_file, folder, OPTIONS))  # in the meantime all is imported
    for _ in range(6):
        process = launch(prior_file, dataset_file, folder, OPTIONS)
        time.sleep(moments.uniform(0.2, 0.6) * lasted)
        kill(process)
        segments.append(len(list((folder / "segments" / "0").glob("0*.safetensors"))))
    assert max(segments) > 0  # at least one was hit on its way
    simulate(prior_file, folder, start=dataset_file, resume=True, **OPTIONS)
    assert same(contents(whole), contents(folder))
    loaded = mdtraj.load(str(folder / "replica_001.h5"))
    assert loaded.time == pytest.approx(0.02 * np.arange(1, 61), rel=1e-6)
    left_behind = {path.name for path in folder.iterdir() if not path.name.startswith((".lock", ".partial"))}
    assert left_behind == {path.name for path in whole.iterdir()}


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT])
def number(request):
    """A signal that is not ignored: shells start what runs in the background with SIGINT ignored."""
    before = signal.signal(request.param, signal.default_int_handler)
    yield request.param
    signal.signal(request.param, before)


def test_asked_to_stop_it_writes_a_checkpoint_and_says_how_to_go_on(
    prior_file, dataset_file, tmp_path, number, monkeypatch
):
    reports = itertools.count(1)
    advance = Progress.advance

    def ask(progress, *args, **kwargs):
        advance(progress, *args, **kwargs)
        if next(reports) == 14:  # between two checkpoints
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    monkeypatch.setattr(Progress, "advance", ask)
    with pytest.raises(Interrupted, match=r"stopped after \d+ of 60 frames.* --resume \(resume=True\) goes on") as stop:
        simulate(prior_file, tmp_path / "s", start=dataset_file, **OPTIONS)
    assert stop.value.signal_number == number
    assert isinstance(stop.value, KeyboardInterrupt)
    assert signal.getsignal(number) == handler
    kept = int(str(stop.value).split()[2])
    assert sum(len(times) for times in SegmentStore(tmp_path / "s" / "segments" / "0").segments("times")) == kept
    again = simulate(prior_file, tmp_path / "s", start=dataset_file, resume=True, **OPTIONS)
    whole = simulate(prior_file, tmp_path / "whole", start=dataset_file, **OPTIONS)
    assert same(contents(whole), contents(again))


@pytest.mark.parametrize("finished", [True, False])
def test_a_longer_duration_goes_on_bit_by_bit(prior_file, dataset_file, tmp_path, monkeypatch, finished):
    """From its end or from where it was stopped, to a first and a second longer duration."""
    options = OPTIONS | {"start": dataset_file}
    simulate(prior_file, tmp_path / "whole", **options)
    folder = tmp_path / "s"
    if finished:
        simulate(prior_file, folder, **options | {"duration": "0.5 ps"})
        assert {path.name for path in (folder / "segments" / "0").iterdir()} == {
            "checkpoint.safetensors",
            "start.safetensors",
        }
    else:
        reports, advance = itertools.count(1), Progress.advance

        def ask(progress, *args, **kwargs):
            advance(progress, *args, **kwargs)
            if next(reports) == 12:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(Progress, "advance", ask)
        with pytest.raises(Interrupted):
            simulate(prior_file, folder, **options | {"duration": "0.5 ps"})
    with pytest.raises(InputError, match="go on with --resume"):
        simulate(prior_file, folder, **options | {"duration": "0.8 ps"})
    simulate(prior_file, folder, resume=True, **options | {"duration": "0.8 ps"})
    with pytest.raises(InputError, match=r"another duration \(0.8 ps\)"):
        simulate(prior_file, folder, resume=True, **options | {"duration": "0.5 ps"})
    simulate(prior_file, folder, resume=True, **options)
    arrays, record = contents(tmp_path / "whole")
    longer, found = contents(folder)
    assert found.pop("frames_before") == 40
    assert found == record
    assert longer.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(longer[name], array), name
    read_simulation(folder)


def test_a_run_made_longer_is_unfinished_until_its_end(prior_file, dataset_file, tmp_path, monkeypatch):
    """Killed while the longer trajectories are written, some of them are long already, and none twice as long."""
    options = OPTIONS | {"start": dataset_file}
    simulate(prior_file, tmp_path / "whole", **options)
    folder = simulate(prior_file, tmp_path / "s", **options | {"duration": "0.5 ps"})
    write = finish.TrajectoryWriter.close
    closed = []

    def fail(self):
        write(self)
        closed.append(self)
        if len(closed) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "disk")

    monkeypatch.setattr(finish.TrajectoryWriter, "close", fail)
    monkeypatch.setattr(finish, "FILES_AT_ONCE", 1)
    with pytest.raises(InputError, match="could not be written"):
        simulate(prior_file, folder, resume=True, **options)
    monkeypatch.undo()
    lengths = [len(mdtraj.load(path)) for path in sorted(folder.glob("replica_*.h5"))]
    assert lengths == [60, 25, 25]
    with pytest.raises(InputError, match="not finished"):
        read_simulation(folder)
    assert not describe(folder)["finished"]
    with pytest.raises(InputError, match="not finished"):
        analyze(folder, dataset_file, quiet=True)
    simulate(prior_file, folder, resume=True, **options)
    arrays, longer = contents(tmp_path / "whole")[0], contents(folder)[0]
    assert all(np.array_equal(longer[name], array) for name, array in arrays.items())


def test_a_run_that_another_process_ends_first_keeps_its_trajectories(prior_file, dataset_file, tmp_path, monkeypatch):
    options = OPTIONS | {"start": dataset_file, "duration": "0.3 ps"}
    folder = simulate(prior_file, tmp_path / "s", **options | {"duration": "0.1 ps"})
    before = simulate_module.prepare
    others = []

    def slow(*args, **kwargs):
        made = before(*args, **kwargs)
        if not others:
            others.append(True)
            simulate(prior_file, folder, resume=True, **options)
        return made

    monkeypatch.setattr(simulate_module, "prepare", slow)
    simulate(prior_file, folder, resume=True, **options)
    monkeypatch.undo()
    whole = simulate(prior_file, tmp_path / "whole", **options)
    arrays, longer = contents(whole)[0], contents(folder)[0]
    assert others
    assert all(np.array_equal(longer[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("lost", ["segments/0/checkpoint.safetensors", "replica_001.h5", "exchanges.h5"])
def test_what_a_longer_run_needs_is_looked_for_before_it_goes_on(prior_file, dataset_file, tmp_path, monkeypatch, lost):
    options = OPTIONS | {"start": dataset_file}
    folder = simulate(prior_file, tmp_path / "s", **options | {"duration": "0.1 ps"})

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "disk")

    with monkeypatch.context() as patch:
        patch.setattr("ase_cg.dynamics.run._advance", full)
        with pytest.raises(InputError, match="could not be written"):
            simulate(prior_file, folder, resume=True, **options)
    (folder / lost).unlink()
    with pytest.raises(InputError, match=rf"{lost} is missing, which a simulation of 5 frames needs .* --overwrite"):
        simulate(prior_file, folder, resume=True, **options)


def test_an_equal_duration_may_be_written_otherwise(prior_file, dataset_file, tmp_path):
    options = OPTIONS | {"start": dataset_file}
    folder = simulate(prior_file, tmp_path / "s", **options | {"duration": "0.14 ps"})
    assert simulate(prior_file, folder, resume=True, **options | {"duration": "140 fs"}) == folder


def test_without_its_last_state_a_finished_run_stays_as_long_as_it_is(prior_file, dataset_file, tmp_path):
    options = OPTIONS | {"start": dataset_file, "duration": "0.1 ps"}
    folder = simulate(prior_file, tmp_path / "s", **options)
    shutil.rmtree(folder / "segments")
    assert simulate(prior_file, folder, resume=True, **options) == folder
    with pytest.raises(InputError, match=r"finished simulation of 0\.1 ps without its last state"):
        simulate(prior_file, folder, resume=True, **options | {"duration": "0.2 ps"})


def test_a_long_report_interval_is_interrupted_too(prior_file, dataset_file, tmp_path):
    """The steps since the last frame are done again; the random numbers are those of their places."""
    options = OPTIONS | {"duration": "4000 ps", "report_interval": "2000 ps", "exchange_interval": None}
    options["checkpoint_interval"] = "2000 ps"
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    started = time.monotonic()
    with pytest.raises(Interrupted, match="stopped after 0 of 2 frames"):
        simulate(prior_file, tmp_path / "s", start=dataset_file, **options)
    assert time.monotonic() - started < 8


def test_a_full_disk_stops_the_run_with_all_that_was_reported(prior_file, dataset_file, tmp_path, monkeypatch):
    """The sixth segment does not fit, in safetensors' own words."""
    import safetensors.numpy

    whole = simulate(prior_file, tmp_path / "whole", start=dataset_file, **OPTIONS)
    original = safetensors.numpy.save_file

    def save_file(tensors, path, metadata=None):
        if path.name.endswith("000005.safetensors"):
            path.write_bytes(b"half of it")
            raise safetensors.SafetensorError("Error while serializing: I/O error: No space left (os error 28)")
        original(tensors, path, metadata=metadata)

    monkeypatch.setattr(safetensors.numpy, "save_file", save_file)
    message = r"000005.safetensors could not be written \(No space left on device\); all 15 frames .*room.*--resume"
    with pytest.raises(InputError, match=message):
        simulate(prior_file, tmp_path / "s", start=dataset_file, **OPTIONS)
    monkeypatch.undo()
    assert sum(len(times) for times in SegmentStore(tmp_path / "s" / "segments" / "0").segments("times")) == 15
    names = {path.name for path in (tmp_path / "s" / "segments" / "0").iterdir()}
    assert names == {"start.safetensors", "checkpoint.safetensors", *[f"{i:06d}.safetensors" for i in range(5)]}
    simulate(prior_file, tmp_path / "s", start=dataset_file, resume=True, **OPTIONS)
    assert same(contents(whole), contents(tmp_path / "s"))


def test_a_disk_that_fills_while_the_end_is_written_loses_nothing(prior_file, dataset_file, tmp_path, monkeypatch):
    """The errors of HDF5, in the middle of a file, at its start and when it is closed; real limits: test_full_disk."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "disk")

    for name in ("extend", "__init__", "close"):
        with monkeypatch.context() as patch:
            patch.setattr(Hdf5TrajectoryWriter, name, full)
            with pytest.raises(InputError, match=r"could not be written .* all 60 frames"):
                simulate(prior_file, tmp_path / "s", start=dataset_file, resume=True, **OPTIONS)
        assert not list((tmp_path / "s").glob("*.h5"))
    simulate(prior_file, tmp_path / "s", start=dataset_file, resume=True, **OPTIONS)
    whole = simulate(prior_file, tmp_path / "whole", start=dataset_file, **OPTIONS)
    assert same(contents(whole), contents(tmp_path / "s"))


def test_two_processes_do_not_run_in_one_folder(prior_file, dataset_file, tmp_path):
    folder = tmp_path / "s"
    options = OPTIONS | {"duration": "600 ps"}
    process = launch(prior_file, dataset_file, folder, options)
    try:
        deadline = time.monotonic() + 20
        while not (folder / ".lock-segments").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(InputError, match="is being written by another process"):
            simulate(prior_file, folder, start=dataset_file, resume=True, **options)
    finally:
        kill(process)


def test_replicas_stopped_before_a_full_disk_stay_stopped(prior_file, dataset_file, tmp_path, monkeypatch):
    """One replica explodes, then the disk is full; the run goes on and ends like the one that had room."""
    monkeypatch.setattr(prepare, "EagerForm", with_an_edge(1))
    options = OPTIONS | {"temperature": None, "exchange_interval": None}
    with pytest.warns(UserWarning, match="replica 1 stopped at step"):
        whole = simulate(prior_file, tmp_path / "whole", start=dataset_file, **options)
    original = SegmentStore.write

    def write(self, *arguments):
        original(self, *arguments)
        if self.count() == 12:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SegmentStore, "write", write)
    with pytest.warns(UserWarning, match="replica 1 stopped"), pytest.raises(InputError, match="all 33 frames"):
        simulate(prior_file, tmp_path / "s", start=dataset_file, **options)
    monkeypatch.setattr(SegmentStore, "write", original)
    simulate(prior_file, tmp_path / "s", start=dataset_file, resume=True, **options)
    one, other = contents(whole), contents(tmp_path / "s")
    assert "stopped_replica_001.h5/coordinates" in one[0]
    assert same(one, other)
