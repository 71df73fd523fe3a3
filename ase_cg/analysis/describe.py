"""What a file or folder of ours holds: a dataset, a model, a training, a simulation, or a whole run."""

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_cg.errors import InputError
from ase_cg.files import read_record
from ase_cg.hdf5 import open_hdf5
from ase_cg.mdtraj_hdf5 import TrajectoryFile
from ase_cg.training.table import TABLE_NAME, network_names

if TYPE_CHECKING:
    from ase_cg.models.model import CGModel


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a file or folder holds, as plain values; the key ``kind`` says what it is.

    Parameters
    ----------
    path : path
        A dataset, a model file or the name of a shipped model, a trajectory of beads, or a folder of a training, a
        simulation or a whole run.

    Raises
    ------
    InputError
        If it is none of these.
    """
    found = Path(path)
    if found.is_dir():
        return _describe_folder(found)
    if found.name == "flow.safetensors" and (found.parent / "training.json").is_file():
        return _describe_folder(found.parent)
    if found.suffix in {".h5", ".hdf5"}:
        return _describe_trajectory(found) if _is_trajectory(found) else _describe_dataset(found)
    if found.is_file() and found.suffix != ".safetensors":
        raise InputError(f"{found} is no dataset, model or folder of ase-cg; map trajectories with `ase-cg map` first")
    return _describe_model(found)


def _describe_folder(folder: Path) -> dict[str, Any]:
    if (folder / "simulation.json").is_file():
        return _describe_simulation(folder)
    if (folder / "training.json").is_file():
        return _describe_training(folder)
    if (folder / "metrics.json").is_file():
        return {"kind": "analysis", **read_record(folder / "metrics.json")}
    parts = {
        name: describe(folder / name)
        for name in ("dataset.h5", "training", "simulation", "prior_simulation")
        if (folder / name).is_file() or any((folder / name / f"{n}.json").is_file() for n in ("training", "simulation"))
    }
    metrics = folder / "analysis" / "metrics.json"
    if metrics.is_file():
        parts["analysis"] = {"kind": "analysis", **read_record(metrics)}
    if not parts:
        raise InputError(f"{folder} holds no training, simulation or run of ase-cg")
    return {"kind": "run", "parts": parts}


def _describe_dataset(path: Path) -> dict[str, Any]:
    from ase_cg.analysis.diagnose import diagnose
    from ase_cg.data.dataset import Dataset

    with Dataset.open(path) as dataset:
        information = dataset.info()
        for name, molecule in dataset.molecules.items():
            information["molecules"][name] |= diagnose(molecule).to_dict()
    return {"kind": "dataset", "units": {"coordinates": "Å", "forces": "eV/Å"}, **information}


def _describe_model(path: Path) -> dict[str, Any]:
    from ase_cg.models.model import CGModel
    from ase_cg.models.priors.prior_set import describe_priors

    model = CGModel.load(path)
    return {
        "kind": "model",
        "vocabulary": list(model.vocabulary),
        "backbone": model.backbone_name,
        "hyper_parameters": {} if model.backbone is None else model.backbone.hyper_parameters,
        "parameters": sum(p.numel() for p in model.parameters()),
        "priors": describe_priors(model.priors),
        "sharpened_priors": sharpened_priors(model),
        "card": model.card.to_dict(),
    }


def sharpened_priors(model: "CGModel") -> list[str]:
    """Return the names of the priors that differ between training and simulation."""
    from ase_cg.models.priors.prior_set import describe_priors

    if model.training_priors is None:
        return []
    simulated, trained = describe_priors(model.priors), describe_priors(model.training_priors)
    return [name for name, parameters in simulated.items() if parameters != trained[name]]


def _is_trajectory(path: Path) -> bool:
    import h5py

    if not h5py.is_hdf5(path):
        return False
    with open_hdf5(path) as file:
        return "coordinates" in file


def _describe_trajectory(path: Path) -> dict[str, Any]:
    with TrajectoryFile(path) as file:
        frames, atoms = file.n_frames, file.n_atoms
        times = file.times()
    span = (
        {} if times is None or not len(times) else {"first_time_ps": float(times[0]), "last_time_ps": float(times[-1])}
    )
    return {"kind": "trajectory", "path": str(path), "frames": frames, "particles": atoms, **span}


def _describe_simulation(folder: Path) -> dict[str, Any]:
    from ase_cg.dynamics.trajectory import is_growing, read_simulation_record, replica_paths

    record = read_simulation_record(folder)
    replicas = replica_paths(folder)
    frames = max((_describe_trajectory(path)["frames"] for path in replicas), default=0)
    expected = len(record.get("trajectories", range(record["replicas"])))
    return {
        **record,
        "kind": "simulation",
        "finished": len(replicas) == expected and not is_growing(record),
        "trajectories": len(replicas),
        "expected": expected,
        "frames_each": frames,
    }


def _describe_training(folder: Path) -> dict[str, Any]:
    record = read_record(folder / "training.json")
    if "kernel" in record:
        return _describe_flow(folder, record)
    common = {"finished": (folder / "model.safetensors").is_file(), "loss_unit": "(kcal/mol/Å)²", **record}
    flow = folder / "flow" / "training.json"
    if flow.is_file():
        common["flow"] = _describe_flow(flow.parent, read_record(flow))
    names = network_names(record["recipe"])
    if not names:
        return {"kind": "training", **_progress(folder), **common}
    networks = {name: _progress(folder / name) for name in names}
    # A table may be older than a training that has begun again: it counts with the model it chose.
    table = folder / f"{TABLE_NAME}.json"
    chosen = read_record(table) if common["finished"] and table.is_file() else {}
    choice: dict[str, Any] = {key: chosen[key] for key in ("chosen", "rule") if key in chosen}
    return {"kind": "trainings", "networks": networks, **choice, **common}


def _describe_flow(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Return how far a flow and its labels are, and which bonds it does not reproduce."""
    from ase_cg.flows.kernel import FlowKernel

    kernel, labels = folder / "flow.safetensors", folder / "labels.h5"
    found = {"kind": "flow", **_progress(folder), **record, "finished": kernel.is_file(), "labelled": labels.is_file()}
    if kernel.is_file():
        provenance = FlowKernel.load(kernel).provenance
        found |= {"metrics": provenance["metrics"], "bonds": provenance["bonds"]}
    return found


def _progress(folder: Path) -> dict[str, Any]:
    """Return how far the training of a network has come."""
    epochs: dict[int, dict[str, float]] = {}
    for log in sorted((folder / "csv").glob("version_*/metrics.csv")):
        with log.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                known = {key: float(row[key]) for key in ("train_loss", "validation_loss") if row.get(key)}
                if known:
                    epochs.setdefault(int(row["epoch"]), {}).update(known)
    return {
        "finished": (folder / "model.safetensors").is_file(),
        "epochs_done": len(epochs),
        "last_losses": epochs[max(epochs)] if epochs else {},
    }
