"""The study of kernels: its smallest case runs, resumes, and says what labels of a flow cost."""

import importlib
import json
import sys

import numpy as np
import pytest
import torch

from ase_cg import CGModel, Dataset, SimulationError
from ase_cg.errors import GateError
from ase_cg.flows.field import centered
from ase_cg.flows.kernel import FlowKernel
from tests.conftest import ROOT

CASE = "dipeptide/0.01_flow_coupling_seed_0"

# The published forces that these studies read fail their check, and one is told of it.
pytestmark = pytest.mark.filterwarnings("ignore:forces of molecule")


@pytest.fixture
def kernels(monkeypatch):
    """Import the script."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("kernels")


@pytest.mark.filterwarnings("ignore:the flow does not reproduce:UserWarning")
@pytest.mark.filterwarnings("ignore:training.warmup_steps")  # the effort "smoke" has few steps
def test_a_case_has_its_figures_and_costs_and_is_made_once(kernels, shared, tmp_path, monkeypatch, capsys):
    options = ["--folder", str(tmp_path), "--effort", "smoke", "--only", f"{CASE}/*"]
    monkeypatch.setattr(sys, "argv", ["kernels.py", *options])
    kernels.main()
    result = tmp_path / "smoke" / CASE / "clean.json"
    row = json.loads(result.read_text())
    flow = row["flow"]
    assert 0 < flow["label_seconds"] < 1
    assert 0 < flow["training_seconds"] < row["seconds"]["training"]
    assert flow["provenance"]["metrics"]["epochs"] == 10
    # A flow that is hardly trained gives about the labels of its harmonic start, of precision P: kT² tr P/(3N).
    kernel = FlowKernel.load(result.parent / "training" / "flow" / "flow.safetensors")
    with Dataset.open(tmp_path / "smoke" / "dipeptide" / "reference.h5") as opened:
        x = centered(torch.from_numpy(opened.only_molecule().coordinates(np.arange(200))))
    factor = kernel.flow.start.at(x, torch.arange(6), torch.zeros(200, 4, 6, 6)).factor
    kT = kernel.temperature * 1.987204e-3  # kcal/mol
    expected = float(kT * (factor.square().sum((1, 2)) / 18).mean().sqrt())
    assert expected > 1.5 * kT / 0.05  # more than the label of noise, because bonds are stiff
    assert row["training"]["label_variance"] ** 0.5 == pytest.approx(expected, rel=0.1)

    written = result.stat().st_mtime_ns
    kernels.main()
    assert result.stat().st_mtime_ns == written
    table = (tmp_path / "smoke" / "kernels.md").read_text()
    assert table.count("| flow, coupling | clean |") == 1
    assert capsys.readouterr().out.endswith(table)
    assert (tmp_path / "smoke" / "kernels.png").stat().st_size > 1000

    # Results of another machine are shown and not made again: the only case asked for is known.
    results = tmp_path / "smoke" / "kernels.json"
    options = ["--folder", str(tmp_path / "other"), "--effort", "smoke", "--known", str(results)]
    monkeypatch.setattr(sys, "argv", ["kernels.py", *options, "--only", f"{CASE}/*"])
    kernels.main()
    assert [path.name for path in (tmp_path / "other" / "smoke").iterdir() if path.is_dir()] == []
    assert capsys.readouterr().out.endswith(table)
    assert json.loads((tmp_path / "other" / "smoke" / "kernels.json").read_text()) == json.loads(results.read_text())


def test_cases_of_both_studies_share_their_folders(kernels):
    import data_efficiency
    from study import row_name

    own = {row_name(*row) for row in kernels.all_rows([0]) if not isinstance(row[0], kernels.KernelCase)}
    assert own <= {row_name(*row) for row in data_efficiency.all_rows([0])}


def test_a_model_too_rough_to_be_compiled_is_simulated_as_it_is(kernels, tmp_path, monkeypatch):
    import study

    compiled = []

    def simulate(*_, compile, **__):  # noqa: A002 - as it is called
        compiled.append(compile)
        if compile:
            raise GateError("the tabulated forces differ")
        raise SimulationError("replica 0 exploded")

    monkeypatch.setattr(study, "simulate", simulate)
    model = CGModel.load("ala2_forces_and_noise")
    case = study.Case("dipeptide", 1, "atomistic", None, 0)
    model.save(tmp_path / "model.safetensors")
    row = study.Study(tmp_path, "quick").row(case, None, tmp_path / "model.safetensors")
    assert compiled == [True, False]
    assert row["failed"] == "replica 0 exploded"
