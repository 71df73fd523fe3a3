"""What the README and the examples show runs as it stands there."""

import re
import subprocess
import sys

import numpy as np
import pytest
from ase.io import read

from ase_cg import CGCalculator, CGModel, Recipe, read_beads
from tests.conftest import ROOT


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_examples_run(path, tmp_path):
    done = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_readme_example_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = code.replace('"examples/', f'"{ROOT}/examples/')
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("eV\n")
    assert len(read(tmp_path / "ala2.traj", ":")) == 501


def test_shipped_models_load_by_name_and_say_where_they_come_from():
    shipped = sorted((ROOT / "models").glob("*.safetensors"))
    assert shipped
    for path in shipped:
        model = CGModel.load(path.stem)
        assert model.card.provenance["metrics"]["test_loss"] > 0
        assert path.with_suffix(".md").is_file()
        recipe = Recipe.read(ROOT / "training" / f"{path.stem}.yaml")
        recorded, stated = model.card.provenance["recipe"], recipe.model_dump(mode="json")
        # Settings that came after the model was trained are not in its record.
        assert recorded["training"].items() <= stated["training"].items()
        assert recorded["data"]["force_map"] == stated["data"]["force_map"]


@pytest.mark.parametrize("molecule", ["ala2", "chignolin"])
def test_shipped_models_start_from_shipped_structures(molecule):
    models = sorted(path.stem for path in (ROOT / "models").glob(f"{molecule}*.safetensors"))
    starts = sorted(path.stem for path in (ROOT / "models").glob(f"{molecule}*.pdb"))
    assert (len(models), len(starts)) == (2, 2)  # a SchNet and an equivariant one; two states
    for name in models:
        calculator = CGCalculator(name)
        for start in starts:
            atoms = read_beads(start, calculator.model)
            atoms.calc = calculator
            assert np.isfinite(atoms.get_potential_energy())
            assert np.abs(atoms.get_forces()).max() < 5  # eV/Å; bonds of frames at 300 K pull by one or two


def test_example_data_are_what_their_card_says(example_data):
    import mdtraj

    from ase_cg import Dataset

    with Dataset.open(example_data / "ala2_reference.h5") as dataset:
        molecule = dataset.only_molecule()
        assert molecule.trajectory_lengths == (18_600,) * 6
        assert molecule.temperature == 300.0
    last = mdtraj.load_frame(str(example_data / "ala2_all_atom.h5"), 27_899)
    assert last.n_atoms == 22
    size = sum((example_data / name).stat().st_size for name in ("ala2_reference.h5", "ala2_all_atom.h5"))
    assert size <= 12e6
