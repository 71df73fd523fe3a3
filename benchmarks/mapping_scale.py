"""How fast trajectories are mapped, with how much memory, and what streamed batches cost a training.

    python benchmarks/mapping_scale.py --folder runs/mapping_scale --size 4    # GB of the made trajectory; resumable

Each mapping runs in a process of its own, whose largest memory is read off at its end. The trajectory is made: a
chain of 120 alanines, stretched, with noise on every atom, so that no compression makes it look fast.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ATOMS_PER_RESIDUE = ("N", "H", "CA", "HA", "CB", "HB1", "HB2", "HB3", "C", "O")
RESIDUES = 120
CHUNK = 2000

MAP = """
import json, re, sys, time
from ase_cg import map_trajectory
options = json.loads(sys.argv[1])
started = time.perf_counter()
map_trajectory(**options, quiet=True, overwrite=True)
print(json.dumps({
    "seconds": time.perf_counter() - started,
    "memory_GB": int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e6,
}))
"""


def main() -> None:
    """Make the trajectories, map them, train on them, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/mapping_scale"))
    parser.add_argument("--size", type=float, default=4.0, help="GB of the array of positions")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    record = arguments.folder / "results.json"
    results = json.loads(record.read_text()) if record.is_file() else {}
    topology = make_topology(arguments.folder / "chain.pdb")
    frames = int(arguments.size * 1e9 / (12 * RESIDUES * len(ATOMS_PER_RESIDUE)))
    for name, path, options in sources(arguments.folder, frames, topology):
        if name not in results:
            results[name] = measure_mapping(path, options, frames)
            record.write_text(json.dumps(results, indent=2))
    print("| source | file / GB | frames/s | MB/s | largest memory / GB |\n| --- | --- | --- | --- | --- |")
    for name, row in results.items():
        if "memory_GB" in row:
            print(f"| {name} | {row['GB']:.2f} | {row['frames/s']:.0f} | {row['MB/s']:.0f} | {row['memory_GB']:.2f} |")
    for beads, batch in ((RESIDUES, 64), (RESIDUES, 512)):
        key = f"stream {beads} beads, batch {batch}"
        if key not in results:
            results[key] = measure_stream(arguments.folder / "optimal.h5", batch)
            record.write_text(json.dumps(results, indent=2))
    print("\n| batches | from memory / (frames/s) | streamed / (frames/s) | streamed MB/s |\n| --- | --- | --- | --- |")
    for name, row in results.items():
        if name.startswith("stream"):
            print(f"| {name} | {row['memory']:.0f} | {row['streamed']:.0f} | {row['MB/s']:.0f} |")
    training = "training, SchNet"
    if training not in results:
        results[training] = measure_training(arguments.folder)
        record.write_text(json.dumps(results, indent=2))
    row = results[training]
    print(
        f"\nTraining: {row['memory']:.1f} ms/step from memory, {row['streamed']:.1f} ms/step streamed "
        f"(ratio {row['streamed'] / row['memory']:.3f}, medians of {row['rounds']} interleaved rounds)"
    )


def make_topology(path: Path) -> Path:
    """Write a chain of alanines as PDB."""
    import mdtraj

    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for number in range(RESIDUES):
        residue = topology.add_residue("ALA", chain, resSeq=number + 1)
        for name in ATOMS_PER_RESIDUE:
            topology.add_atom(name, mdtraj.element.Element.getBySymbol(name[0]), residue)
    mdtraj.Trajectory(rest_positions()[None], topology).save(str(path))
    return path


def rest_positions() -> np.ndarray:
    """Return positions in nm, (n, 3), of a stretched chain."""
    offsets = np.array(
        [
            *([0.0, 0.0, 0.0], [-0.05, 0.09, 0.0], [0.13, 0.06, 0.0], [0.13, 0.12, 0.09], [0.13, 0.14, -0.12]),
            *([0.05, 0.2, -0.13], [0.22, 0.2, -0.13], [0.13, 0.08, -0.2], [0.24, -0.02, 0.0], [0.24, -0.14, 0.0]),
        ]
    )
    shifts = np.outer(np.arange(RESIDUES), [0.37, 0.0, 0.0])
    return (shifts[:, None] + offsets).reshape(-1, 3)


def sources(folder: Path, frames: int, topology: Path) -> list[tuple[str, list[Path], dict]]:
    """Make the files and return what to map."""
    positions, forces = folder / "positions.npy", folder / "forces.npy"
    for path, scale, shift in ((positions, 0.004, rest_positions()), (forces, 1000.0, 0.0)):
        if not path.is_file():
            write_array(path, frames, scale, shift)
    xtc = folder / "positions.xtc"
    if not xtc.is_file():
        write_xtc(xtc, positions, topology)
    common = {"topology": str(topology), "temperature": 300.0}
    arrays = common | {"length_unit": "nm", "force_unit": "kJ/mol/nm", "forces": [str(forces)]}
    rows = [
        (".npy, calpha, no forces", [positions], common | {"length_unit": "nm", "output": str(folder / "plain.h5")}),
        (
            ".npy, calpha, constraint sum",
            [positions, forces],
            arrays | {"force_map": "constraint_sum", "constraints": "hbonds", "output": str(folder / "sum.h5")},
        ),
        (
            ".npy, calpha, optimal, constraints detected",
            [positions, forces],
            arrays | {"output": str(folder / "optimal.h5")},
        ),
        (
            ".npy, residue_com, optimal, hbonds",
            [positions, forces],
            arrays | {"resolution": "residue_com", "constraints": "hbonds", "output": str(folder / "com.h5")},
        ),
        (".xtc, calpha, no forces", [xtc], common | {"output": str(folder / "xtc.h5")}),
    ]
    return [(name, paths, {"resolution": "calpha", "trajectories": str(paths[0]), **o}) for name, paths, o in rows]


def write_array(path: Path, frames: int, scale: float, shift: np.ndarray | float) -> None:
    """Write noise of a size around a shift, (frames, n, 3) in single precision."""
    n_atoms = RESIDUES * len(ATOMS_PER_RESIDUE)
    rng = np.random.default_rng(0)
    partial = path.with_suffix(".partial.npy")
    array = np.lib.format.open_memmap(partial, "w+", np.float32, (frames, n_atoms, 3))
    for start in range(0, frames, CHUNK):
        part = array[start : start + CHUNK]
        part[:] = shift + scale * rng.standard_normal(part.shape, dtype=np.float32)
    array.flush()
    del array
    partial.replace(path)


def write_xtc(path: Path, positions: Path, topology: Path) -> None:
    """Write the same positions as XTC."""
    import mdtraj
    from mdtraj.formats import XTCTrajectoryFile

    del topology
    array = np.load(positions, mmap_mode="r")
    partial = path.with_suffix(".partial.xtc")
    with XTCTrajectoryFile(str(partial), "w", force_overwrite=True) as file:
        for start in range(0, len(array), CHUNK):
            file.write(np.asarray(array[start : start + CHUNK]))
    del mdtraj
    partial.replace(path)


def measure_mapping(paths: list[Path], options: dict, frames: int) -> dict:
    """Map in a process of its own."""
    command = [sys.executable, "-c", MAP, json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own interpreter
    row = json.loads(done.stdout.splitlines()[-1])
    size = sum(path.stat().st_size for path in paths)
    return row | {"GB": size / 1e9, "frames/s": frames / row["seconds"], "MB/s": size / 1e6 / row["seconds"]}


def measure_stream(path: Path, batch_size: int) -> dict:
    """Count frames a second without any model, from memory and streamed."""
    import torch

    from ase_cg import Dataset
    from ase_cg.training.frames import MoleculeFrames, frame_loader
    from ase_cg.training.streaming import FrameStream

    torch.set_num_threads(1)
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        n_frames, n_beads = molecule.n_frames, molecule.topology.n_beads
        coordinates, forces = molecule.coordinates(), molecule.forces()
    options = {"batch_size": batch_size, "shuffle": True, "seed": 0}
    stream = FrameStream(path, molecule.name, np.arange(n_frames), with_forces=True, **options)
    rates: dict[str, list[float]] = {"memory": [], "streamed": []}
    for _ in range(3):
        for name, batches in (
            ("memory", frame_loader([MoleculeFrames(coordinates, forces)], **options)),
            ("streamed", stream),
        ):
            started = time.perf_counter()
            count = sum(len(part.coordinates) for batch in batches for part in batch.parts)
            rates[name].append(count / (time.perf_counter() - started))
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    return medians | {"MB/s": medians["streamed"] * n_beads * 24 / 1e6}


def measure_training(folder: Path, rounds: int = 5, steps: int = 30) -> dict:
    """Time training steps of a small SchNet on batches from memory and streamed, in turn."""
    import torch

    from ase_cg import Dataset
    from ase_cg.beads.atoms import standard_vocabulary
    from ase_cg.data.graph import topology_graph
    from ase_cg.models.backbones import make_backbone
    from ase_cg.models.base import energy_and_forces
    from ase_cg.training.frames import MoleculeFrames, frame_loader
    from ase_cg.training.streaming import FrameStream

    torch.set_num_threads(1)
    path, batch_size = folder / "optimal.h5", 4
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        topology, n_frames = molecule.topology, molecule.n_frames
        coordinates, forces = molecule.coordinates(), molecule.forces()
    vocabulary = standard_vocabulary(topology.names)
    graph = topology_graph(topology, vocabulary, batch_size)
    backbone = make_backbone("schnet", len(vocabulary), {"features": 32, "n_filters": 32, "head": [32]})
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-4)
    options = {"batch_size": batch_size, "shuffle": True, "seed": 0}
    loaders = {
        "memory": iter(frame_loader([MoleculeFrames(coordinates, forces)], **options)),
        "streamed": iter(FrameStream(path, molecule.name, np.arange(n_frames), with_forces=True, **options)),
    }
    times: dict[str, list[float]] = {name: [] for name in loaders}
    for round_ in range(rounds + 1):
        for name, batches in loaders.items():
            started = time.perf_counter()
            for _ in range(steps):
                (part,) = next(batches).parts
                x, f = part.coordinates, part.forces
                moved = graph._replace(positions=x.reshape(-1, 3))
                _, predicted = energy_and_forces(backbone, moved, training=True)
                loss = ((predicted - f.reshape(-1, 3)) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if round_:  # the first round warms up
                times[name].append(1e3 * (time.perf_counter() - started) / steps)
    return {name: float(np.median(values)) for name, values in times.items()} | {"rounds": rounds}


if __name__ == "__main__":
    main()
