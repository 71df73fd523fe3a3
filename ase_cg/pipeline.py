"""The whole line of a recipe: map, train, simulate, analyze; resumable."""

import os
from pathlib import Path
from typing import Any

from ase_cg.analysis.backmap_energy import minimizer_for
from ase_cg.analysis.compare import Comparison, analyze
from ase_cg.analysis.gather import open_inputs
from ase_cg.data.dataset import Dataset
from ase_cg.data.map import map_molecules
from ase_cg.data.mapping_settings import MoleculeSettings
from ase_cg.devices import find_device
from ase_cg.dynamics.settings import SimulationSettings
from ase_cg.dynamics.simulate import simulate
from ase_cg.dynamics.trajectory import SAME_TEMPERATURE, bead_labels
from ase_cg.errors import InputError
from ase_cg.files import existing_file
from ase_cg.models.backbones import backbone_arguments
from ase_cg.training.recipe import AnalysisSection, Recipe, SimulationSection
from ase_cg.training.trainer import train


def run(
    recipe: Recipe | str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = False,
) -> Comparison:
    """Do all four steps of a recipe; the same call again resumes where it was stopped.

    Parameters
    ----------
    recipe : Recipe or path
    folder : path, optional
        For ``dataset.h5``, ``training/``, ``simulation/``, ``prior_simulation/`` and ``analysis/``; by default
        ``runs/<name of the recipe>``.
    overwrite : bool
        Discard what the folder holds of another recipe.
    quiet : bool

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If the recipe is wrong, or the folder holds what another recipe made.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    place = Path("runs") / recipe.name if folder is None else Path(folder)
    _check_before_the_work(recipe)
    dataset = recipe.data.dataset or _map(recipe, place, overwrite=overwrite, quiet=quiet)
    _check_before_the_training(recipe, dataset)
    common: dict[str, Any] = {"overwrite": overwrite, "quiet": quiet}
    model = train(recipe, place / "training", dataset=dataset, **common)
    start = recipe.simulation.start or dataset
    options = recipe.simulation.model_dump(exclude={"start"}) | {"resume": not overwrite}
    simulate(model, place / "simulation", start=start, **options, **common)
    simulate(model, place / "prior_simulation", start=start, prior_only=True, **options, **common)
    return analyze(
        place / "simulation",
        recipe.analysis.reference or dataset,
        place / "analysis",
        prior_simulation=place / "prior_simulation",
        **recipe.analysis.model_dump(exclude={"reference"}),
        overwrite=True,
        quiet=quiet,
    )


def _check_before_the_work(recipe: Recipe) -> None:
    """Find out now what would stop the run after an hour."""
    for device in (recipe.training.device, recipe.simulation.device):
        find_device(device)
    backbone_arguments(recipe.backbone.name, recipe.backbone.hyper_parameters)
    paths = {"start": recipe.simulation.start} | {
        name: getattr(recipe.analysis, name) for name in ("reference", "native", "structure")
    }
    for what, path in paths.items():
        if path is not None:
            existing_file(path, what)


def _check_before_the_training(recipe: Recipe, dataset: Path) -> None:
    """Find out from the dataset what would stop the run after the training."""
    with Dataset.open(dataset) as opened:
        molecule = opened.only_molecule()
        temperature, topology = molecule.temperature, molecule.topology
    _check_simulation(recipe.simulation, temperature)
    if recipe.simulation.compile and recipe.simulation.start is None:
        from ase_cg.inference.compiled import check_size

        check_size(topology)
    if recipe.analysis.reference is not None:
        _check_same_beads(dataset, recipe.analysis.reference)
    _check_analysis(recipe.analysis, dataset)


def _check_simulation(section: SimulationSection, model_temperature: float) -> None:
    options = section.model_dump(exclude={"start", "compile", "checkpoint_interval"})
    options["temperature"] = section.temperature or model_temperature
    settings = SimulationSettings(model="", start="", prior_only=False, **options)  # it checks what it is given
    temperatures = settings.temperatures
    if len(temperatures) > 1 and all(abs(kelvin - model_temperature) > SAME_TEMPERATURE for kelvin in temperatures):
        raise InputError(
            f"simulation.temperature lists {', '.join(f'{kelvin:g}' for kelvin in temperatures)} K, but the comparison "
            f"reads the replicas at the temperature of the data, {model_temperature:g} K; add it to the list"
        )


def _check_analysis(section: AnalysisSection, dataset: Path) -> None:
    if section.native is not None or section.backmap:
        inputs = open_inputs({}, section.reference or dataset, None, section.native)
        if section.backmap:
            minimizer_for(inputs.reference, section.structure)


def _check_same_beads(dataset: Path, reference: Path) -> None:
    with Dataset.open(dataset) as data, Dataset.open(reference) as other:
        mine, theirs = (bead_labels(opened.only_molecule().topology) for opened in (data, other))
    if mine != theirs:
        raise InputError(f"reference {reference} has the beads {', '.join(theirs)}, the data {', '.join(mine)}")


def _map(recipe: Recipe, place: Path, *, overwrite: bool, quiet: bool) -> Path:
    """Map the recipe's trajectories, unless the same have been mapped before."""
    settings = MoleculeSettings(name=recipe.name, **recipe.data.model_dump(exclude={"dataset"}))
    for path in [*settings.trajectories, settings.topology]:
        existing_file(path, "input")
    dataset = place / "dataset.h5"
    if dataset.is_file() and not overwrite:
        with Dataset.open(dataset) as found:
            if found.only_molecule().mapping != settings.record():
                raise InputError(
                    f"{dataset} was mapped from other data or in another way; choose another --folder, or discard it "
                    "with --overwrite (overwrite=True)"
                )
        return dataset
    return map_molecules([settings], dataset, overwrite=overwrite, quiet=quiet)
