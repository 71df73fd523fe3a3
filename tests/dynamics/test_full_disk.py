"""A disk that fills at the end of a run, tried by a limit on the size of files."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from ase_cg import map_trajectory, simulate
from ase_cg.analysis.describe import describe
from ase_cg.data.trajectory_writer import Hdf5TrajectoryWriter
from ase_cg.dynamics import output
from ase_cg.dynamics.trajectory import read_simulation
from ase_cg.errors import InputError
from tests.conftest import ALA2_ATOMS

OPTIONS = {
    "replicas": 3,
    "temperature": [290.0, 300.0, 312.0],
    "exchange_interval": "0.006 ps",
    "duration": "1.2 ps",
    "report_interval": "0.02 ps",
    "checkpoint_interval": "0.06 ps",
    "prior_only": True,
    "seed": 4,
    "quiet": True,
}
pytestmark = pytest.mark.filterwarnings("ignore:simulating at .* K a model")


def arrays(folder):
    """Every array of every trajectory."""
    found = {}
    for path in sorted(folder.glob("*.h5")):
        with h5py.File(path, "r") as file:
            found |= {f"{path.name}/{name}": np.array(file[name]) for name in file}
    return found


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


class limited:  # noqa: N801 - a context manager, used as one
    """No file may become larger than so many bytes."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        self.handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)
        signal.signal(signal.SIGXFSZ, self.handler)


def test_no_frame_is_lost_whatever_the_disk_has_room_for(model_file, dataset_file, tmp_path):
    """Limits from where nothing fits to where all but the last bytes do; the run goes on and equals the whole one."""
    options = OPTIONS | {"start": dataset_file}
    whole = arrays(simulate(model_file, tmp_path / "whole", **options))
    largest = max(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())
    refused = 0
    for number, size in enumerate([1000, 6000, *np.linspace(8000, largest + 1, 4).astype(int).tolist()]):
        folder = tmp_path / f"s{number}"
        try:
            with limited(size):
                simulate(model_file, folder, **options)
        except (InputError, OSError):
            refused += 1
            simulate(model_file, folder, resume=True, **options)
        assert same(arrays(folder), whole), f"after a limit of {size} bytes"
        assert not list(folder.rglob("0*.safetensors"))
    assert refused >= 3


def test_a_disk_that_is_full_when_the_end_begins(model_file, dataset_file, tmp_path, monkeypatch):
    """All segments are there; trajectories, closing, record and last state fail one after the other."""
    options = OPTIONS | {"start": dataset_file}
    whole = arrays(simulate(model_file, tmp_path / "whole", **options))
    import ase_cg.dynamics.run as module

    original = module.write_results
    for number, size in enumerate([900, 3000, 7000]):
        folder = tmp_path / f"s{number}"

        def in_a_full_disk(*given, size=size, **named):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            original(*given, **named)

        monkeypatch.setattr(module, "write_results", in_a_full_disk)
        with limited(resource.RLIM_INFINITY), pytest.raises(InputError, match=r"could not be written .*--resume"):
            simulate(model_file, folder, **options)
        monkeypatch.undo()
        for path in folder.glob("*.h5"):
            assert np.array_equal(arrays(folder)[f"{path.name}/time"], whole[f"{path.name}/time"])
        assert not describe(folder)["finished"]
        simulate(model_file, folder, resume=True, **options)
        assert same(arrays(folder), whole), f"after a limit of {size} bytes"


def test_segments_that_could_not_be_removed_are_removed_later(model_file, dataset_file, tmp_path, monkeypatch):
    def full(self):
        raise OSError(28, "No space left on device", "checkpoint.safetensors")

    options = OPTIONS | {"start": dataset_file}
    with monkeypatch.context() as patch:
        patch.setattr(output.SegmentStore, "forget_segments", full)
        with pytest.raises(InputError, match="could not be written"):
            simulate(model_file, tmp_path / "s", **options)
    assert list((tmp_path / "s").rglob("0*.safetensors"))
    simulate(model_file, tmp_path / "s", resume=True, **options)
    assert not list((tmp_path / "s").rglob("0*.safetensors"))
    assert read_simulation(tmp_path / "s", temperature=300.0)[0].shape == (1, 60, 6, 3)
    simulate(model_file, tmp_path / "s", resume=True, **options | {"duration": "1.4 ps"})
    assert read_simulation(tmp_path / "s", temperature=300.0)[0].shape == (1, 70, 6, 3)


def test_a_writer_says_at_whatever_byte_the_room_ends(ala2, tmp_path):
    frames = np.random.default_rng(0).standard_normal((400, 6, 3))

    def write(path):
        writer = Hdf5TrajectoryWriter(path, ala2.to_mdtraj())
        try:
            for start in range(0, 400, 100):
                writer.extend("coordinates", frames[start : start + 100], "nanometers")
            writer.extend("time", np.arange(400.0), "picoseconds")
            writer.close()
        finally:
            writer.abandon()

    write(tmp_path / "whole.h5")
    size = (tmp_path / "whole.h5").stat().st_size
    for room in (0, 700, 2000, 5000, size // 2, size - 4000, size - 1500, size - 300, size - 1):
        with limited(room), pytest.raises(OSError, match=r"File too large: .*t\.h5"):
            write(tmp_path / "t.h5")
    with limited(size):
        write(tmp_path / "t.h5")
    with h5py.File(tmp_path / "t.h5", "r") as file:
        assert np.array_equal(file["coordinates"][:], frames.astype(np.float32))


def test_a_file_that_changed_on_its_way_to_the_disk_gets_no_name(ala2, ala2_positions, tmp_path, monkeypatch):
    """What a failing disk does: the writer reads the last frame again."""
    original = os.fsync

    def damage(number):
        original(number)
        content = bytearray(path.read_bytes())
        start = content.find(ala2_positions.astype(np.float32).tobytes())
        assert start > 0
        content[start] ^= 1
        path.write_bytes(content)

    path = tmp_path / "t.h5"
    writer = Hdf5TrajectoryWriter(path, ala2.to_mdtraj())
    writer._file.create_dataset("coordinates", (0, 6, 3), np.float32, maxshape=(None, 6, 3), chunks=(1, 6, 3))
    writer.extend("coordinates", ala2_positions[None], "nanometers")
    monkeypatch.setattr(os, "fsync", damage)
    with pytest.raises(OSError, match="what was written of coordinates is not what is there"):
        writer.close()


COMMAND = (
    "simulate {model} --start {dataset} --prior-only --replicas 2 --duration 1ps --report-interval 0.02ps "
    "--seed 1 -q -o {out}"
)
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import ase_cg.cli.main, lightning, torch  # bytecode is written without a limit
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
ase_cg.cli.main.main()
"""


def test_a_command_that_found_no_room_ends_with_a_status_that_says_so(model_file, dataset_file, tmp_path):
    words = COMMAND.format(model=model_file, dataset=dataset_file, out=tmp_path / "s").split()
    root = Path(__file__).parent.parent.parent
    environment = dict(os.environ) | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "6000", *words],
        capture_output=True, text=True, env=environment, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "--resume" in done.stderr


def test_a_dataset_that_found_no_room_is_not_there(example_data, tmp_path):
    options = {"topology": example_data / "ala2.pdb", "resolution": ALA2_ATOMS, "temperature": 300, "quiet": True}
    with limited(20_000), pytest.raises(InputError, match="could not be written"):
        map_trajectory(example_data / "ala2_all_atom.h5", tmp_path / "d.h5", **options)
    assert not list(tmp_path.iterdir())


def test_an_analysis_that_found_no_room_leaves_no_half_files(dataset_file, tmp_path):
    from ase_cg import analyze

    with limited(3000), pytest.raises((InputError, OSError)):
        analyze(dataset_file, dataset_file, tmp_path / "a", bins=10, quiet=True)
    for path in (tmp_path / "a").rglob("*") if (tmp_path / "a").exists() else ():
        assert path.stat().st_size < 3000  # one that was cut would be as large as was allowed
        if path.suffix == ".json":
            json.loads(path.read_text())
    analyze(dataset_file, dataset_file, tmp_path / "a", bins=10, overwrite=True, quiet=True)
