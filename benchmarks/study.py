"""What the studies of accuracy share: how one model is trained, simulated and judged.

Every result is a folder or a file of its own, so that a study that was stopped goes on where it was.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from judgement import judged
from systems import SYSTEMS, Effort, System

from ase_cg import CGModel, Dataset, PriorSet, Recipe, SimulationError, analyze, simulate, train
from ase_cg.errors import GateError

BATCH = 64
PRIOR_ONLY = ("prior only",)  # in place of the names of sharpened priors: the model without its network
TRAIN_SHARE = 0.9  # of the frames; a twentieth each for validation and test


@dataclass(frozen=True)
class Case:
    """One training: a molecule, how much of its data, the labels, and a seed."""

    system: str
    fraction: float
    labels: str
    noise_std: float | None
    seed: int

    @property
    def folder(self) -> Path:
        """Where it lies below the folder of the study."""
        noise = "" if self.noise_std is None else f"_{self.noise_std:g}"
        return Path(self.system) / f"{self.fraction:g}_{self.labels}{noise}_seed_{self.seed}"


@dataclass(frozen=True)
class Study:
    """Where results are kept, and the effort that is spent on each."""

    folder: Path
    effort: str
    device: str = "cpu"
    known: dict[str, Any] = field(default_factory=dict)  # results of another machine, by :func:`row_name`

    def train(self, case: Case) -> Path:
        """Train the model of a case, or return the one that is there."""
        system = SYSTEMS[case.system]
        place = self.folder / case.folder
        dataset = system.dataset(self.folder / case.system)
        system.one_basin(self.folder / case.system)
        recipe = self.recipe(case, dataset)
        place.mkdir(parents=True, exist_ok=True)
        written = place / "recipe.yaml"
        if not written.is_file():
            _write(written, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
        # The published forces fail their check, and a study of them has to say so: what they lead to is no measure of
        # labels with forces, which need forces that belong to their positions.
        return train(Recipe.read(written), place / "training", allow_inconsistent_forces=True, quiet=True)

    def recipe(self, case: Case, dataset: Path) -> dict[str, Any]:
        """Return the recipe of a case; a study with labels of its own adds to it."""
        system = SYSTEMS[case.system]
        return _recipe(case, system, dataset, system.efforts[self.effort], self.device)

    def result(self, case: Case, sharpened: Sequence[str] | None) -> Path:
        """Return the file of the figures of a case with some of its priors sharpened (None: all)."""
        return self.folder / case.folder / f"{variant_name(case, sharpened)}.json"

    def found(self, case: Case, sharpened: Sequence[str] | None) -> dict[str, Any] | None:
        """Return the figures of a case if they are there, those of this folder before those of another machine."""
        own = self.result(case, sharpened)
        return json.loads(own.read_text()) if own.is_file() else self.known.get(row_name(case, sharpened))

    def results(self, rows: Sequence[tuple[Case, Sequence[str] | None]]) -> dict[str, dict[str, Any]]:
        """Return what there is of rows, by :func:`row_name`."""
        return {row_name(*row): found for row in rows if (found := self.found(*row)) is not None}

    def run(self, case: Case, sharpened: Sequence[str] | None) -> dict[str, Any]:
        """Train, simulate and judge, or return what is there."""
        found = self.found(case, sharpened)
        if found is not None:
            return found
        started = time.perf_counter()
        model = self.train(case)
        trained = time.perf_counter()
        row = self.row(case, sharpened, model)
        row |= {"seconds": {"training": trained - started, "simulation": time.perf_counter() - trained}}
        _write(self.result(case, sharpened), json.dumps(row, indent=1, ensure_ascii=False))
        return row

    def row(self, case: Case, sharpened: Sequence[str] | None, model: Path) -> dict[str, Any]:
        """Simulate and judge a model."""
        system, place = SYSTEMS[case.system], self.folder / case.folder
        effort = system.efforts[self.effort]
        name = variant_name(case, sharpened)
        card = CGModel.load(model).card
        row = asdict(case) | {"priors": name, "effort": asdict(effort), "training": card.provenance["metrics"]}
        try:
            written = _variant(model, place / f"{name}.safetensors", sharpened)
            compiled = effort.compiled and sharpened != PRIOR_ONLY
            try:
                simulation = self._simulate(case, written, name, compiled=compiled)
            except GateError:  # a network so rough that its compiled form is not accurate enough
                simulation = self._simulate(case, written, name, compiled=False)
        except SimulationError as error:
            return row | {"failed": str(error)}
        reference = system.reference(self.folder / case.system)
        options = {"bins": 30, "discard": effort.discard, "lag": 0, "native": system.native, "surface": system.surface}
        comparison = analyze(simulation, reference, **options, quiet=True)
        return row | judged(comparison, lambda frames: system.counted(frames, reference))

    def _simulate(self, case: Case, model: Path, name: str, *, compiled: bool) -> Path:
        system = SYSTEMS[case.system]
        effort = system.efforts[self.effort]
        return simulate(
            model,
            self.folder / case.folder / f"simulation_{name}",
            start=[self.folder / case.system / f"{start}.h5" for start in ("reference", "one_basin")],
            replicas=effort.replicas,
            time_step=system.time_step,
            duration=effort.duration,
            report_interval=effort.report_interval,
            seed=case.seed,
            device=self.device,
            prior_only=name == variant_name(case, PRIOR_ONLY),
            compile=compiled,
            resume=True,
            quiet=True,
        )


def row_name(case: Case, sharpened: Sequence[str] | None) -> str:
    """Return what a row of a study is called."""
    return f"{case.folder}/{variant_name(case, sharpened)}"


def variant_name(case: Case, sharpened: Sequence[str] | None) -> str:
    """Return what a choice of sharpened priors is called."""
    if sharpened == PRIOR_ONLY:
        return "prior_only"
    if case.noise_std is None:
        return "clean"
    if sharpened is None:
        return "sharpened"
    return "plain" if not sharpened else "sharpened_" + "_".join(sharpened)


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all: a study may be stopped at any moment."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.rename(path)


def _recipe(case: Case, system: System, dataset: Path, effort: Effort, device: str) -> dict[str, Any]:
    """Return the recipe of a case.

    Every network gets the same number of updates of its weights, whatever its data, but at most so many epochs.
    """
    with Dataset.open(dataset) as opened:
        frames = round(case.fraction * TRAIN_SHARE * opened.only_molecule().n_frames)
    epochs = min(effort.max_epochs, math.ceil(effort.updates / math.ceil(frames / BATCH)))
    recipe: dict[str, Any] = {
        "name": f"{case.system}_{case.labels}",
        "data": {"dataset": str(dataset.resolve())},
        "labels": case.labels,
        "priors": system.priors,
        "backbone": system.backbone,
        "training": {
            "epochs": epochs,
            "patience": max(10, epochs // 4),
            "batch_size": BATCH,
            "learning_rate": 2.0e-3,
            # Without warmup the first steps go so far that an average of the weights needs long to forget them.
            "warmup_steps": 100,
            "ema_decay": 0.99,
            "fraction": case.fraction,
            "validation_fraction": (1 - TRAIN_SHARE) / 2,
            "test_fraction": (1 - TRAIN_SHARE) / 2,
            "seeds": [case.seed],
            "device": device,
        },
    }
    return recipe if case.noise_std is None else recipe | {"noise_std": case.noise_std}


def _variant(model: Path, output: Path, sharpened: Sequence[str] | None) -> Path:
    """Write the model with only some of its priors sharpened; the network is the same for all."""
    loaded = CGModel.load(model)
    if sharpened is None or sharpened == PRIOR_ONLY or loaded.training_priors is None:
        return model
    terms = [
        (loaded.priors if name in sharpened else loaded.training_priors).terms[name] for name in loaded.priors.terms
    ]
    CGModel(
        loaded.vocabulary,
        PriorSet(terms),
        loaded.card,
        backbone=loaded.backbone,
        backbone_name=loaded.backbone_name,
        frames=loaded.frames,
    ).save(output, overwrite=True)
    return output
