"""Everything that decides the trajectories of a simulation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ase_cg.dynamics.integrators import check_integrator
from ase_cg.errors import InputError
from ase_cg.files import file_hash, read_record
from ase_cg.seeds import checked_seed
from ase_cg.units import quantity, thermal_energy, whole_ratio

CONTENT = ("model", "start", "topology")  # settings that are hashes of files


@dataclass(frozen=True)
class SimulationSettings:
    """Everything that decides a trajectory; kept beside it in ``simulation.json``.

    Attributes
    ----------
    model, start, topology
        SHA-256 of the files; of several starts a list.
    replicas : int
        Of each start.
    temperature : float or list of float
        In K; several for replicas at several temperatures, from the first to the last and again from the first.
    form : {"eager", "compiled"}
    others
        As in :func:`ase_cg.dynamics.simulate.simulate`.
    """

    model: str
    start: str | list[str]
    replicas: int
    temperature: float | list[float]
    time_step: str
    friction: str
    duration: str
    report_interval: str
    seed: int
    prior_only: bool
    device: str
    dtype: str
    form: str = "eager"
    integrator: str = "langevin"
    exchange_interval: str | None = None
    topology: str | None = None
    minimize: bool = False

    def __post_init__(self) -> None:
        for kelvin in self.temperatures:
            thermal_energy(kelvin)
        check_integrator(self.integrator)
        _ = self.n_frames, self.steps_per_frame
        if not 0 <= quantity(self.friction, "rate") < math.inf:
            raise InputError(f"the friction must be finite and not negative, not {self.friction!r}")
        checked_seed(self.seed)
        if self.replicas < 1:
            raise InputError(f"the number of replicas must be at least 1, not {self.replicas}")
        if self.replicas % len(self.temperatures):
            raise InputError(
                f"{self.replicas} replicas do not divide into {len(self.temperatures)} temperatures; give one for "
                "each, or a multiple"
            )
        self._check_exchanges()

    def _check_exchanges(self) -> None:
        if self.exchange_interval is None:
            return
        _ = self.steps_per_exchange
        if list(self.temperatures) != sorted(set(self.temperatures)) or len(self.temperatures) < 2:
            raise InputError("exchanges need temperatures that rise, such as --temperatures 300,330,365")
        if self.integrator == "verlet":
            raise InputError("exchanges need a thermostat; the integrator 'verlet' keeps the energy")

    @property
    def temperatures(self) -> Sequence[float]:
        """The temperatures in K, from one to all replicas of a start."""
        return self.temperature if isinstance(self.temperature, list) else [self.temperature]

    @property
    def steps_per_frame(self) -> int:
        """Time steps between frames."""
        return whole_ratio(self.report_interval, self.time_step, ("report_interval", "time_step"))

    @property
    def n_frames(self) -> int:
        """Frames in all."""
        return whole_ratio(self.duration, self.report_interval, ("duration", "report_interval"))

    @property
    def steps_per_exchange(self) -> int | None:
        """Time steps between exchanges, or None."""
        if self.exchange_interval is None:
            return None
        return whole_ratio(self.exchange_interval, self.time_step, ("exchange_interval", "time_step"))

    def check_same(self, record: Path) -> None:
        """Raise :class:`InputError` if a record is of a simulation with other settings; it may be a shorter one."""
        found = read_record(record)
        defaults: dict[str, Any] = {f.name: f.default for f in fields(self) if f.default is not MISSING}
        for key, value in asdict(self).items():
            other = found.get(key, defaults.get(key))
            same_interval = found.get("report_interval") == self.report_interval
            if key == "duration" and same_interval and frames_of(found) <= self.n_frames:
                continue
            if other != value:
                was = "" if key in CONTENT else f" ({other})"
                raise InputError(
                    f"{record.parent} holds a simulation with another {key}{was}; choose another folder, or discard it "
                    "with --overwrite (overwrite=True)"
                )


def frames_of(record: Mapping[str, Any]) -> int:
    """Return the number of frames of the simulation that a ``simulation.json`` describes."""
    return whole_ratio(record["duration"], record["report_interval"], ("duration", "report_interval"))


def content_hash(path: Path, part: str | None = None) -> str:
    """Return the SHA-256 of a file, and the name of the part of it that is used."""
    return file_hash(path) + (f":{part}" if part else "")
