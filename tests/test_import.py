"""Importing ase_cg is fast and changes nothing."""

import json
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import ase_cg

PROBE = """
import json, os, sys, warnings, locale
import numpy as np
before = (dict(os.environ), list(warnings.filters), list(sys.path))
state = np.random.get_state()[1].tolist()
options = str(np.get_printoptions())
import {module}
after = (dict(os.environ), list(warnings.filters), list(sys.path))
print(json.dumps({{
    "environment": before[0] == after[0],
    "filters": before[1] == after[1],
    "path": before[2] == after[2],
    "random": state == np.random.get_state()[1].tolist(),
    "options": options == str(np.get_printoptions()),
    "heavy": [m for m in ("torch", "mdtraj", "lightning", "matplotlib", "ase", "scipy") if m in sys.modules],
}}))
"""


def test_import_changes_no_global_state_and_loads_nothing_heavy(tmp_path):
    code = PROBE.format(module="ase_cg")
    found = json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True))
    heavy = found.pop("heavy")
    assert heavy == []
    assert all(found.values()), found
    assert list(tmp_path.iterdir()) == []


def test_using_every_public_name_leaves_torch_as_it_was():
    code = (
        "import torch, os, json\n"
        "before = (torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),"
        " torch.is_grad_enabled(), torch.initial_seed(), dict(os.environ))\n"
        "import ase_cg\n"
        "names = [getattr(ase_cg, name) for name in ase_cg.__all__]\n"
        "after = (torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),"
        " torch.is_grad_enabled(), torch.initial_seed(), dict(os.environ))\n"
        "print(json.dumps([str(a) == str(b) for a, b in zip(before, after)]))"
    )
    found = json.loads(subprocess.check_output([sys.executable, "-W", "ignore", "-c", code], text=True))
    assert found[:5] == [True] * 5
    # Lightning and its friends may set variables of their own when they are imported; ours is the import above.


def test_import_takes_less_than_half_a_second():
    def seconds() -> float:
        started = time.perf_counter()
        subprocess.check_call([sys.executable, "-c", "import ase_cg"])
        return time.perf_counter() - started

    assert min(seconds() for _ in range(3)) < 0.5


def test_every_public_name_is_there_and_unknown_ones_are_not():
    for name in ase_cg.__all__:
        assert getattr(ase_cg, name) is not None
        assert name in dir(ase_cg)
    assert ase_cg.__version__
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ase_cg.no_such_name


def test_all_folders_of_code_are_installed():
    """What pyproject.toml lists is what a wheel holds."""
    root = Path(ase_cg.__file__).parent.parent
    if not (root / "pyproject.toml").is_file():
        pytest.skip("not a checkout")
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {".".join(path.parent.relative_to(root).parts) for path in (root / "ase_cg").rglob("__init__.py")}
    assert set(listed["packages"]) == folders | set(listed["package-dir"])
    kinds = {path.suffix for path in (root / "ase_cg").rglob("*") if path.is_file()} - {".py", ".pyc"}
    assert kinds == {".typed", ".cpp"}  # each listed in package-data
