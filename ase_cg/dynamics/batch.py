"""A batch of replicas on its way: from report to report, with exchanges and checkpoints."""

import json
import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.dynamics.interruption import StopRequest
from ase_cg.dynamics.replicas import ReplicaSimulation
from ase_cg.dynamics.segments import SegmentStore
from ase_cg.dynamics.settings import SimulationSettings
from ase_cg.dynamics.starts import Group
from ase_cg.dynamics.tempering import ParallelTempering
from ase_cg.dynamics.trajectory import PICOSECOND
from ase_cg.dynamics.writer import BackgroundWriter
from ase_cg.errors import SimulationError
from ase_cg.units import quantity

PROMPT = 0.3  # s, about how long steps go on after one was asked to stop


class Batch:
    """Replicas of one molecule between their start and the last frame.

    Parameters
    ----------
    group : Group
    simulation : ReplicaSimulation
    tempering : ParallelTempering or None
    settings : SimulationSettings
    store : SegmentStore
        Where it goes on, if it holds a checkpoint.

    Attributes
    ----------
    reports_done : int
        Frames of each replica so far.
    reports_kept : int
        Frames that a checkpoint on disk counts.
    """

    def __init__(
        self,
        group: Group,
        simulation: ReplicaSimulation,
        tempering: ParallelTempering | None,
        settings: SimulationSettings,
        store: SegmentStore,
    ) -> None:
        self.group = group
        self.simulation = simulation
        self.tempering = tempering
        self.settings = settings
        self.store = store
        self.reports_done = 0
        if (kept := store.state()) is not None:
            arrays, text = kept
            data = json.loads(text)
            simulation.load_state(arrays, data["simulation"])
            if tempering is not None:
                tempering.load_state(data["tempering"])
            self.reports_done = int(data["reports_done"])
        self.reports_kept = self.reports_done
        self._frames: list[dict[str, NDArray[Any]]] = []
        self._piece = simulation.steps_per_block
        self._note_state()

    @property
    def done(self) -> bool:
        """Whether the last frame is reached, or no replica is left."""
        gone = len(self.simulation.stopped) == self.simulation.n_replicas
        return gone or self.reports_done == self.settings.n_frames

    @property
    def frames_waiting(self) -> int:
        """Frames since the last checkpoint."""
        return len(self._frames)

    @property
    def bytes_waiting(self) -> int:
        """Memory of the frames since the last checkpoint."""
        return sum(array.nbytes for frame in self._frames for array in frame.values())

    def advance(self, request: StopRequest) -> bool:
        """Go on to the next frame; return False if one was asked to stop before."""
        simulation, exchange = self.simulation, self.settings.steps_per_exchange
        target = (self.reports_done + 1) * self.settings.steps_per_frame
        try:
            while simulation.steps_done < target:
                until = target if exchange is None else min(target, (simulation.steps_done // exchange + 1) * exchange)
                if not self._step_to(until, request):
                    return False
                simulation.check()
                if self.tempering is not None and exchange is not None and until % exchange == 0:
                    self.tempering.attempt()
        except SimulationError as error:
            warnings.warn(str(error), UserWarning, stacklevel=2)
            self._note_state()  # of no replica left
            return True
        self.reports_done += 1
        self._report()
        self._note_state()
        return True

    def _step_to(self, until: int, request: StopRequest) -> bool:
        """Step in pieces short enough to be stopped soon; what they are changes nothing."""
        while self.simulation.steps_done < until:
            if request.signal_number is not None:
                return False
            piece = min(self._piece, until - self.simulation.steps_done)
            before = time.perf_counter()
            self.simulation.advance(piece)
            if piece == self._piece:
                seconds = max(time.perf_counter() - before, 1e-6)
                self._piece = max(1, int(piece * min(10.0, PROMPT / seconds)))
        return True

    def _report(self) -> None:
        simulation = self.simulation
        interval = quantity(self.settings.time_step, "time") * self.settings.steps_per_frame / PICOSECOND
        frame: dict[str, NDArray[Any]] = {
            "frames": simulation.positions.astype(np.float32),
            "times": np.array(self.reports_done * interval),
            "potential": simulation.potential_energies(),
            "kinetic": simulation.kinetic_energies(),
        }
        if self.tempering is not None:
            frame["walkers"] = self.tempering.walkers.astype(np.int32)
        self._frames.append(frame)

    def _note_state(self) -> None:
        exchanges = None if self.tempering is None else self.tempering.save_state()
        self._state = (self.simulation.snapshot(), exchanges)

    def checkpoint(self, writer: BackgroundWriter) -> None:
        """Have the frames since the last checkpoint written, and the state after them."""
        frames, self._frames = self._frames, []
        snapshot, exchanges = self._state
        arrays, text = self.simulation.save_state(snapshot)
        reports = self.reports_done
        state = json.dumps({"simulation": text, "tempering": exchanges, "reports_done": reports})
        joined = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]} if frames else {}
        writer.submit(self._write, joined, arrays, state, reports)

    def _write(self, frames: dict[str, NDArray[Any]], arrays: dict[str, NDArray[Any]], text: str, reports: int) -> None:
        self.store.write(frames, arrays, text)
        self.reports_kept = reports


class CheckpointClock:
    """Says when it is time for a checkpoint.

    Parameters
    ----------
    frames : int
        After so many frames.
    seconds : float
        Or after so much time.
    """

    BYTES = 64 * 2**20  # or when the frames that wait take so much memory

    def __init__(self, frames: int, seconds: float) -> None:
        self._frames = frames
        self._seconds = seconds
        self._last = time.monotonic()

    def due(self, batches: list[Batch]) -> bool:
        """Whether to write one now; it is taken for written then."""
        waiting = max(batch.frames_waiting for batch in batches)
        late = waiting > 0 and time.monotonic() - self._last > self._seconds
        if waiting < self._frames and not late and sum(batch.bytes_waiting for batch in batches) < self.BYTES:
            return False
        self._last = time.monotonic()
        return True
