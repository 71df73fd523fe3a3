"""Published TorchMD-Net graph networks as our models: weights read from their checkpoints, nothing executed."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError, reason
from ase_cg.files import existing_file, fingerprint, listed
from ase_cg.models.backbones.schnet import SchNet
from ase_cg.models.known_residues import known_residues
from ase_cg.models.model import CGModel, ModelCard
from ase_cg.models.torchmd import read_torchmd_force_field, torchmd_priors, torchmd_type
from ase_cg.models.trained_rows import squared_gradients
from ase_cg.units import KCAL_PER_MOL

# What else a checkpoint may name: training callbacks, whose state is of no use here. They become empty shells.
IGNORED_MODULES = ("pytorch_lightning.", "lightning.", "torchmdnet.")
# Weights of a graph network; ``mlp`` is ``conv.net`` by a second name, and the mean only shifts the energy.
KNOWN_WEIGHTS = re.compile(
    r"model\.(mean|std|output_model\.output_network\.[02]\..*"
    r"|representation_model\.(embedding|distance_expansion|interactions\.\d+\.(mlp|conv\.(net|lin1|lin2)|lin))\..*)$"
)
EMBEDDING = "model.representation_model.embedding.weight"

PathLike = str | os.PathLike[str]


def import_torchmdnet(
    checkpoint: PathLike,
    priors: PathLike | Sequence[PathLike],
    topologies: Sequence[BeadTopology] = (),
    *,
    numbering: PathLike | Mapping[str, int] | None = None,
    trained: Sequence[str] = (),
    temperature: float = 350.0,
    repulsion_cutoff: float | None = None,
) -> CGModel:
    """Make a model of a TorchMD-Net graph network of Cα beads and its prior force field.

    A checkpoint does not say which residue its rows of numbers belong to; with those of another network it gives finite
    energies that mean nothing. So `numbering` has to be given, and is checked against which rows were trained.

    Parameters
    ----------
    checkpoint : path
        Of PyTorch Lightning; a graph network (``model: graph-network``) with a scalar output, in kcal/mol and Å.
    priors : path or sequence of paths
        TorchMD's YAML; of several, each gives the sections that those before it lack. See
        :func:`ase_cg.models.torchmd.torchmd_priors`.
    topologies : sequence of BeadTopology
        Molecules whose beads are known by their types alone later on.
    numbering : str, path, or mapping of str to int
        Numbers of residues in the network: ``"multi-protein"`` for that of the 12 fast folders
        (torchmd-protein-thermodynamics), ``"torchmd-exp"`` for those of torchmd-exp and the chignolin tutorial, or an
        own table, as a mapping or a JSON or YAML file. See :func:`ase_cg.models.residue_numbers.residue_numbers`.
    trained : sequence of str
        Residues of which you know that the training data had them, where the checkpoint cannot show it: it has no state
        of the optimiser, and the rows of rare residues look like those that were never trained.
    temperature : float
        Of the model's data, in K.
    repulsion_cutoff : float, optional
        Distance in Å at which the repulsion ends, smoothly over its last fifth. TorchMD's has none, which is right
        for one molecule and refused in a periodic cell.

    Returns
    -------
    CGModel
        Its vocabulary is that of the residues that the priors know and the network was trained on. The card's
        provenance has the numbering, and why residues were left out.

    Raises
    ------
    InputError
        If a file cannot be read, the architecture is another, the numbering is not given or is that of another network,
        or a molecule has beads that the model does not know.
    """
    weights, settings = read_checkpoint(checkpoint)
    files = listed(priors)
    sections = read_torchmd_force_field(*files)
    _check_settings(settings, checkpoint)
    embedding = _embedding(weights, checkpoint)
    moments = squared_gradients(_read(checkpoint), embedding.shape)
    evidence = (embedding, moments, bool(settings.get("load_model")))
    numbers, rows, left_out = known_residues(evidence, numbering, trained, f"{checkpoint}")
    for name in [name for name in rows if torchmd_type(name) not in sections["lj"]]:
        del rows[name]
        left_out[name] = f"the priors have no repulsion for its type {torchmd_type(name)}"
    _check_topologies(topologies, rows, left_out)
    vocabulary = tuple(rows)
    backbone = _graph_network(weights, settings, list(rows.values()), checkpoint)
    sources = [Path(checkpoint), *files, *([numbers.file] if numbers.file else [])]
    provenance = {
        "imported_from": [fingerprint(path) for path in sources],
        "numbering": {"name": numbers.name, "rows": rows},
        "beads_left_out": left_out,
    }
    card = ModelCard(temperature, "calpha", tuple(topologies), labels="atomistic", provenance=provenance)
    terms = torchmd_priors(sections, vocabulary, rounded=True, repulsion_cutoff=repulsion_cutoff)
    model = CGModel(vocabulary, terms, card, backbone=backbone, backbone_name="schnet")
    return model.double().requires_grad_(requires_grad=False)


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights and hyper-parameters of a PyTorch Lightning checkpoint without running code of it.

    PyTorch's restricted unpickler rebuilds tensors and plain values only; classes of training frameworks that the file
    names become empty shells, and any other name is refused.

    Raises
    ------
    InputError
        If the file is no checkpoint, is truncated, or names something that is not known to be harmless.
    """
    data = _read(path)
    return dict(data["state_dict"]), dict(data["hyper_parameters"])


def _read(path: PathLike) -> dict[str, Any]:
    """Read all that a checkpoint holds; see :func:`read_checkpoint`."""
    found = existing_file(path, "checkpoint")
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(found)
    except Exception as error:
        # A damaged archive raises whatever its reader meets first.
        raise InputError(f"{found} is no PyTorch checkpoint or is damaged: {reason(error)}") from error
    foreign = [name for name in named if not name.startswith(IGNORED_MODULES)]
    if foreign:
        raise InputError(f"{found} asks for {foreign[0]}, which a checkpoint of weights has no use for; it is not read")
    shells: list[Any] = [(type("Ignored", (), {}), name) for name in named]
    try:
        with torch.serialization.safe_globals(shells):
            data = torch.load(found, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{found} is no PyTorch checkpoint or is damaged: {reason(error)}") from error
    if not isinstance(data, dict) or "state_dict" not in data or "hyper_parameters" not in data:
        raise InputError(f"{found} is no checkpoint of PyTorch Lightning: it has no state_dict and hyper_parameters")
    return data


def _check_topologies(topologies: Sequence[BeadTopology], rows: Mapping[str, int], left_out: Mapping[str, str]) -> None:
    """Raise :class:`InputError` if a molecule has a bead that the model does not know, or there is none to know."""
    for name in (name for topology in topologies for name in topology.names):
        if name not in rows:
            raise InputError(f"the model knows no bead {name!r}: {left_out.get(name, 'it is no residue of TorchMD')}")
    if not rows:
        name, why = next(iter(left_out.items()))
        raise InputError(f"the model would know no residue at all; {name}, for instance: {why}")


def _embedding(weights: Mapping[str, Tensor], path: PathLike) -> Tensor:
    """Return the embedding, shape (rows, features)."""
    found = weights.get(EMBEDDING)
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise InputError(f"{path} lacks weights of a graph network: {EMBEDDING}")
    if not bool(torch.isfinite(found).all()):
        raise InputError(f"the weights in {path} hold values that are no numbers ({EMBEDDING})")
    return found


def _check_settings(settings: Mapping[str, Any], path: PathLike) -> None:
    """Raise :class:`InputError` if the network is of an architecture that is not imported."""
    for key, wanted in (
        ("model", "graph-network"),
        ("output_model", "Scalar"),
        ("activation", "tanh"),
        ("rbf_type", "expnorm"),
        ("neighbor_embedding", False),
        ("reduce_op", "add"),
    ):
        if settings.get(key) != wanted:
            raise InputError(f"{path} is a network with {key} {settings.get(key)!r}; only {wanted!r} is imported")
    if settings.get("prior_model") or settings.get("standardize"):
        raise InputError(f"{path} has a prior model or standardised energies, which are not imported")
    if settings.get("aggr", "add") != "add":  # older versions only knew sums, and did not name them
        raise InputError(f"{path} is a network with aggr {settings['aggr']!r}; only 'add' is imported")
    if settings.get("atom_filter", -1) > 0:
        raise InputError(f"{path} leaves beads of small numbers out of its energy (atom_filter), which is not imported")


def _graph_network(
    weights: Mapping[str, Tensor], settings: Mapping[str, Any], rows: Sequence[int], path: str | os.PathLike[str]
) -> SchNet:
    """Make a SchNet with the weights of a graph network; energies from kcal/mol to eV."""
    try:
        size, n_interactions = int(settings["embedding_dimension"]), int(settings["num_layers"])
        head = weights["model.output_model.output_network.0.weight"].shape[0]
        network = SchNet(
            len(rows),
            cutoff=float(settings["cutoff_upper"]),
            cutoff_lower=float(settings["cutoff_lower"]),
            n_basis=int(settings["num_rbf"]),
            features=size,
            n_filters=size,
            n_interactions=n_interactions,
            head=[head],
            trainable_basis=bool(settings["trainable_rbf"]),
        )
        _check_all_known(weights, path)
        # Double precision, so that other units do not round what the checkpoint holds.
        renamed = {name: tensor.double() for name, tensor in _renamed(weights, rows, n_interactions).items()}
        network.double().load_state_dict(renamed)
    except (IndexError, KeyError, RuntimeError, TypeError) as error:
        raise InputError(f"{path} lacks weights of a graph network: {reason(error)}") from error
    wrong = [name for name, tensor in renamed.items() if not bool(torch.isfinite(tensor).all())]
    if wrong:
        raise InputError(f"the weights in {path} hold values that are no numbers ({wrong[0]} here)")
    return network


def _check_all_known(weights: Mapping[str, Tensor], path: PathLike) -> None:
    """Raise :class:`InputError` if there are weights that would be left behind: the network is then another one."""
    left = [name for name in weights if name.startswith("model.") and not KNOWN_WEIGHTS.match(name)]
    if left:
        raise InputError(f"{path} has weights {left[0]}, which no graph network that is imported has")


def _renamed(weights: Mapping[str, Tensor], rows: Sequence[int], n_interactions: int) -> dict[str, Tensor]:
    start = "model.representation_model."
    renamed = {
        "basis.means": weights[f"{start}distance_expansion.means"],
        "basis.betas": weights[f"{start}distance_expansion.betas"],
        "embedding.weight": weights[EMBEDDING][list(rows)],
    }
    parts = {
        "filters.0": "conv.net.0",
        "filters.2": "conv.net.2",
        "inward": "conv.lin1",
        "outward.0": "conv.lin2",
        "outward.2": "lin",
    }
    for layer in range(n_interactions):
        for ours, theirs in parts.items():
            for kind in ("weight",) if ours == "inward" else ("weight", "bias"):
                renamed[f"interactions.{layer}.{ours}.{kind}"] = weights[f"{start}interactions.{layer}.{theirs}.{kind}"]
    for layer in (0, 2):
        for kind in ("weight", "bias"):
            renamed[f"head.{layer}.{kind}"] = weights[f"model.output_model.output_network.{layer}.{kind}"]
    std = weights.get("model.std", torch.tensor(1.0))
    for kind in ("weight", "bias"):
        renamed[f"head.2.{kind}"] = renamed[f"head.2.{kind}"].double() * std.double() * KCAL_PER_MOL
    return renamed
