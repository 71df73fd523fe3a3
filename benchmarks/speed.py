"""Speed of the compiled forms: milliseconds a step, ns/day, and what a user would run instead, on the same weights.

    OMP_NUM_THREADS=1 python benchmarks/speed.py --results runs/speed.json

Prints one table. Each case runs in a process of its own (its peak memory is that of the case) and is kept in the file
of results, so that a stopped run goes on; ``--beads 10 --replicas 1 32 --backbones mace`` choose cases. All times are
medians of rounds in which the candidates take turns, on a CPU in seconds of the process (all its threads), so that
other work on the machine counts less. A step is one of :class:`ase_cg.ReplicaSimulation`, random numbers and checks
included: what a user runs. What is compared with it is named in parts: mace-torch's forces alone, the stress that
``MACECalculator`` always adds, and what the calculator itself costs. Networks have the sizes of docs/recipes.md and
random weights; chains are compact and self-avoiding, without priors.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chains import N_TYPES, chain_model

from ase_cg import ReplicaSimulation
from ase_cg.beads.topology import BeadTopology
from ase_cg.models.model import CGModel, prepared_copy

TIME_STEP = 4.0  # fs, of which ns/day are reckoned
ROUNDS = 7
PAIRS = 41  # of a force and steps, one after the other: what a step adds is less than a busy machine scatters
STEPS = 100  # of a simulation in one call, as between two reports
MAX_EAGER_EDGES = 700_000  # larger batches take the eager forms gigabytes


def main() -> None:
    """Run the cases that are missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("runs/speed.json"))
    parser.add_argument("--beads", type=int, nargs="+", default=[10, 35, 80, 269])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 32, 64, 128])
    parser.add_argument("--backbones", nargs="+", default=["schnet", "painn", "mace"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--gate", type=float, default=1e-5)
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        name, beads, replicas = arguments.case
        print(json.dumps(measure(name, int(beads), int(replicas), arguments.device, arguments.gate)))
        return
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(arguments.results.read_text()) if arguments.results.is_file() else {}
    for beads in arguments.beads:
        for name in arguments.backbones:
            for replicas in arguments.replicas:
                key = f"{name} {beads} {replicas} {arguments.device}"
                if key not in found:
                    found[key] = in_a_process(name, beads, replicas, arguments)
                    arguments.results.write_text(json.dumps(found, indent=1))
    print_table(found)


def in_a_process(name: str, beads: int, replicas: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one case in a process of its own."""
    case = ["--case", name, str(beads), str(replicas), "--device", arguments.device, "--gate", str(arguments.gate)]
    print(f"{name}, {beads} beads × {replicas} …", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, *case]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this file itself
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def measure(name: str, n_beads: int, replicas: int, device: str, gate: float) -> dict[str, Any]:
    """Return times in ms, and memory in MB, of one case."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model, topology, frames = chain_model(name, n_beads)
    started = time.perf_counter()
    compiled = model.compile(topology, replicas=replicas, frames=frames[:8], device=device, gate=gate, quiet=True)
    x = torch.tensor(np.resize(frames, (replicas, n_beads, 3)), device=device)
    simulation = simulation_of(model, topology, x, compiled)
    seconds = time.perf_counter() - started
    candidates: dict[str, Callable[[], object]] = {
        "force": lambda: compiled.energy_and_forces(x),
        "steps": lambda: simulation.step(STEPS),
    }
    if replicas * n_beads * (n_beads - 1) / 2 <= MAX_EAGER_EDGES:
        candidates["eager"] = eager(model, topology, x)
        if name == "mace":
            candidates["mace-torch, forces"] = mace_batch(model, x)
            if replicas == 1:
                candidates["mace-torch, forces and stress"] = mace_batch(model, x, stress=True)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if replicas == 1 and device == "cpu":
        candidates["ASE"] = ase_steps(ours(model, topology, frames[0]))
        if name == "mace":
            candidates["ASE + MACECalculator"] = ase_steps(mace_calculator(model, topology, frames[0]))
    times = interleaved(candidates, device)
    times["step"] = times.pop("steps") / STEPS
    ratio = paired_ratio(candidates["steps"], candidates["force"], device) / STEPS
    flops = matrix_flops(model, topology, x[: compiled.chunk], device)
    rate = matrix_rate(device)
    chunks = replicas / min(compiled.chunk, replicas)
    return {
        "step_over_force": ratio,
        "times": {key: 1e3 * value for key, value in times.items()},
        "force_error": compiled.force_error,
        "form": compiled.form,
        "chunk": compiled.chunk,
        "compile_seconds": seconds,
        "memory": memory,
        "share": flops * chunks / times["force"] / rate,
    }


def interleaved(candidates: dict[str, Callable[[], object]], device: str) -> dict[str, float]:
    """Return the median seconds of each candidate, taking turns."""
    counts = {}
    for key, function in candidates.items():
        function()
        counts[key] = max(1, int(0.05 / max(timed(function, 1, device), 1e-6)))
    rounds: dict[str, list[float]] = {key: [] for key in candidates}
    for _ in range(ROUNDS):
        for key, function in candidates.items():
            rounds[key].append(timed(function, counts[key], device))
    return {key: float(np.median(values)) for key, values in rounds.items()}


def paired_ratio(one: Callable[[], object], other: Callable[[], object], device: str) -> float:
    """Return the median ratio of seconds measured one right after the other."""
    count = max(1, int(0.02 / max(timed(other, 2, device), 1e-6)))
    return float(np.median([timed(one, count, device) / timed(other, count, device) for _ in range(PAIRS)]))


def timed(function: Callable[[], object], count: int, device: str) -> float:
    """Return seconds a call: of the process on a CPU, of the clock on a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    synchronize = torch.cuda.synchronize if device != "cpu" else (lambda: None)
    synchronize()
    started = clock()
    for _ in range(count):
        function()
    synchronize()
    return (clock() - started) / count


def eager(model: CGModel, topology: BeadTopology, x: torch.Tensor) -> Callable[[], object]:
    """Our model, operation by operation."""
    prepared = prepared_copy(model, x.device, "float32")
    graph = prepared.graph(topology, len(x))._replace(positions=x.reshape(-1, 3).float())
    return lambda: prepared.energy_and_forces(graph)


def simulation_of(model: CGModel, topology: BeadTopology, x: torch.Tensor, compiled: Any) -> ReplicaSimulation:
    """Replicas of the compiled model; the time step is tiny, so that random weights do no harm."""
    return ReplicaSimulation(
        model,
        x.cpu().numpy(),
        topology=topology,
        temperature=1.0,
        time_step=1e-4,
        friction=1e-3,
        compiled=compiled,
        device=x.device.type,
    )


def mace_batch(model: CGModel, x: torch.Tensor, *, stress: bool = False) -> Callable[[], object]:
    """mace-torch's own network, eager, all replicas in one batch; pairs within its cutoff."""
    prepared = prepared_copy(model, x.device, "float32")
    backbone: Any = prepared.backbone
    replicas, n, _ = x.shape
    positions = x.reshape(-1, 3).float()
    pairs = torch.cat([torch.triu_indices(n, n, 1), torch.triu_indices(n, n, 1).flip(0)], dim=1)
    edges = torch.cat([pairs + n * r for r in range(replicas)], dim=1).to(x.device)
    near = (positions[edges[0]] - positions[edges[1]]).norm(dim=-1) < backbone.cutoff
    edges = edges[:, near]
    types = torch.arange(n, device=x.device) % N_TYPES
    data = {
        "positions": positions,
        "shifts": torch.zeros(edges.shape[1], 3, device=x.device),
        "unit_shifts": torch.zeros(edges.shape[1], 3, device=x.device),
        "edge_index": edges,
        "node_attrs": torch.eye(N_TYPES, device=x.device)[types].repeat(replicas, 1),
        "cell": 100.0 * torch.eye(3, device=x.device).repeat(replicas, 1),
        "batch": torch.arange(replicas, device=x.device).repeat_interleave(n),
        "ptr": torch.arange(replicas + 1, device=x.device) * n,
    }
    return lambda: backbone.network(dict(data), compute_force=True, compute_stress=stress)


def ours(model: CGModel, topology: BeadTopology, positions: np.ndarray) -> Any:
    """Beads with our calculator."""
    from ase_cg import CGCalculator
    from ase_cg.beads.atoms import beads_to_atoms

    atoms = beads_to_atoms(topology, positions, model.vocabulary)
    atoms.calc = CGCalculator(model, topology=topology, compile=True)
    return atoms


def mace_calculator(model: CGModel, topology: BeadTopology, positions: np.ndarray) -> Any:
    """Beads with mace-torch's calculator and the same network."""
    from mace.calculators import MACECalculator

    from ase_cg.beads.atoms import beads_to_atoms

    prepared = prepared_copy(model, torch.device("cpu"), "float32")
    atoms = beads_to_atoms(topology, positions, model.vocabulary)
    backbone: Any = prepared.backbone
    atoms.calc = MACECalculator(models=[backbone.network], device="cpu", default_dtype="float32")
    return atoms


def ase_steps(atoms: Any) -> Callable[[], object]:
    """ASE's Langevin dynamics, a step a call; the time step is tiny, so that random weights do no harm."""
    from ase.md.langevinbaoab import LangevinBAOAB

    atoms.set_momenta(np.zeros((len(atoms), 3)))
    dynamics = LangevinBAOAB(atoms, 1e-4, temperature_K=1.0, T_tau=1000.0, rng=np.random.default_rng(0))
    return lambda: dynamics.run(1)


def matrix_flops(model: CGModel, topology: BeadTopology, x: torch.Tensor, device: str) -> float:
    """Return the operations of matrix products in one evaluation of the dense form."""
    from torch.utils.flop_counter import FlopCounterMode

    from ase_cg.inference.dense import DenseModel
    from ase_cg.inference.export import traced

    graph = traced(DenseModel(model, topology, len(x), torch.float32, 64, device).energy_and_forces, [x])
    with FlopCounterMode(display=False) as counter:
        graph(x)
    return float(counter.get_total_flops())


def matrix_rate(device: str) -> float:
    """Return operations a second of a large product of matrices in single precision."""
    a, b = (torch.randn(1024, 1024, device=device) for _ in range(2))
    a @ b
    return 2 * 1024**3 / min(timed(lambda: a @ b, 5, device) for _ in range(5))


def print_table(found: dict[str, dict[str, Any]]) -> None:
    """Print what was measured."""
    columns = ["network", "beads", "replicas", "ms/step", "replica-steps/s", "ns/day", "(step − force)/force"]
    columns += ["force error", "eager / force", "mace-torch / ours", "MB", "share of matrix rate", "compiling / s"]
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
    for key, case in found.items():
        name, beads, replicas, _ = key.split()
        if "error" in case:
            print(f"| {name} | {beads} | {replicas} | {case['error']} |" + " |" * (len(columns) - 4))
            continue
        times = case["times"]
        per_second = 1e3 * int(replicas) / times["step"]
        peer = f"{times['mace-torch, forces'] / times['force']:.1f}" if "mace-torch, forces" in times else ""
        row = [name, beads, replicas, f"{times['step']:.3f}", f"{per_second:.0f}"]
        row += [f"{per_second * TIME_STEP * 86400 * 1e-6:.0f}", f"{100 * (case['step_over_force'] - 1):.0f} %"]
        row += [f"{case['force_error']:.1e}", f"{times['eager'] / times['force']:.1f}" if "eager" in times else ""]
        row += [peer, f"{case['memory']:.0f}", f"{100 * case['share']:.0f} %", f"{case['compile_seconds']:.0f}"]
        print("| " + " | ".join(row) + " |")
    print("\nUnder ASE, one replica, ms a step of ASE's Langevin dynamics:\n")
    columns = ["network", "beads", "ours", "of it not the force", "with MACECalculator"]
    columns += ["of it mace-torch's forces", "its stress, which nobody asked for"]
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
    for key, case in found.items():
        times = case.get("times", {})
        if "ASE" in times:
            row = [*key.split()[:2], f"{times['ASE']:.3f}", f"{times['ASE'] - times['force']:.3f}"]
            if "ASE + MACECalculator" in times:
                forces, both = times["mace-torch, forces"], times["mace-torch, forces and stress"]
                row += [f"{times['ASE + MACECalculator']:.2f}", f"{forces:.2f}", f"{both - forces:.2f}"]
            print("| " + " | ".join(row + [""] * (len(columns) - len(row))) + " |")


if __name__ == "__main__":
    main()
