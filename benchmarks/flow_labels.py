"""Speed and accuracy of a flow's labels: frames a second with the exact score, and its error, for several settings.

    OMP_NUM_THREADS=1 python benchmarks/flow_labels.py --threads 2 --results runs/flow_labels.json

Ten beads and the published network of chignolin (``../shared/data/operator_forces``), whose exact scores are known;
elsewhere random weights of the same size, and no errors. Rows are named by steps and nodes; the last is a coupling flow
of default size with random weights, whose score is exact by construction. CPU seconds are those of all threads: two
free cores label 2000 / (CPU ms a frame) frames a second. Each setting is kept in the file of results, so that a stopped
run goes on; with ``--device cuda`` on a GPU.
"""

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.flows.base import ConditionalFlow
from ase_cg.flows.cnf import ContinuousFlow
from ase_cg.flows.coupling import CouplingFlow
from ase_cg.flows.egnn import EGNN
from ase_cg.flows.published import read_published_egnn
from ase_cg.flows.stiff_modes import stiff_modes

SETTINGS = ((1, 4), (1, 5), (2, 12))  # steps and nodes of continuous flows
COUPLING = "coupling"
PUBLISHED = Path(__file__).parent.parent.parent / "shared" / "data" / "operator_forces"
N_BEADS, WIDTH = 10, 0.05


def main() -> None:
    arguments = _arguments()
    kept = json.loads(arguments.results.read_text()) if arguments.results.is_file() else {}
    field, exact = _network(arguments.published)
    print("| flow | frames/s | CPU ms a frame | relative error | largest, 1/Å |\n" + "| --- " * 5 + "|")
    flows: dict[str, ConditionalFlow] = {
        f"{steps} {nodes}": ContinuousFlow(field, noise_std=WIDTH, prior_std=WIDTH, steps=steps, nodes=nodes)
        for steps, nodes in SETTINGS
    }
    flows[COUPLING] = _coupling(exact["conditioning"])
    for name, flow in flows.items():
        key = f"{arguments.device} {arguments.threads} {arguments.frames} {name}"
        if key not in kept:
            kept[key] = _speed(flow.to(arguments.device), exact["conditioning"], arguments)
            kept[key] |= _errors(flow.cpu(), exact)
            arguments.results.parent.mkdir(parents=True, exist_ok=True)
            arguments.results.write_text(json.dumps(kept, indent=2))
        row = kept[key]
        print(
            f"| {name} | {row['speed']:.1f} | {1e3 * row['cpu']:.2g} | {row['relative']:.1e} | {row['largest']:.1e} |",
            flush=True,
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=64, help="that are labelled for a speed")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2, help="that label batches side by side")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--published", type=Path, default=PUBLISHED)
    parser.add_argument("--results", type=Path, default=Path("runs/flow_labels.json"))
    return parser.parse_args()


def _network(folder: Path) -> tuple[EGNN, dict[str, Tensor]]:
    if folder.is_dir():
        field = read_published_egnn(folder / "cln_cnf_weights.npz").float()
        with np.load(folder / "cln_cnf_reference.npz") as archive:
            names = ("conditioning", "z0", "score")
            return field, {name: torch.from_numpy(archive[name]).reshape(-1, N_BEADS, 3).float() for name in names}
    torch.manual_seed(0)
    walk = 3.8 * torch.nn.functional.normalize(torch.randn(4, N_BEADS, 3), dim=-1)
    return EGNN(N_BEADS).requires_grad_(requires_grad=False), {"conditioning": walk.cumsum(1)}


def _coupling(frames: Tensor) -> CouplingFlow:
    """Return a flow of a chain, which begins with harmonic bonds and angles as they fluctuate in frames."""
    torch.manual_seed(0)
    names, zeros = ("A",) * N_BEADS, (0,) * N_BEADS
    bonds = tuple((bead, bead + 1) for bead in range(N_BEADS - 1))
    topology = BeadTopology(names, names, tuple(range(N_BEADS)), zeros, (1.0,) * N_BEADS, bonds)
    flow = CouplingFlow(N_BEADS, noise_std=WIDTH, modes=stiff_modes(topology, frames))
    return flow.requires_grad_(requires_grad=False)


def _speed(flow: ConditionalFlow, frames: Tensor, arguments: argparse.Namespace) -> dict[str, float]:
    z = frames.to(arguments.device).repeat(-(-arguments.frames // len(frames)), 1, 1)[: arguments.frames]
    types = torch.arange(N_BEADS, device=arguments.device)
    batches = list(z.split(arguments.batch))
    seconds, cpu = [], []
    with ThreadPoolExecutor(arguments.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(lambda batch: flow.sample(batch, types), batches[: arguments.threads]))
        for _ in range(arguments.rounds):
            started, used = time.perf_counter(), time.process_time()
            found: list[Any] = list(pool.map(lambda batch: flow.sample(batch, types).score, batches))
            seconds.append(time.perf_counter() - started)
            cpu.append(time.process_time() - used)
            if not all(bool(torch.isfinite(score).all()) for score in found):
                raise SystemExit("some scores are no numbers")
    return {"speed": len(z) / float(np.median(seconds)), "cpu": float(np.median(cpu)) / len(z)}


def _errors(flow: ConditionalFlow, exact: dict[str, Tensor]) -> dict[str, float]:
    if "score" not in exact or not isinstance(flow, ContinuousFlow):
        return {"relative": float("nan"), "largest": float("nan")}
    found = flow.push_with_score(exact["z0"], exact["conditioning"], torch.arange(N_BEADS)).score
    error = found - exact["score"]
    relative = error.norm(dim=(1, 2)) / exact["score"].norm(dim=(1, 2))
    return {"relative": float(relative.max()), "largest": float(error.abs().max())}


if __name__ == "__main__":
    main()
