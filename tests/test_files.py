"""Files appear whole or not at all, whoever else writes and however little room there is."""

import json
import os
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from ase_cg.errors import InputError
from ase_cg.files import write_record, written_whole

HOLD = """
import sys, time
from ase_cg.files import written_whole
with written_whole(sys.argv[1]) as partial:
    partial.write_text("theirs")
    print("held", flush=True)
    time.sleep(60)
"""
MAP = """
import resource, signal, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = ["ase-cg", *sys.argv[2:]]
from ase_cg.cli.main import main
main()
"""


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    with written_whole(path) as partial:
        partial.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(InputError, match="exists already"), written_whole(path):
        pass
    with pytest.raises(ZeroDivisionError), written_whole(path, overwrite=True) as partial:
        partial.write_text(str(1 / 0))
    assert path.read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_files_are_as_readable_as_the_user_wants(tmp_path):
    """safetensors makes files that only their owner may read; a model is there to be shared."""
    for umask, expected in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(umask)
        try:
            with written_whole(tmp_path / f"{umask}.safetensors") as partial:
                save_file({"x": np.zeros(2)}, partial)
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / f"{umask}.safetensors").stat().st_mode) == expected


def test_two_processes_do_not_write_the_same_file(tmp_path):
    path = tmp_path / "a.txt"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="is being written by another process"), written_whole(path):
        pass
    assert (tmp_path / ".partial-a.txt").read_text() == "theirs"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    # A killed process holds nothing any more, and what it left is not taken for the file.
    assert not path.exists()
    with written_whole(path) as partial:
        partial.write_text("ours")
    assert path.read_text() == "ours"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of file sizes are those of POSIX")
def test_a_full_disk_leaves_nothing_and_is_one_sentence(tmp_path, example_data):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "all.npz", positions=rng.standard_normal((20_000, 22, 3)).astype(np.float32))
    command = [
        *(sys.executable, "-c", MAP, "100000", "map", "all.npz", "-o", "d.h5", "-t", example_data / "ala2.pdb"),
        *("-r", "heavy", "--temperature", "300", "--length-unit", "nm", "--quiet"),
    ]
    done = subprocess.run([str(part) for part in command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "d.h5 could not be written (File too large); nothing of it was kept" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["all.npz"]


def test_a_mapping_killed_in_the_middle_leaves_no_dataset(tmp_path, example_data):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "all.npz", positions=rng.standard_normal((400_000, 22, 3)).astype(np.float32))
    command = [
        *(sys.executable, "-c", "from ase_cg.cli.main import main; main()", "map", "all.npz", "-o", "d.h5"),
        *("-t", example_data / "ala2.pdb", "-r", "heavy", "--temperature", "300", "--length-unit", "nm", "--quiet"),
    ]
    mapping = subprocess.Popen([str(part) for part in command], cwd=tmp_path)
    partial = tmp_path / ".partial-d.h5"
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size > 1e6) and time.monotonic() < deadline:
        time.sleep(0.005)
    mapping.kill()
    mapping.wait()
    assert partial.exists()
    assert not (tmp_path / "d.h5").exists()
    again = subprocess.run([str(part) for part in command], cwd=tmp_path, check=False)
    assert again.returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.npz", "d.h5"]


def test_records_are_json_that_every_program_reads(tmp_path):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    write_record(tmp_path / "a.json", {"losses": [1.5, float("inf"), float("nan")], "flag": True, "text": "Å"})
    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert found == {"losses": [1.5, None, None], "flag": True, "text": "Å"}
