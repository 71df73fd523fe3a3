"""What brings a model nearer to its reference: learning rate, averaged weights, regularisation, choice of the epoch.

    OMP_NUM_THREADS=1 python benchmarks/training_choices.py --folder runs/data_efficiency --effort quick

Changes one setting of the trainings of ``data_efficiency.py`` at a time, in the same folder: its own rows are those
with nothing changed, and what it has done is not done again. A result that is there is not made again: a stopped
study goes on with the same command. ``--list`` shows the cases in their order. Prints its table at the end, or with
``--table`` of what there is so far, and keeps it as ``training_choices.md`` and ``.json``.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_efficiency import PLAIN, SHARPENED, cells_of, figure_cells
from study import Case, Study
from study_command import Row, study_command
from systems import SYSTEMS

UNCHANGED = "unchanged"
SIMULATED = {"replicas": 32, "duration": "5 ps", "time_step": "4 fs", "report_interval": "0.1 ps"}
# Each changes these keys of the section ``training``, or of ``backbone``.
CHOICES: dict[str, dict[str, dict[str, Any]]] = {
    "learning_rate_5e-4": {"training": {"learning_rate": 5e-4}},
    "learning_rate_5e-3": {"training": {"learning_rate": 5e-3}},
    "no_averaging": {"training": {"ema_decay": None}},
    "averaging_0.999": {"training": {"ema_decay": 0.999}},
    "weight_decay_0.01": {"training": {"weight_decay": 0.01}},
    "weight_decay_1": {"training": {"weight_decay": 1.0}},
    "fewer_features": {"backbone": {"features": 32}},
    "simulation_chooses": {"training": {"select": "simulation", "validation_simulation": SIMULATED}},
}
EVERY = 10  # so many validation simulations, evenly over the epochs
# Where one seed differs from the next, and few frames leave room: fraction, labels, noise, which choices.
TRIALS: tuple[tuple[float, str, float | None, tuple[str, ...]], ...] = (
    (0.01, "forces_and_noise", 0.05, tuple(CHOICES)),
    (1, "atomistic", None, ("simulation_chooses", "weight_decay_0.01", "learning_rate_5e-4")),
    (1, "forces_and_noise", 0.05, ("simulation_chooses", "weight_decay_0.01", "learning_rate_5e-4")),
)


@dataclass(frozen=True)
class ChoiceCase(Case):
    """A training of the other study with one setting changed, one of :data:`CHOICES`."""

    choice: str = UNCHANGED

    @property
    def folder(self) -> Path:
        """Where it lies below the folder of the study."""
        usual = super().folder
        return usual.parent / f"{usual.name}_{self.choice}"


class ChoiceStudy(Study):
    """A study whose recipes differ in one setting."""

    def recipe(self, case: Case, dataset: Path) -> dict[str, Any]:
        """Return the recipe of a case with its setting changed."""
        recipe = super().recipe(case, dataset)
        for section, changed in CHOICES[case.choice].items() if isinstance(case, ChoiceCase) else ():
            recipe[section] = recipe[section] | changed
        simulated = recipe["training"].get("validation_simulation")
        if simulated is not None:
            every = max(1, recipe["training"]["epochs"] // EVERY)
            recipe["training"]["validation_simulation"] = simulated | {"every": every}
        return recipe


def all_rows(seeds: list[int]) -> list[Row]:
    """Return the rows of the study in the order in which they are made."""
    rows: list[Row] = []
    for fraction, labels, noise_std, choices in TRIALS:
        for seed in seeds:
            common = ("dipeptide", fraction, labels, noise_std, seed)
            priors = SHARPENED if noise_std else PLAIN
            rows += [(Case(*common), priors), *((ChoiceCase(*common, name), priors) for name in choices)]
    return rows


def main() -> None:
    """Do what is missing, then show the table."""
    study_command(__doc__, ChoiceStudy, all_rows, report)


def report(study: Study, seeds: list[int], *, quiet: bool = False) -> None:
    """Write, and print, the table of what there is."""
    results = study.results(all_rows(seeds))
    found = list(results.values())
    if not found:
        print("nothing is done yet")
        return
    (study.folder / "training_choices.md").write_text(table(found) + "\n")
    (study.folder / "training_choices.json").write_text(json.dumps(results, indent=1, ensure_ascii=False))
    if not quiet:
        print(table(found))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    share = SYSTEMS["dipeptide"].share
    head = ["fraction", "labels", "σ / Å", "changed", "seed", "validation loss", "epoch", "PMF error / kT"]
    head += ["Jensen–Shannon / nats", "of it sampling", "bonds / Å", "angles / rad", share]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for row in rows:
        training = row["training"]
        cells = [f"{row['fraction']:g}", row["labels"].replace("_", " "), f"{row['noise_std'] or ''}"]
        cells += [row.get("choice", UNCHANGED).replace("_", " "), str(row["seed"])]
        cells += [f"{training['validation_loss']:.1f}", f"{training['best_epoch']} of {training['epochs']}"]
        cells += ["exploded"] if "failed" in row else cells_of(row, [])[:6]
        lines.append("| " + " | ".join(cells + [""] * (len(head) - len(cells))) + " |")
    done = next((row for row in rows if "figures" in row), None)
    if done is not None:
        cells = ["floor", *[""] * 6, *figure_cells(done["floor"], "")]
        lines.append("| " + " | ".join(cells + [""] * (len(head) - len(cells))) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
