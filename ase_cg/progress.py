"""Progress bars with the time left, or lines in a log where nobody watches a terminal."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self


class Progress:
    """Progress of one task with a known number of steps.

    On a terminal it is a bar with the time left; elsewhere a line every ten seconds; with ``quiet`` nothing.

    Parameters
    ----------
    title : str
        What is being done.
    total : int
        Number of steps; 0 where it is not known.
    quiet : bool
        Print nothing.
    """

    LOG_INTERVAL = 10.0  # s

    def __init__(self, title: str, total: int, *, quiet: bool = False) -> None:
        self.title = title
        self.total = total
        self.done = 0
        self._skipped = 0
        self._quiet = quiet
        self._started = time.monotonic()
        self._last_line = self._started
        self._bar = None if quiet or not sys.stderr.isatty() else _bar()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total or None, note="")
        self._started = self._last_line = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif not self._quiet and kind is None:
            seconds = time.monotonic() - self._started
            print(f"{self.title}: done in {seconds:.0f} s", file=sys.stderr, flush=True)  # noqa: T201 - the log line

    def skip(self, steps: int) -> None:
        """Count steps that were done before, and say nothing about the speed."""
        self.done += steps
        self._skipped += steps
        if self._bar is not None:
            self._bar.reset(self._task, total=self.total or None, completed=self.done)

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Record that `steps` more are done; `note` is shown beside the bar."""
        self.done += steps
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=note)
        elif not self._quiet and time.monotonic() - self._last_line > self.LOG_INTERVAL:
            self._last_line = time.monotonic()
            elapsed = self._last_line - self._started
            line = f"{self.title}: {self.done} done {note}"
            if self.total:
                left = elapsed / max(self.done - self._skipped, 1) * (self.total - self.done)
                line = f"{self.title}: {self.done}/{self.total}, {left:.0f} s left {note}"
            print(line.rstrip(), file=sys.stderr, flush=True)  # noqa: T201 - the log line


def _bar() -> Any:
    # rich is imported only where a bar is drawn.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


@contextmanager
def announced(title: str, *, quiet: bool = False) -> Iterator[None]:
    """Say what begins, for steps whose length is not known."""
    if not quiet:
        print(f"{title} …", file=sys.stderr, flush=True)  # noqa: T201 - the log line
    yield


@contextmanager
def waiting(title: str, *, quiet: bool = False, interval: float = 10.0) -> Iterator[None]:
    """Say what begins and, every `interval` seconds, that it goes on: for one long call that cannot be looked into."""
    if quiet:
        yield
        return
    ended = threading.Event()
    started = time.monotonic()

    def say() -> None:
        while not ended.wait(interval):
            print(f"{title}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)  # noqa: T201 - the log

    with announced(title):
        thread = threading.Thread(target=say, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
