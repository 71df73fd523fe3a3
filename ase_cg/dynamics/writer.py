"""Writing to disk while the simulation goes on."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

WAITING = 2  # pieces of work; one more waits for the disk


class BackgroundWriter:
    """Does pieces of work one after the other in a thread; use it as a context manager.

    After one has failed none is done any more, and its error is raised by the next call. Leaving the block waits for
    all that was submitted.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="ase-cg-writer")
        self._pending: deque[Future[None]] = deque()
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            self._executor.shutdown(wait=True)

    def submit(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have some work done; waits where too much is waiting already."""
        while self._pending and (len(self._pending) > WAITING or self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._executor.submit(self._do, work, arguments))

    def wait(self) -> None:
        """Wait until all is done."""
        while self._pending:
            self._pending.popleft().result()

    def _do(self, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self._failed:
            return
        try:
            work(*arguments)
        except BaseException:
            self._failed = True
            raise
