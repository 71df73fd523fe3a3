"""From starting conformations to a simulation that is ready to run."""

import torch

from ase_cg.devices import find_device
from ase_cg.dynamics.arguments import starting_array
from ase_cg.dynamics.conformations import check_conformations
from ase_cg.dynamics.forms import EagerForm, Form
from ase_cg.dynamics.memory import out_of_memory_explained
from ase_cg.dynamics.minimize import minimize
from ase_cg.dynamics.replicas import ReplicaSimulation
from ase_cg.dynamics.segments import SegmentStore
from ase_cg.dynamics.settings import SimulationSettings
from ase_cg.dynamics.starts import Group
from ase_cg.errors import InputError
from ase_cg.models.model import DTYPES, CGModel
from ase_cg.units import quantity


def prepare(
    model: CGModel, group: Group, settings: SimulationSettings, store: SegmentStore | None, *, quiet: bool = False
) -> tuple[Group, ReplicaSimulation]:
    """Return a group, its starts relaxed where that is asked for, and its simulation."""
    n_replicas, n_beads = len(group.positions), group.topology.n_beads
    device = find_device(settings.device)
    kept = None if store is None else store.start()
    positions = starting_array(group.positions if kept is None else kept, group.topology)

    def evaluate(replicas: int) -> None:
        x = torch.tensor(positions[:1], device=device).repeat(replicas, 1, 1)
        EagerForm(model, group.topology, replicas, device, settings.dtype).energy_and_forces(x)

    advice = (
        "minimising does not help; give another start" if settings.minimize else "give another start, or --minimize"
    )
    if kept is None and not settings.minimize:
        check_conformations(model, group.topology, positions, group.labels, advice)
    with out_of_memory_explained(n_replicas, n_beads, device, evaluate):
        form = _form(model, group, settings, device, quiet=quiet)
        if kept is None and settings.minimize:
            relaxed = minimize(form.energy_and_forces, torch.tensor(positions, device=device)).cpu().numpy()
            positions = starting_array(relaxed, group.topology)
            check_conformations(model, group.topology, positions, group.labels, advice)
    temperatures = settings.temperatures
    simulation = ReplicaSimulation(
        model,
        positions,
        topology=group.topology,
        integrator=settings.integrator,
        temperature=[temperatures[number % settings.replicas % len(temperatures)] for number in group.numbers],
        time_step=quantity(settings.time_step, "time"),
        friction=quantity(settings.friction, "rate"),
        seed=settings.seed,
        replica_numbers=group.numbers,
        compiled=form,
        device=settings.device,
        dtype=settings.dtype,
    )
    return group.with_positions(positions), simulation


def _form(model: CGModel, group: Group, settings: SimulationSettings, device: torch.device, *, quiet: bool) -> Form:
    if settings.dtype not in DTYPES:
        raise InputError(f"unknown dtype {settings.dtype!r}; known are {', '.join(DTYPES)}")
    n_replicas = len(group.positions)
    if settings.form == "eager":
        return EagerForm(model, group.topology, n_replicas, device, settings.dtype)
    frames = model.frames_of(group.topology)
    # Starts stand for the data where the model's file holds none: conformations that the run begins with.
    return model.compile(
        group.topology,
        replicas=n_replicas,
        device=settings.device,
        dtype=settings.dtype,
        frames=group.positions if frames is None else frames,
        quiet=quiet,
    )
