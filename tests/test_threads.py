"""Threads are chosen by size, for a block only."""

import pytest
import torch

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
