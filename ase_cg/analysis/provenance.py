"""Where the data and models of a comparison come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ase_cg.analysis.sources import FrameSource
from ase_cg.errors import InputError
from ase_cg.files import file_hash
from ase_cg.shipped import shipped_files


def provenance(sources: Mapping[str, FrameSource], native: Path | None) -> dict[str, Any]:
    """Return what is known of every source, and of the native structure, as plain values.

    Of a simulation the settings and the model's SHA-256, and the model's card where a file with that SHA-256 is among
    the models that come with ase-cg, or in the folder ``training`` beside the simulation.
    """
    found: dict[str, Any] = {}
    for name, source in sources.items():
        record = dict(source.record or {})
        card = _card(source.path, record.get("model"))
        found[name] = record | ({} if card is None else {"model_card": card})
    if native is not None:
        found["native"] = {"file": native.name, "sha256": file_hash(native)}
    return found


def trained_on_reference(sources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence of each model whose training data are the reference, as far as it is known."""
    reference = sources.get("reference", {}).get("sha256")
    return [
        f"{name} was trained on frames of the reference itself: its figures say how well these are learned, and the "
        "reference's noise is in both"
        for name, source in sources.items()
        if reference is not None
        and (source.get("model_card") or {}).get("provenance", {}).get("dataset_sha256") == reference
    ]


def _card(folder: Path, sha256: str | None) -> dict[str, Any] | None:
    """Return the card of the model with a hash, without its topologies; None where it is not found."""
    if sha256 is None:
        return None
    for path in [folder.parent / "training" / "model.safetensors", *shipped_files(".safetensors").values()]:
        if path.is_file() and file_hash(path) == sha256:
            from ase_cg.models.model import CGModel

            try:
                card = CGModel.load(path).card.to_dict()
            except InputError:  # of another version, say: the report does without
                return None
            return {key: value for key, value in card.items() if key != "topologies"}
    return None
