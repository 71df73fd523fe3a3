"""How many independent frames there are, of processes of which it is known."""

import numpy as np
import pytest
from scipy.signal import lfilter

from ase_cg.analysis.convergence import convergence, relaxation_time, split_r_hat, statistical_inefficiency


def test_independent_frames_of_a_process_of_known_correlation():
    """x(t + 1) = 0.9 x(t) + noise: one frame in (1 + 0.9)/(1 − 0.9) = 19 is independent."""
    rng = np.random.default_rng(1)
    series = [lfilter([1], [1, -0.9], rng.standard_normal(8000))[100:] for _ in range(20)]
    assert statistical_inefficiency(series) == pytest.approx(19, rel=0.15)
    assert relaxation_time(series) == pytest.approx(9.5, rel=0.15)  # ½ + 0.9/(1 − 0.9)
    assert statistical_inefficiency([rng.standard_normal(5000)]) == pytest.approx(1, abs=0.3)
    assert split_r_hat(series) == pytest.approx(1, abs=0.02)
    apart = [x + 3 * number for number, x in enumerate(series)]
    assert split_r_hat(apart) > 2
    judged = convergence(apart)
    assert not judged.converged
    assert judged.effective_samples < 40
    assert split_r_hat([np.zeros(1)]) is None
