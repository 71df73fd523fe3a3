"""What a simulation goes on from, bit by bit."""

import json
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ase_cg.dynamics.failures import Stop
from ase_cg.dynamics.state import State, on_host


class SavedState(NamedTuple):
    """Where all replicas are after some steps, and which of them were stopped.

    Attributes
    ----------
    state : State
    steps_done : int
    stopped : dict of int to Stop
        By place in the batch.
    """

    state: State
    steps_done: int
    stopped: dict[int, Stop]

    def written(self) -> tuple[dict[str, NDArray[Any]], str]:
        """Return arrays and a text (JSON) that hold all of it."""
        arrays = {name: on_host(tensor) for name, tensor in self.state._asdict().items()}
        arrays |= {f"stopped_{place}": stop.last_frames for place, stop in self.stopped.items()}
        stops = {str(place): stop.to_dict() for place, stop in self.stopped.items()}
        return arrays, json.dumps({"steps_done": self.steps_done, "stopped": stops})

    @classmethod
    def read(cls, arrays: dict[str, NDArray[Any]], text: str, device: torch.device) -> Self:
        """Make it of what :meth:`written` returned."""
        data = json.loads(text)
        fields = (np.asarray(arrays[name]) for name in State._fields)
        state = State(*(torch.tensor(values, dtype=torch.float64, device=device) for values in fields))
        stops = {int(place): stop for place, stop in data["stopped"].items()}
        stopped = {place: Stop.from_dict(stop, arrays[f"stopped_{place}"]) for place, stop in stops.items()}
        return cls(state, int(data["steps_done"]), stopped)
