"""Whether recorded forces and the labels of a flow agree: mean squares of both about the forces of several models.

    python benchmarks/label_losses.py runs/data_efficiency/quick/dipeptide --flow 1_flow_cnf_seed_0 \
        1_flow_cnf_seed_0 1_flow_and_forces_cnf_seed_0 1_atomistic_seed_0 1_atomistic_seed_1 \
        1_forces_and_noise_0.02_seed_0

Takes the folder of a molecule in the study of ``kernels.py``, the row whose flow made the labels, and rows whose models
are compared. A model near the data has as little on its own kind of labels as their scatter; what another kind has
beyond its scatter is that labels of the flow belong to the flow's density.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from ase_cg import CGModel, Dataset
from ase_cg.data.graph import topology_graph
from ase_cg.units import KCAL_PER_MOL

BATCH = 1000


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", nargs="+")
    parser.add_argument("--flow", required=True)
    arguments = parser.parse_args()
    kinds = (arguments.folder / "reference.h5", arguments.folder / arguments.flow / "training" / "flow" / "labels.h5")
    print("| model of | recorded forces | labels of the flow |\n| --- | --- | --- |")
    for row in arguments.rows:
        model = CGModel.load(arguments.folder / row / "training" / "model.safetensors").double()
        print(f"| {row} | " + " | ".join(f"{mean_square(model, path):.1f}" for path in kinds) + " |")


def mean_square(model: CGModel, path: Path) -> float:
    """Return the mean square of a dataset's forces about the model's, in (kcal/mol/Å)² a component."""
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        found = []
        for frames in np.split(np.arange(molecule.n_frames), np.arange(BATCH, molecule.n_frames, BATCH)):
            x = torch.from_numpy(molecule.coordinates(frames)).double()
            graph = topology_graph(molecule.topology, model.vocabulary, len(x)).to("cpu", torch.float64)
            _, forces = model.energy_and_forces(graph._replace(positions=x.reshape(-1, 3)))
            found.append((forces.detach().numpy().reshape(x.shape) - molecule.forces(frames)) / KCAL_PER_MOL)
    return float(np.mean(np.concatenate(found) ** 2))


if __name__ == "__main__":
    main()
