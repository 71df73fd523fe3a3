"""Writing in the background: in order, and nothing after a failure."""

import pytest

from ase_cg.dynamics.writer import BackgroundWriter


def test_the_writer_says_what_failed_and_does_no_more():
    done = []

    def work(number):
        if number == 3:
            raise OSError(28, "No space left on device")
        done.append(number)

    def submit_all(writer):
        for number in range(20):
            writer.submit(work, number)

    with pytest.raises(OSError, match="No space"), BackgroundWriter() as writer:
        submit_all(writer)
    assert done == [0, 1, 2]
    with BackgroundWriter() as writer:
        writer.submit(work, 7)
    assert done[-1] == 7
