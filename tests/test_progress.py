"""The lines of a log: what is done, the time left, and notes."""

import time

from ase_cg.progress import Progress


def test_time_left_counts_only_what_was_done_now(capsys, monkeypatch):
    """A simulation that goes on at 80 of 100 frames and makes 10 in 20 s has 20 s left."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress("Simulating", 100) as progress:
        progress.skip(80)
        now[0] += 20
        progress.advance(10, note="500 steps/s, 86.4 ns/day, 300 K")
        progress.advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "Simulating: 90/100, 20 s left 500 steps/s, 86.4 ns/day, 300 K",
        "Simulating: done in 20 s",
    ]
