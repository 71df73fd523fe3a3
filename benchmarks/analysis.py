"""How long the comparison takes, with how much memory, and how both grow with the number of frames.

    python benchmarks/analysis.py --folder runs/analysis_benchmark

Runs on the published Cα set of chignolin (../shared/data), compared with the published all-atom trajectories, and on
made chains of 10 and 100 beads of growing length. Each analysis runs in a process of its own; resumable. On a busy
machine compare the CPU seconds. It fails if the published set takes a minute, anything 2 GB, or time grows faster than
the frames.
"""

import argparse
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

from ase_cg import map_trajectory
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset_writer import create_dataset

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
SIZES = {10: (50_000, 100_000, 200_000, 400_000), 100: (50_000, 100_000, 200_000)}  # beads: frames
PUBLISHED = "chignolin Cα, 18 689 frames"
SECONDS, GB = 60.0, 2.0  # of the published set at most, and of any
STEEPER = 1.5  # times as many seconds a frame as with fewer frames: more is no longer linear
TRAJECTORIES = 20
RUN = """
import json, re, sys, time
started = time.perf_counter()
from ase_cg import analyze
options = json.loads(sys.argv[1])
analyze(**options, quiet=True, overwrite=True)
print(json.dumps({
    "seconds": time.perf_counter() - started,
    "cpu_seconds": time.process_time(),
    "memory_GB": int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e6,
}))
"""


def main() -> None:
    """Make the data, analyze them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/analysis_benchmark"))
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "results.json"
    results = json.loads(record.read_text()) if record.is_file() else {}
    for name, make in rows(folder).items():
        if name not in results:
            done = subprocess.run(  # noqa: S603 - our own program
                [sys.executable, "-c", RUN, json.dumps(make())], capture_output=True, text=True, check=True
            )
            results[name] = json.loads(done.stdout.splitlines()[-1])
            record.write_text(json.dumps(results, indent=2))
    print("| data | seconds | CPU seconds | largest memory / GB |\n| --- | --- | --- | --- |")
    for name, row in results.items():
        print(f"| {name} | {row['seconds']:.1f} | {row['cpu_seconds']:.1f} | {row['memory_GB']:.2f} |")
    for sentence in broken(results):
        print(f"NOT MET: {sentence}")
    sys.exit(bool(broken(results)))


def broken(results: dict) -> list[str]:
    """Return which of the promises about time and memory were not kept, one sentence each."""
    found = [
        f"{name} took {row['seconds']:.0f} s and {row['memory_GB']:.2f} GB; the limits are {SECONDS:.0f} s, {GB:.0f} GB"
        for name, row in results.items()
        if row["memory_GB"] >= GB or (name == PUBLISHED and row["seconds"] >= SECONDS)
    ]
    for beads, counts in SIZES.items():
        known = [n for n in counts if made_name(beads, n) in results]
        cost = [results[made_name(beads, n)]["cpu_seconds"] for n in known]
        steep = [(b - a) / (m - n) for a, b, n, m in zip(cost, cost[1:], known, known[1:], strict=False)]
        if any(later > STEEPER * earlier for earlier, later in pairwise(steep)):
            found.append(
                f"with {beads} beads time grows faster than the frames: {', '.join(f'{s:.2g}' for s in steep)} s"
            )
    return found


def made_name(beads: int, frames: int) -> str:
    """Return the name of a row of made chains."""
    return f"{beads} beads, {frames} frames"


def rows(folder: Path) -> dict:
    """Return the rows of the table: what makes the options of each."""
    found = {PUBLISHED: lambda: published(folder)} if DATA.is_dir() else {}
    for beads, counts in SIZES.items():
        for frames in counts:
            found[made_name(beads, frames)] = lambda beads=beads, frames=frames: made(folder, beads, frames)
    return found


def published(folder: Path) -> dict:
    """Map the published sets; the coarse-grained one is the reference."""
    source, atoms = DATA / "chignolin_ca_forces", DATA / "chignolin_all_atom"
    reference = map_trajectory(
        source / "chignolin_ca_coords.npy",
        folder / "reference.h5",
        topology=source / "chignolin_ca_top.psf",
        resolution="calpha",
        temperature=350,
        length_unit="Å",
        overwrite=True,
        quiet=True,
    )
    model = map_trajectory(
        [atoms / f"traj_{i}.dcd" for i in range(3)],
        folder / "model.h5",
        topology=atoms / "traj_0.pdb",
        resolution="calpha",
        temperature=300,
        overwrite=True,
        quiet=True,
    )
    return {
        "simulation": str(model),
        "reference": str(reference),
        "output": str(folder / "published"),
        "native": str(source / "chignolin_cln025.pdb"),
        "discard": 0.0,
    }


def made(folder: Path, beads: int, frames: int) -> dict:
    """Make chains that open and close slowly; half of the frames are the reference's, half the model's."""
    bonds = tuple((i, i + 1) for i in range(beads - 1))
    names = ("ALA",) * beads
    topology = BeadTopology(names, names, tuple(range(1, beads + 1)), (0,) * beads, (12.0,) * beads, bonds)
    paths = []
    for number, half in enumerate(("reference", "model")):
        path = folder / f"{half}_{beads}_{frames}.h5"
        rng = np.random.default_rng(number)
        with (
            create_dataset(path, overwrite=True) as dataset,
            dataset.molecule("chain", topology, temperature=300.0, resolution="calpha") as molecule,
        ):
            for _ in range(TRAJECTORIES):
                molecule.next_trajectory()
                molecule.append(opening(rng, frames // 2 // TRAJECTORIES, beads))
        paths.append(str(path))
    return {"simulation": paths[1], "reference": paths[0], "output": str(folder / f"made_{beads}_{frames}")}


def opening(rng: np.random.Generator, frames: int, beads: int) -> np.ndarray:
    """Return a chain whose bend jumps between two values about every hundredth frame."""
    open_now = (np.cumsum(rng.random(frames) < 0.01) + rng.integers(2)) % 2
    turn = np.where(open_now, 0.2, 0.5)[:, None] * np.arange(beads)
    steps = 3.8 * np.stack([np.cos(turn), np.sin(turn), np.full(turn.shape, 0.3)], -1)
    return (np.cumsum(steps, 1) + 0.1 * rng.standard_normal((frames, beads, 3))).astype(np.float32)


if __name__ == "__main__":
    main()
