"""``ase-cg info``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def info(
    path: Annotated[
        Path, typer.Argument(help="A dataset (.h5), a model (.safetensors), or the name of a shipped model.")
    ],
) -> None:
    """Print what a dataset or a model holds, as JSON."""
    typer.echo(json.dumps(_describe(path), indent=2, ensure_ascii=False))


def _describe(path: Path) -> dict[str, Any]:
    if path.suffix not in {".h5", ".hdf5"}:
        from ase_cg.models.model import CGModel

        model = CGModel.load(path)
        terms = {
            name: term.parameters_by_type()  # type: ignore[operator] # ModuleDict forgets the type
            for name, term in model.priors.terms.items()
        }
        return {
            "vocabulary": list(model.vocabulary),
            "backbone": model.backbone_name,
            "hyper_parameters": {} if model.backbone is None else model.backbone.hyper_parameters,
            "parameters": sum(p.numel() for p in model.parameters()),
            "priors": terms,
            "sharpened_priors": model.training_priors is not None,
            "card": model.card.to_dict(),
        }
    from ase_cg.data.dataset import Dataset

    with Dataset.open(path) as dataset:
        return dataset.info()
