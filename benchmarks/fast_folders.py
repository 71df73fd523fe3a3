"""The 12 fast-folding proteins: stability of the published priors alone, and of the published multi-protein network.

    python benchmarks/fast_folders.py --data ../shared/data/fast_folders --folder runs/fast_folders

Each protein starts at its experimental structure at 350 K and runs with steps of 2 fs. With the priors alone every bond
must stay within 0.6 Å of its equilibrium; with the network the Cα-RMSD to the start is given over time. Finished
proteins are kept: the same command goes on where it was stopped.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from ase import units

from ase_cg import ReplicaSimulation, read_beads
from ase_cg.beads.atoms import read_topology
from ase_cg.errors import SimulationError
from ase_cg.models.model import CGModel
from ase_cg.models.torchmdnet import import_torchmdnet
from ase_cg.threads import threads_for

TEMPERATURE = 350.0
TIME_STEP = 2.0  # fs
FRICTION = 1.0  # 1/ps
LIMIT = 0.6  # Å
GATE = 1e-4  # relative error of forces: with tables in single precision it is 2.7e-5 for a3d
REPORTS = 10


def main() -> None:
    """Run what has not been run, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/fast_folders"))
    parser.add_argument("--folder", type=Path, default=Path("runs/fast_folders"))
    parser.add_argument("--prior-steps", type=int, default=100_000)
    parser.add_argument("--network-steps", type=int, default=10_000)
    parser.add_argument("--replicas", type=int, default=2)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    model = import_torchmdnet(
        arguments.data / "torchmdnet_multi_protein.ckpt",
        arguments.data / "prior_force_field.yaml",
        numbering="multi-protein",
    )
    structures = sorted((arguments.data / "experimental_structures").glob("*.pdb"))
    kinds = {"prior": (model.prior_only(), arguments.prior_steps), "network": (model, arguments.network_steps)}
    for kind, (chosen, steps) in kinds.items():
        for pdb in structures:
            path = record_path(arguments.folder, kind, pdb, steps)
            if not path.is_file():
                path.write_text(json.dumps(run(chosen, pdb, steps, arguments.replicas)))
    prior = {pdb.stem: read(arguments.folder, "prior", pdb, arguments.prior_steps) for pdb in structures}
    network = {pdb.stem: read(arguments.folder, "network", pdb, arguments.network_steps) for pdb in structures}
    print(f"Priors alone, {arguments.prior_steps} steps of 2 fs, {arguments.replicas} replicas:\n")
    print("| protein | beads | largest deviation of a bond / Å | end |\n| --- | --- | --- | --- |")
    for name, row in prior.items():
        print(f"| {name} | {row['beads']} | {row['largest_deviation']:.2f} | {row['end']} |")
    times = next(iter(network.values()))["times_ps"]
    print(f"\nPrior and network, mean Cα-RMSD in Å of {arguments.replicas} replicas at times in ps:\n")
    print("| protein | " + " | ".join(f"{t:g}" for t in times) + " | end |\n|" + " --- |" * (len(times) + 2))
    for name, row in network.items():
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in row["rmsd"]) + f" | {row['end']} |")


def read(folder: Path, kind: str, pdb: Path, steps: int) -> dict:
    """Read one record."""
    return json.loads(record_path(folder, kind, pdb, steps).read_text())


def record_path(folder: Path, kind: str, pdb: Path, steps: int) -> Path:
    """Return the file of a record; its name tells records of other residue numbers, such as old ones, apart."""
    return folder / f"{kind}_{pdb.stem}_{steps}_multi-protein.json"


def run(model: CGModel, pdb: Path, steps: int, replicas: int) -> dict:
    """Simulate one protein; follow its bonds and its RMSD."""
    topology = read_topology(pdb, "calpha")
    start = read_beads(pdb, model).positions
    rng = np.random.default_rng(0)
    frames = start + 0.1 * rng.standard_normal((4, *start.shape))
    compiled = model.compile(topology, replicas=replicas, frames=frames, gate=GATE)
    simulation = ReplicaSimulation(
        model,
        np.repeat(start[None], replicas, axis=0),
        compiled=compiled,
        topology=topology,
        temperature=TEMPERATURE,
        time_step=TIME_STEP * units.fs,
        friction=FRICTION / (1000 * units.fs),
    )
    i, j = np.array(topology.bonds).T
    bonds = model.priors.terms["bonds"]
    graph = model.graph(topology)
    equilibrium = bonds.of_members(graph)["equilibrium"].numpy()
    record: dict = {"beads": topology.n_beads, "largest_deviation": 0.0, "times_ps": [], "rmsd": [], "end": "finite"}
    looks = 100  # between two reports: a bond that is too long is seen
    try:
        with threads_for(1):
            for report in range(REPORTS):
                for _ in range(looks):
                    simulation.step(max(1, steps // REPORTS // looks))
                    lengths = np.linalg.norm(simulation.positions[:, i] - simulation.positions[:, j], axis=-1)
                    record["largest_deviation"] = max(
                        record["largest_deviation"], float(np.abs(lengths - equilibrium).max())
                    )
                record["times_ps"].append((report + 1) * steps / REPORTS * TIME_STEP / 1000)
                record["rmsd"].append(float(np.mean([rmsd(x, start) for x in simulation.positions])))
    except SimulationError as error:
        record["end"] = str(error)
    return record


def rmsd(x: np.ndarray, y: np.ndarray) -> float:
    """Return the least root mean square distance of two conformations (N, 3) after superposition."""
    a, b = x - x.mean(0), y - y.mean(0)
    u, sizes, v = np.linalg.svd(a.T @ b)
    sizes[-1] *= np.sign(np.linalg.det(u @ v))
    return float(np.sqrt(max(0.0, ((a**2).sum() + (b**2).sum() - 2 * sizes.sum()) / len(x))))


if __name__ == "__main__":
    main()
