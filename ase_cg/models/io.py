"""The model file: one ``.safetensors`` with the weights and, in its metadata, JSON that says what they are."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ase_cg.errors import InputError, reason
from ase_cg.files import existing_file, save_tensors
from ase_cg.keys import MODEL_FORMAT, MODEL_VERSION
from ase_cg.models.backbones import make_backbone
from ase_cg.models.model import CGModel, ModelCard
from ase_cg.models.priors import PRIORS
from ase_cg.models.priors.prior_set import PriorSet
from ase_cg.shipped import shipped_files, shipped_or_given

METADATA_KEY = "ase_cg"
FRAMES = "frames."


def save_model(model: CGModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a model.

    Parameters
    ----------
    model : CGModel
    path : path
        Ends in ``.safetensors``.
    overwrite : bool

    Raises
    ------
    InputError
        If the name does not end so, or the file exists and `overwrite` is false.
    """
    _check_suffix(Path(path))
    if model.backbone is not None and model.backbone_name is None:
        raise InputError(
            "the model's network has no name, by which it is made again from the file: give CGModel the backbone_name "
            "under which it is registered"
        )
    metadata = {
        "format": MODEL_FORMAT,
        "version": MODEL_VERSION,
        "units": {"energy": "eV", "length": "Å"},
        "vocabulary": list(model.vocabulary),
        "backbone": None
        if model.backbone is None
        else {"name": model.backbone_name, "hyper_parameters": model.backbone.hyper_parameters},
        "priors": _named_settings(model.priors),
        "training_priors": None if model.training_priors is None else _named_settings(model.training_priors),
        "card": model.card.to_dict(),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    tensors |= {f"{FRAMES}{i}": frames.cpu().float().contiguous() for i, frames in enumerate(model.frames)}
    save_tensors(path, tensors, {METADATA_KEY: json.dumps(metadata)}, overwrite=overwrite)


def load_model(path: str | os.PathLike[str]) -> CGModel:
    """Read a model by path, or by name if it comes with ase-cg; nothing in the file is executed.

    Raises
    ------
    InputError
        If the file is missing, truncated, not a model of ours, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    found = find_model(path)
    try:
        with safe_open(found, framework="pt") as file:
            metadata = (file.metadata() or {}).get(METADATA_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError) as error:
        raise InputError(f"{found} is no safetensors file or is truncated: {reason(error)}") from error
    if metadata is None:
        raise InputError(f"{found} is a safetensors file but no ase-cg model; make one with `ase-cg train`")
    try:
        data = json.loads(metadata)
        name, version = data["format"], data["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{found} is damaged: {reason(error)}") from error
    if name != MODEL_FORMAT:
        raise InputError(f"{found} is no ase-cg model, but {name!r}")
    if version != MODEL_VERSION:
        raise InputError(f"{found} is an ase-cg model of version {version}, this program reads version {MODEL_VERSION}")
    try:
        model = _build(data, tensors)
    except InputError:
        raise
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(f"{found} is damaged: {reason(error)}") from error
    _warn_of_unknown_numbering(model, found)
    return model


def _warn_of_unknown_numbering(model: CGModel, path: Path) -> None:
    """Warn of a network that was imported before the residue numbers of published ones were told apart."""
    provenance = model.card.provenance
    four = {"ARG", "LYS", "LEU", "ILE"} & set(model.vocabulary)
    if model.backbone is not None and "imported_from" in provenance and "numbering" not in provenance and four:
        warnings.warn(
            f"{path} was imported with the numbers 18 to 21 for ARG, LYS, LEU and ILE, which are right for torchmd-exp "
            "but not for the multi-protein network; unless it is the former, import it again with --numbering",
            UserWarning,
            stacklevel=3,
        )


def find_model(path: str | os.PathLike[str]) -> Path:
    """Return the file of a model: a path, or the name of one that comes with ase-cg (``ala2_forces_and_noise``).

    Raises
    ------
    InputError
        If there is none, or its name does not end in ``.safetensors``.
    """
    given = shipped_or_given(path, ".safetensors")
    if not given.suffix and not given.exists():
        known = ", ".join(shipped_files(".safetensors"))
        raise InputError(f"model {path} does not exist, and those that come with ase-cg are {known}")
    found = existing_file(given, "model")
    _check_suffix(found)
    return found


def _build(data: dict[str, Any], tensors: dict[str, Tensor]) -> CGModel:
    vocabulary = tuple(data["vocabulary"])
    kept = sorted((int(name.removeprefix(FRAMES)), name) for name in tensors if name.startswith(FRAMES))
    frames = [tensors.pop(name) for _, name in kept]
    spec = data["backbone"]
    # Made on the CPU without touching the global random numbers: the weights are overwritten below.
    with torch.random.fork_rng(devices=[]):
        backbone = None if spec is None else make_backbone(spec["name"], len(vocabulary), spec["hyper_parameters"])
    training = data["training_priors"]
    model = CGModel(
        vocabulary,
        _priors(data["priors"], "priors", tensors, len(vocabulary)),
        ModelCard.from_dict(data["card"]),
        backbone=backbone,
        backbone_name=None if spec is None else spec["name"],
        training_priors=None if training is None else _priors(training, "training_priors", tensors, len(vocabulary)),
        frames=frames,
    )
    dtype = next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), torch.float32)
    model.to(dtype)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"the model's weights {name} hold values that are no numbers; it was damaged or diverged")
    model.load_state_dict(tensors)
    return model.requires_grad_(requires_grad=False)


def _named_settings(priors: PriorSet) -> dict[str, Any]:
    return {str(name): term.settings for name, term in priors.terms.items()}


def _priors(named: dict[str, Any] | list[str], prefix: str, tensors: dict[str, Tensor], n_types: int) -> PriorSet:
    terms = []
    # The first models listed names only: none of their priors had settings.
    for name, settings in named.items() if isinstance(named, dict) else [(name, {}) for name in named]:
        if name not in PRIORS:
            raise InputError(f"the model has a prior {name!r} that this version of ase-cg does not know")
        start = f"{prefix}.terms.{name}."
        own = {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}
        terms.append(PRIORS[name].from_tensors(own, settings, n_types))
    return PriorSet(terms)


def _check_suffix(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: model files end in .safetensors; nothing else is read or written as a model")
