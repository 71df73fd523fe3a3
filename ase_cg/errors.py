"""The errors a user can meet; the command line turns them into one sentence and an exit status."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong: the message says what, where, and what to do (exit status 2)."""


class DivergenceError(InputError):
    """A training has no network to offer: the settings were too bold."""


class GateError(InputError):
    """A fast form of a model is not as accurate as was asked for; the model itself can be used."""


class StartError(InputError):
    """A simulation was to start where the model means nothing."""


def hint(given: object, known: Iterable[str]) -> str:
    """Return what a wrong name should have been: the nearest known one, or all of them."""
    names = list(known)
    nearest = difflib.get_close_matches(str(given), names, n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(names)}"


def reason(error: BaseException) -> str:
    """Return what a library's error says in one line: the last of a back trace, or its kind where it is silent."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class SimulationError(RuntimeError):
    """A simulation left the region where the model means anything (exit status 1).

    Parameters
    ----------
    message : str
        One sentence that names the bead and the frame.
    last_good : object, optional
        Positions in Å of the last frame in which everything was finite, if there was one.
    """

    def __init__(self, message: str, last_good: object = None) -> None:
        super().__init__(message)
        self.last_good = last_good
