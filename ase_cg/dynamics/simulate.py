"""Run a model: one molecule through ASE, or many replicas at once, resumable."""

import math
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset import Dataset
from ase_cg.data.graph import n_pairs
from ase_cg.dynamics.replicas import ReplicaSimulation
from ase_cg.dynamics.trajectory import PICOSECOND, SegmentStore, replica_paths, write_trajectory
from ase_cg.errors import InputError
from ase_cg.files import existing_file, file_hash, read_record, write_record
from ase_cg.models.io import find_model
from ase_cg.models.model import CGModel
from ase_cg.progress import Progress
from ase_cg.threads import threads_for
from ase_cg.units import quantity, thermal_energy, whole_ratio

PathLike = str | os.PathLike[str]
TEMPERATURE_TOLERANCE = 1.0  # K
SEGMENTS = 50  # a killed run repeats at most a fiftieth of it


@dataclass(frozen=True)
class SimulationSettings:
    """Everything that decides a trajectory; kept beside it in ``simulation.json``."""

    model: str
    start: str
    replicas: int
    temperature: float
    time_step: str
    friction: str
    duration: str
    report_interval: str
    seed: int
    prior_only: bool
    device: str
    dtype: str

    def __post_init__(self) -> None:
        thermal_energy(self.temperature)
        _ = self.n_frames, self.steps_per_frame
        if not 0 <= quantity(self.friction, "rate") < math.inf:
            raise InputError(f"the friction must be finite and not negative, not {self.friction!r}")
        if self.seed < 0:
            raise InputError(f"the seed must not be negative, not {self.seed}")

    @property
    def steps_per_frame(self) -> int:
        """Time steps between frames."""
        return whole_ratio(self.report_interval, self.time_step, ("report_interval", "time_step"))

    @property
    def n_frames(self) -> int:
        """Frames in all."""
        return whole_ratio(self.duration, self.report_interval, ("duration", "report_interval"))


def simulate(
    model: PathLike,
    output: PathLike,
    *,
    start: PathLike,
    replicas: int = 1,
    temperature: float | None = None,
    time_step: str = "2 fs",
    friction: str = "1 /ps",
    duration: str = "100 ps",
    report_interval: str = "0.2 ps",
    seed: int = 0,
    prior_only: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Simulate a model; the same call again continues a run that was stopped.

    All replicas run as one batch (:class:`ReplicaSimulation`).

    Parameters
    ----------
    model : path
        Model file, or the name of one that comes with ase-cg.
    output : path
        Folder for ``replica_000.h5`` … (MDTraj's HDF5) and ``simulation.json``.
    start : path
        A structure file, from which all replicas start, or a dataset, from whose frames each draws one.
    replicas : int
    temperature : float, optional
        In K; by default the model's.
    time_step, friction, duration, report_interval : str
        With units, such as ``"2 fs"``, ``"1 /ps"``, ``"100 ps"``, ``"0.2 ps"``.
    seed : int
    prior_only : bool
        Leave the network out.
    device, dtype : str
    overwrite : bool
        Discard what the folder holds of another run.
    quiet : bool

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If something given is wrong, or the folder holds another simulation.
    SimulationError
        If positions explode.
    """
    if replicas < 1:
        raise InputError(f"the number of replicas must be at least 1, not {replicas}")
    loaded = CGModel.load(model)
    if prior_only:
        loaded = loaded.prior_only()
    kelvin = loaded.card.temperature if temperature is None else float(temperature)
    settings = SimulationSettings(
        model=file_hash(find_model(model)),
        start=file_hash(existing_file(start, "start")),
        replicas=replicas,
        temperature=kelvin,
        time_step=time_step,
        friction=friction,
        duration=duration,
        report_interval=report_interval,
        seed=seed,
        prior_only=prior_only,
        device=device,
        dtype=dtype,
    )
    if abs(kelvin - loaded.card.temperature) > TEMPERATURE_TOLERANCE:
        warnings.warn(
            f"simulating at {kelvin:g} K a model that is a free energy at {loaded.card.temperature:g} K: its averages "
            "belong to that temperature only",
            UserWarning,
            stacklevel=2,
        )
    topology, positions = starting_positions(loaded, Path(start), replicas, seed)
    options: dict[str, Any] = {
        "topology": topology,
        "temperature": kelvin,
        "time_step": quantity(time_step, "time"),
        "friction": quantity(friction, "rate"),
        "seed": seed,
        "device": device,
        "dtype": dtype,
    }
    engine = ReplicaSimulation(loaded, positions, **options)
    folder = Path(output)
    if _prepare_folder(folder, settings, overwrite=overwrite):
        return folder
    store = SegmentStore(folder)
    _run(engine, store, settings, quiet=quiet)
    frames, times = store.frames()
    for replica in range(replicas):
        write_trajectory(folder / f"replica_{replica:03d}.h5", frames[:, replica], times, topology)
    store.remove()
    return folder


def _prepare_folder(folder: Path, settings: SimulationSettings, *, overwrite: bool) -> bool:
    """Make the folder ready, or return True if the simulation is already finished there."""
    record = folder / "simulation.json"
    if record.is_file() and not overwrite:
        found = read_record(record)
        different = [key for key, value in asdict(settings).items() if found.get(key) != value]
        if different:
            raise InputError(
                f"{folder} holds a simulation with another {different[0]} ({found.get(different[0])}); choose another "
                "folder, or discard it with --overwrite (overwrite=True)"
            )
        return len(replica_paths(folder)) == settings.replicas and not SegmentStore(folder).folder.exists()
    if folder.exists() and any(folder.iterdir()):
        if not record.is_file():
            raise InputError(f"{folder} is not empty and holds no simulation; choose another folder")
        SegmentStore(folder).remove()
        for path in replica_paths(folder):
            path.unlink()
    write_record(record, asdict(settings))
    return False


def _run(engine: ReplicaSimulation, store: SegmentStore, settings: SimulationSettings, *, quiet: bool) -> None:
    n_frames, steps_per_frame = settings.n_frames, settings.steps_per_frame
    frame_interval = quantity(settings.time_step, "time") * steps_per_frame / PICOSECOND
    many = "1 replica" if settings.replicas == 1 else f"{settings.replicas} replicas"
    title = f"Simulating {many}{' of the prior' if settings.prior_only else ''}"
    done = 0
    if (state := store.state()) is not None:
        engine.load_state(*state)
        done = len(store.frames()[1])
    per_segment = max(1, n_frames // SEGMENTS)
    edges = settings.replicas * n_pairs(engine.positions.shape[1])
    with Progress(title, n_frames, quiet=quiet) as progress, threads_for(edges):
        progress.advance(done)
        while done < n_frames:
            count = min(per_segment, n_frames - done)
            frames = []
            for _ in range(count):
                engine.step(steps_per_frame)
                frames.append(engine.positions.astype(np.float32))
                progress.advance()
            times = np.arange(done + 1, done + count + 1, dtype=np.float64) * frame_interval
            store.write(np.stack(frames), times, *engine.save_state())
            done += count


def starting_positions(
    model: CGModel, start: Path, replicas: int, seed: int
) -> tuple[BeadTopology, NDArray[np.float64]]:
    """Return topology and positions (R, N, 3) in Å: of a structure file, or of frames drawn from a dataset."""
    if start.suffix in {".h5", ".hdf5"}:
        with Dataset.open(start) as dataset:
            molecule = dataset.only_molecule()
            rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
            weights = molecule.weights()
            if weights is None:
                drawn = rng.choice(molecule.n_frames, size=replicas, replace=replicas > molecule.n_frames)
            else:
                drawn = rng.choice(molecule.n_frames, size=replicas, p=weights / weights.sum())
            unique, inverse = np.unique(drawn, return_inverse=True)
            return molecule.topology, molecule.coordinates(unique)[inverse].astype(float)
    from ase_cg.beads.atoms import read_beads, read_topology

    positions = read_beads(start, model).get_positions()
    return read_topology(start, model.card.resolution), np.repeat(positions[None], replicas, axis=0)
