"""The table that compares the networks a recipe trained, and the rule by which one is chosen."""

import json
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple

from ase_cg.errors import DivergenceError, InputError
from ase_cg.files import json_text, read_record, write_record, written_whole

TABLE_NAME = "trainings"
RULES = {
    "validation_loss": "lowest validation loss among the seeds of the first noise level that the recipe lists and that "
    "did not diverge: losses at different noise levels cannot be compared",
    "simulation": "lowest simulation_js of all",
}
COLUMNS = {
    "validation_loss": "validation loss",
    "test_loss": "test loss",
    "label_variance": "label variance",
    "label_variance_theory": "in theory",
    "simulation_js": "simulation JS (nats)",
    "simulation_bond_wasserstein": "bond W1 (Å)",
    "best_epoch": "best epoch",
    "epochs": "epochs",
}


class Row(NamedTuple):
    """One network.

    Attributes
    ----------
    name : str
        Of its folder.
    noise_std : float or None
        In Å.
    seed : int
    metrics : dict
        Losses and label variances in (kcal/mol/Å)²; none of a network whose training diverged.
    """

    name: str
    noise_std: float | None
    seed: int
    metrics: dict[str, Any]


def network_name(noise_std: float | None, seed: int) -> str:
    """Return the name of a network's folder."""
    return "_".join([*([] if noise_std is None else [f"noise_{noise_std:g}"]), f"seed_{seed}"])


def network_names(recipe: dict[str, Any]) -> list[str]:
    """Return the names of the folders of all networks of a recipe as it is recorded; none where it is one alone.

    Raises
    ------
    InputError
        If the record is damaged: its noise levels or seeds are no numbers.
    """
    levels, training = recipe.get("noise_std"), recipe.get("training", {})
    if not isinstance(levels, list):
        return []
    seeds = training["seeds"] or [training["seed"]]
    numbers = all(type(level) in {int, float, NoneType} for level in levels)
    if not numbers or not isinstance(seeds, list) or any(type(seed) is not int for seed in seeds):
        raise InputError(f"noise levels {levels!r} and seeds {seeds!r} of a training are no numbers")
    return [network_name(level, seed) for level in levels for seed in seeds]


def best_row(rows: list[Row], select: Literal["validation_loss", "simulation"]) -> Row:
    """Return the network that :data:`RULES` choose.

    Raises
    ------
    DivergenceError
        If all trainings diverged.
    """
    trained = [row for row in rows if row.metrics]
    if not trained:
        raise DivergenceError(f"all {len(rows)} trainings diverged; lower training.learning_rate")
    if select == "simulation":
        return min(trained, key=lambda row: float(row.metrics["simulation_js"]))
    first = [row for row in trained if row.noise_std == trained[0].noise_std]
    return min(first, key=lambda row: float(row.metrics["validation_loss"]))


def write_table(rows: list[Row], chosen: Row, select: Literal["validation_loss", "simulation"], folder: Path) -> bool:
    """Write ``trainings.md`` and ``trainings.json``; return False if the same are there already."""
    record = {
        "rule": RULES[select],
        "chosen": chosen.name,
        "trainings": [
            {"name": r.name, "noise_std": r.noise_std, "seed": r.seed, **(r.metrics or {"diverged": True})}
            for r in rows
        ],
        "units": {"losses and variances": "(kcal/mol/Å)²", "noise_std": "Å"},
    }
    path = folder / f"{TABLE_NAME}.json"
    if path.is_file() and read_record(path) == json.loads(json_text(record)):
        return False
    with written_whole(folder / f"{TABLE_NAME}.md", overwrite=True) as partial:
        partial.write_text(_markdown(rows, chosen, RULES[select]), encoding="utf-8")
    write_record(path, record)
    return True


def _markdown(rows: list[Row], chosen: Row, rule: str) -> str:
    shown = [name for name in COLUMNS if any(name in row.metrics for row in rows)]
    lines = [
        "| noise (Å) | seed | " + " | ".join(COLUMNS[name] for name in shown) + " | |",
        "| --- " * (len(shown) + 3) + "|",
    ]
    for row in rows:
        values = [f"{row.metrics[name]:.5g}" if name in row.metrics else "" for name in shown]
        noise = "" if row.noise_std is None else f"{row.noise_std:g}"
        verdict = "chosen" if row is chosen else "" if row.metrics else "diverged"
        lines.append(f"| {noise} | {row.seed} | " + " | ".join(values) + f" | {verdict} |")
    return "\n".join([*lines, "", f"Losses and variances in (kcal/mol/Å)². Chosen by: {rule}.", ""])
