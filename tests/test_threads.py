"""Threads are chosen by size, for a block only."""

import pytest
import torch

from ase_cg import CGCalculator, CGModel
from ase_cg.beads.atoms import beads_to_atoms
from ase_cg.inference.dense import DenseModel
from ase_cg.threads import threads_for


def test_small_work_gets_one_thread_and_the_setting_comes_back():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with threads_for(100):
            assert torch.get_num_threads() == 1
        with threads_for(10_000_000):
            assert torch.get_num_threads() == 3
        with pytest.raises(ZeroDivisionError), threads_for(100):
            _ = 1 / 0
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore:no C")
@pytest.mark.parametrize("form", ["eager", "compiled"])
def test_a_calculator_of_few_beads_runs_on_one_thread(form, model, ala2, ala2_positions, monkeypatch):
    """Threads that wait for a core in use cost a hundred times what they bring."""
    used = []
    owner, method = {
        "eager": (CGModel, "bead_energies_by_term"),
        "compiled": (DenseModel, "energy_forces_and_nearest"),
    }[form]
    original = getattr(owner, method)

    def recorded(*arguments):
        used.append(torch.get_num_threads())
        return original(*arguments)

    atoms = beads_to_atoms(ala2, ala2_positions, model.vocabulary)
    monkeypatch.setattr(owner, method, recorded)
    monkeypatch.setattr("ase_cg.inference.compiled.has_compiler", lambda: False)  # the same path, not compiled
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        atoms.calc = CGCalculator(model, compile=form == "compiled")
        atoms.get_forces()
        used.clear()
        atoms.positions += 0.01
        atoms.get_forces()
        assert used == [1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
