"""``ase-cg analyze`` and ``ase-cg backmap`` as a user meets them."""

import json

import mdtraj
import numpy as np
import pytest

from ase_cg.cli.analyze import _named
from ase_cg.errors import InputError
from tests.cli.test_cli import call


@pytest.fixture
def simulation(ala2, ala2_positions, tmp_path):
    """A finished simulation of the shaken dipeptide."""
    from ase_cg.dynamics.trajectory import write_trajectory

    folder = tmp_path / "s"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for replica in range(2):
        x = ala2_positions + 0.06 * rng.standard_normal((40, 6, 3))
        write_trajectory(folder / f"replica_{replica:03d}.h5", x.astype(np.float32), np.arange(40.0), ala2)
    (folder / "simulation.json").write_text(json.dumps({"replicas": 2, "temperature": 300.0}))
    return folder


def test_simulations_get_the_names_that_are_given(simulation, dataset_file, tmp_path):
    done = call("analyze", "first=s", "second=dataset.h5", "-r", dataset_file, "-o", "a", "--bins", 10, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "first" in done.stdout
    assert "second" in done.stdout
    assert "note: " in done.stdout
    assert set(json.loads((tmp_path / "a" / "metrics.json").read_text())["rows"]) == {"first", "second", "floor"}
    done = call("analyze", "s", "-r", dataset_file, "-o", "b", "--lag", -3, folder=tmp_path)
    assert (done.returncode, done.stderr) == (2, "ase-cg: lag must be at least 0, not -3\n")
    with pytest.raises(InputError, match=r"dataset\.h5 has no name, but others have"):
        _named(["first=s", "dataset.h5"])
    with pytest.raises(InputError, match="two simulations are called 'a'"):
        _named(["a=s", "a=t"])
    assert not (tmp_path / "b").exists()


def test_atoms_of_a_simulation_are_written(simulation, example_data, tmp_path):
    structure = example_data / "ala2.pdb"
    done = call("backmap", "s", "-o", "all.pdb", "--frames", 2, "--structure", structure, "-q", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 frames, energies" in done.stdout
    assert (tmp_path / "all.pdb").read_text().count("MODEL") == 2
    assert len(mdtraj.load(str(tmp_path / "all.pdb"))) == 2
